"""Keys of the token n-grams of lines and paragraphs, as AllenAI's and DCLM's Bloom-filter deduplication takes them.

Tokens are those of Unicode's word boundaries (UAX #29), without white space, in the case they are in: runs of letters,
digits, marks and underscores, joined by apostrophes and periods between letters, and by commas and periods between
digits; ideographs, Hiragana and the letters of South-East Asian scripts one by one; any other character by itself.
Approximated: sequences of emoji and flags are cut into characters.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.text import (
    CODE_POINT_LIMIT,
    FINAL_MULTIPLIER,
    HASH_START,
    U32,
    TextBuffers,
    decode,
    hash_bytes,
    mix,
    signed,
)
from dataeng.kernels.units import Units

# Bits of the token table (uint8); characters without any are tokens by themselves.
LETTER, NUMBER, JOINER, MARK, MID_LETTER, MID_NUMBER, WHITE, SINGLE = 1, 2, 4, 8, 16, 32, 64, 128
INSIDE = LETTER | NUMBER | JOINER

#: UAX #29, classes MidNumLet and Single_Quote (between letters or digits), MidLetter, MidNum.
MID_BOTH = "'.‘’․﹒＇．"
MID_LETTERS = ":··՟״‧︓﹕："
MID_NUMBERS = ",;;։،؍٬߸⁄︐︔﹐﹔，；"

#: Letters that make a token each: Thai and Lao, Burmese, Khmer, Hiragana, ideographs.
SINGLE_RANGES = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3005, 0x3007), (0x3021, 0x3029), (0x3041, 0x3096),
    (0x309F, 0x309F), (0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF),
)  # fmt: skip

MAX_NGRAM = 64
_LAST_PLANE = 0x33000


@functools.cache
def token_table() -> NDArray[np.uint8]:
    """Returns the bits of every code point, uint8 [`CODE_POINT_LIMIT`], read-only."""
    table = np.zeros(CODE_POINT_LIMIT, np.uint8)
    for code_point in range(_LAST_PLANE):
        character = chr(code_point)
        category = unicodedata.category(character)
        if character.isspace():
            table[code_point] = WHITE
        elif category in ("Mn", "Mc", "Me", "Cf"):
            table[code_point] = MARK
        elif category == "Nd":
            table[code_point] = NUMBER
        elif category[0] == "L" or category == "Nl":
            table[code_point] = LETTER
        elif category == "Pc":
            table[code_point] = JOINER
    for first, last in SINGLE_RANGES:
        block = table[first : last + 1]
        block[(block & LETTER) != 0] = SINGLE
    table[[ord(c) for c in MID_BOTH + MID_LETTERS]] |= MID_LETTER
    table[[ord(c) for c in MID_BOTH + MID_NUMBERS]] |= MID_NUMBER
    table[0xE0000:0xE01F0] = MARK
    table.flags.writeable = False
    return table


@inlined
def token_bits(data: NDArray[np.uint8], i: int, stop: int, table: NDArray[np.uint8]) -> tuple[int, int]:
    """Returns the bits of the character at byte ``i`` and its length in bytes."""
    if data[i] < 128:
        return signed(table[data[i]]), 1
    code_point, size = decode(data, i, stop)
    return signed(table[code_point]), size


@called
def skip_marks(data: NDArray[np.uint8], i: int, stop: int, table: NDArray[np.uint8]) -> int:
    while i < stop:
        bits, size = token_bits(data, i, stop, table)
        if bits & MARK == 0:
            break
        i += size
    return i


@called
def end_of_token(data: NDArray[np.uint8], i: int, stop: int, table: NDArray[np.uint8]) -> int:
    """Returns where the token ends that starts at byte ``i``."""
    before, size = token_bits(data, i, stop, table)
    i = skip_marks(data, i + size, stop, table)
    if before & INSIDE == 0:
        return i
    while i < stop:
        bits, size = token_bits(data, i, stop, table)
        if bits & INSIDE == 0:
            # Not the end if the sign stands between two letters or two digits.
            joins = 0
            if bits & MID_LETTER and before & LETTER:
                joins = LETTER
            if bits & MID_NUMBER and before & NUMBER:
                joins = NUMBER
            if joins == 0:
                break
            after = skip_marks(data, i + size, stop, table)
            if after == stop:
                break
            bits, size = token_bits(data, after, stop, table)
            if bits & joins == 0:
                break
            i = after
        before = bits
        i = skip_marks(data, i + size, stop, table)
    return i


@kernel
def list_ngrams_kernel(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    table: NDArray[np.uint8],
    ngram: int,
    min_tokens: int,
    keys: NDArray[np.uint64],
    counts: NDArray[np.int64],
) -> int:
    """Fills ``keys`` and, for each unit, ``counts``; returns the number of keys, which may exceed the capacity."""
    window = np.empty(ngram, np.uint64)
    num = 0
    for unit in range(starts.shape[0]):
        stop, tokens, begin = stops[unit], 0, num
        i = starts[unit]
        while i < stop:
            bits, size = token_bits(data, i, stop, table)
            if bits & WHITE:
                i += size
                continue
            end = end_of_token(data, i, stop, table)
            window[tokens % ngram] = hash_bytes(data, i, end)
            i = end
            tokens += 1
            if tokens >= ngram:
                if num < keys.shape[0]:
                    keys[num] = window_key(window, tokens, ngram)
                num += 1
        if min_tokens <= tokens < ngram:
            if num < keys.shape[0]:
                keys[num] = window_key(window, tokens, tokens)
            num += 1
        counts[unit] = num - begin
    return num


@inlined
def window_key(window: NDArray[np.uint64], tokens: int, size: int) -> np.uint64:
    """Returns the key of the last ``size`` of so many tokens."""
    state = HASH_START ^ np.uint64(size)
    for j in range(tokens - size, tokens):
        state = mix(state, window[j % window.shape[0]])
    state *= FINAL_MULTIPLIER
    return state ^ (state >> U32)


class Ngrams(NamedTuple):
    """The n-grams of units, unit by unit."""

    key: NDArray[np.uint64]
    num: NDArray[np.int64]
    """[units], how many each unit has."""


def list_ngrams(texts: TextBuffers, units: Units, ngram: int, min_tokens: int) -> Ngrams:
    """Lists the n-grams of every unit.

    Args:
      ngram: tokens of an n-gram, at most `MAX_NGRAM`.
      min_tokens: a unit with fewer tokens than ``ngram``, but at least so many, has one n-gram of all its tokens; with
        fewer it has none.
    """
    if not 1 <= ngram <= MAX_NGRAM:
        raise ValueError(f"ngram must be between 1 and {MAX_NGRAM}, got {ngram}")
    counts = np.empty(len(units.text), np.int64)
    capacity = 64 + int((units.stop - units.start).sum()) // 4
    while True:
        keys = np.empty(capacity, np.uint64)
        num = list_ngrams_kernel(
            texts.data, units.start, units.stop, token_table(), ngram, max(1, min_tokens), keys, counts
        )
        if num <= capacity:
            return Ngrams(keys[:num], counts)
        capacity = num


def warm_up() -> None:
    """Compiles the kernel or loads it from the cache."""
    import polars as pl

    from dataeng.kernels.text import text_buffers
    from dataeng.kernels.units import list_units

    texts = text_buffers(pl.Series(["One line of a text."]))
    list_ngrams(texts, list_units(texts, "line"), 2, 1)
