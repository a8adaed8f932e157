"""MinHash signatures of a column of texts, and their LSH band keys.

Broder (1997), *On the resemblance and containment of documents*. A text is normalised as datatrove's ``simplify_text``
does (lower case, numbers become 0, punctuation becomes a space, diacritics are dropped), cut into words at white space,
and every run of ``ngram`` words is a *shingle*. Characters of scripts that put no spaces between words (Chinese,
Japanese, Thai, Lao, Khmer, Burmese) are a word each.

Shingles are hashed to 32 bits, permuted by ``multiplier * shingle + increment`` modulo 2^32, and the minimum of each
permutation is kept.

Differences from datatrove: words are not those of a spaCy tokenizer; ``ς`` and ``σ`` are one letter everywhere.
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.characters import DATATROVE_PUNCTUATION
from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.text import CODE_POINT_LIMIT, FINAL_MULTIPLIER, MULTIPLIER, TextBuffers, decode, mix, signed

# Values of the fold table besides code points.
BREAK = 0  # ends a word
DROPPED = 0xFFFFFFFF  # combining marks
EXPANDED = 0x80000000  # several characters: the rest is a position in the expansion table
SINGLE = 0x40000000  # a word of its own
CODE_POINT_BITS = 0x1FFFFF
ZERO = 48

#: What may stand between the two halves of one number, datatrove's ``NUMBERS_PATTERN``.
NUMBER_SEPARATORS = np.array([ord(c) for c in ".,،٫⎖⎗⎘"], np.int64)

#: Scripts without spaces: first and last code point of their letters.
UNSPACED_RANGES = (
    (0x0E00, 0x0E7F),  # Thai
    (0x0E80, 0x0EFF),  # Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3041, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Chinese characters
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)

MAX_NGRAM = 16
NO_SHINGLE = np.uint32(0xFFFFFFFF)


class Permutations(NamedTuple):
    """The hash functions of a signature; both uint32 [permutations], multipliers odd."""

    multipliers: NDArray[np.uint32]
    increments: NDArray[np.uint32]


def permutations(count: int, seed: int = 1) -> Permutations:
    """Draws hash functions by SplitMix64 (Steele et al. 2014), the same on every machine and in every version."""
    numbers = np.fromiter(itertools.islice(_splitmix64(seed), 2 * count), np.uint32, 2 * count)
    return Permutations(numbers[:count] | np.uint32(1), numbers[count:])


def _splitmix64(seed: int) -> Iterator[int]:
    """Yields the upper 32 bits of SplitMix64's numbers."""
    mask = (1 << 64) - 1
    state = seed & mask
    while True:
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield (z ^ (z >> 31)) >> 32


class FoldTable(NamedTuple):
    """What each code point becomes when text is normalised."""

    folded: NDArray[np.uint32]  # [CODE_POINT_LIMIT]: a code point, BREAK, DROPPED, or EXPANDED | position
    expansions: NDArray[np.uint32]  # runs of code points, each ended by 0


@functools.cache
def fold_table() -> FoldTable:
    """Builds the table from the running Python's Unicode data, in about 0.1 s."""
    folded = np.arange(CODE_POINT_LIMIT, dtype=np.uint32)
    folded[0x110000:] = BREAK
    expansions: list[int] = [0]
    # Everything that may change; Hangul syllables are taken apart by arithmetic in `push_several`.
    ranges = (
        (0, 0x3400),
        (0xA000, 0xAC00),
        (0xD7A4, 0xD800),
        (0xF900, 0x20000),
        (0x2F800, 0x2FA20),
        (0xE0100, 0xE01F0),
    )
    changing = [code_point for first, end in ranges for code_point in range(first, end)]
    # One call for all, which is fast; a separator keeps the characters apart and each one without context.
    lowered = "\x01".join(map(chr, changing)).lower()
    decomposed = unicodedata.normalize("NFD", lowered).split("\x01")
    # The separator itself gives two empty pieces instead of one character.
    pieces = iter(decomposed)
    for code_point in changing:
        piece = next(pieces)
        if code_point == 1:
            next(pieces)
            continue
        if len(piece) == 1 and ord(piece) == code_point and unicodedata.category(piece) != "Mn":
            continue
        kept = [ord(c) for c in piece if unicodedata.category(c) != "Mn"]
        if not kept:
            folded[code_point] = DROPPED
        elif len(kept) == 1:
            folded[code_point] = kept[0]
        else:
            folded[code_point] = EXPANDED | len(expansions)
            expansions += [*kept, 0]
    folded[ord("ς")] = ord("σ")
    characters = np.arange(0x40000, dtype=np.uint32).view("U1")
    folded[:0x40000][np.strings.isspace(characters)] = BREAK
    folded[:0x40000][np.strings.isdecimal(characters)] = ZERO
    folded[[ord(c) for c in DATATROVE_PUNCTUATION]] = BREAK
    for first, last in UNSPACED_RANGES:
        block = folded[first : last + 1]
        block[(block != BREAK) & (block != ZERO) & (block < EXPANDED)] |= SINGLE
    table = FoldTable(folded, np.array(expansions, np.uint32))
    for array in table:
        array.flags.writeable = False
    return table


U64_0, U64_8 = np.uint64(0), np.uint64(8)
SHINGLE_MULTIPLIER = np.uint64(0xBF58476D1CE4E5B9)
S29, S32 = np.uint64(29), np.uint64(32)


@inlined
def push_byte(state: np.uint64, pending: np.uint64, size: int, byte: int) -> tuple[np.uint64, np.uint64, int]:
    """Appends a byte to the word that is being hashed: running hash, up to 8 bytes not yet mixed, bytes so far."""
    pending = (pending << U64_8) | np.uint64(byte)
    size += 1
    if size & 7 == 0:
        return mix(state, pending), U64_0, size
    return state, pending, size


@called
def push_wide(state: np.uint64, pending: np.uint64, size: int, code_point: int) -> tuple[np.uint64, np.uint64, int]:
    """Appends a character above U+00FF: three bytes, the first of which no character below has (they are controls)."""
    state, pending, size = push_byte(state, pending, size, 0x80 | (code_point >> 16))
    state, pending, size = push_byte(state, pending, size, (code_point >> 8) & 0xFF)
    return push_byte(state, pending, size, code_point & 0xFF)


@inlined
def push(state: np.uint64, pending: np.uint64, size: int, code_point: int) -> tuple[np.uint64, np.uint64, int]:
    """Appends a character."""
    if code_point < 256:
        return push_byte(state, pending, size, code_point)
    return push_wide(state, pending, size, code_point)


@called
def push_several(
    state: np.uint64, pending: np.uint64, size: int, code_point: int, value: int, expansions: NDArray[np.uint32]
) -> tuple[np.uint64, np.uint64, int]:
    """Appends what a character decomposes into: a Hangul syllable's letters, or an entry of the expansion table."""
    if 0xAC00 <= code_point <= 0xD7A3:
        syllable = code_point - 0xAC00
        state, pending, size = push(state, pending, size, 0x1100 + syllable // 588)
        state, pending, size = push(state, pending, size, 0x1161 + syllable % 588 // 28)
        if syllable % 28:
            state, pending, size = push(state, pending, size, 0x11A7 + syllable % 28)
        return state, pending, size
    at = value & CODE_POINT_BITS
    while expansions[at]:
        state, pending, size = push(state, pending, size, signed(expansions[at]))
        at += 1
    return state, pending, size


@called
def end_of_number(data: NDArray[np.uint8], i: int, stop: int, folded: NDArray[np.uint32]) -> int:
    """Returns where a number ends whose first digit ends at ``i``: digits, then perhaps one separator and digits."""
    separator = 0
    while i < stop:
        code_point, size = signed(data[i]), 1
        if code_point >= 128:
            code_point, size = decode(data, i, stop)
        if folded[code_point] == ZERO:
            i += size
            if separator == 1:
                separator = 2
            continue
        if separator == 0 and i + size < stop:
            for k in range(NUMBER_SEPARATORS.shape[0]):
                if NUMBER_SEPARATORS[k] == code_point:
                    following = signed(data[i + size])
                    if following >= 128:
                        following = decode(data, i + size, stop)[0]
                    if folded[following] == ZERO:
                        separator = 1
            if separator == 1:
                i += size
                continue
        return i
    return i


@called
def list_shingles(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    folded: NDArray[np.uint32],
    expansions: NDArray[np.uint32],
    ngram: int,
    oldest_power: np.uint64,
    last_words: NDArray[np.uint64],
    shingles: NDArray[np.uint32],
) -> int:
    """Writes the hashes of a text's shingles and returns how many there are.

    Args:
      oldest_power: `MULTIPLIER` to the power ``ngram``, which takes the oldest word out of the rolling hash.
      last_words: [ngram] scratch, a ring of word hashes.
    """
    num_words, num_shingles = 0, 0
    rolling = U64_0
    state, pending, size = U64_0, U64_0, 0
    i = start
    while True:
        single = False
        if i < stop:
            code_point, width = signed(data[i]), 1
            if code_point >= 128:
                code_point, width = decode(data, i, stop)
            value = signed(folded[code_point])
            ends = value == BREAK
            if not ends:
                single = value < EXPANDED and (value & SINGLE) != 0
                ends = single and size > 0
            if not ends:
                i += width
                if value == ZERO:
                    i = end_of_number(data, i, stop, folded)
                if value == DROPPED:
                    continue
                if value >= EXPANDED or 0xAC00 <= value <= 0xD7A3:
                    state, pending, size = push_several(state, pending, size, code_point, value, expansions)
                else:
                    state, pending, size = push(state, pending, size, value & CODE_POINT_BITS)
                if not single:
                    continue
            elif not single:
                i += width
        if size > 0:
            word = mix(mix(state, pending), np.uint64(size)) * FINAL_MULTIPLIER
            word ^= word >> S32
            state, pending, size = U64_0, U64_0, 0
            slot = num_words % ngram
            rolling = rolling * MULTIPLIER + word
            if num_words >= ngram:
                rolling -= last_words[slot] * oldest_power
            last_words[slot] = word
            num_words += 1
            if num_words >= ngram:
                shingle = (rolling ^ (rolling >> S29)) * SHINGLE_MULTIPLIER
                shingles[num_shingles] = np.uint32((shingle ^ (shingle >> S32)) & np.uint64(0xFFFFFFFF))
                num_shingles += 1
        if i >= stop and not single:
            return num_shingles


@called
def take_minima(
    shingles: NDArray[np.uint32],
    num_shingles: int,
    multipliers: NDArray[np.uint32],
    increments: NDArray[np.uint32],
    signature: NDArray[np.uint32],
) -> None:
    """Writes the minimum of every permutation; four shingles at a time, so that the minima stay in registers."""
    count = signature.shape[0]
    for k in range(count):
        signature[k] = NO_SHINGLE
    i = 0
    while i + 4 <= num_shingles:
        a, b, c, d = shingles[i], shingles[i + 1], shingles[i + 2], shingles[i + 3]
        for k in range(count):
            m, z = multipliers[k], increments[k]
            first = min(np.uint32(m * a + z), np.uint32(m * b + z))
            second = min(np.uint32(m * c + z), np.uint32(m * d + z))
            signature[k] = min(min(first, second), signature[k])
        i += 4
    while i < num_shingles:
        for k in range(count):
            signature[k] = min(np.uint32(multipliers[k] * shingles[i] + increments[k]), signature[k])
        i += 1


@kernel
def sign_texts(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    folded: NDArray[np.uint32],
    expansions: NDArray[np.uint32],
    multipliers: NDArray[np.uint32],
    increments: NDArray[np.uint32],
    ngram: int,
    signatures: NDArray[np.uint32],
    num_shingles: NDArray[np.int64],
) -> None:
    longest = 0
    for text in range(offsets.shape[0] - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    shingles = np.empty(longest + 1, np.uint32)
    last_words = np.zeros(ngram, np.uint64)
    oldest_power = np.uint64(1)
    for _ in range(ngram):
        oldest_power *= MULTIPLIER
    for text in range(offsets.shape[0] - 1):
        found = list_shingles(
            data, offsets[text], offsets[text + 1], folded, expansions, ngram, oldest_power, last_words, shingles
        )
        num_shingles[text] = found
        take_minima(shingles, found, multipliers, increments, signatures[text])


@kernel
def hash_bands(signatures: NDArray[np.uint32], rows: int, keys: NDArray[np.uint64]) -> None:
    for text in range(keys.shape[0]):
        for band in range(keys.shape[1]):
            state = np.uint64(band + 1) * MULTIPLIER
            for k in range(band * rows, band * rows + rows):
                state = mix(state, np.uint64(signatures[text, k]))
            state *= FINAL_MULTIPLIER
            keys[text, band] = state ^ (state >> S32)


class Signatures(NamedTuple):
    minima: NDArray[np.uint32]  # [texts, permutations]
    num_shingles: NDArray[np.int64]  # [texts]; 0 = fewer than `ngram` words: the signature says nothing


def minhash(texts: TextBuffers, functions: Permutations, *, ngram: int = 5) -> Signatures:
    """Returns the MinHash signature of every text.

    Texts with fewer than ``ngram`` words have no shingles; their signature is all ones and must not be compared (all
    such texts would be duplicates of each other): leave them to exact deduplication.
    """
    if not 1 <= ngram <= MAX_NGRAM:
        raise ValueError(f"ngram must be 1 to {MAX_NGRAM} words, got {ngram}")
    table = fold_table()
    minima = np.empty((texts.num_texts, len(functions.multipliers)), np.uint32)
    num_shingles = np.empty(texts.num_texts, np.int64)
    sign_texts(
        texts.data, texts.offsets, table.folded, table.expansions, functions.multipliers, functions.increments,
        ngram, minima, num_shingles,
    )  # fmt: skip
    return Signatures(minima, num_shingles)


def band_keys(minima: NDArray[np.uint32], *, bands: int, rows: int) -> NDArray[np.uint64]:
    """Hashes each band of ``rows`` minima: uint64 [texts, bands]. Texts that share a key are candidates.

    The band's number is part of the hash, so keys of different bands do not meet.
    """
    if minima.shape[1] != bands * rows:
        raise ValueError(f"{bands} bands of {rows} rows need {bands * rows} permutations, got {minima.shape[1]}")
    keys = np.empty((len(minima), bands), np.uint64)
    hash_bands(minima, rows, keys)
    return keys


def warm_up() -> None:
    """Compiles the kernels or loads them from the cache."""
    import polars as pl

    from dataeng.kernels.text import text_buffers

    signatures = minhash(text_buffers(pl.Series(["one two three"], dtype=pl.String)), permutations(4), ngram=2)
    band_keys(signatures.minima, bands=2, rows=2)
