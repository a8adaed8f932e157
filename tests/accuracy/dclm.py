"""Decisions of the preset `dclm` against DCLM's own filters: kept, or which filter dropped the document.

    python tests/accuracy/dclm.py --dclm CHECKOUT [--data DIR] [--largest CHARACTERS] [--every N]

CHECKOUT is a copy of github.com/mlfoundations/dclm, whose code is run as it is (it is not a package that could be
installed). Its modules import more than these filters need; what is missing is replaced by an empty module, but for
``nltk``, ``uniseg`` and ``fasttext``. DIR is a folder in the layout of the test data
(default: environment variable DATAENG_TEST_DATA), read as by ``tests/accuracy/presets.py``. ``agreement`` in the last
line is the share of documents with the same verdict (kept or dropped).

Every disagreement is named by the first filter that one side drops by and the other does not.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
import types
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import polars as pl

sys.path.insert(0, str(Path(__file__).parents[2]))

LARGEST = 100_000
#: Imported by what is run here, and used by it.
NEEDED = ("nltk", "uniseg", "fasttext", "baselines", "core")

#: Our rule → DCLM's filter and its options, in the order of dclm_baseline_refinedweb.yaml.
FILTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dclm_words": (
        "page_length_filter",
        {"length_type": "word", "min_length": 50, "max_length": 100_000, "ignore_punctuation": True},
    ),
    "dclm_word_length": ("word_length_filter", {"min_length": 3, "max_length": 10}),
    "dclm_symbols": ("symbol_ratio_filter", {"max_symbol_to_word_ratio": 0.1}),
    "dclm_bullet_lines": ("bullet_count_filter", {"max_bullet_start_ratio": 0.9}),
    "dclm_ellipsis_lines": ("ellipsis_count_filter", {"max_ellipsis_end_ratio": 0.3}),
    "dclm_alpha_words": ("alphabetic_word_ratio_filter", {"max_ratio": 0.2}),
    "dclm_stop_words": ("stop_word_filter", {"count_unique": False, "min_stop_word": 2}),
    "dclm_repetition": ("massive_web_repetition_filters", {}),
}
#: Our rules → the filter of DCLM that they are part of; the others are part of its repetition filters.
PART_OF = {
    "dclm_too_few_words": "dclm_words",
    "dclm_too_many_words": "dclm_words",
    "dclm_short_words": "dclm_word_length",
    "dclm_long_words": "dclm_word_length",
}


def dclm_module(checkout: Path, name: str) -> types.ModuleType:
    """Imports a module of DCLM's ``baselines/mappers`` from a checkout."""
    for folder in (checkout, checkout / "baselines"):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    import fasttext

    if not hasattr(fasttext.FastText, "tokenize"):  # as in fasttext-predict; fastText's Dictionary::readWord
        fasttext.FastText.tokenize = lambda text: [word for word in re.split(r"[ \n\r\t\v\f\0]", text) if word]
    while True:
        try:
            return importlib.import_module(f"baselines.mappers.{name}")
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] in NEEDED:
                raise
            sys.modules[error.name] = MagicMock()


def first_filter(checkout: Path, texts: Sequence[str]) -> list[str | None]:
    """Returns which of DCLM's filters drops each text first; None where none does."""
    module = dclm_module(checkout, "filters.content_filters")
    filters: list[tuple[str, Callable[..., list[Any]], dict[str, Any]]] = [
        (rule, getattr(module, name), options) for rule, (name, options) in FILTERS.items()
    ]
    found = []
    for text in texts:
        broken = (rule for rule, function, options in filters if not function({"text": text}, **options))
        found.append(next(broken, None))
    return found


def measured(texts: Sequence[str]) -> pl.DataFrame:
    from dataeng.stages.quality.quality_signals import QualitySignals

    stage = QualitySignals(language="en", signals="all")
    stage.setup({})
    return stage.apply(pl.DataFrame({"text": list(texts)}, schema={"text": pl.String}))


def our_filter(signals: pl.DataFrame) -> list[str | None]:
    """Returns the filter of DCLM that the first broken rule of our preset is part of."""
    from dataeng.stages.quality.apply_rules import ApplyRules

    reasons = ApplyRules(presets=("dclm",)).apply(signals)["reason"].to_list()
    return [reason and PART_OF.get(reason, reason if reason in FILTERS else "dclm_repetition") for reason in reasons]


def _first_filters(argument: tuple[Path, Sequence[str]]) -> list[str | None]:
    return first_filter(*argument)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dclm", type=Path, required=True, help="a checkout of github.com/mlfoundations/dclm")
    parser.add_argument("--data", type=Path, default=os.environ.get("DATAENG_TEST_DATA"))
    parser.add_argument("--largest", type=int, default=LARGEST)
    parser.add_argument("--every", type=int, default=1, help="every n-th document only")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data or DATAENG_TEST_DATA: a folder in the layout of the test data")
    from tests.accuracy.presets import parts, read_documents

    documents = read_documents(arguments.data, arguments.largest, arguments.every)
    texts = [text for group in documents.values() for text in group]
    with ProcessPoolExecutor(arguments.workers) as pool:
        chunks = [(arguments.dclm.resolve(), part) for part in parts(texts)]
        theirs = [one for part in pool.map(_first_filters, chunks) for one in part]
    ours = our_filter(measured(texts))
    pairs = list(zip(ours, theirs, strict=True))
    print(f"{len(texts)} documents, {sum(map(len, texts)) / 1e6:.1f} million characters")
    print(f"{'filter':22} {'drops (DCLM)':>13} {'drops (ours)':>13} {'only DCLM':>10} {'only ours':>10}")
    for rule in FILTERS:
        mine, their = [own == rule for own, _ in pairs], [peer == rule for _, peer in pairs]
        only_theirs = sum(peer == rule and own is None for own, peer in pairs)
        only_ours = sum(own == rule and peer is None for own, peer in pairs)
        print(f"{rule:22} {sum(their):13} {sum(mine):13} {only_theirs:10} {only_ours:10}")
    for (own, peer), count in Counter(pair for pair in pairs if pair[0] != pair[1]).most_common():
        print(f"  {count:5} ours {own or 'kept'}, DCLM {peer or 'kept'}")
    same = sum((own is None) == (peer is None) for own, peer in pairs) / len(pairs)
    reasons = sum(own == peer for own, peer in pairs) / len(pairs)
    print(f"agreement={same:.4f} same_filter={reasons:.4f} documents={len(texts)}")


if __name__ == "__main__":
    main()
