"""How many different words a text has, and the entropy of their frequencies."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, inlined
from dataeng.kernels.extended_characters import SPACE
from dataeng.kernels.repetition import part_of
from dataeng.kernels.text import clear_table, decode, hash_bytes, largest_table, signed

SHIFT = np.uint64(20)
ONE = np.uint64(1)


@inlined
def note_word(table: NDArray[np.uint64], counts: NDArray[np.int32], mask: np.uint64, value: np.uint64) -> int:
    """Counts a word; returns 1 if it is new."""
    slot = (value >> SHIFT) & mask
    while True:
        found = table[slot]
        if found == 0:
            table[slot] = value
            counts[slot] = 1
            return 1
        if found == value:
            counts[slot] += 1
            return 0
        slot = (slot + ONE) & mask


@called
def sum_of_n_log_n(table: NDArray[np.uint64], counts: NDArray[np.int32], mask: np.uint64) -> float:
    """Returns the sum of n ln n over the numbers of occurrences n of all words."""
    total = 0.0
    for slot in range(signed(mask) + 1):
        if table[slot] != 0:
            total += counts[slot] * math.log(counts[slot])
    return total


@called
def count_listed_words(
    word_hash: NDArray[np.uint64], num_words: int, table: NDArray[np.uint64], counts: NDArray[np.int32]
) -> tuple[int, float]:
    """Returns how many of the words differ, and `sum_of_n_log_n`."""
    mask = clear_table(table, num_words)
    unique = 0
    for i in range(num_words):
        unique += note_word(table, counts, mask, word_hash[i])
    return unique, sum_of_n_log_n(table, counts, mask)


@called
def count_words_of_long_text(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    classes: NDArray[np.uint32],
    table: NDArray[np.uint64],
    counts: NDArray[np.int32],
) -> tuple[int, float]:
    """As `count_listed_words`, without a list: in as many passes over the text as the table needs."""
    slots = largest_table(table)
    num_parts, part, unique, total = 1, 0, 0, 0.0
    while part < num_parts:
        mask = clear_table(table, slots // 2)
        found = count_part(data, start, stop, classes, table, counts, mask, part, num_parts)
        if found < 0:
            num_parts, part, unique, total = 2 * num_parts, 0, 0, 0.0
            continue
        unique += found
        total += sum_of_n_log_n(table, counts, mask)
        part += 1
    return unique, total


@called
def count_part(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    classes: NDArray[np.uint32],
    table: NDArray[np.uint64],
    counts: NDArray[np.int32],
    mask: np.uint64,
    part: int,
    num_parts: int,
) -> int:
    """Counts the words whose hash is in one of ``num_parts`` ranges; returns how many differ, or -1 if too many do."""
    limit = (signed(mask) + 1) * 3 // 4
    unique, i = 0, start
    while i < stop:
        word = i
        code_point, size = signed(data[i]), 1
        while True:
            if code_point >= 128:
                code_point, size = decode(data, i, stop)
            if classes[code_point] & SPACE:
                break
            i += size
            if i >= stop:
                break
            code_point, size = signed(data[i]), 1
        if i > word:
            value = hash_bytes(data, word, i)
            if num_parts == 1 or part_of(value, num_parts) == part:
                unique += note_word(table, counts, mask, value)
                if unique > limit:
                    return -1
        i += size
    return unique
