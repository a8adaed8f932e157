"""Ranges of bytes cut out of texts, without breaking characters or words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, kernel
from dataeng.kernels.lines import series_of
from dataeng.kernels.sequences import MARK, SINGLE, WHITE, unit_classes
from dataeng.kernels.text import TextBuffers, decode, previous_character, signed

if TYPE_CHECKING:
    import polars as pl


@called
def class_at(data: NDArray[np.uint8], i: int, stop: int, classes: NDArray[np.uint8]) -> int:
    """Returns the class bits of the character at byte ``i``."""
    code_point = signed(data[i])
    if code_point >= 128:
        code_point = decode(data, i, stop)[0]
    return signed(classes[code_point])


@called
def is_boundary(
    data: NDArray[np.uint8], i: int, start: int, stop: int, by_words: bool, classes: NDArray[np.uint8]
) -> bool:
    """Whether a text may be cut at byte ``i``: between characters or, ``by_words``, not inside a word."""
    if i <= start or i >= stop:
        return True
    if data[i] & 0xC0 == 0x80:
        return False
    if not by_words:
        return True
    after = class_at(data, i, stop, classes)
    if after & (WHITE | SINGLE):
        return True
    before = previous_character(data, i, start)
    kind = class_at(data, before, stop, classes)
    if kind & WHITE:
        return True
    if after & MARK:
        return False
    # After a letter that is a word of its own, and its marks, another word begins.
    while kind & MARK and before > start:
        before = previous_character(data, before, start)
        kind = class_at(data, before, stop, classes)
    return kind & SINGLE != 0


@called
def skip_back(data: NDArray[np.uint8], i: int, start: int, classes: NDArray[np.uint8]) -> tuple[int, int]:
    """Returns where the white space before byte ``i`` begins, not before ``start``, and how many line feeds it has."""
    feeds = 0
    while i > start:
        before = previous_character(data, i, start)
        if not class_at(data, before, i, classes) & WHITE:
            break
        feeds += signed(data[before]) == 10
        i = before
    return i, feeds


@called
def skip_on(data: NDArray[np.uint8], i: int, stop: int, classes: NDArray[np.uint8]) -> tuple[int, int]:
    """Returns where the white space at byte ``i`` ends, and how many line feeds it has."""
    feeds = 0
    while i < stop and class_at(data, i, stop, classes) & WHITE:
        feeds += signed(data[i]) == 10
        i += 1
        while i < stop and data[i] & 0xC0 == 0x80:
            i += 1
    return i, feeds


@kernel
def least_cover_kernel(
    text_of: NDArray[np.int64], first_of: NDArray[np.int64], stop_of: NDArray[np.int64], chosen: NDArray[np.bool_]
) -> None:
    i, num = 0, text_of.shape[0]
    while i < num:
        text, stop, reach = text_of[i], -1, first_of[i]
        while i < num and text_of[i] == text and first_of[i] <= reach:
            best = i
            while i < num and text_of[i] == text and first_of[i] <= reach:
                if stop_of[i] > stop_of[best]:
                    best = i
                i += 1
            if stop_of[best] > stop:
                chosen[best] = True
                stop = stop_of[best]
                reach = stop


def least_cover(text: NDArray[np.int64], first: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Chooses as few ranges as cover what all of them do: bool [ranges].

    Args:
      text, first, stop: int64 [ranges], ascending in (text, first).
    """
    chosen = np.zeros(len(text), np.bool_)
    least_cover_kernel(text, first, stop, chosen)
    return chosen


@kernel
def fit_ranges_kernel(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    by_words: bool,
    classes: NDArray[np.uint8],
    text_of: NDArray[np.int64],
    start_of: NDArray[np.int64],
    stop_of: NDArray[np.int64],
) -> None:
    i, earlier = 0, -1
    while i < text_of.shape[0]:
        text = text_of[i]
        begin, end = offsets[text], offsets[text + 1]
        last = i
        while last + 1 < text_of.shape[0] and text_of[last + 1] == text and start_of[last + 1] == stop_of[last]:
            last += 1
        start, stop = start_of[i], stop_of[last]
        while not is_boundary(data, start, begin, end, by_words, classes):
            start += 1
        while not is_boundary(data, stop, begin, end, by_words, classes):
            stop -= 1
        stop = max(stop, start)
        if by_words and stop > start:
            before, feeds_before = skip_back(data, start, max(begin, earlier), classes)
            after, feeds_after = skip_on(data, stop, end, classes)
            if before == begin or (after < end and before < start and feeds_after <= feeds_before):
                stop = after
            elif after == end or (before < start and after > stop):
                start = before
        joint = start
        for k in range(i, last + 1):
            start_of[k] = joint
            if k == last:
                joint = stop
            else:
                joint = min(max(stop_of[k], start), stop)
                while joint < stop and not is_boundary(data, joint, begin, end, by_words, classes):
                    joint += 1
            stop_of[k] = joint
        earlier = stop
        i = last + 1


def fit_ranges(
    texts: TextBuffers, by_words: bool, text: NDArray[np.int64], start: NDArray[np.int64], stop: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Shrinks ranges to whole characters, or whole words, and returns their new starts and stops.

    Ranges that touch each other are one: it is cut at its ends only, and where two meet inside it, the meeting point
    moves to the next boundary. A range may become empty. With words, of the white space on both sides one goes along:
    all of it at the ends of the text, else the one with fewer line feeds, or the one behind.

    Args:
      text, start, stop: int64 [ranges], ascending and disjoint; bytes of the data buffer.
    """
    start, stop = start.copy(), stop.copy()
    fit_ranges_kernel(texts.data, texts.offsets, by_words, unit_classes(), text, start, stop)
    return start, stop


@kernel
def without_ranges_kernel(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    text_of: NDArray[np.int64],
    start_of: NDArray[np.int64],
    stop_of: NDArray[np.int64],
    out: NDArray[np.uint8],
    out_offsets: NDArray[np.int64],
) -> None:
    o, k = 0, 0
    out_offsets[0] = 0
    for text in range(offsets.shape[0] - 1):
        i, stop = offsets[text], offsets[text + 1]
        while k < text_of.shape[0] and text_of[k] == text:
            size = start_of[k] - i
            out[o : o + size] = data[i : i + size]
            o += size
            i = stop_of[k]
            k += 1
        out[o : o + stop - i] = data[i:stop]
        o += stop - i
        out_offsets[text + 1] = o


def without_ranges(
    texts: TextBuffers, text: NDArray[np.int64], start: NDArray[np.int64], stop: NDArray[np.int64]
) -> pl.Series:
    """Returns the texts without the given bytes.

    Args:
      text, start, stop: int64 [ranges], ascending and disjoint, bytes of the data buffer, cut between characters.
    """
    out = np.empty(int(texts.offsets[-1] - texts.offsets[0]), np.uint8)
    offsets = np.empty(texts.num_texts + 1, np.int64)
    without_ranges_kernel(texts.data, texts.offsets, text, start, stop, out, offsets)
    return series_of(out, offsets)


@kernel
def count_characters_kernel(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    text_of: NDArray[np.int64],
    byte_of: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    text, i, count = -1, 0, 0
    for k in range(text_of.shape[0]):
        if text_of[k] != text or byte_of[k] < i:
            text = text_of[k]
            i, count = offsets[text], 0
        while i < byte_of[k]:
            count += data[i] & 0xC0 != 0x80
            i += 1
        counts[k] = count


def characters_before(texts: TextBuffers, text: NDArray[np.int64], byte: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts the characters of a text that begin before a byte of the data buffer; fast when in ascending order."""
    counts = np.empty(len(text), np.int64)
    count_characters_kernel(texts.data, texts.offsets, text, byte, counts)
    return counts


def warm_up() -> None:
    """Compiles the kernels or loads them from the cache."""
    import polars as pl

    from dataeng.kernels.text import text_buffers

    texts = text_buffers(pl.Series(["cut here", ""]))
    ranges = np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones(1, np.int64)
    without_ranges(texts, ranges[0], *fit_ranges(texts, True, *ranges))
    characters_before(texts, *ranges[:2])
    least_cover(*ranges)
