"""Stable 128-bit hashes of text contents, for exact deduplication and for tables that are kept.

The algorithm is MurmurHash3_x64_128 by Austin Appleby (public domain, github.com/aappleby/smhasher), with seed 0 unless
one is given, so that any other implementation gives the same numbers: ``mmh3.hash64(text, signed=False)`` returns
``(high, low)`` as here. It is not cryptographic: who wants to can make two texts with the same hash.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import inlined, kernel
from dataeng.kernels.text import TextBuffers, load64

C1 = np.uint64(0x87C37B91114253D5)
C2 = np.uint64(0x4CF5AD432745937F)
FMIX_1 = np.uint64(0xFF51AFD7ED558CCD)
FMIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
ADD_1 = np.uint64(0x52DCE729)
ADD_2 = np.uint64(0x38495AB5)
FIVE = np.uint64(5)
S27, S31, S33, S64 = np.uint64(27), np.uint64(31), np.uint64(33), np.uint64(64)


@inlined
def rotate_left(value: np.uint64, bits: np.uint64) -> np.uint64:
    return (value << bits) | (value >> (S64 - bits))


@inlined
def final_mix(value: np.uint64) -> np.uint64:
    value ^= value >> S33
    value *= FMIX_1
    value ^= value >> S33
    value *= FMIX_2
    return value ^ (value >> S33)


@inlined
def load_tail(data: NDArray[np.uint8], start: int, size: int) -> np.uint64:
    """Reads at most 8 bytes as a little-endian number."""
    value = np.uint64(0)
    for j in range(min(size, 8)):
        value |= np.uint64(data[start + j]) << np.uint64(8 * j)
    return value


@kernel
def hash_texts_kernel(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], seed: np.uint64, hashes: NDArray[np.uint64]
) -> None:
    for text in range(offsets.shape[0] - 1):
        start, stop = offsets[text], offsets[text + 1]
        size = stop - start
        high, low = seed, seed
        i = start
        while i + 16 <= stop:
            high ^= rotate_left(load64(data, i) * C1, S31) * C2
            high = (rotate_left(high, S27) + low) * FIVE + ADD_1
            low ^= rotate_left(load64(data, i + 8) * C2, S33) * C1
            low = (rotate_left(low, S31) + high) * FIVE + ADD_2
            i += 16
        rest = stop - i
        if rest > 8:
            low ^= rotate_left(load_tail(data, i + 8, rest - 8) * C2, S33) * C1
        if rest > 0:
            high ^= rotate_left(load_tail(data, i, rest) * C1, S31) * C2
        high ^= np.uint64(size)
        low ^= np.uint64(size)
        high += low
        low += high
        high = final_mix(high)
        low = final_mix(low)
        high += low
        low += high
        hashes[0, text] = high
        hashes[1, text] = low


def hash_texts(texts: TextBuffers, seed: int = 0) -> NDArray[np.uint64]:
    """Returns a 128-bit hash of the UTF-8 bytes of every text: uint64 [2, texts], the high halves first.

    Args:
      seed: 32 bits, as in the reference implementation.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be a 32-bit number, got {seed}")
    hashes = np.empty((2, texts.num_texts), np.uint64)
    hash_texts_kernel(texts.data, texts.offsets, np.uint64(seed), hashes)
    return hashes


def warm_up() -> None:
    """Compiles the kernel or loads it from the cache."""
    import polars as pl

    from dataeng.kernels.text import text_buffers

    hash_texts(text_buffers(pl.Series(["warm"], dtype=pl.String)))
