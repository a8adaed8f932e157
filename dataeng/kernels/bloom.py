"""Bloom filters over 64-bit keys (Bloom 1970): sets that never miss a key and now and then claim one too many.

The places of a key's bits come from enhanced double hashing (Dillinger and Manolios 2004), which behaves like
independent hash functions. With m bits, k hashes and n keys in it, a filter claims a key that is not in it with
probability (1 - exp(-k n / m))^k.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import inlined, kernel
from dataeng.kernels.hashing import final_mix

SECOND_HASH = np.uint64(0x9E3779B97F4A7C15)
ONE, SIX, WORD_MASK = np.uint64(1), np.uint64(6), np.uint64(63)


def bits_needed(num_keys: int, rate: float) -> int:
    """Returns the least number of bits with which ``num_keys`` keys have a false-positive rate of ``rate``."""
    return max(64, math.ceil(-num_keys * math.log(rate) / math.log(2) ** 2))


def expected_rate(num_bits: int, num_hashes: int, num_keys: int) -> float:
    """Returns the probability that a key that is not in a filter is said to be."""
    return float((1.0 - math.exp(-num_hashes * num_keys / num_bits)) ** num_hashes)


@inlined
def first_hashes(key: np.uint64) -> tuple[np.uint64, np.uint64]:
    return final_mix(key), final_mix(key ^ SECOND_HASH)


@kernel
def insert_kernel(keys: NDArray[np.uint64], words: NDArray[np.uint64], num_bits: np.uint64, num_hashes: int) -> None:
    for i in range(keys.shape[0]):
        place, step = first_hashes(keys[i])
        for j in range(num_hashes):
            bit = place % num_bits
            words[bit >> SIX] |= ONE << (bit & WORD_MASK)
            place += step
            step += np.uint64(j + 1)


@kernel
def contains_kernel(
    keys: NDArray[np.uint64], words: NDArray[np.uint64], num_bits: np.uint64, num_hashes: int, found: NDArray[np.bool_]
) -> None:
    for i in range(keys.shape[0]):
        place, step = first_hashes(keys[i])
        inside = True
        for j in range(num_hashes):
            bit = place % num_bits
            if not words[bit >> SIX] & (ONE << (bit & WORD_MASK)):
                inside = False
                break
            place += step
            step += np.uint64(j + 1)
        found[i] = inside


class BloomFilter:
    """A set of 64-bit keys in as few bits as a false-positive rate allows."""

    def __init__(self, num_keys: int, rate: float) -> None:
        """Makes an empty filter for up to ``num_keys`` keys, 0 < ``rate`` < 1."""
        if not 0 < rate < 1:
            raise ValueError(f"a false-positive rate is between 0 and 1, got {rate}")
        self.num_bits = bits_needed(num_keys, rate)
        self.num_hashes = max(1, round(self.num_bits / max(num_keys, 1) * math.log(2)))
        if num_keys < 64:  # the least size allows for more hashes than anybody needs
            self.num_hashes = min(self.num_hashes, math.ceil(-math.log2(rate)))
        self.words = np.zeros((self.num_bits + 63) // 64, np.uint64)

    def insert(self, keys: NDArray[np.uint64]) -> None:
        """Adds keys."""
        insert_kernel(keys, self.words, np.uint64(self.num_bits), self.num_hashes)

    def contains(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Returns for each key whether it is in the filter; a wrong answer is always True."""
        found = np.empty(len(keys), np.bool_)
        contains_kernel(keys, self.words, np.uint64(self.num_bits), self.num_hashes, found)
        return found


def warm_up() -> None:
    """Compiles the kernels or loads them from the cache."""
    filter_ = BloomFilter(1, 0.01)
    filter_.insert(np.ones(1, np.uint64))
    filter_.contains(np.ones(1, np.uint64))
