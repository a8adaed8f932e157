"""Normal forms under which lines, paragraphs and sentences count as the same, as UTF-8.

==============  ========================================================================================
``none``        bytes as they are
``lower``       lower case (C4's line deduplication in TensorFlow Datasets)
``ccnet@code``  lower case, digits 0, without control characters and 34 punctuation signs, none of them ASCII
                (``cc_net/text_normalizer.py``, ``normalize_for_dedup``)
``ccnet@paper`` lower case, digits 0, without accents, punctuation (Unicode category P) and control characters; runs of
                white space are one space (Wenzek et al. 2020, section 3.1)
``datatrove``   lower case, numbers 0, punctuation and control characters are spaces, without accents; runs of white
                space are one space (``datatrove.utils.text.simplify_text``, 0.10.1)
==============  ========================================================================================

Characters are lowered one by one: ``ς`` and ``σ`` are one letter.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.characters import DATATROVE_PUNCTUATION
from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.text import CODE_POINT_LIMIT, TextBuffers, decode, signed

Form = Literal["none", "lower", "ccnet@code", "ccnet@paper", "datatrove"]
FORMS: tuple[Form, ...] = ("none", "lower", "ccnet@code", "ccnet@paper", "datatrove")

#: ``cc_net/text_normalizer.py``, UNICODE_PUNCT (MIT, Facebook), and its control characters.
CCNET_PUNCTUATION = "，。、„”“«»１」「《》´∶：？！（）；–—．～’…━〈〉【】％►"
CONTROLS = "".join(chr(i) for i in (*range(32), *range(127, 160)))

#: ``datatrove.utils.text.NUMBERS_PATTERN``: what may stand between the two halves of one number.
NUMBER_SEPARATORS = np.array([ord(c) for c in ".,،٫⎖⎗⎘"], np.int64)

# Values of a table besides code points.
SPACED = 0xFFFFFFFE  # white space that becomes one space
DROPPED = 0xFFFFFFFF
EXPANDED = 0x80000000  # several characters: the rest is a position in the expansion table, or HANGUL
HANGUL = EXPANDED
ZERO = 48

#: No character becomes more than three times as long in UTF-8.
LARGEST_GROWTH = 3

#: Characters above are unassigned, private or tag characters and have neither case nor decomposition.
_LAST_PLANE = 0x30000


class NormalTable(NamedTuple):
    """What each code point becomes."""

    folded: NDArray[np.uint32]  # [CODE_POINT_LIMIT]
    expansions: NDArray[np.uint32]  # runs of code points, each ended by 0
    numbers: bool
    """Whether a whole number is one ``0``, not each digit."""


@functools.cache
def normal_table(form: Form) -> NormalTable:
    """Builds the table of a normal form from the running Python's Unicode data, in about 0.2 s."""
    folded = np.arange(CODE_POINT_LIMIT, dtype=np.uint32)
    expansions: list[int] = [0]
    strips_accents = form in ("ccnet@paper", "datatrove")
    for code_point in range(0 if form == "none" else _LAST_PLANE):
        character = chr(code_point)
        lowered = character.lower()
        if strips_accents:
            if 0xAC00 <= code_point <= 0xD7A3:
                folded[code_point] = HANGUL
                continue
            lowered = "".join(c for c in unicodedata.normalize("NFD", lowered) if unicodedata.category(c) != "Mn")
        if lowered == character:
            continue
        if len(lowered) < 2:
            folded[code_point] = ord(lowered) if lowered else DROPPED
        else:
            folded[code_point] = EXPANDED | len(expansions)
            expansions += [*map(ord, lowered), 0]
    if form != "none":
        folded[ord("ς")] = ord("σ")
    characters = np.arange(_LAST_PLANE, dtype=np.uint32).view("U1")
    known = folded[:_LAST_PLANE]
    if strips_accents:
        # Variation selectors and the like, above the planes of letters.
        folded[0xE0100:0xE01F0] = DROPPED
        known[np.strings.isspace(characters)] = SPACED
    if form == "datatrove":
        folded[[ord(c) for c in DATATROVE_PUNCTUATION]] = SPACED
    elif form == "ccnet@paper":
        marks = [i for i in range(_LAST_PLANE) if unicodedata.category(chr(i))[0] == "P"]
        folded[marks] = DROPPED
        folded[[ord(c) for c in CONTROLS if not c.isspace()]] = DROPPED
    elif form == "ccnet@code":
        folded[[ord(c) for c in CCNET_PUNCTUATION + CONTROLS]] = DROPPED
    if form not in ("none", "lower"):
        known[np.strings.isdecimal(characters)] = ZERO
    table = NormalTable(folded, np.array(expansions, np.uint32), form == "datatrove")
    for array in table[:2]:
        array.flags.writeable = False
    return table


@inlined
def write_character(out: NDArray[np.uint8], o: int, code_point: int) -> int:
    """Appends a character in UTF-8; returns the new end."""
    if code_point < 0x80:
        out[o] = code_point
        return o + 1
    if code_point < 0x800:
        out[o] = 0xC0 | (code_point >> 6)
        out[o + 1] = 0x80 | (code_point & 0x3F)
        return o + 2
    if code_point < 0x10000:
        out[o] = 0xE0 | (code_point >> 12)
        out[o + 1] = 0x80 | ((code_point >> 6) & 0x3F)
        out[o + 2] = 0x80 | (code_point & 0x3F)
        return o + 3
    out[o] = 0xF0 | (code_point >> 18)
    out[o + 1] = 0x80 | ((code_point >> 12) & 0x3F)
    out[o + 2] = 0x80 | ((code_point >> 6) & 0x3F)
    out[o + 3] = 0x80 | (code_point & 0x3F)
    return o + 4


@called
def write_several(
    out: NDArray[np.uint8], o: int, code_point: int, value: int, expansions: NDArray[np.uint32]
) -> int:  # fmt: skip
    """Appends what a character becomes: a Hangul syllable's letters, or an entry of the expansion table."""
    at = value & 0x1FFFFF
    if at == 0:
        syllable = code_point - 0xAC00
        o = write_character(out, o, 0x1100 + syllable // 588)
        o = write_character(out, o, 0x1161 + syllable % 588 // 28)
        if syllable % 28:
            o = write_character(out, o, 0x11A7 + syllable % 28)
        return o
    while expansions[at]:
        o = write_character(out, o, signed(expansions[at]))
        at += 1
    return o


@called
def end_of_digits(data: NDArray[np.uint8], i: int, stop: int, folded: NDArray[np.uint32]) -> int:
    while i < stop:
        code_point, size = signed(data[i]), 1
        if code_point >= 128:
            code_point, size = decode(data, i, stop)
        if folded[code_point] != ZERO:
            break
        i += size
    return i


@called
def end_of_number(data: NDArray[np.uint8], i: int, stop: int, folded: NDArray[np.uint32]) -> int:
    """Returns where a number ends whose first digit ends at ``i``: digits, then perhaps one separator and digits."""
    i = end_of_digits(data, i, stop, folded)
    if i == stop:
        return i
    code_point, size = signed(data[i]), 1
    if code_point >= 128:
        code_point, size = decode(data, i, stop)
    for separator in NUMBER_SEPARATORS:
        if separator == code_point:
            end = end_of_digits(data, i + size, stop, folded)
            return end if end > i + size else i
    return i


@kernel
def normalize_kernel(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    folded: NDArray[np.uint32],
    expansions: NDArray[np.uint32],
    numbers: bool,
    out: NDArray[np.uint8],
    out_offsets: NDArray[np.int64],
) -> None:
    o = 0
    out_offsets[0] = 0
    for unit in range(starts.shape[0]):
        i, stop, begin, spaced = starts[unit], stops[unit], o, False
        while i < stop:
            code_point, size = signed(data[i]), 1
            if code_point >= 128:
                code_point, size = decode(data, i, stop)
            i += size
            value = signed(folded[code_point])
            if value < 128 and value != ZERO and not spaced:  # nearly always
                out[o] = value
                o += 1
                continue
            if value == DROPPED:
                continue
            if value == SPACED:
                spaced = o > begin
                continue
            if spaced:
                out[o] = 32
                o += 1
                spaced = False
            if value == ZERO and numbers:
                i = end_of_number(data, i, stop, folded)
            if value >= EXPANDED:
                o = write_several(out, o, code_point, value, expansions)
            else:
                o = write_character(out, o, value)
        out_offsets[unit + 1] = o


def normalize_units(
    texts: TextBuffers, starts: NDArray[np.int64], stops: NDArray[np.int64], form: Form
) -> TextBuffers:  # fmt: skip
    """Returns the normal form of every piece ``data[start:stop]`` of a column.

    Args:
      starts, stops: int64 [pieces], where pieces begin and end; they hold whole characters and do not overlap.
    """
    table = normal_table(form)
    growth = 1 if form == "none" else LARGEST_GROWTH
    out = np.empty(growth * int((stops - starts).sum()) + len(starts) + 1, np.uint8)
    offsets = np.empty(len(starts) + 1, np.int64)
    normalize_kernel(texts.data, starts, stops, *table, out, offsets)
    return TextBuffers(out, offsets)


def count_characters(texts: TextBuffers) -> NDArray[np.int64]:
    """Returns the number of characters of every text."""
    if not len(texts.data):
        return np.zeros(texts.num_texts, np.int64)
    begins = np.zeros(int(texts.offsets[-1]) + 1, np.int64)
    np.cumsum((texts.data[: texts.offsets[-1]] & 0xC0) != 0x80, out=begins[1:])
    counts: NDArray[np.int64] = np.diff(begins[texts.offsets])
    return counts


def warm_up() -> None:
    """Compiles the kernel or loads it from the cache."""
    import polars as pl

    from dataeng.kernels.text import text_buffers

    texts = text_buffers(pl.Series(["One line."]))
    normalize_units(texts, texts.offsets[:-1], texts.offsets[1:], "datatrove")
