"""Pairs of neighbouring symbols: the table that counts them, and the words that each is in. See `bpe_merges`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.text import MULTIPLIER, U32, signed

#: Columns of what is noted about a pair, and, in `bpe_merges`, about a symbol beside the pair that is merged.
TIMES, LAST_WORD, NUM_WORDS = 0, 1, 2


@inlined
def pair_slot(keys: NDArray[np.uint64], key: np.uint64) -> int:
    """Returns where in the table a pair is, or would be. A key is never 0, which marks an empty slot."""
    mask = np.uint64(keys.shape[0] - 1)
    value = key * MULTIPLIER
    slot = (value ^ (value >> U32)) & mask
    while keys[slot] != key and keys[slot] != np.uint64(0):
        slot = (slot + np.uint64(1)) & mask
    return signed(slot)


@inlined
def pair_key(left: int, right: int) -> np.uint64:
    """Packs a pair so that keys have the order of pairs, and none is 0."""
    return (np.uint64(left + 1) << U32) | np.uint64(right)


@called
def rehash(
    keys: NDArray[np.uint64], pairs: NDArray[np.int32], old_keys: NDArray[np.uint64], old: NDArray[np.int32]
) -> None:
    for slot in range(old_keys.shape[0]):
        if old_keys[slot] != np.uint64(0):
            place = pair_slot(keys, old_keys[slot])
            keys[place] = old_keys[slot]
            pairs[place] = old[slot]


@called
def count_pairs(
    word: int,
    symbols: NDArray[np.int32],
    offsets: NDArray[np.int64],
    counts: NDArray[np.int64],
    keys: NDArray[np.uint64],
    pairs: NDArray[np.int32],
    pair_keys: NDArray[np.uint64],
    found: NDArray[np.int64],
    of_window: NDArray[np.int32],
    num_pairs: NDArray[np.int64],
) -> int:
    """Counts the pairs of words from ``word`` on, until ``found`` may be too small; returns the next word.

    Args:
      found: per pair its count, the last word it was in, plus 1, and the number of words; int64 [capacity, 3].
      of_window: gets the pair that starts at each symbol, -1 where the word has had it before.
    """
    while word < counts.shape[0] and num_pairs[0] + offsets[word + 1] - offsets[word] <= found.shape[0]:
        for i in range(offsets[word], offsets[word + 1] - 1):
            key = pair_key(symbols[i], symbols[i + 1])
            slot = pair_slot(keys, key)
            if keys[slot] == np.uint64(0):
                keys[slot] = key
                pairs[slot] = num_pairs[0]
                pair_keys[num_pairs[0]] = key
                num_pairs[0] += 1
            pair = pairs[slot]
            found[pair, TIMES] += counts[word]
            of_window[i] = -1
            if found[pair, LAST_WORD] != word + 1:
                found[pair, LAST_WORD] = word + 1
                found[pair, NUM_WORDS] += 1
                of_window[i] = pair
        word += 1
    return word


@called
def sort_words(
    offsets: NDArray[np.int64], of_window: NDArray[np.int32], places: NDArray[np.int64], words: NDArray[np.int32]
) -> None:
    """Writes the words of every pair to where ``places`` says that they begin."""
    for word in range(offsets.shape[0] - 1):
        for i in range(offsets[word], offsets[word + 1] - 1):
            pair = of_window[i]
            if pair >= 0:
                words[places[pair]] = word
                places[pair] += 1


@kernel
def first_pairs_kernel(
    symbols: NDArray[np.int32], offsets: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[
    NDArray[np.uint64], NDArray[np.int32], NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]
]:
    """Returns the table of pairs (keys, pair numbers); per pair its key, count and first place; the words of each."""
    keys, pairs = np.zeros(1 << 16, np.uint64), np.zeros(1 << 16, np.int32)
    pair_keys, found = np.zeros(1 << 15, np.uint64), np.zeros((1 << 15, 3), np.int64)
    of_window = np.empty(symbols.shape[0], np.int32)
    num = np.zeros(1, np.int64)
    word = 0
    while True:
        word = count_pairs(word, symbols, offsets, counts, keys, pairs, pair_keys, found, of_window, num)
        if word == counts.shape[0]:
            break
        more = found.shape[0] + offsets[word + 1] - offsets[word]
        pair_keys = np.concatenate((pair_keys, np.zeros(more, np.uint64)))
        found = np.concatenate((found, np.zeros((more, 3), np.int64)))
        size = keys.shape[0]
        while size < 2 * found.shape[0]:
            size *= 2
        old_keys, old_pairs = keys, pairs
        keys, pairs = np.zeros(size, np.uint64), np.zeros(size, np.int32)
        rehash(keys, pairs, old_keys, old_pairs)
    num_pairs = num[0]
    firsts = np.zeros(num_pairs + 1, np.int64)
    for pair in range(num_pairs):
        firsts[pair + 1] = firsts[pair] + found[pair, NUM_WORDS]
    words = np.empty(firsts[num_pairs], np.int32)
    sort_words(offsets, of_window, firsts[:num_pairs].copy(), words)
    return keys, pairs, pair_keys[:num_pairs], found[:num_pairs, TIMES].copy(), firsts, words
