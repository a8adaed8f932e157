"""Texts as sequences of units, bytes or words, and hashes of runs of units.

A *word* here is a run of characters that are not white space (``str.split``), except that every letter of a script
that puts no spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) is a word of its own; combining marks
stay with the character before them. Words are compared by their bytes: case, punctuation and digits count, the white
space between them does not.

Runs are hashed by two polynomials over the units modulo the Mersenne prime 2^61 - 1, each at a point drawn from a seed
(Karp & Rabin 1987; Carter & Wegman 1979). Two different runs of n units of up to m bytes agree in both with a
probability of at most ((n + m / 7 + 1) / 2^61)^2 over the choice of the points, whatever the texts are: less than
2^-109 for 50 words of up to 70 bytes. Unlike arithmetic modulo 2^64 there are no texts that collide at every point.
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.folding import UNSPACED_RANGES
from dataeng.kernels.lines import WHITE as WHITE_CHARACTER
from dataeng.kernels.lines import character_table
from dataeng.kernels.text import CODE_POINT_LIMIT, TextBuffers, decode, load64, signed

# Bits of the class table (uint8).
WHITE, SINGLE, MARK = 1, 2, 4

PRIME = (1 << 61) - 1
ONE, SEVEN_BYTES = np.uint64(1), np.uint64((1 << 56) - 1)
U8 = np.uint64(8)


@functools.cache
def unit_classes() -> NDArray[np.uint8]:
    """Returns the class bits of every code point, uint8 [`CODE_POINT_LIMIT`], read-only."""
    table = np.where(character_table() & WHITE_CHARACTER, np.uint8(WHITE), np.uint8(0))
    for first, last in UNSPACED_RANGES:
        block = table[first : last + 1]
        block[block == 0] = SINGLE
    # Marks beyond these planes do not exist.
    for code_point in itertools.chain(range(0x300, 0x20000), range(0xE0100, 0xE01F0)):
        if unicodedata.category(chr(code_point)) in ("Mn", "Mc", "Me"):
            table[code_point] = MARK
    table[0x200D] = MARK  # zero width joiner
    assert table.shape == (CODE_POINT_LIMIT,)
    table.flags.writeable = False
    return table


def _multiply(typing_context: Any, a: Any, b: Any) -> Any:
    """Multiplies two numbers below 2^61 - 1 modulo that prime, through one 128-bit product."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir  # type: ignore[import-untyped]

        wide, narrow = ir.IntType(128), ir.IntType(64)
        product = builder.mul(builder.zext(arguments[0], wide), builder.zext(arguments[1], wide))
        prime = narrow(PRIME)
        low = builder.and_(builder.trunc(product, narrow), prime)
        high = builder.trunc(builder.lshr(product, wide(61)), narrow)
        total = builder.add(low, high)
        return builder.select(builder.icmp_unsigned(">=", total, prime), builder.sub(total, prime), total)

    return types.uint64(types.uint64, types.uint64), generate


multiply: Callable[[np.uint64, np.uint64], np.uint64] = intrinsic(_multiply)  # type: ignore[assignment]

P = np.uint64(PRIME)


@inlined
def plus(a: np.uint64, b: np.uint64) -> np.uint64:
    """Adds modulo the prime."""
    total = a + b
    return total - P if total >= P else total


@inlined
def minus(a: np.uint64, b: np.uint64) -> np.uint64:
    """Subtracts modulo the prime."""
    return a - b if a >= b else a + P - b


class Points(NamedTuple):
    """Where the polynomials are evaluated, and what evaluating runs needs; all below 2^61 - 1."""

    word: NDArray[np.uint64]
    """[2], the points of the polynomials over the bytes of a word."""
    power: NDArray[np.uint64]
    """[2, longest + 1], powers 0 … longest of the points of the polynomials over units."""


def points(longest: int, seed: int = 0) -> Points:
    """Draws the points; runs of up to ``longest`` units can be hashed with them."""
    numbers: list[int] = []
    state = seed & (2**64 - 1)
    while len(numbers) < 4:  # SplitMix64, Steele et al. 2014
        state = (state + 0x9E3779B97F4A7C15) & (2**64 - 1)
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        if (number := (z ^ (z >> 31)) >> 3) < PRIME:
            numbers.append(number)
    power = np.empty((2, longest + 1), np.uint64)
    for row, point in enumerate(numbers[2:]):
        power[row] = list(itertools.accumulate(itertools.repeat(point, longest), lambda a, b: a * b % PRIME, initial=1))
    found = Points(np.array(numbers[:2], np.uint64), power)
    for array in found:
        array.flags.writeable = False
    return found


@inlined
def next_unit(
    data: NDArray[np.uint8], i: int, stop: int, by_bytes: bool, classes: NDArray[np.uint8]
) -> tuple[int, int]:
    """Returns where the next unit at or after byte ``i`` starts and ends; ``(stop, stop)`` when there is none left."""
    if by_bytes:
        return i, min(i + 1, stop)
    return next_word(data, i, stop, classes)


@called
def next_word(data: NDArray[np.uint8], i: int, stop: int, classes: NDArray[np.uint8]) -> tuple[int, int]:
    """Returns where the next word at or after byte ``i`` starts and ends; ``(stop, stop)`` when there is none left."""
    start, single = -1, False
    while i < stop:
        code_point, size = signed(data[i]), 1
        if code_point >= 128:
            code_point, size = decode(data, i, stop)
            size = min(size, stop - i)
        kind = classes[code_point]
        if start < 0:
            if not kind & WHITE:
                start, single = i, kind & SINGLE != 0
        elif kind & (WHITE | SINGLE) or (single and not kind & MARK):
            return start, i
        i += size
    return (stop, stop) if start < 0 else (start, stop)


@inlined
def unit_value(data: NDArray[np.uint8], start: int, stop: int, by_bytes: bool, point: np.uint64) -> np.uint64:
    """Returns the unit as a number below the prime: never 0, and another one for another byte or, nearly, word."""
    if by_bytes:
        return np.uint64(data[start]) + ONE
    value = np.uint64(stop - start)
    i = start
    while i < stop:
        if i + 8 <= data.shape[0]:
            chunk = load64(data, i) & SEVEN_BYTES
            if stop - i < 7:
                chunk &= (ONE << (U8 * np.uint64(stop - i))) - ONE
        else:
            chunk = np.uint64(0)
            for j in range(min(7, stop - i)):
                chunk |= np.uint64(data[i + j]) << (U8 * np.uint64(j))
        value = plus(multiply(value, point), chunk)
        i += 7
    return value


@kernel
def list_words_kernel(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], classes: NDArray[np.uint8], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int]:
    found = np.empty((2, 1024), np.int64)
    num = 0
    for text in range(offsets.shape[0] - 1):
        i, stop = offsets[text], offsets[text + 1]
        while True:
            start, i = next_word(data, i, stop, classes)
            if start == stop:
                break
            if num == found.shape[1]:
                larger = np.empty((2, 2 * num), np.int64)
                larger[:, :num] = found
                found = larger
            found[0, num], found[1, num] = start, i
            num += 1
        ends[text] = num
    return found, num


class Words(NamedTuple):
    """Where the words of a column of texts are."""

    offsets: NDArray[np.int64]
    """[texts + 1]: the words of text i are those from ``offsets[i]`` up to ``offsets[i + 1]``."""
    start: NDArray[np.int64]
    """[words], first byte in the data buffer."""
    stop: NDArray[np.int64]
    """[words], the byte after the last."""


def list_words(texts: TextBuffers) -> Words:
    """Lists the words of all texts."""
    offsets = np.zeros(texts.num_texts + 1, np.int64)
    found, num = list_words_kernel(texts.data, texts.offsets, unit_classes(), offsets[1:])
    return Words(offsets, found[0, :num], found[1, :num])


def warm_up() -> None:
    """Compiles the kernel or loads it from the cache."""
    import polars as pl

    from dataeng.kernels.text import text_buffers

    list_words(text_buffers(pl.Series(["a word", ""])))
