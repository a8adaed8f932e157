"""A shuffle without a table: position i of a permutation of [0, size) computed in O(1) memory.

A balanced Feistel network over the smallest even number of bits that holds ``size`` is a bijection of [0, 4^b);
values outside [0, size) are sent through it again until they fall inside (cycle walking), which keeps it a bijection.
Fewer than four passes are expected. The round function is SplitMix64's finalizer (Steele et al., OOPSLA 2014).
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np
import numpy.typing as npt

NUM_ROUNDS = 6
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def permutation_key(seed: int, name: str, epoch: int) -> int:
    """Returns the 64-bit key of one epoch of one domain. Other domains of a mixture have no influence on it."""
    digest = hashlib.blake2b(f"{seed}\0{name}\0{epoch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def permute(positions: npt.NDArray[np.int64], size: int, key: int) -> npt.NDArray[np.int64]:
    """Returns the permutation's values, int64, at ``positions`` (each in [0, size))."""
    from dataeng.kernels.permutation import permute_positions

    half_bits = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    values = np.empty(len(positions), np.int64)
    permute_positions(np.ascontiguousarray(positions, np.int64), size, half_bits, _round_keys(key), values)
    return values


@functools.lru_cache(4096)
def _round_keys(key: int) -> npt.NDArray[np.uint64]:
    """SplitMix64's first outputs from ``key`` on. Products wrap around by design."""
    values = np.uint64(key) + _GOLDEN * np.arange(1, NUM_ROUNDS + 1, dtype=np.uint64)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))
