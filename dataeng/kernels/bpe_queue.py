"""The queue of pairs to merge, the most frequent first: a heap with four children a node. See `bpe_merges`.

An entry is a pair and a range of words. Its count in the heap is the one of the time when it was queued; it is brought
up to date when the entry comes first. A pair may have several entries, each with words of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.bpe_pairs import LAST_WORD, NUM_WORDS, TIMES, pair_key, pair_slot
from dataeng.kernels.compiling import called, inlined
from dataeng.kernels.text import signed


@inlined
def comes_first(count: int, key: np.uint64, other_count: int, other_key: np.uint64) -> bool:
    return bool(count > other_count or (count == other_count and key < other_key))


@inlined
def sift_up(heap_counts: NDArray[np.int64], heap_keys: NDArray[np.uint64], heap: NDArray[np.int32], at: int) -> None:
    """Moves the last item of a heap with four children a node to its place."""
    count, key, item = heap_counts[at], heap_keys[at], heap[at]
    while at > 0:
        parent = (at - 1) >> 2
        if not comes_first(count, key, heap_counts[parent], heap_keys[parent]):
            break
        heap_counts[at], heap_keys[at], heap[at] = heap_counts[parent], heap_keys[parent], heap[parent]
        at = parent
    heap_counts[at], heap_keys[at], heap[at] = count, key, item


@inlined
def sift_down(
    heap_counts: NDArray[np.int64], heap_keys: NDArray[np.uint64], heap: NDArray[np.int32], size: int
) -> None:
    """Moves the first item of a heap to its place."""
    count, key, item = heap_counts[0], heap_keys[0], heap[0]
    at = 0
    while True:
        child = 4 * at + 1
        if child >= size:
            break
        best = child
        for other in range(child + 1, min(child + 4, size)):
            if comes_first(heap_counts[other], heap_keys[other], heap_counts[best], heap_keys[best]):
                best = other
        if not comes_first(heap_counts[best], heap_keys[best], count, key):
            break
        heap_counts[at], heap_keys[at], heap[at] = heap_counts[best], heap_keys[best], heap[best]
        at = best
    heap_counts[at], heap_keys[at], heap[at] = count, key, item


@called
def next_pair(
    heap_counts: NDArray[np.int64],
    heap_keys: NDArray[np.uint64],
    heap: NDArray[np.int32],
    entries: NDArray[np.int64],
    pair_counts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    min_frequency: int,
) -> int:
    """Takes the next entry off the queue, counts brought up to date, and returns its number; -1 at the end.

    Its key is left in ``heap_keys`` behind the last item.
    """
    while sizes[0] > 0:
        entry = signed(heap[0])
        now = pair_counts[entries[entry, 0]]
        if heap_counts[0] != now:
            heap_counts[0] = now
            sift_down(heap_counts, heap_keys, heap, sizes[0])
            continue
        if now < max(1, min_frequency):
            return -1
        last = sizes[0] - 1
        key = heap_keys[0]
        heap_counts[0], heap_keys[0], heap[0] = heap_counts[last], heap_keys[last], heap[last]
        sift_down(heap_counts, heap_keys, heap, last)
        heap_keys[last] = key
        sizes[0] = last
        return entry
    return -1


@called
def push_entries(
    new: int,
    num_positions: int,
    neighbours: NDArray[np.int64],
    touched: NDArray[np.int32],
    num_touched: NDArray[np.int64],
    keys: NDArray[np.uint64],
    pairs: NDArray[np.int32],
    pair_counts: NDArray[np.int64],
    heap_counts: NDArray[np.int64],
    heap_keys: NDArray[np.uint64],
    heap: NDArray[np.int32],
    entries: NDArray[np.int64],
    sizes: NDArray[np.int64],
) -> int:
    """Queues the pairs that a merge made and clears ``neighbours``, but for where the words of each will go.

    Returns how many places are taken then.
    """
    for side in range(2):
        for t in range(num_touched[side]):
            x = signed(touched[side, t])
            num_words = neighbours[side, x, NUM_WORDS]
            neighbours[side, x, TIMES] = 0
            neighbours[side, x, LAST_WORD] = 0
            neighbours[side, x, NUM_WORDS] = num_positions
            if num_words == 0:
                continue
            key = pair_key(x, new) if side == 0 else pair_key(new, x)
            pair = pairs[pair_slot(keys, key)]
            if pair_counts[pair] > 0:
                size, entry = sizes[0], sizes[1]
                entries[entry, 0], entries[entry, 1], entries[entry, 2] = pair, num_positions, num_positions + num_words
                heap_counts[size], heap_keys[size], heap[size] = pair_counts[pair], key, entry
                sift_up(heap_counts, heap_keys, heap, size)
                sizes[0] += 1
                sizes[1] += 1
            num_positions += num_words
    return num_positions
