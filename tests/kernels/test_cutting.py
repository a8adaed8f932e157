from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.kernels.cutting import characters_before, fit_ranges, least_cover, without_ranges
from dataeng.kernels.text import text_buffers
from tests.kernels.sequences_reference import units_of

PIECES = ["a", "bb", "é", "文", "ไก่", "😀", " ", "\n", "\u3000", "\t", "e\u0301"]
TEXTS = st.lists(
    st.one_of(st.text(max_size=15), st.lists(st.sampled_from(PIECES), max_size=15).map("".join)),
    min_size=1, max_size=4,
)  # fmt: skip
Ranges = list[tuple[int, int, int]]


@st.composite
def texts_with_ranges(draw: st.DrawFn) -> tuple[list[str], Ranges]:
    """Draws texts and ascending, disjoint, possibly touching ranges of their bytes."""
    texts = draw(TEXTS)
    ranges: Ranges = []
    for number, text in enumerate(texts):
        size = len(text.encode())
        bounds = sorted(draw(st.sets(st.integers(0, size), max_size=6)))
        pairs = list(itertools.pairwise(bounds))
        ranges += [(number, *pair) for pair in pairs if draw(st.booleans())]
    return texts, ranges


def arrays(column: pl.Series, ranges: Ranges) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    offsets = text_buffers(column).offsets
    text, start, stop = np.array(ranges, np.int64).reshape(-1, 3).T.copy()
    return text, start + offsets[text], stop + offsets[text]


def unions(ranges: Ranges) -> Ranges:
    joined: Ranges = []
    for text, start, stop in ranges:
        if start >= stop:
            continue
        if joined and joined[-1][0] == text and joined[-1][2] == start:
            joined[-1] = (text, joined[-1][1], stop)
        else:
            joined.append((text, start, stop))
    return joined


def boundaries(text: str, by_words: bool) -> list[int]:
    """Bytes at which a text may be cut."""
    bounds = [0]
    for character in text:
        bounds.append(bounds[-1] + len(character.encode()))
    if not by_words:
        return bounds
    inside: set[int] = set()
    position = 0
    data = text.encode()
    for word in units_of(text, by_bytes=False):
        first = data.index(word, position)
        inside |= set(range(first + 1, first + len(word)))
        position = first + len(word)
    return [bound for bound in bounds if bound not in inside]


@settings(max_examples=250, deadline=None)
@given(drawn=texts_with_ranges(), by_words=st.booleans())
@example(drawn=(["文字"], [(0, 1, 4), (0, 4, 5)]), by_words=False)
@example(drawn=(["ab cd ef"], [(0, 3, 5)]), by_words=True)
def test_ranges_are_fitted(drawn: tuple[list[str], Ranges], by_words: bool) -> None:
    texts, ranges = drawn
    column = pl.Series(texts, dtype=pl.String)
    text, start, stop = arrays(column, ranges)
    offsets = text_buffers(column).offsets
    new_start, new_stop = fit_ranges(text_buffers(column), by_words, text, start, stop)
    places = (text, new_start - offsets[text], new_stop - offsets[text])
    fitted = [(int(t), int(a), int(b)) for t, a, b in zip(*places, strict=True)]
    for one, other in itertools.pairwise(fitted):
        assert one[0] < other[0] or one[2] <= other[1]
    expected = []
    for number, first, last in unions(ranges):
        inside = [bound for bound in boundaries(texts[number], by_words) if first <= bound <= last]
        if len(inside) > 1:
            expected.append((number, inside[0], inside[-1]))
    if not by_words:
        assert unions(fitted) == unions(expected)
    else:
        # Besides, white space on one side goes along, and nothing else does.
        for number, content in enumerate(texts):
            data, bare, cut = content.encode(), set[int](), set[int]()
            for t, a, b in expected:
                bare |= set(range(a, b)) if t == number else set()
            for t, a, b in fitted:
                cut |= set(range(a, b)) if t == number else set()
            assert bare <= cut
            begun = [i for i in sorted(cut - bare) if data[i] & 0xC0 != 0x80]
            assert all(chr_at(data, i).isspace() for i in begun)


def chr_at(data: bytes, i: int) -> str:
    stop = i + 1
    while stop < len(data) and data[stop] & 0xC0 == 0x80:
        stop += 1
    return data[i:stop].decode()


@pytest.mark.parametrize(
    ("text", "passage", "left"),
    [
        ("Alice wanted to go to the store", "to go to the", "Alice wanted store"),
        ("Header line\n\nThe body", "Header line", "The body"),
        ("The body\n\nFooter line\n", "Footer line", "The body\n"),
        ("One.\n\nTwo gone.\n\nThree.", "Two gone.", "One.\n\nThree."),
        ("One. Two gone.\nThree.", "Two gone.", "One.\nThree."),
        ("一二三四五", "三四", "一二五"),
        ("all of it", "all of it", ""),
    ],
)
def test_the_seam_keeps_one_white_space(text: str, passage: str, left: str) -> None:
    column = text_buffers(pl.Series([text]))
    first = len(text[: text.index(passage)].encode())
    ranges = (np.array([0]), np.array([first]), np.array([first + len(passage.encode())]))
    start, stop = fit_ranges(column, True, *ranges)
    assert without_ranges(column, ranges[0], start, stop).to_list() == [left]


@settings(max_examples=200, deadline=None)
@given(drawn=texts_with_ranges())
def test_texts_without_ranges_and_places_in_characters(drawn: tuple[list[str], Ranges]) -> None:
    texts, ranges = drawn
    column = pl.Series(["before", *texts], dtype=pl.String).slice(1)
    text, start, stop = arrays(column, ranges)
    start, stop = fit_ranges(text_buffers(column), False, text, start, stop)
    offsets = text_buffers(column).offsets
    expected = [data.encode() for data in texts]
    for number, a, b in reversed(list(zip(text, start - offsets[text], stop - offsets[text], strict=True))):
        expected[number] = expected[number][:a] + expected[number][b:]
    assert without_ranges(text_buffers(column), text, start, stop).to_list() == [data.decode() for data in expected]
    counts = characters_before(text_buffers(column), text, start)
    assert counts.tolist() == [
        len(texts[number].encode()[:a].decode()) for number, a in zip(text, start - offsets[text], strict=True)
    ]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20), st.integers(1, 8)), max_size=25))
def test_least_cover(drawn: list[tuple[int, int, int]]) -> None:
    ranges = sorted((text, first, first + size) for text, first, size in drawn)
    text, first, stop = np.array(ranges, np.int64).reshape(-1, 3).T.copy()
    chosen = [ranges[i] for i in np.flatnonzero(least_cover(text, first, stop))]

    def covered(some: list[tuple[int, int, int]]) -> set[tuple[int, int]]:
        return {(number, i) for number, a, b in some for i in range(a, b)}

    assert covered(chosen) == covered(ranges)
    # Fewest: of three in a row, the first and the last do not touch.
    for one, other in zip(chosen, chosen[2:], strict=False):
        assert one[0] != other[0] or one[2] < other[1]
