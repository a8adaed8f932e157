"""Our counters and decisions against datatrove's own code on real text, with its spaCy tokenizer for English."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dataeng.stages.quality.apply_rules import ApplyRules
from dataeng.stages.quality.quality_signals import QualitySignals
from tests.kernels.signals_reference import word_counts

DOCUMENTS_PER_DOMAIN = 22
LARGEST = 15_000  # characters: datatrove reads about 0.3 MB a second
ENGLISH = ("the", "be", "to", "of", "and", "that", "have", "with")

# Least share of documents with the same decision and reason. Measured on 13,591 documents by
# tests/accuracy/presets.py: 0.9994 to 1.0000; here a few hundred are read, which leaves room for one or two.
PEERS: dict[str, tuple[str, dict[str, Any], str, float]] = {
    "gopher@datatrove": ("GopherQualityFilter", {}, "gopher_", 0.99),
    "gopher_repetition@datatrove": ("GopherRepetitionFilter", {}, "gopher_repetition_", 0.99),
    "c4@datatrove": ("C4QualityFilter", {}, "c4_", 0.99),
    "c4@fineweb": ("C4QualityFilter", {"filter_no_terminal_punct": False}, "c4_", 0.99),
    "fineweb@code": ("FineWebQualityFilter", {}, "fineweb_", 0.99),
}


@pytest.fixture(scope="module")
def texts(test_data: Path) -> list[str]:
    found = []
    for path in sorted((test_data / "domains").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            domain = [json.loads(line)["text"] for line, _ in zip(lines, range(DOCUMENTS_PER_DOMAIN), strict=False)]
        found += [text for text in domain if 0 < len(text) <= LARGEST]
    assert len(found) > 200
    return found


@pytest.fixture(scope="module")
def measured(texts: list[str]) -> pl.DataFrame:
    stage = QualitySignals(language="en")
    stage.setup({})
    return stage.apply(pl.DataFrame({"text": texts}))


@pytest.fixture(scope="module")
def peer_results(texts: list[str]) -> tuple[list[list[str]], dict[str, list[str | None]]]:
    """The words of spaCy, and each filter's reasons. Document by document, since datatrove caches the last words."""
    pytest.importorskip("spacy")
    filters = pytest.importorskip("datatrove.pipeline.filters")
    from datatrove.data import Document
    from datatrove.utils.text import split_into_words

    blocks = {preset: getattr(filters, name)(**options) for preset, (name, options, _, _) in PEERS.items()}
    words: list[list[str]] = []
    reasons: dict[str, list[str | None]] = {preset: [] for preset in PEERS}
    for text in texts:
        words.append(split_into_words(text))
        for preset, block in blocks.items():
            verdict = block.filter(Document(text=text, id="0"))
            reasons[preset].append(None if verdict is True else str(verdict[1]))
    return words, reasons


@pytest.mark.parametrize("preset", PEERS)
def test_decisions(
    preset: str,
    texts: list[str],
    measured: pl.DataFrame,
    peer_results: tuple[list[list[str]], dict[str, list[str | None]]],
) -> None:
    _, _, prefix, least = PEERS[preset]
    ours = ApplyRules(presets=(preset,)).apply(measured)["reason"].to_list()
    named = [r if r is None or r.startswith(prefix) else prefix + r for r in peer_results[1][preset]]
    same = sum((a is None) == (b is None) for a, b in zip(ours, named, strict=True)) / len(texts)
    same_reason = sum(a == b for a, b in zip(ours, named, strict=True)) / len(texts)
    different = [(a, b) for a, b in zip(ours, named, strict=True) if a != b]
    assert min(same, same_reason) >= least, f"decision {same:.3f}, reason {same_reason:.3f}: {different}"
    assert None in named  # both outcomes occur, or agreeing would be easy
    assert any(named)


def test_words_are_nearly_spacys(measured: pl.DataFrame, peer_results: tuple[list[list[str]], object]) -> None:
    theirs = [len(words) for words in peer_results[0]]
    difference = sum(abs(a - b) for a, b in zip(measured["quality_words"], theirs, strict=True))
    assert difference / sum(theirs) < 0.001


def test_reference_formulas_are_datatroves(texts: list[str], peer_results: tuple[list[list[str]], object]) -> None:
    """The plain reference that the kernel equals in other tests is datatrove's arithmetic on the same words."""
    from datatrove.pipeline.filters import gopher_repetition_filter as peer

    for text, words in zip(texts[::5], peer_results[0][::5], strict=True):
        counts = word_counts(text, words, ENGLISH)
        for n in (2, 3, 4):
            grams = peer.get_n_grams(words, n)
            assert counts[f"top_{n}_gram_chars"] == (peer.find_top_duplicate(grams) if grams else 0)
        for n in range(5, 11):
            # datatrove joins words without a space; given one, it is the same.
            spaced = [word + "\0" for word in words]
            theirs = peer.find_all_duplicate(spaced, n)
            assert counts[f"dup_{n}_gram_chars"] == theirs - n * num_repeated_grams(spaced, n)


def num_repeated_grams(words: list[str], n: int) -> int:
    """How many n-grams `find_all_duplicate` counted: each added n separators."""
    seen: set[str] = set()
    found = i = 0
    while i < len(words) - n + 1:
        gram = "".join(words[i : i + n])
        if gram in seen:
            found += 1
            i += n
        else:
            seen.add(gram)
            i += 1
    return found
