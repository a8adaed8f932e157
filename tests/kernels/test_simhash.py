"""SimHash fingerprints and their neighbours, against the definition and against all pairs."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.kernels.simhash import Fingerprints, block_keys, block_masks, distances, near_pairs, simhash
from dataeng.kernels.text import text_buffers

MASK = (1 << 64) - 1
MULTIPLIER = 0x9E3779B97F4A7C15


def final_mix(x: int) -> int:
    x = (x ^ (x >> 33)) * 0xFF51AFD7ED558CCD & MASK
    x = (x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53 & MASK
    return x ^ (x >> 33)


def fnv1a(word: bytes) -> int:
    state = 0xCBF29CE484222325
    for byte in word:
        state = (state ^ byte) * 0x100000001B3 & MASK
    return state


def reference(text: str, ngram: int, unit: str) -> tuple[int, int]:
    """The sign of the sum, over different features, of count times plus or minus one."""
    units = [fnv1a(word) for word in words_of(text)] if unit == "words" else [ord(c) + 1 for c in text]
    features = Counter(tuple(units[i : i + ngram]) for i in range(len(units) - ngram + 1))
    sums = [0] * 64
    for feature, count in features.items():
        combined = 0
        for value in feature:
            combined = (combined * MULTIPLIER + value) & MASK
        hashed = final_mix(combined)
        for bit in range(64):
            sums[bit] += count if hashed >> bit & 1 else -count
    return sum(1 << bit for bit in range(64) if sums[bit] > 0), features.total()


def words_of(text: str) -> list[bytes]:
    return bytes(byte if byte > 32 else 32 for byte in text.encode()).split()


def fingerprints(texts: list[str], ngram: int = 2, unit: str = "words") -> Fingerprints:
    return simhash(text_buffers(pl.Series(texts, dtype=pl.String)), ngram=ngram, unit=unit)  # type: ignore[arg-type]


@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(st.one_of(st.text(max_size=40), st.text("ab é日\n", max_size=60)), max_size=4),
    ngram=st.integers(1, 5),
    unit=st.sampled_from(["words", "characters"]),
)
@example(texts=["", " ", "a", "a b", "日本 語"], ngram=2, unit="words")
@example(texts=["", "é", "日本"], ngram=2, unit="characters")
def test_equals_the_definition(texts: list[str], ngram: int, unit: str) -> None:
    found = fingerprints(texts, ngram, unit)
    assert list(zip(found.values.tolist(), found.num_features.tolist(), strict=True)) == [
        reference(text, ngram, unit) for text in texts
    ]


def test_distance_follows_the_angle_between_feature_counts() -> None:
    """Charikar's theorem: each bit differs with probability angle / pi. Over 200 pairs, within 4 standard errors."""
    drawn = random.Random(5)
    for shared in (50, 80, 95):
        differing = []
        for _ in range(200):
            first = [f"w{drawn.getrandbits(60)}" for _ in range(100)]
            second = first[:shared] + [f"w{drawn.getrandbits(60)}" for _ in range(100 - shared)]
            pair = fingerprints([" ".join(first), " ".join(second)], ngram=1).values
            differing.append(int(distances(pair[:1], pair[1:])[0]) / 64)
        expected = math.acos(shared / 100) / math.pi
        assert abs(np.mean(differing) - expected) < 4 * (expected * (1 - expected) / (64 * 200)) ** 0.5 + 0.01


@pytest.mark.parametrize(("distance", "blocks"), [(0, 1), (1, 2), (3, 4), (3, 6), (3, 5), (6, 8), (2, 7)])
def test_any_two_within_the_distance_share_a_key(distance: int, blocks: int) -> None:
    masks = block_masks(distance, blocks)
    assert len(masks) == math.comb(blocks, distance) == len(set(masks.tolist()))
    drawn = np.random.default_rng(1)
    values = drawn.integers(0, 2**64, 300, np.uint64)
    for _ in range(10):
        flips = np.array([sum(1 << int(b) for b in drawn.permutation(64)[:distance]) for _ in values], np.uint64)
        near = values ^ flips
        assert (distances(values, near) == distance).all()
        assert (block_keys(values, masks) == block_keys(near, masks)).any(axis=1).all()
    keys = block_keys(values, masks)
    assert len(np.unique(keys[0])) == len(masks)  # no key serves two tables


@pytest.mark.parametrize(("distance", "blocks"), [(3, 3), (-1, 2), (3, 65), (32, 64)])
def test_blocks_that_cannot_work(distance: int, blocks: int) -> None:
    with pytest.raises(ValueError, match=r"blocks"):
        block_masks(distance, blocks)


def components(rows: int, edges: list[tuple[int, int]]) -> list[int]:
    roots = list(range(rows))
    for _ in range(rows):
        for a, b in edges:
            roots[a] = roots[b] = min(roots[a], roots[b])
    return roots


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 255), st.integers(0, 1)), max_size=24),
    distance=st.integers(0, 4),
)
def test_edges_connect_what_all_pairs_connect(rows: list[tuple[int, int, int]], distance: int) -> None:
    keys = np.array([key for key, _, _ in rows], np.uint64)
    values = np.array([low | high << 63 for _, low, high in rows], np.uint64)
    found = near_pairs(keys, values, max_distance=distance)
    pairs = [
        (i, j)
        for i in range(len(rows))
        for j in range(i)
        if keys[i] == keys[j] and (int(values[i]) ^ int(values[j])).bit_count() <= distance
    ]
    edges = list(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert components(len(rows), edges) == components(len(rows), pairs)
    assert len(edges) < max(1, len(rows))
    assert {tuple(sorted(edge)) for edge in edges} <= {tuple(sorted(pair)) for pair in pairs}
    assert found.distance.tolist() == distances(values[found.first], values[found.second]).tolist()
    assert found.num_uncompared == 0


def test_one_bucket_with_everything_in_it_costs_no_more_than_its_size() -> None:
    values = np.concatenate([np.full(100_000, 7, np.uint64), np.arange(50_000, dtype=np.uint64) << np.uint64(4)])
    found = near_pairs(np.zeros(150_000, np.uint64), values, max_distance=0, window=10)
    assert len(found.first) == 99_999
    assert (found.first[:10] == 0).all() and (found.distance == 0).all()
    distinct = 50_001
    assert found.num_uncompared == sum(max(0, i - 10) for i in range(distinct))


def test_nothing_to_compare() -> None:
    empty = np.zeros(0, np.uint64)
    assert near_pairs(empty, empty, max_distance=3).first.size == 0
    assert block_keys(empty, block_masks(3, 4)).shape == (0, 4)


@pytest.mark.parametrize(("options", "message"), [({"ngram": 0}, "1 to 64"), ({"unit": "lines"}, "'words' or")])
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simhash(text_buffers(pl.Series(["a"])), **options)  # type: ignore[arg-type]
