"""Sets of byte positions as bits, 64 to a word: the memory of kernels that must not take more than the text itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, inlined
from dataeng.kernels.text import lowest_bit, signed

ZERO, ONE, SIX, LOW_SIX = np.uint64(0), np.uint64(1), np.uint64(6), np.uint64(63)


@inlined
def bitmap_words(num_bits: int) -> int:
    """Returns how many uint64 a bitmap of positions up to and including ``num_bits`` takes."""
    return num_bits // 64 + 1


@inlined
def set_bit(bits: NDArray[np.uint64], i: int) -> None:
    bits[i >> 6] |= ONE << (np.uint64(i) & LOW_SIX)


@inlined
def has_bit(bits: NDArray[np.uint64], i: int) -> bool:
    return bool((bits[i >> 6] >> (np.uint64(i) & LOW_SIX)) & ONE)


@inlined
def write_bit(bits: NDArray[np.uint64], i: int, value: bool) -> None:
    mask = ONE << (np.uint64(i) & LOW_SIX)
    if value:
        bits[i >> 6] |= mask
    else:
        bits[i >> 6] &= ~mask


@inlined
def next_bit(bits: NDArray[np.uint64], i: int, stop: int) -> int:
    """Returns the first position from ``i`` on that is in the set, or ``stop``."""
    if i >= stop:
        return stop
    word = bits[i >> 6] >> (np.uint64(i) & LOW_SIX)
    if word != ZERO:
        return min(stop, i + signed(lowest_bit(word)))
    return next_bit_in_later_words(bits, (i >> 6) + 1, stop)


@called
def next_bit_in_later_words(bits: NDArray[np.uint64], index: int, stop: int) -> int:
    while index << 6 < stop:
        if bits[index] != ZERO:
            return min(stop, (index << 6) + signed(lowest_bit(bits[index])))
        index += 1
    return stop


@called
def clear_bits(bits: NDArray[np.uint64], num_bits: int) -> None:
    """Empties the set of positions up to and including ``num_bits``."""
    for index in range(num_bits // 64 + 1):
        bits[index] = ZERO
