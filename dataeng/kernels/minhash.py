"""MinHash signatures of a column of texts, and their LSH band keys.

Broder (1997), *On the resemblance and containment of documents*. A text's shingles are hashed (`kernels.shingles`),
permuted by ``multiplier * shingle + increment`` modulo 2^32 or 2^64, and the minimum of each permutation is kept. The
share of equal minima of two texts estimates the Jaccard similarity of their sets of shingles.

With 32 bits, sets of some 10 million shingles and more begin to look more alike than they are, because shingles collide
(two sets of n shingles, none in common, share about n / 2^32 of theirs); with 64 bits no set is large enough.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, kernel
from dataeng.kernels.folding import Normalization, Unit, fold_table, normalise
from dataeng.kernels.shingles import (
    CHUNK,
    carry,
    check_shingling,
    list_elements,
    listing_of,
    power_of,
    roll,
)  # fmt: skip
from dataeng.kernels.text import FINAL_MULTIPLIER, MULTIPLIER, TextBuffers, mix

S32 = np.uint64(32)


class Permutations(NamedTuple):
    """The hash functions of a signature; both uint32 or both uint64 [permutations], multipliers odd."""

    multipliers: NDArray[Any]
    increments: NDArray[Any]


def permutations(count: int, seed: int = 1, bits: Literal[32, 64] = 32) -> Permutations:
    """Draws hash functions by SplitMix64 (Steele et al. 2014), the same on every machine and in every version."""
    if bits not in (32, 64):
        raise ValueError(f"bits must be 32 or 64, got {bits}")
    numbers = np.fromiter(itertools.islice(_splitmix64(seed), 2 * count), np.uint64, 2 * count)
    if bits == 32:
        numbers = (numbers >> S32).astype(np.uint32)
    return Permutations(numbers[:count] | numbers.dtype.type(1), numbers[count:])


def _splitmix64(seed: int) -> Iterator[int]:
    mask = (1 << 64) - 1
    state = seed & mask
    while True:
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield z ^ (z >> 31)


@called
def take_minima(
    shingles: NDArray[Any], first: int, end: int, multipliers: NDArray[Any], increments: NDArray[Any],
    signature: NDArray[Any],
) -> None:  # fmt: skip
    """Lowers the minimum of every permutation by ``shingles[first:end]``.

    All arrays are of uint32, or all of uint64. Eight shingles at a time, so that a minimum is loaded and stored once
    for eight; the loop over permutations compiles to vector multiplications and minima.
    """
    count = signature.shape[0]
    number = signature.dtype.type
    i = first
    while i + 8 <= end:
        s0, s1, s2, s3 = shingles[i], shingles[i + 1], shingles[i + 2], shingles[i + 3]
        s4, s5, s6, s7 = shingles[i + 4], shingles[i + 5], shingles[i + 6], shingles[i + 7]
        for k in range(count):
            m, z = multipliers[k], increments[k]
            low = min(min(number(m * s0 + z), number(m * s1 + z)), min(number(m * s2 + z), number(m * s3 + z)))
            high = min(min(number(m * s4 + z), number(m * s5 + z)), min(number(m * s6 + z), number(m * s7 + z)))
            signature[k] = min(min(low, high), signature[k])
        i += 8
    while i < end:
        for k in range(count):
            signature[k] = min(number(multipliers[k] * shingles[i] + increments[k]), signature[k])
        i += 1


@kernel
def sign_texts(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    folded: NDArray[np.uint32],
    expansions: NDArray[np.uint32],
    listing: int,
    multipliers: NDArray[Any],
    increments: NDArray[Any],
    ngram: int,
    signatures: NDArray[Any],
    num_shingles: NDArray[np.int64],
) -> None:
    elements = np.zeros(ngram + CHUNK, np.uint64)
    shingles = np.zeros(CHUNK, signatures.dtype)
    oldest_power = power_of(ngram)
    for text in range(offsets.shape[0] - 1):
        i, stop = offsets[text], offsets[text + 1]
        elements[:ngram] = 0
        rolling = np.uint64(0)
        missing = ngram - 1  # elements before the first shingle is whole
        found = 0
        while i < stop:
            i, end = list_elements(data, i, stop, folded, expansions, listing, elements, ngram)
            rolling = roll(elements, ngram, end, rolling, oldest_power, shingles, 0)
            listed = end - ngram
            skipped = min(missing, listed)
            take_minima(shingles, skipped, listed, multipliers, increments, signatures[text])
            missing -= skipped
            found += listed - skipped
            carry(elements, ngram, end)
        num_shingles[text] = found


@kernel
def hash_bands(signatures: NDArray[Any], rows: int, keys: NDArray[np.uint64]) -> None:
    for text in range(keys.shape[0]):
        for band in range(keys.shape[1]):
            state = np.uint64(band + 1) * MULTIPLIER
            for k in range(band * rows, band * rows + rows):
                state = mix(state, np.uint64(signatures[text, k]))
            state *= FINAL_MULTIPLIER
            keys[text, band] = state ^ (state >> S32)


class Signatures(NamedTuple):
    minima: NDArray[Any]  # uint32 or uint64 [texts, permutations]
    num_shingles: NDArray[np.int64]  # [texts], repeated ones counted again; 0 = too short: the signature says nothing


def minhash(
    texts: TextBuffers,
    functions: Permutations,
    *,
    ngram: int = 5,
    unit: Unit = "words",
    normalization: Normalization = "simplified",
) -> Signatures:
    """Returns the MinHash signature of every text.

    Texts with fewer than ``ngram`` words (or characters) have no shingles; their signature is all ones and must not be
    compared (all such texts would be duplicates of each other): leave them to exact deduplication.

    Memory besides the result is some 20 kB, with ``unit="characters"`` as much again as the texts.

    Args:
      functions: their type, uint32 or uint64, is that of the signatures.
      ngram: words or characters per shingle.
      unit: what a shingle is made of. Characters are those of the normalised text, a single space between words.
      normalization: see `dataeng.kernels.folding`.
    """
    check_shingling(ngram, unit)
    table = fold_table(normalization)
    if unit == "characters":
        texts = normalise(texts, normalization, unit)
    multipliers, increments = functions
    # All ones, which any permuted shingle is below or equal to.
    minima = np.full((texts.num_texts, len(multipliers)), ~multipliers.dtype.type(0), multipliers.dtype)
    num_shingles = np.empty(texts.num_texts, np.int64)
    sign_texts(
        texts.data, texts.offsets, table.folded, table.expansions, listing_of(table, unit), multipliers, increments,
        ngram, minima, num_shingles,
    )  # fmt: skip
    return Signatures(minima, num_shingles)


def band_keys(minima: NDArray[Any], *, bands: int, rows: int) -> NDArray[np.uint64]:
    """Hashes each band of ``rows`` minima: uint64 [texts, bands]. Texts that share a key are candidates.

    The band's number is part of the hash, so keys of different bands do not meet. Minima after the last band, which
    `lsh_parameters.datasketch_parameters` may leave over, are not looked at.
    """
    if minima.shape[1] < bands * rows:
        raise ValueError(f"{bands} bands of {rows} rows need {bands * rows} permutations, got {minima.shape[1]}")
    keys = np.empty((len(minima), bands), np.uint64)
    hash_bands(minima, rows, keys)
    return keys


def warm_up() -> None:
    """Compiles the kernels or loads them from the cache."""
    import polars as pl

    from dataeng.kernels.text import text_buffers

    texts = text_buffers(pl.Series(["one two three"], dtype=pl.String))
    for functions in (permutations(4), permutations(4, bits=64)):
        band_keys(minhash(texts, functions, ngram=2).minima, bands=2, rows=2)
    normalise(texts)
