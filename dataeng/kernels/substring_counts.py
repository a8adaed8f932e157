"""Counting the substrings of words, shortest first, into a trie: the seeds of a Unigram vocabulary (see `unigram`).

A substring can only be frequent if it is so without its last symbol. So each length looks only at places where the
length before was frequent, and memory goes by what is frequent.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.bpe_pairs import pair_key, pair_slot
from dataeng.kernels.compiling import called, kernel
from dataeng.kernels.text import signed

LONGEST = 16


class Trie(NamedTuple):
    """Frequent substrings: node ``i < num_symbols`` is symbol ``i`` alone, every other its parent's with one more.

    ``parents``, ``symbols`` and ``lengths`` are int32 [nodes], ``counts`` int64 [nodes].
    """

    parents: NDArray[np.int32]
    symbols: NDArray[np.int32]
    counts: NDArray[np.int64]
    lengths: NDArray[np.int32]


@called
def extend(
    length: int,
    symbols: NDArray[np.int32],
    offsets: NDArray[np.int64],
    counts: NDArray[np.int64],
    nodes: NDArray[np.int32],
    keys: NDArray[np.uint64],
    found: NDArray[np.int32],
    found_keys: NDArray[np.uint64],
    found_counts: NDArray[np.int64],
) -> int:
    """Counts every frequent substring of ``length`` with the symbol behind it; returns how many there are.

    ``nodes`` has, per place, the node of the substring that begins there, or -1; it gets the new substring's number.
    """
    num_found = 0
    for word in range(counts.shape[0]):
        for i in range(offsets[word], offsets[word + 1]):
            if nodes[i] < 0 or i + length >= offsets[word + 1]:
                nodes[i] = -1
                continue
            key = pair_key(signed(nodes[i]), signed(symbols[i + length]))
            slot = pair_slot(keys, key)
            if keys[slot] == np.uint64(0):
                keys[slot] = key
                found[slot] = num_found
                found_keys[num_found] = key
                found_counts[num_found] = 0
                num_found += 1
            found_counts[found[slot]] += counts[word]
            nodes[i] = found[slot]
    return num_found


@called
def rename(nodes: NDArray[np.int32], names: NDArray[np.int32]) -> int:
    """Replaces the numbers that `extend` has given out by those of the trie, -1 where a substring is not in it.

    Returns how many places are left.
    """
    left = 0
    for i in range(nodes.shape[0]):
        if nodes[i] >= 0:
            nodes[i] = names[nodes[i]]
            left += nodes[i] >= 0
    return left


@kernel
def extend_kernel(
    length: int,
    left: int,
    symbols: NDArray[np.int32],
    offsets: NDArray[np.int64],
    counts: NDArray[np.int64],
    nodes: NDArray[np.int32],
    first: int,
    min_count: int,
) -> tuple[NDArray[np.uint64], NDArray[np.int64], int]:
    size = 16
    while size < 2 * left:
        size *= 2
    keys, found = np.zeros(size, np.uint64), np.zeros(size, np.int32)
    found_keys, found_counts = np.zeros(left, np.uint64), np.zeros(left, np.int64)
    num = extend(length, symbols, offsets, counts, nodes, keys, found, found_keys, found_counts)
    names = np.full(num, -1, np.int32)
    kept = 0
    for i in range(num):
        if found_counts[i] >= min_count:
            names[i] = first + kept
            found_keys[kept], found_counts[kept] = found_keys[i], found_counts[i]
            kept += 1
    return found_keys[:kept], found_counts[:kept], rename(nodes, names)


def frequent_substrings(
    symbols: NDArray[np.int32],
    offsets: NDArray[np.int64],
    counts: NDArray[np.int64],
    num_symbols: int,
    longest: int = LONGEST,
    min_count: int = 2,
) -> Trie:
    """Returns all substrings of at most ``longest`` symbols that are there ``min_count`` times, and all symbols.

    Args:
      symbols, offsets, counts: words, as `dataeng.kernels.bpe_merges.Words`.
      num_symbols: symbols are below this.
    """
    nodes = symbols.copy()
    every = np.arange(num_symbols, dtype=np.int32)
    in_words = np.bincount(symbols, weights=np.repeat(counts, np.diff(offsets)), minlength=num_symbols)
    levels = [
        Trie(np.full(num_symbols, -1, np.int32), every, in_words.astype(np.int64), np.ones(num_symbols, np.int32))
    ]
    first, left = num_symbols, len(nodes)
    for length in range(1, longest):
        keys, found, left = extend_kernel(length, left, symbols, offsets, counts, nodes, first, min_count)
        if len(keys) == 0:
            break
        parents = ((keys >> np.uint64(32)) - np.uint64(1)).astype(np.int32)
        added = (keys & np.uint64(0xFFFFFFFF)).astype(np.int32)
        levels.append(Trie(parents, added, found.copy(), np.full(len(keys), length + 1, np.int32)))
        first += len(keys)
    return Trie(*(np.concatenate(column) for column in zip(*levels, strict=True)))
