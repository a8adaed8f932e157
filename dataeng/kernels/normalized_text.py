"""Texts in a form in which spelling does not matter: for hashes that are the same for the same words.

Two texts have the same form if they are the same after

1. Unicode's compatibility caseless match (The Unicode Standard, definition D146), character by character: canonical
   decomposition, case folding, compatibility decomposition (NFKD), twice, then marks in canonical order. So ``ﬁ``,
   ``Ⅷ``, ``ﾊ`` and ``²`` equal what they stand for, ``ß`` equals ``ss``, and composed letters equal decomposed ones.
   (The form is decomposed, NFKD, where one would store NFKC: for equality they are the same.)
2. Format characters (category Cf: soft hyphens, joiners, direction marks, byte order marks), variation selectors and
   the combining grapheme joiner are left out.
3. Every run of white space, punctuation (categories P) and control characters becomes one space; none at either end.

Symbols (``+``, ``$``, ``=``), digits and accents stay: texts that differ in them say different things.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.text import CODE_POINT_LIMIT, TextBuffers, decode, signed

BREAK = 0
DROPPED = 0xFFFFFFFF
EXPANDED = 0x80000000
SELECTORS = ((0x180B, 0x180D), (0x180F, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF), (0x034F, 0x034F))
#: Ranges in which nothing changes, left out when the table is built: ideographs, Hangul (by arithmetic), private use.
UNCHANGED = (
    (0x3400, 0xA000),
    (0xAC00, 0xD7A4),
    (0xD800, 0xF900),
    (0x18D09, 0x1AFF0),
    (0x20000, 0x2F800),
    (0x2FA20, 0xE0000),
    (0xE0200, 0x110000),
)
USUAL_GROWTH, MOST_GROWTH = 3, 12
"""Bytes of the form for a byte of text: Korean has three times as many, U+FDFA eleven times."""


class Folding(NamedTuple):
    """What each code point becomes."""

    folded: NDArray[np.uint32]  # [CODE_POINT_LIMIT]: a code point, BREAK, DROPPED, or EXPANDED | position
    expansions: NDArray[np.uint32]  # runs of code points, each ended by DROPPED; BREAK stands for a separator
    classes: NDArray[np.uint8]  # [CODE_POINT_LIMIT]: canonical combining class


def fold_character(character: str) -> str:
    """Returns one character's compatibility caseless form, without looking at its neighbours."""
    text = unicodedata.normalize("NFD", character).casefold()
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())


def is_left_out(code_point: int) -> bool:
    return unicodedata.category(chr(code_point)) == "Cf" or any(a <= code_point <= b for a, b in SELECTORS)


def is_separator(character: str) -> bool:
    return character.isspace() or unicodedata.category(character)[0] in "PZ" or unicodedata.category(character) == "Cc"


@functools.cache
def folding() -> Folding:
    """Builds the tables from the running Python's Unicode data, in about half a second."""
    folded = np.arange(CODE_POINT_LIMIT, dtype=np.uint32)
    folded[0x110000:] = BREAK
    classes = np.zeros(CODE_POINT_LIMIT, np.uint8)
    expansions: list[int] = [DROPPED]  # so that no run is at 0
    unchanged = np.zeros(0x110000, np.bool_)
    for first, end in UNCHANGED:
        unchanged[first:end] = True
    for code_point in np.flatnonzero(~unchanged).tolist():
        character = chr(code_point)
        classes[code_point] = unicodedata.combining(character)
        if is_left_out(code_point):
            folded[code_point] = DROPPED
            continue
        kept = [BREAK if is_separator(c) else ord(c) for c in fold_character(character) if not is_left_out(ord(c))]
        if len(kept) == 1:
            folded[code_point] = kept[0]
        elif kept:
            folded[code_point] = EXPANDED | len(expansions)
            expansions += [*kept, DROPPED]
        else:
            folded[code_point] = DROPPED
    tables = Folding(folded, np.array(expansions, np.uint32), classes)
    for array in tables:
        array.flags.writeable = False
    return tables


@inlined
def put(out: NDArray[np.uint8], at: int, code_point: int) -> int:
    """Writes a character in UTF-8; returns where it ends."""
    if code_point < 0x80:
        out[at] = code_point
        return at + 1
    if code_point < 0x800:
        out[at] = 0xC0 | (code_point >> 6)
        out[at + 1] = 0x80 | (code_point & 0x3F)
        return at + 2
    if code_point < 0x10000:
        out[at] = 0xE0 | (code_point >> 12)
        out[at + 1] = 0x80 | ((code_point >> 6) & 0x3F)
        out[at + 2] = 0x80 | (code_point & 0x3F)
        return at + 3
    out[at] = 0xF0 | (code_point >> 18)
    out[at + 1] = 0x80 | ((code_point >> 12) & 0x3F)
    out[at + 2] = 0x80 | ((code_point >> 6) & 0x3F)
    out[at + 3] = 0x80 | (code_point & 0x3F)
    return at + 4


@called
def put_marks(
    marks: NDArray[np.uint32], count: int, classes: NDArray[np.uint8], out: NDArray[np.uint8], at: int
) -> int:
    """Writes a run of combining marks in canonical order: by class, stably; returns where they end.

    One pass over the run per class that occurs in it (at most 54), so that a text of nothing but marks costs no square.
    """
    if count == 1:
        return put(out, at, signed(marks[0]))
    last = 0
    while True:
        following = 256
        for k in range(count):
            of_mark = signed(classes[marks[k]])
            if last < of_mark < following:
                following = of_mark
        if following == 256:
            return at
        for k in range(count):
            if signed(classes[marks[k]]) == following:
                at = put(out, at, signed(marks[k]))
        last = following


@kernel
def normalize_texts(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    folded: NDArray[np.uint32],
    expansions: NDArray[np.uint32],
    classes: NDArray[np.uint8],
    out: NDArray[np.uint8],
    out_offsets: NDArray[np.int64],
) -> bool:
    """Returns whether ``out`` was large enough."""
    longest = 0
    for text in range(offsets.shape[0] - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    marks = np.empty(4 * longest + 32, np.uint32)
    single = np.empty(2, np.uint32)
    single[1] = DROPPED
    at = 0
    out_offsets[0] = 0
    for text in range(offsets.shape[0] - 1):
        first, i, stop = at, offsets[text], offsets[text + 1]
        num_marks = 0
        separated = False
        while i < stop:
            if at + 4 * num_marks + 64 + MOST_GROWTH * 4 > out.shape[0]:
                return False
            code_point, width = signed(data[i]), 1
            if code_point >= 128:
                code_point, width = decode(data, i, stop)
            i += width
            value = signed(folded[code_point])
            if code_point < 128:  # one character, no mark: the usual case
                if num_marks:
                    at = put_marks(marks, num_marks, classes, out, at)
                    num_marks = 0
                if value == BREAK:
                    separated = at > first
                else:
                    if separated:
                        out[at] = 32
                        at += 1
                        separated = False
                    out[at] = value
                    at += 1
                continue
            if value == DROPPED:
                continue
            syllable = code_point - 0xAC00
            hangul = 0 <= syllable < 11172
            place = value & 0x7FFFFFFF if value >= EXPANDED else 0
            step = 0
            while True:
                if hangul:
                    if step == 3 or (step == 2 and syllable % 28 == 0):
                        break
                    value = 0x1100 + syllable // 588
                    if step > 0:
                        value = 0x1161 + syllable % 588 // 28 if step == 1 else 0x11A7 + syllable % 28
                elif place:
                    value = signed(expansions[place + step])
                    if value == DROPPED:
                        break
                elif step == 1:
                    break
                step += 1
                if value != BREAK and classes[value] != 0:
                    if separated:
                        out[at] = 32
                        at += 1
                        separated = False
                    marks[num_marks] = value
                    num_marks += 1
                    continue
                if num_marks:
                    at = put_marks(marks, num_marks, classes, out, at)
                    num_marks = 0
                if value == BREAK:
                    separated = at > first
                    continue
                if separated:
                    out[at] = 32
                    at += 1
                    separated = False
                at = put(out, at, value)
        if num_marks:
            at = put_marks(marks, num_marks, classes, out, at)
        out_offsets[text + 1] = at
    return True


def normalized_texts(texts: TextBuffers) -> TextBuffers:
    """Returns the normalised form of every text: UTF-8, words separated by one space."""
    tables = folding()
    num_bytes = int(texts.offsets[-1] - texts.offsets[0])
    offsets = np.empty(texts.num_texts + 1, np.int64)
    for growth in (USUAL_GROWTH, MOST_GROWTH):
        out = np.empty(growth * num_bytes + 256, np.uint8)
        if normalize_texts(texts.data, texts.offsets, *tables, out, offsets):
            break
    else:
        raise AssertionError("a character has more than a dozen times its own bytes")
    return TextBuffers(out[: offsets[-1]], offsets)


def warm_up() -> None:
    """Compiles the kernel or loads it from the cache."""
    import polars as pl

    from dataeng.kernels.text import text_buffers

    normalized_texts(text_buffers(pl.Series(["Warm"], dtype=pl.String)))
