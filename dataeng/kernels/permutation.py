"""The table-free shuffle of `dataeng.mixture.permutation`: a Feistel network with cycle walking, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import inlined, kernel

FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


@inlined
def finalize(value: np.uint64) -> np.uint64:
    """SplitMix64's finalizer: every input bit changes about half of the output bits."""
    value = (value ^ (value >> SHIFTS[0])) * FIRST
    value = (value ^ (value >> SHIFTS[1])) * SECOND
    return value ^ (value >> SHIFTS[2])


@kernel
def permute_positions(
    positions: NDArray[np.int64],
    size: int,
    half_bits: int,
    round_keys: NDArray[np.uint64],
    values: NDArray[np.int64],
) -> None:
    """Writes the permutation's value at each position; 4^half_bits must be at least ``size``."""
    half = np.uint64(half_bits)
    mask = (np.uint64(1) << half) - np.uint64(1)
    for i in range(len(positions)):
        value = np.uint64(positions[i])
        while True:
            left, right = value >> half, value & mask
            for k in range(len(round_keys)):
                left, right = right, left ^ (finalize(right ^ round_keys[k]) & mask)
            value = (left << half) | right
            if value < np.uint64(size):
                break
        values[i] = np.int64(value)


def warm_up() -> None:
    """Compiles the kernel on a tiny example."""
    permute_positions(np.arange(2), 2, 1, np.ones(2, np.uint64), np.empty(2, np.int64))
