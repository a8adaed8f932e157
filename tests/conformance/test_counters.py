"""Every counter against its formula on the same words, on an even sample; `tests/accuracy/counters.py` reads all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.accuracy.counters import check, kernel_words, parts, read_texts
from tests.kernels.words_reference import split_words

EVERY = 150
LARGEST = 20_000  # characters: the formulas in Python read about 0.1 MB a second


@pytest.fixture(scope="module")
def texts(test_data: Path) -> list[str]:
    pytest.importorskip("datatrove.pipeline.filters")
    found = [text for text in list(read_texts(test_data))[::EVERY] if len(text) <= LARGEST]
    assert len(found) > 100
    return found


def test_no_counter_differs(texts: list[str]) -> None:
    checked = 0
    for part, first in parts(texts):
        found = check(part, first)
        checked += found.pop("checked by datatrove's functions", 0)
        assert not +found
    assert checked > 5


def test_the_kernels_words_are_the_references(texts: list[str]) -> None:
    """The words that formulas are given come from the kernel's own marks."""
    for text in texts:
        assert kernel_words(text) == split_words(text)
