"""Lines of texts: where they are, what their characters are, and texts without some of them.

Here a line is a piece between two ``\\n``.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.text import CODE_POINT_LIMIT, TextBuffers, decode, previous_character, signed

if TYPE_CHECKING:
    import polars as pl

# Bits of the class table (uint8): what Python's str says of a single character.
WHITE, UPPERCASE, NUMERAL, DECIMAL, ALPHANUMERIC = 1, 2, 4, 8, 16  # isspace isupper isdigit isdecimal isalnum
SIGN = 32  # Unicode category P, spaCy's `is_punct`

#: Characters that have such properties all lie below.
_LAST_PLANE = 0x40000


@functools.cache
def character_table() -> NDArray[np.uint8]:
    """Returns the class bits of every code point, uint8 [`CODE_POINT_LIMIT`], read-only."""
    characters = np.arange(_LAST_PLANE, dtype=np.uint32).view("U1")
    table = np.zeros(CODE_POINT_LIMIT, np.uint8)
    known = table[:_LAST_PLANE]
    digits = np.array([i for i in range(_LAST_PLANE) if chr(i).isdigit()])
    known[np.strings.isspace(characters)] |= WHITE
    known[np.strings.isupper(characters)] |= UPPERCASE
    known[digits] |= NUMERAL
    known[np.strings.isdecimal(characters)] |= DECIMAL
    known[np.strings.isalnum(characters)] |= ALPHANUMERIC
    known[[unicodedata.category(chr(i))[0] == "P" for i in range(_LAST_PLANE)]] |= SIGN
    table.flags.writeable = False
    return table


@inlined
def class_at(data: NDArray[np.uint8], i: int, stop: int, classes: NDArray[np.uint8]) -> tuple[int, int]:
    """Returns the class bits of the character at byte ``i`` and its length in bytes."""
    byte = data[i]
    if byte < 128:
        return signed(classes[byte]), 1
    code_point, size = decode(data, i, stop)
    return signed(classes[code_point]), size


@called
def skip_white(data: NDArray[np.uint8], i: int, stop: int, classes: NDArray[np.uint8]) -> int:
    """Returns where the first character that is not white space begins, or ``stop``."""
    while i < stop:
        kind, size = class_at(data, i, stop, classes)
        if not kind & WHITE:
            return i
        i += size
    return stop


@called
def skip_white_back(data: NDArray[np.uint8], start: int, stop: int, classes: NDArray[np.uint8]) -> int:
    """Returns where the last character that is not white space ends, or ``start``."""
    while stop > start:
        at = previous_character(data, stop, start)
        kind, _ = class_at(data, at, stop, classes)
        if not kind & WHITE:
            return stop
        stop = at
    return start


@inlined
def find_newline(data: NDArray[np.uint8], i: int, stop: int) -> int:
    """Returns where the next ``\\n`` is, or ``stop``."""
    while i < stop and data[i] != 10:
        i += 1
    return i


@called
def count_words(data: NDArray[np.uint8], start: int, stop: int, most: int, white: NDArray[np.uint8]) -> int:
    """Returns ``len(line.split())``, or ``most`` if there are more."""
    words, inside = 0, False
    i = start
    while i < stop:
        kind, size = class_at(data, i, stop, white)
        if kind & WHITE:
            inside = False
        elif not inside:
            inside = True
            words += 1
            if words == most:
                return words
        i += size
    return words


@called
def exceeds_share(
    data: NDArray[np.uint8], start: int, stop: int, wanted: int, share: float, white: NDArray[np.uint8]
) -> bool:
    """Whether more than ``share`` of the line's characters are of a class."""
    chars, found = 0, 0
    # There are at most as many characters as bytes: with so many others, the share is out of reach.
    most_others = (1.0 - share) * (stop - start) + 1.0
    i = start
    while i < stop:
        kind, size = class_at(data, i, stop, white)
        chars += 1
        found += (kind & wanted) != 0
        if chars - found > most_others:
            return False
        i += size
    return chars > 0 and found / chars > share


class Lines(NamedTuple):
    """Lines with more than white space, in order: int64 arrays of one length."""

    text: NDArray[np.int64]
    """Which text a line is of."""
    start: NDArray[np.int64]
    """Its first byte that is not white space, in the column's data."""
    stop: NDArray[np.int64]
    """The end of its last one: ``data[start:stop]`` is the stripped line."""


@kernel
def list_lines_kernel(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    edge: int,
    classes: NDArray[np.uint8],
    found: NDArray[np.int64],
) -> int:
    """Lists lines into ``found`` [3, capacity]; returns their number, which may exceed the capacity."""
    num = 0
    for text in range(offsets.shape[0] - 1):
        start, stop = offsets[text], offsets[text + 1]
        # From the front.
        i, taken = start, 0
        while i < stop and (edge < 0 or taken < edge):
            end = find_newline(data, i, stop)
            first = skip_white(data, i, end, classes)
            if first < end:
                if num < found.shape[1]:
                    found[0, num], found[1, num] = text, first
                    found[2, num] = skip_white_back(data, first, end, classes)
                num += 1
                taken += 1
            i = end + 1
        if edge < 0:
            continue
        # From the back, down to where the front stopped; listed backwards, then turned round.
        front, back, begin, taken = min(i, stop), stop, num, 0
        while back > front and taken < edge:
            at = back
            while at > front and data[at - 1] != 10:
                at -= 1
            first = skip_white(data, at, back, classes)
            if first < back:
                if num < found.shape[1]:
                    found[0, num], found[1, num] = text, first
                    found[2, num] = skip_white_back(data, first, back, classes)
                num += 1
                taken += 1
            back = at - 1
        if num <= found.shape[1]:
            low, high = begin, num - 1
            while low < high:
                for row in range(1, 3):
                    found[row, low], found[row, high] = found[row, high], found[row, low]
                low += 1
                high -= 1
    return num


def list_lines(texts: TextBuffers, edge: int | None = None) -> Lines:
    """Lists the lines of all texts that have more than white space.

    Args:
      edge: only so many from the beginning and so many from the end of each text; None lists all.
    """
    classes = character_table()
    limit = -1 if edge is None else edge
    num_bytes = int(texts.offsets[-1] - texts.offsets[0])
    # A guess that is nearly always enough; if not, the kernel says how many there are.
    capacity = 64 + num_bytes // 16 if edge is None else min(2 * edge * texts.num_texts, num_bytes)
    while True:
        found = np.empty((3, capacity), np.int64)
        num = list_lines_kernel(texts.data, texts.offsets, limit, classes, found)
        if num <= capacity:
            return Lines(*found[:, :num])
        capacity = num


def hash_lines(texts: TextBuffers, lines: Lines) -> NDArray[np.uint64]:
    """Returns a stable 64-bit hash of every stripped line (the high half of `dataeng.kernels.hashing`'s)."""
    from dataeng.kernels.hashing import hash_texts

    # Every second one of these "texts" is a line; those between are what lies between the lines.
    bounds = np.stack([lines.start, lines.stop], axis=1).reshape(-1)
    return hash_texts(TextBuffers(texts.data, bounds))[0, ::2] if len(bounds) else np.zeros(0, np.uint64)


@kernel
def without_lines_kernel(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    text_of: NDArray[np.int64],
    start_of: NDArray[np.int64],
    out: NDArray[np.uint8],
    out_offsets: NDArray[np.int64],
) -> None:
    o, line = 0, 0
    out_offsets[0] = 0
    for text in range(offsets.shape[0] - 1):
        start, stop = offsets[text], offsets[text + 1]
        begin = o
        edited = line < text_of.shape[0] and text_of[line] == text
        i = start
        while line < text_of.shape[0] and text_of[line] == text:
            # A removed line takes the \n after it along, and white space before its first character.
            first = start_of[line]
            while first > i and data[first - 1] != 10:
                first -= 1
            for j in range(i, first):
                out[o + j - i] = data[j]
            o += first - i
            i = min(find_newline(data, first, stop) + 1, stop)
            line += 1
        for j in range(i, stop):
            out[o + j - i] = data[j]
        o += stop - i
        if edited:
            # No blank lines where a header or a footer was.
            while o > begin and out[o - 1] == 10:
                o -= 1
            blank = begin
            while blank < o and out[blank] == 10:
                blank += 1
            if blank > begin:
                for j in range(blank, o):
                    out[begin + j - blank] = out[j]
                o -= blank - begin
        out_offsets[text + 1] = o


def without_lines(texts: TextBuffers, text: NDArray[np.int64], start: NDArray[np.int64]) -> pl.Series:
    """Returns the texts without some of their lines; edited texts also lose ``\\n`` at both ends.

    Args:
      text: which text each line is of, in ascending order; ``start``: a byte of the line, ascending. From `list_lines`.
    """
    out = np.empty(int(texts.offsets[-1] - texts.offsets[0]), np.uint8)
    offsets = np.empty(texts.num_texts + 1, np.int64)
    without_lines_kernel(texts.data, texts.offsets, text, start, out, offsets)
    return series_of(out, offsets)


class Edited(NamedTuple):
    """What a rule set made of a column of texts."""

    texts: pl.Series
    """Empty where the page is dropped."""
    counts: NDArray[np.int64]
    """[texts, counts], in the order of the rule set's ``COUNTS``."""
    reasons: NDArray[np.uint8]
    """[texts], index into the rule set's ``REASONS``; 0 stays."""


def series_of(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> pl.Series:
    """Returns text buffers as a column of strings."""
    import polars as pl
    import pyarrow as pa

    # The end of `data` that no text uses must not stay in memory with the column.
    used = data[: offsets[-1]].copy() if 2 * int(offsets[-1]) < len(data) else data
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(used)]
    array = pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers)
    series = pl.from_arrow(array)
    assert isinstance(series, pl.Series)
    return series


def warm_up() -> None:
    """Compiles the kernels or loads them from the cache."""
    import polars as pl

    from dataeng.kernels.text import text_buffers

    texts = text_buffers(pl.Series(["a line\nanother\n", ""]))
    lines = list_lines(texts, edge=2)
    hash_lines(texts, lines)
    without_lines(texts, lines.text, lines.start)
