"""The nearest weights within bounds, against bisection and against every other distribution within them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.mixture.bounds import SMALLEST, nearest_within

Floats = npt.NDArray[np.float64]


def slow(target: Floats, low: Floats, high: Floats) -> Floats:
    """clip(λ · target) with λ found by halving its logarithm's range."""
    target = np.maximum(target, SMALLEST)
    least, most = -800.0, 700.0
    for _ in range(100):
        middle = (least + most) / 2
        too_small = np.clip(math.exp(middle) * target, low, high).sum() < 1
        least, most = (middle, most) if too_small else (least, middle)
    return np.asarray(np.clip(math.exp(least) * target, low, high))


def divergence(weights: Floats, target: Floats) -> float:
    inside = weights > 0
    return float((weights[inside] * np.log(weights[inside] / np.maximum(target[inside], SMALLEST))).sum())


@st.composite
def cases(draw: st.DrawFn) -> tuple[Floats, Floats, Floats, Floats]:
    """Returns a target, bounds, and a distribution within the bounds."""
    parts = st.lists(st.sampled_from([0.0, 1e-40, 1e-6, 0.1, 0.5, 1.0, 3.0]), min_size=1, max_size=6)
    inside = np.array(draw(parts.filter(any)))
    target = np.array(draw(st.lists(st.floats(0, 1), min_size=len(inside), max_size=len(inside)).filter(any)))
    inside, target = inside / inside.sum(), target / target.sum()
    below, above = draw(st.sampled_from([0.0, 0.5, 0.99, 1.0])), draw(st.sampled_from([1.0, 1.05, 2.0, 1e300]))
    return target, inside * below, np.where(inside > 0, np.minimum(inside * above, 1.0), 0.0), inside


@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_the_nearest_weights_within_bounds(case: tuple[Floats, Floats, Floats, Floats]) -> None:
    target, low, high, inside = case
    found = nearest_within(target, low, high)
    assert found.sum() == pytest.approx(1)
    assert (found >= low - 1e-15).all() and (found <= high + 1e-15).all()
    np.testing.assert_allclose(found, slow(target, low, high), atol=1e-9)
    assert divergence(found, target) <= divergence(inside, target) + 1e-9


def test_weights_within_their_bounds_stay_bit_for_bit() -> None:
    target = np.array([0.1, 0.2, 0.7])
    assert nearest_within(target, np.array([0.1, 0, 0]), np.array([1, 1, 0.7])) is target


def test_bounds_that_leave_one_choice() -> None:
    assert nearest_within(np.array([0.9, 0.1]), np.array([0.5, 0.5]), np.ones(2)).tolist() == [0.5, 0.5]
    assert nearest_within(np.array([0.9, 0.1]), np.zeros(2), np.array([0.5, 0.5])).tolist() == [0.5, 0.5]
    assert nearest_within(np.array([1.0, 0.0, 0.0]), np.zeros(3), np.full(3, 0.5)).tolist() == [0.5, 0.25, 0.25]
