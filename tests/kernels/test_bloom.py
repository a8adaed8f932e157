from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.kernels.bloom import BloomFilter, bits_needed, expected_rate

KEYS = st.lists(st.integers(0, 2**64 - 1), max_size=200)


@settings(max_examples=100, deadline=None)
@given(KEYS, st.sampled_from([0.5, 0.01, 1e-9]), st.integers(0, 300))
def test_finds_all_that_is_in_it(keys: list[int], rate: float, made_for: int) -> None:
    seen = BloomFilter(made_for, rate)
    known = np.array(keys, np.uint64)
    seen.insert(known)
    assert seen.contains(known).all()


@pytest.mark.parametrize("rate", [0.1, 0.01, 1e-3, 1e-4])
@pytest.mark.parametrize("clustered", [False, True])
def test_measured_false_positives_are_those_of_the_theory(rate: float, clustered: bool) -> None:
    """Also for keys of one range, as a partition has them, and for keys that differ in few bits."""
    num_keys, num_tried = 50_000, 2_000_000
    random = np.random.default_rng(17)
    if clustered:
        keys = np.arange(num_keys + num_tried, dtype=np.uint64) + np.uint64(7 << 56)
    else:
        keys = random.integers(0, 2**64, num_keys + num_tried, np.uint64)
    seen = BloomFilter(num_keys, rate)
    seen.insert(keys[:num_keys])
    measured = seen.contains(keys[num_keys:]).mean()
    theory = expected_rate(seen.num_bits, seen.num_hashes, num_keys)
    # Five standard deviations of the count, and 3 % because the formula itself is an approximation.
    assert abs(measured - theory) < 5 * math.sqrt(theory / num_tried) + 0.03 * theory
    assert theory < 1.06 * rate  # a whole number of hashes is not quite the best number


def test_sizes() -> None:
    # 1.44 log2(1/rate) bits a key
    assert bits_needed(10**9, 0.01) / 10**9 == pytest.approx(9.585, abs=0.001)
    assert bits_needed(10**9, 1e-6) / 10**9 == pytest.approx(28.755, abs=0.001)
    assert BloomFilter(1000, 0.01).words.nbytes == pytest.approx(bits_needed(1000, 0.01) / 8, abs=8)


def test_a_half_full_filter_errs_less() -> None:
    seen = BloomFilter(1000, 0.01)
    assert expected_rate(seen.num_bits, seen.num_hashes, 500) < 0.001
    assert expected_rate(seen.num_bits, seen.num_hashes, 0) == 0
    assert not seen.contains(np.arange(1000, dtype=np.uint64)).any()


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0, 2.0])
def test_refuses_impossible_rates(rate: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        BloomFilter(10, rate)
