"""Units of texts that can be compared and removed: lines, paragraphs and sentences.

A unit is given without the white space around it; units that are nothing but white space do not exist.

* A *line* is what stands between two ``\\n``.
* A *paragraph* is a run of lines without a blank one in between.
* A *sentence* ends with its line, at a terminal sign that stands before white space (see
  `dataeng.kernels.signals.ends_sentence`) and is not an abbreviation's, or at one of those after which Chinese and
  Japanese put no space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.characters import PREFIX, PUNCTUATION, SPACE, TERMINAL, class_table
from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.lines import character_table, find_newline, series_of, skip_white, skip_white_back
from dataeng.kernels.signal_walk import ends_sentence
from dataeng.kernels.special_cases import MAX_SPECIAL_BYTES, special_case
from dataeng.kernels.text import TextBuffers, decode, hash_bytes, previous_character, signed

if TYPE_CHECKING:
    import polars as pl

UnitKind = Literal["line", "paragraph", "sentence"]
KINDS: tuple[UnitKind, ...] = ("line", "paragraph", "sentence")
LINE, PARAGRAPH, SENTENCE = range(3)


class Units(NamedTuple):
    """Units in order: int64 arrays of one length."""

    text: NDArray[np.int64]
    """Which text a unit is of."""
    start: NDArray[np.int64]
    """Its first byte that is not white space, in the column's data."""
    stop: NDArray[np.int64]
    """The end of its last one."""


@inlined
def add_unit(found: NDArray[np.int64], num: int, text: int, start: int, stop: int) -> int:
    if num < found.shape[1]:
        found[0, num], found[1, num], found[2, num] = text, start, stop
    return num + 1


@inlined
def ends_without_space(code_point: int) -> bool:
    """Whether a sentence may end here although no white space follows."""
    return code_point == 0x3002 or code_point == 0xFF01 or code_point == 0xFF1F or code_point == 0xFF61


@inlined
def closes(code_point: int) -> bool:
    """Whether this is a closing quote or bracket, which belongs to the sentence before."""
    if code_point == 0x201D or code_point == 0x2019 or code_point == 0xFF09:
        return True
    return code_point == 0x300D or code_point == 0x300F or code_point == 0x300B or code_point == 0x3011


@inlined
def class_of(data: NDArray[np.uint8], i: int, stop: int, classes: NDArray[np.uint16]) -> tuple[int, int, int]:
    """Returns class bits, code point and size in bytes of the character at byte ``i``."""
    if data[i] < 128:
        return signed(classes[data[i]]), signed(data[i]), 1
    code_point, size = decode(data, i, stop)
    return signed(classes[code_point]), code_point, size


@called
def is_abbreviation(data: NDArray[np.uint8], start: int, stop: int, classes: NDArray[np.uint16]) -> bool:
    """Whether the period at the end of a chunk belongs to its word ("e.g.", "Ltd."), as for spaCy's English."""
    while start < stop:
        kind, _, size = class_of(data, start, stop, classes)
        if not kind & PREFIX:
            break
        start += size
    while start < stop and data[stop - 1] != 46:
        stop = previous_character(data, stop, start)
        kind, _, _ = class_of(data, stop, stop + 4, classes)
        if kind & TERMINAL:
            return False
    return 0 < stop - start <= MAX_SPECIAL_BYTES and special_case(hash_bytes(data, start, stop)) != 0


@called
def list_sentences(
    data: NDArray[np.uint8],
    text: int,
    start: int,
    stop: int,
    classes: NDArray[np.uint16],
    found: NDArray[np.int64],
    num: int,
) -> int:
    """Adds the sentences of a stripped line."""
    begin, last, ended = start, start, False
    i = start
    while i < stop:
        kind, code_point, size = class_of(data, i, stop, classes)
        if kind & SPACE:
            i += size
            continue
        chunk, any_kind, all_kind, marked = i, 0, 0xFFFF, False
        while i < stop:
            kind, code_point, size = class_of(data, i, stop, classes)
            goes_on = ends_without_space(code_point) or closes(code_point)
            if kind & SPACE or (marked and not goes_on):
                break
            marked = ends_without_space(code_point) or (marked and goes_on)
            any_kind |= kind
            all_kind &= kind
            i += size
        if ended and not all_kind & PUNCTUATION:
            num = add_unit(found, num, text, begin, last)
            begin, ended = chunk, False
        if any_kind & TERMINAL and ends_sentence(data, chunk, i, classes):
            ended = not is_abbreviation(data, chunk, i, classes)
        last = i
    return add_unit(found, num, text, begin, last)


@kernel
def list_units_kernel(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    kind: int,
    white: NDArray[np.uint8],
    classes: NDArray[np.uint16],
    found: NDArray[np.int64],
) -> int:
    """Lists units into ``found`` [3, capacity]; returns their number, which may exceed the capacity."""
    num = 0
    for text in range(offsets.shape[0] - 1):
        stop = offsets[text + 1]
        begin, last = -1, 0  # the paragraph so far
        i = offsets[text]
        while i < stop:
            end = find_newline(data, i, stop)
            first = skip_white(data, i, end, white)
            i = end + 1
            if first == end:
                if begin >= 0:
                    num = add_unit(found, num, text, begin, last)
                    begin = -1
                continue
            line_stop = skip_white_back(data, first, end, white)
            if kind == LINE:
                num = add_unit(found, num, text, first, line_stop)
            elif kind == PARAGRAPH:
                begin = first if begin < 0 else begin
                last = line_stop
            else:
                num = list_sentences(data, text, first, line_stop, classes, found, num)
        if begin >= 0:
            num = add_unit(found, num, text, begin, last)
    return num


def list_units(texts: TextBuffers, kind: UnitKind) -> Units:
    """Lists the lines, paragraphs or sentences of all texts."""
    num_bytes = int(texts.offsets[-1] - texts.offsets[0])
    # A guess that is nearly always enough; if not, the kernel says how many there are.
    capacity = 64 + num_bytes // 16
    while True:
        found = np.empty((3, capacity), np.int64)
        num = list_units_kernel(
            texts.data, texts.offsets, KINDS.index(kind), character_table(), class_table(), found
        )  # fmt: skip
        if num <= capacity:
            return Units(*found[:, :num])
        capacity = num


@inlined
def copy_bytes(
    data: NDArray[np.uint8], start: int, stop: int, out: NDArray[np.uint8], o: int
) -> int:  # fmt: skip
    for j in range(stop - start):
        out[o + j] = data[start + j]
    return o + stop - start


@called
def count_newlines(data: NDArray[np.uint8], start: int, stop: int) -> int:
    found = 0
    for i in range(start, stop):
        found += data[i] == 10
    return found


@kernel
def without_units_kernel(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    text_of: NDArray[np.int64],
    start_of: NDArray[np.int64],
    stop_of: NDArray[np.int64],
    removed: NDArray[np.bool_],
    out: NDArray[np.uint8],
    out_offsets: NDArray[np.int64],
) -> None:
    o, unit, num_units = 0, 0, text_of.shape[0]
    out_offsets[0] = 0
    for text in range(offsets.shape[0] - 1):
        i, stop = offsets[text], offsets[text + 1]
        before = -1  # end of the last unit that stays
        while unit < num_units and text_of[unit] == text:
            if not removed[unit]:
                before = stop_of[unit]
                unit += 1
                continue
            first = unit
            while unit < num_units and text_of[unit] == text and removed[unit]:
                unit += 1
            follows = unit < num_units and text_of[unit] == text
            if before >= 0:
                o = copy_bytes(data, i, before, out, o)
            i = start_of[unit] if follows else stop
            if before >= 0 and follows:
                # Two gaps become one: the one that parts the text more.
                left, right = before, stop_of[unit - 1]
                if count_newlines(data, left, start_of[first]) > count_newlines(data, right, i):
                    o = copy_bytes(data, left, start_of[first], out, o)
                else:
                    o = copy_bytes(data, right, i, out, o)
        o = copy_bytes(data, i, stop, out, o)
        out_offsets[text + 1] = o


def without_units(texts: TextBuffers, units: Units, removed: NDArray[np.bool_]) -> pl.Series:
    """Returns the texts without some of their units.

    Of the white space before and after removed units, the piece with more line feeds stays (the latter, if they are
    equal); at the beginning and the end of a text none does.

    Args:
      units: from `list_units`; ``removed``: one value for each.
    """
    out = np.empty(int(texts.offsets[-1] - texts.offsets[0]), np.uint8)
    offsets = np.empty(texts.num_texts + 1, np.int64)
    without_units_kernel(
        texts.data, texts.offsets, units.text, units.start, units.stop, removed, out, offsets
    )  # fmt: skip
    return series_of(out, offsets)


def warm_up() -> None:
    """Compiles the kernels or loads them from the cache."""
    import polars as pl

    from dataeng.kernels.text import text_buffers

    texts = text_buffers(pl.Series(["One line. Two sentences.\n\nAnother line.", ""]))
    for kind in KINDS:
        units = list_units(texts, kind)
    without_units(texts, units, np.ones(len(units.text), np.bool_))
