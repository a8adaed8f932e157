"""Hashes of a text's shingles: every run of ``ngram`` words, or of characters.

    text ─► 64-bit hash of each word ─► rolling hash of each run ─► shingles

A word is hashed by the UTF-8 bytes of its normalised form, 8 at a time; a shingle by the polynomial of its words'
hashes modulo 2^64, then mixed. Two different shingles share a hash with a probability of about 2^-64: of two sets
with 100,000 shingles each, one pair does with 5e-10. (Not against an adversary: the hash has no key.)

Work goes by chunks of `CHUNK` words, so that scratch stays in the processor's first cache, however long a text is.

The hashes may be stored: they change only with the Unicode version of Python, for newly assigned characters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, inlined
from dataeng.kernels.folding import (
    BREAK,
    CODE_POINT_BITS,
    DROPPED,
    EXPANDED,
    SINGLE,
    FoldTable,
    Unit,
    expanded_letter,
    next_folded,
)  # fmt: skip
from dataeng.kernels.text import FINAL_MULTIPLIER, MULTIPLIER, decode, load64, mix, signed

#: Elements of a shingle whose hashes are held at a time.
CHUNK = 1024
MAX_NGRAM = 1000

# How a text is cut: `listing_of`.
WORDS, ASCII_WORDS, CHARACTERS = 0, 1, 2

BLOCK = 64
#: Bytes that must be readable from where a block begins: a word at its end is loaded with 8 bytes.
BLOCK_REACH = BLOCK + 8

U64_0, U64_1, U64_7, U64_8 = np.uint64(0), np.uint64(1), np.uint64(7), np.uint64(8)
ALL_BITS = np.uint64(0xFFFFFFFFFFFFFFFF)
LOWER_CASE = np.uint64(0x2020202020202020)
SHINGLE_MULTIPLIER = np.uint64(0xBF58476D1CE4E5B9)
S29, S32, S63 = np.uint64(29), np.uint64(32), np.uint64(63)


def _letters_and_others(typing_context: Any, array: Any, position: Any) -> Any:
    """Looks at 64 bytes at once: bit k of the first mask is set where byte k is an ASCII letter, of the second where
    it is a digit or no ASCII. The caller checks the bounds. Compiles to vector compares and mask moves."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir  # type: ignore[import-untyped]

        vector = ir.VectorType(ir.IntType(8), BLOCK)

        def splat(value: int) -> Any:
            return ir.Constant(vector, [value] * BLOCK)

        def mask(bits: Any) -> Any:
            return builder.bitcast(bits, ir.IntType(BLOCK))

        buffer = context.make_array(signature.args[0])(context, builder, arguments[0])
        address = builder.bitcast(builder.gep(buffer.data, [arguments[1]]), vector.as_pointer())
        data = builder.load(address, align=1)
        lowered = builder.or_(data, splat(0x20))
        letters = builder.icmp_unsigned("<", builder.sub(lowered, splat(ord("a"))), splat(26))
        digits = builder.icmp_unsigned("<", builder.sub(data, splat(ord("0"))), splat(10))
        others = builder.or_(digits, builder.icmp_unsigned(">=", data, splat(0x80)))
        return context.make_tuple(builder, signature.return_type, [mask(letters), mask(others)])

    two_masks: Any = types.Tuple((types.uint64, types.uint64))  # type: ignore[no-untyped-call]
    return two_masks(array, types.int64), generate


letters_and_others: Callable[[NDArray[np.uint8], int], tuple[np.uint64, np.uint64]] = intrinsic(_letters_and_others)  # type: ignore[assignment]


def _trailing_zeros(typing_context: Any, value: Any) -> Any:
    """Counts the zero bits below the lowest set one; 64 for 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


trailing_zeros: Callable[[np.uint64], int] = intrinsic(_trailing_zeros)  # type: ignore[assignment]


@inlined
def push_byte(state: np.uint64, pending: np.uint64, size: int, byte: int) -> tuple[np.uint64, np.uint64, int]:
    """Appends a byte to the word that is being hashed: running hash, up to 7 bytes not yet mixed, bytes so far."""
    pending |= np.uint64(byte) << (U64_8 * (np.uint64(size) & U64_7))
    size += 1
    if size & 7 == 0:
        return mix(state, pending), U64_0, size
    return state, pending, size


@called
def push_wide(state: np.uint64, pending: np.uint64, size: int, code_point: int) -> tuple[np.uint64, np.uint64, int]:
    """Appends a character above U+007F as UTF-8."""
    if code_point < 0x800:
        state, pending, size = push_byte(state, pending, size, 0xC0 | code_point >> 6)
    else:
        if code_point < 0x10000:
            state, pending, size = push_byte(state, pending, size, 0xE0 | code_point >> 12)
        else:
            state, pending, size = push_byte(state, pending, size, 0xF0 | code_point >> 18)
            state, pending, size = push_byte(state, pending, size, 0x80 | (code_point >> 12) & 0x3F)
        state, pending, size = push_byte(state, pending, size, 0x80 | (code_point >> 6) & 0x3F)
    return push_byte(state, pending, size, 0x80 | code_point & 0x3F)


@inlined
def finish_word(state: np.uint64, size: int) -> np.uint64:
    """Returns a word's hash from the running hash, all of whose bytes are mixed."""
    word = mix(state, np.uint64(size)) * FINAL_MULTIPLIER
    return word ^ (word >> S32)


@called
def next_word(
    data: NDArray[np.uint8], i: int, stop: int, folded: NDArray[np.uint32], expansions: NDArray[np.uint32]
) -> tuple[int, np.uint64, int]:
    """Finds the next word at or after ``i``: where to go on, its hash, its bytes when normalised (0: no more words)."""
    state, pending, size = U64_0, U64_0, signed(0)
    while i < stop:
        after, value, code_point = next_folded(data, i, stop, folded)
        if value == BREAK:
            i = after
            if size > 0:
                break
            continue
        single = value < EXPANDED and (value & SINGLE) != 0
        if single and size > 0:
            break
        i = after
        if value == DROPPED:
            continue
        if value >= EXPANDED:
            place = signed(0)  # not a literal, for whose type callees would be compiled once more
            while True:
                letter = expanded_letter(code_point, value, place, expansions)
                if letter == 0:
                    break
                state, pending, size = push_wide(state, pending, size, letter) if letter >= 128 else push_byte(
                    state, pending, size, letter
                )  # fmt: skip
                place += 1
        else:
            value &= CODE_POINT_BITS
            if value < 128:
                state, pending, size = push_byte(state, pending, size, value)
            else:
                state, pending, size = push_wide(state, pending, size, value)
        if single:
            break
    if size & 7 != 0:
        state = mix(state, pending)
    return i, finish_word(state, size), size


@inlined
def hash_letters(data: NDArray[np.uint8], i: int, size: int) -> np.uint64:
    """Returns the hash of a word of at most 64 ASCII letters; 8 bytes after its last must be readable."""
    state = U64_0
    left = size
    while left > 8:
        state = mix(state, load64(data, i) | LOWER_CASE)
        i += 8
        left -= 8
    kept = ALL_BITS >> (U64_8 * np.uint64(8 - left))
    return finish_word(mix(state, (load64(data, i) | LOWER_CASE) & kept), size)


@called
def list_words(
    data: NDArray[np.uint8],
    i: int,
    stop: int,
    folded: NDArray[np.uint32],
    expansions: NDArray[np.uint32],
    blocks: bool,
    words: NDArray[np.uint64],
    first: int,
) -> tuple[int, int]:
    """Writes word hashes from ``words[first]`` until the text or the array ends.

    Args:
      i: where to begin, between two words.
      blocks: ASCII text may be read 64 bytes at a time: the table is `simple_ascii`.

    Returns:
      where to go on, and the end of the hashes.
    """
    count, capacity = first, words.shape[0]
    while i < stop and count < capacity:
        if not blocks or i + BLOCK_REACH > data.shape[0]:
            i, word, size = next_word(data, i, stop, folded, expansions)
            if size > 0:
                words[count] = word
                count += 1
            continue
        letters, others = letters_and_others(data, i)
        limit = min(BLOCK, stop - i)
        inside = ALL_BITS >> np.uint64(BLOCK - limit)
        letters &= inside
        others &= inside
        at = 0
        while count < capacity:
            rest = (letters | others) >> np.uint64(at)
            if rest == U64_0:
                at = limit
                break
            at += trailing_zeros(rest)
            size = trailing_zeros(~(letters >> np.uint64(at)))
            end = at + size
            if end >= limit and i + limit < stop and at > 0:
                break  # the word may go on behind the block: begin a block with it
            if (size > 0 and end < limit and (others >> np.uint64(end)) & U64_1 == U64_0) or (
                size > 0 and end == limit and i + limit == stop
            ):
                words[count] = hash_letters(data, i + at, size)
                count += 1
                at = end
                if end == limit:
                    break
                continue
            # A word with anything but ASCII letters in it, or a long one.
            i, word, size = next_word(data, i + at, stop, folded, expansions)
            at = 0
            if size > 0:
                words[count] = word
                count += 1
            break
        i += at
    return i, count


@called
def list_characters(
    data: NDArray[np.uint8], i: int, stop: int, characters: NDArray[np.uint64], first: int
) -> tuple[int, int]:
    """Writes a hash of every character from ``characters[first]``, as `list_words` does of words."""
    count, capacity = first, characters.shape[0]
    while i < stop and count < capacity:
        code_point, width = signed(data[i]), 1
        if code_point >= 128:
            code_point, width = decode(data, i, stop)
        characters[count] = finish_word(mix(U64_0, np.uint64(code_point)), width)
        count += 1
        i += width
    return i, count


@inlined
def list_elements(
    data: NDArray[np.uint8],
    i: int,
    stop: int,
    folded: NDArray[np.uint32],
    expansions: NDArray[np.uint32],
    listing: int,
    elements: NDArray[np.uint64],
    first: int,
) -> tuple[int, int]:
    """Writes hashes of words or of characters, whichever ``listing`` says."""
    if listing == CHARACTERS:
        return list_characters(data, i, stop, elements, first)
    return list_words(data, i, stop, folded, expansions, listing == ASCII_WORDS, elements, first)


@inlined
def roll(
    elements: NDArray[np.uint64], ngram: int, end: int, rolling: np.uint64, oldest_power: np.uint64,
    shingles: NDArray[Any], at: int,
) -> np.uint64:  # fmt: skip
    """Writes the hash of the shingle that ends with each of ``elements[ngram:end]``, from ``shingles[at]``.

    Args:
      elements: those before the first ``ngram`` of a text are 0.
      rolling: the polynomial of the ``ngram`` elements before.
      oldest_power: `MULTIPLIER` to the power ``ngram``, which takes the oldest element out.

    Returns:
      the polynomial of the last ``ngram`` elements.
    """
    for k in range(ngram, end):
        rolling = rolling * MULTIPLIER + elements[k] - elements[k - ngram] * oldest_power
        shingle = (rolling ^ (rolling >> S29)) * SHINGLE_MULTIPLIER
        shingles[at + k - ngram] = shingle ^ (shingle >> S32)  # 32-bit arrays take the lower half
    return rolling


@inlined
def carry(elements: NDArray[np.uint64], ngram: int, end: int) -> None:
    """Moves the last ``ngram`` elements to the front, where the next chunk finds them."""
    for k in range(ngram):
        elements[k] = elements[end - ngram + k]


@inlined
def power_of(ngram: int) -> np.uint64:
    power = U64_1
    for _ in range(ngram):
        power *= MULTIPLIER
    return power


def listing_of(table: FoldTable, unit: Unit) -> int:
    """Returns how kernels cut the texts: `WORDS`, `ASCII_WORDS` or `CHARACTERS`."""
    if unit == "characters":
        return CHARACTERS
    return ASCII_WORDS if table.simple_ascii else WORDS


def check_shingling(ngram: int, unit: Unit) -> None:
    if unit not in ("words", "characters"):
        raise ValueError(f"unknown unit {unit!r}; known: words, characters")
    if not 1 <= ngram <= MAX_NGRAM:
        raise ValueError(f"ngram must be 1 to {MAX_NGRAM} {unit}, got {ngram}")
