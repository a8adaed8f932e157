"""SimHash fingerprints of texts, and which of them are near each other.

Charikar (2002), *Similarity estimation techniques from rounding algorithms*: every feature of a text is hashed to
64 bits, and bit b of the fingerprint is what most features have there, each counted as often as it occurs. Two
texts with a small angle between their feature counts differ in few bits.

Manku, Jain and Das Sarma (2007), *Detecting near-duplicates for web crawling*: cut the 64 bits into blocks;
fingerprints that differ in at most k bits agree in all but k of the blocks. So for every choice of k blocks, those
that agree in the other ones share a key, and only they are compared.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.hashing import final_mix
from dataeng.kernels.text import MULTIPLIER, TextBuffers, decode, signed

NUM_BITS = 64
MAX_NGRAM = 64
MAX_TABLES = 1000
SPACE = 32
FNV_START = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)
ONE = np.uint64(1)
ODD_BITS = np.uint64(0x5555555555555555)
PAIRS_OF_BITS = np.uint64(0x3333333333333333)
LOW_NIBBLES = np.uint64(0x0F0F0F0F0F0F0F0F)
BYTE_SUM = np.uint64(0x0101010101010101)
S1, S2, S4, S56 = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)

Unit = Literal["words", "characters"]


class Fingerprints(NamedTuple):
    values: NDArray[np.uint64]  # [texts]
    num_features: NDArray[np.int64]  # [texts]; 0 = shorter than one feature: the value says nothing


@inlined
def count_bits(value: np.uint64) -> int:
    value -= (value >> S1) & ODD_BITS
    value = (value & PAIRS_OF_BITS) + ((value >> S2) & PAIRS_OF_BITS)
    value = (value + (value >> S4)) & LOW_NIBBLES
    return signed((value * BYTE_SUM) >> S56)


@called
def add_feature(feature: np.uint64, ones: NDArray[np.int64]) -> None:
    for bit in range(NUM_BITS):
        ones[bit] += signed((feature >> np.uint64(bit)) & ONE)


@kernel
def fingerprint_texts(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    ngram: int,
    of_words: bool,
    values: NDArray[np.uint64],
    num_features: NDArray[np.int64],
) -> None:
    ones = np.empty(NUM_BITS, np.int64)
    last = np.empty(ngram, np.uint64)  # a ring of the hashes of the newest words or characters
    oldest_power = ONE
    for _ in range(ngram):
        oldest_power *= MULTIPLIER
    for text in range(offsets.shape[0] - 1):
        i, stop = offsets[text], offsets[text + 1]
        ones[:] = 0
        num_units = 0
        rolling = np.uint64(0)
        while i < stop:
            if of_words:
                unit = FNV_START
                start = i
                while i < stop and data[i] > SPACE:
                    unit = (unit ^ np.uint64(data[i])) * FNV_PRIME
                    i += 1
                if i == start:
                    i += 1
                    continue
            else:
                code_point, width = signed(data[i]), 1
                if code_point >= 128:
                    code_point, width = decode(data, i, stop)
                unit = np.uint64(code_point + 1)
                i += width
            slot = num_units % ngram
            rolling = rolling * MULTIPLIER + unit
            if num_units >= ngram:
                rolling -= last[slot] * oldest_power
            last[slot] = unit
            num_units += 1
            if num_units >= ngram:
                add_feature(final_mix(rolling), ones)
        features = max(0, num_units - ngram + 1)
        value = np.uint64(0)
        for bit in range(NUM_BITS):
            if 2 * ones[bit] > features:
                value |= ONE << np.uint64(bit)
        values[text] = value
        num_features[text] = features


def simhash(texts: TextBuffers, *, ngram: int = 3, unit: Unit = "words") -> Fingerprints:
    """Returns the 64-bit fingerprint of every text.

    Args:
      texts: normalised as the caller wants them to be compared (see `dataeng.kernels.normalized_text`); words are
        what stands between bytes up to 0x20, spaces and controls.
      ngram: words or characters of a feature. A text with fewer has no features, and the fingerprint 0 must not be
        compared.
      unit: what a feature is made of.
    """
    if not 1 <= ngram <= MAX_NGRAM:
        raise ValueError(f"ngram must be 1 to {MAX_NGRAM}, got {ngram}")
    if unit not in ("words", "characters"):
        raise ValueError(f"unit must be 'words' or 'characters', got {unit!r}")
    values = np.empty(texts.num_texts, np.uint64)
    num_features = np.empty(texts.num_texts, np.int64)
    fingerprint_texts(texts.data, texts.offsets, ngram, unit == "words", values, num_features)
    return Fingerprints(values, num_features)


def block_masks(max_distance: int, blocks: int) -> NDArray[np.uint64]:
    """Returns the bits that a table compares, for every table: uint64 [blocks choose max_distance].

    Any two fingerprints that differ in at most ``max_distance`` bits agree under at least one mask. More blocks mean
    more tables and longer keys, so fewer false candidates: with distance 3, 4 blocks give 4 keys of 16 bits, 6 blocks
    20 keys of 32.

    Raises:
      ValueError: fewer than ``max_distance`` + 1 blocks, more than 64, or more than `MAX_TABLES` tables.
    """
    if not 0 <= max_distance < blocks <= NUM_BITS:
        raise ValueError(f"distance {max_distance} needs {max_distance + 1} to {NUM_BITS} blocks, got {blocks}")
    if math.comb(blocks, max_distance) > MAX_TABLES:
        raise ValueError(f"{blocks} blocks at distance {max_distance} make more than {MAX_TABLES} tables")
    ends = [NUM_BITS * k // blocks for k in range(blocks + 1)]
    masks = [(1 << high) - (1 << low) for low, high in itertools.pairwise(ends)]
    chosen = itertools.combinations(masks, blocks - max_distance)
    return np.array([sum(table) for table in chosen], np.uint64)


@kernel
def hash_blocks(values: NDArray[np.uint64], masks: NDArray[np.uint64], keys: NDArray[np.uint64]) -> None:
    for text in range(keys.shape[0]):
        for table in range(keys.shape[1]):
            keys[text, table] = final_mix(final_mix(values[text] & masks[table]) + np.uint64(table + 1) * MULTIPLIER)


def block_keys(values: NDArray[np.uint64], masks: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns a key per table: uint64 [texts, tables]. Texts that share one are candidates; no two tables do."""
    keys = np.empty((len(values), len(masks)), np.uint64)
    hash_blocks(values, masks, keys)
    return keys


class NearPairs(NamedTuple):
    """Edges that connect what is near, no more than needed: at most one less than there are rows with the key."""

    first: NDArray[np.int64]  # [edges] rows
    second: NDArray[np.int64]
    distance: NDArray[np.int64]  # in bits
    num_uncompared: int
    """Pairs of different fingerprints in one bucket that were too far apart in it to be compared."""


@called
def root_of(parents: NDArray[np.int64], node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@kernel
def link_near(
    keys: NDArray[np.uint64],
    values: NDArray[np.uint64],
    max_distance: int,
    window: int,
    edges: NDArray[np.int64],
) -> tuple[int, int]:
    """Fills ``edges`` [3, rows]; rows are sorted by key and value. Returns how many, and the uncompared pairs."""
    rows = keys.shape[0]
    parents = np.arange(rows)
    distinct = np.empty(rows, np.int64)  # first rows of each fingerprint of the bucket
    num_edges, num_uncompared = 0, 0
    start = 0
    while start < rows:
        num_distinct = 0
        row = start
        while row < rows and keys[row] == keys[start]:
            if num_distinct and values[distinct[num_distinct - 1]] == values[row]:
                hub = distinct[num_distinct - 1]
                parents[row] = hub
                edges[0, num_edges] = hub
                edges[1, num_edges] = row
                edges[2, num_edges] = 0
                num_edges += 1
                row += 1
                continue
            oldest = max(0, num_distinct - window)
            num_uncompared += oldest
            for k in range(oldest, num_distinct):
                distance = count_bits(values[distinct[k]] ^ values[row])
                if distance > max_distance:
                    continue
                a, b = root_of(parents, distinct[k]), root_of(parents, row)
                if a != b:
                    parents[max(a, b)] = min(a, b)
                    edges[0, num_edges] = distinct[k]
                    edges[1, num_edges] = row
                    edges[2, num_edges] = distance
                    num_edges += 1
            distinct[num_distinct] = row
            num_distinct += 1
            row += 1
        start = row
    return num_edges, num_uncompared


def near_pairs(
    keys: NDArray[np.uint64], values: NDArray[np.uint64], *, max_distance: int, window: int = 1000
) -> NearPairs:
    """Finds fingerprints within ``max_distance`` bits of each other among those with the same key.

    Equal fingerprints are linked to the first of them; each different one is compared with the ``window`` different
    ones before it in its bucket, so that a bucket with half the corpus in it costs no more than its size.

    Args:
      keys: uint64 [rows], of one table or several.
      values: uint64 [rows], the whole fingerprints.

    Returns:
      Edges between rows, ordered; the first row of an edge is the one with the smaller fingerprint, or the earlier one.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1, got {window}")
    order = np.lexsort((values, keys))  # stable: equal fingerprints stay in order
    edges = np.empty((3, len(keys)), np.int64)
    count, uncompared = link_near(keys[order], values[order], max_distance, window, edges)
    return NearPairs(order[edges[0, :count]], order[edges[1, :count]], edges[2, :count], uncompared)


def distances(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Returns in how many bits fingerprints differ, element by element."""
    different: NDArray[np.uint8] = np.bitwise_count(first ^ second)
    return different


def warm_up() -> None:
    """Compiles the kernels or loads them from the cache."""
    import polars as pl

    from dataeng.kernels.text import text_buffers

    values = simhash(text_buffers(pl.Series(["a b c"], dtype=pl.String)), ngram=1).values
    near_pairs(block_keys(values, block_masks(1, 2))[:, 0], values, max_distance=1)
