from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.kernels.sequences import PRIME, list_words, points
from dataeng.kernels.substrings import hash_runs, list_segments
from dataeng.kernels.text import text_buffers
from tests.kernels.sequences_reference import units_of

PIECES = ["a", "bb", "文", "ไก่", "字", " ", "\n", "e\u0301", "long-word!"]
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.text("ab", max_size=40),
        st.lists(st.sampled_from(PIECES), max_size=40).map("".join),
        st.tuples(st.text("abc ", min_size=1, max_size=4), st.integers(1, 20)).map(lambda t: t[0] * t[1]),
    ),
    max_size=5,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(texts=TEXTS)
@example(texts=["", " ", "\u3000a", "漢字kana かな", "กำ x", "a\u0301b", "\u0301a", "字\u0301a"])
def test_words(texts: list[str]) -> None:
    column = text_buffers(pl.Series(["before", *texts], dtype=pl.String).slice(1))
    words = list_words(column)
    for number, text in enumerate(texts):
        listed = range(words.offsets[number], words.offsets[number + 1])
        found = [bytes(column.data[words.start[i] : words.stop[i]]) for i in listed]
        assert found == units_of(text, by_bytes=False)
        assert all(column.offsets[number] <= words.start[i] for i in listed)


def polynomial(units: list[bytes], row: int, by_bytes: bool) -> int:
    """The hash of a run, straight from its definition."""
    at = points(1)
    value = 0
    for unit in units:
        if by_bytes:
            number = unit[0] + 1
        else:
            number = len(unit)
            for i in range(0, len(unit), 7):
                number = (number * int(at.word[row]) + int.from_bytes(unit[i : i + 7], "little")) % PRIME
        value = (value * int(at.power[row, 1]) + number) % PRIME
    return value


@settings(max_examples=300, deadline=None)
@given(texts=TEXTS, length=st.integers(1, 9), gram=st.integers(1, 9), by_bytes=st.booleans())
@example(texts=["a" * 50, "ab" * 30], length=5, gram=2, by_bytes=True)
def test_segments_are_runs_of_windows_with_one_anchor(texts: list[str], length: int, gram: int, by_bytes: bool) -> None:
    gram = min(gram, length)
    segments = list_segments(
        text_buffers(pl.Series(texts, dtype=pl.String)), length, gram, by_bytes, points(2 * length)
    )
    rows = zip(segments.text, segments.first, segments.windows, segments.anchor, segments.content.T, strict=True)
    by_text = {number: list(group) for number, group in itertools.groupby(rows, key=lambda row: int(row[0]))}
    anchors: dict[tuple[bytes, ...], tuple[int, int]] = {}
    for number, text in enumerate(texts):
        units = units_of(text, by_bytes)
        windows = [tuple(units[i : i + length]) for i in range(len(units) - length + 1)]
        covered = [p for _, first, count, *_ in by_text.get(number, []) for p in range(first, first + count)]
        assert covered == list(range(len(windows)))
        for _, first, count, anchor, content in by_text.get(number, []):
            run = units[first : first + count + length - 1]
            assert content.tolist() == [polynomial(run, row, by_bytes) for row in range(2)]
            # Equal windows have equal anchors, at equal distances.
            grams = {tuple(run[i : i + gram]) for i in range(count - 1, length - gram + 1)}
            assert grams  # all of the segment's windows share at least one gram
            for place in range(first, first + count):
                assert anchors.setdefault(windows[place], anchor) == anchor


@settings(max_examples=200, deadline=None)
@given(texts=TEXTS, by_bytes=st.booleans(), data=st.data())
def test_hashes_of_runs(texts: list[str], by_bytes: bool, data: st.DataObject) -> None:
    units = [units_of(text, by_bytes) for text in texts]
    chosen = st.tuples(st.integers(0, max(len(texts) - 1, 0)), st.integers(0, 40), st.integers(1, 8))
    runs = sorted(
        {(text, first + size, first) for text, first, size in data.draw(st.lists(chosen, max_size=20))
         if texts and first + size <= len(units[text])}
    )  # fmt: skip
    text, stop, first = np.array(runs, np.int64).reshape(-1, 3).T.copy()
    column = text_buffers(pl.Series(texts, dtype=pl.String))
    hashes = hash_runs(column, by_bytes, points(8), text, first, stop)
    for k, (number, end, begin) in enumerate(runs):
        run = units[number][begin:end]
        assert hashes[:, k].tolist() == [polynomial(run, row, by_bytes) for row in range(2)]


def test_runs_outside_of_texts_are_refused() -> None:
    column = text_buffers(pl.Series(["one two three"]))
    one, two = np.array([0], np.int64), np.array([0, 0], np.int64)
    with pytest.raises(ValueError, match="not in its text"):
        hash_runs(column, False, points(8), one, np.array([2]), np.array([4]))
    with pytest.raises(ValueError, match="not in order"):
        hash_runs(column, False, points(8), two, np.array([0, 0]), np.array([2, 1]))
    with pytest.raises(ValueError, match="1 to 8 units"):
        hash_runs(column, False, points(8), one, np.array([0]), np.array([9]))
    with pytest.raises(ValueError, match="1 to 3 units"):
        list_segments(column, 3, 4, False, points(8))


def test_points_depend_on_the_seed() -> None:
    assert points(3, 1).power.tolist() != points(3, 2).power.tolist()
    assert points(3).power[:, 0].tolist() == [1, 1]
    assert (points(500).power < PRIME).all()
