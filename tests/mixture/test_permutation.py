"""The table-free shuffle is a permutation, a different one for every key, and looks like a random one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataeng.mixture.permutation import permutation_key, permute


def slow_permute(position: int, size: int, key: int) -> int:
    """The same network in Python's own integers, one position at a time."""

    def mix(x: int) -> int:
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    half = 1
    while 4**half < size:
        half += 1
    value = position
    while True:
        left, right = value >> half, value % 2**half
        for i in range(1, 7):
            left, right = right, left ^ mix(right ^ mix((key + 0x9E3779B97F4A7C15 * i) % 2**64)) % 2**half
        value = left << half | right
        if value < size:
            return value


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_it_is_a_permutation(size: int, key: int) -> None:
    values = permute(np.arange(size), size, key)
    assert np.array_equal(np.sort(values), np.arange(size))


@given(st.integers(1, 2**40), st.integers(0, 2**64 - 1), st.data())
def test_it_equals_the_slow_reference(size: int, key: int, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, size - 1))
    assert permute(np.array([position]), size, key).tolist() == [slow_permute(position, size, key)]


def test_any_subset_of_positions_gives_the_same_values() -> None:
    whole = permute(np.arange(1000), 1000, 7)
    assert permute(np.array([999, 3, 500]), 1000, 7).tolist() == whole[[999, 3, 500]].tolist()


def test_keys_depend_on_seed_name_and_epoch() -> None:
    keys = {permutation_key(seed, name, epoch) for seed in (0, 1) for name in ("web", "code") for epoch in (0, 1)}
    assert len(keys) == 8
    assert permutation_key(0, "web", 0) == permutation_key(0, "web", 0)


@pytest.mark.parametrize("size", [100, 4096])
def test_neighbours_are_spread_evenly(size: int) -> None:
    """Over many keys, position 0 lands everywhere equally often, and neighbours do not stay together."""
    keys = [permutation_key(seed, "web", 0) for seed in range(2000)]
    first_two = np.array([permute(np.arange(2), size, key) for key in keys])
    counts = np.histogram(first_two[:, 0], bins=10, range=(0, size))[0]
    chi_squared = float(((counts - 200) ** 2 / 200).sum())
    assert chi_squared < 33.7  # 1 in 10,000 at 9 degrees of freedom
    assert abs(np.corrcoef(first_two[:, 0], first_two[:, 1])[0, 1]) < 0.09  # 4 standard errors
