"""Weights and epoch caps against values computed by hand, and their invariants."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataeng.errors import ConfigError
from dataeng.mixture.policies import (
    capped_shares,
    epochs_at_budget,
    given_weights,
    natural_weights,
    temperature_weights,
    unimax_weights,
)


def test_natural_weights_are_token_shares() -> None:
    assert natural_weights([600, 300, 100]) == pytest.approx([0.6, 0.3, 0.1])


def test_temperature_two_takes_square_roots() -> None:
    # √900 : √400 : √100 = 30 : 20 : 10
    assert temperature_weights([900, 400, 100], 2.0) == pytest.approx([1 / 2, 1 / 3, 1 / 6])


def test_infinite_temperature_is_uniform_and_large_counts_do_not_overflow() -> None:
    assert temperature_weights([10**15, 7], math.inf).tolist() == [0.5, 0.5]
    assert temperature_weights([10**15, 1], 0.01).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(ConfigError, match="expected a number above 0"):
        temperature_weights([1, 2], temperature)


def test_a_domain_without_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match="domain 1 of 2 has no tokens"):
        natural_weights([5, 0])


def test_unimax_by_hand() -> None:
    # A budget of 900 is 300 each. The first has 50, twice is 100; 800 are left, 400 each; the second has 150, twice is
    # 300; the last takes the other 500.
    assert unimax_weights([1000, 50, 150], 2, 900) == pytest.approx([500 / 900, 100 / 900, 300 / 900])


def test_unimax_is_uniform_where_nobody_is_small_and_natural_where_all_are() -> None:
    assert unimax_weights([10, 20, 30], 1, 6) == pytest.approx([1 / 3] * 3)
    assert unimax_weights([10, 20, 70], 2, 1e6) == pytest.approx([0.1, 0.2, 0.7])


@given(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=8),
    st.floats(0.1, 20),
    st.integers(1, 10**7),
)
def test_unimax_is_the_paper_s_algorithm(counts: list[int], max_epochs: float, budget: int) -> None:
    """Algorithm 1 of arXiv 2304.09151, line by line, with dictionaries."""
    character_counts = {f"l{i}": count for i, count in enumerate(counts)}
    languages = sorted(character_counts, key=lambda language: character_counts[language])
    remaining: float = budget
    taken: dict[str, float] = {}
    for index, language in enumerate(languages):
        per_language = remaining / (len(languages) - index)
        if per_language > character_counts[language] * max_epochs:
            taken[language] = character_counts[language] * max_epochs
        else:
            taken[language] = per_language
        remaining -= taken[language]
    total = sum(taken.values())
    expected = [taken[f"l{i}"] / total for i in range(len(counts))]
    weights = unimax_weights(counts, max_epochs, budget)
    assert weights == pytest.approx(expected)
    if max_epochs * sum(counts) >= budget:
        assert (epochs_at_budget(weights, counts, budget) <= max_epochs * (1 + 1e-9)).all()


@pytest.mark.parametrize(("epochs", "budget"), [(0, 10), (-1, 10), (math.nan, 10), (math.inf, 10), (4, 0)])
def test_unimax_needs_epochs_and_a_budget(epochs: float, budget: float) -> None:
    with pytest.raises(ConfigError, match="expected a number above 0"):
        unimax_weights([1, 2], epochs, budget)


def test_given_weights_are_ordered_and_scaled() -> None:
    assert given_weights(["a", "b", "c"], {"c": 0.333, "a": 0.333, "b": 0.333}) == pytest.approx([1 / 3] * 3)
    assert given_weights(["a", "b"], {"b": 0.25, "a": 0.75}).tolist() == [0.75, 0.25]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"web": 0.5, "cod": 0.5}, "'cod', which is no domain.*did you mean 'code'"),
        ({"web": 1.0}, "no weight is given for domain 'code'"),
        ({"web": 1.2, "code": -0.2}, "weight of domain 'code' is -0.2"),
        ({"web": 1.0, "code": 0.0}, "weight of domain 'code' is 0"),
        ({"web": 60, "code": 40}, r"sum to 100, expected 1 \(web 60, code 40\)"),
    ],
)
def test_wrong_given_weights_are_named(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        given_weights(["web", "code"], weights)


def test_epochs_at_budget() -> None:
    assert epochs_at_budget(np.array([0.75, 0.25]), [300, 500], 1000).tolist() == [2.5, 0.5]


def test_capped_shares_fill_up_by_hand() -> None:
    # a would take 500 of 1000 but has 100; the other 900 split 3:2 = 540:360; b has 400, so c takes 500.
    shares = capped_shares(np.array([0.5, 0.3, 0.2]), np.array([100.0, 400.0, math.inf]), 1000)
    assert shares == pytest.approx([0.1, 0.4, 0.5])


def test_capped_shares_without_need_are_the_weights() -> None:
    weights = np.array([0.5, 0.5])
    assert capped_shares(weights, np.array([math.inf, math.inf]), 10**12).tolist() == [0.5, 0.5]


def test_a_domain_of_weight_0_neither_gives_nor_takes() -> None:
    shares = capped_shares(np.array([0.0, 1.0]), np.array([math.inf, 10.0]), 10)
    assert shares.tolist() == [0.0, 1.0]
    with pytest.raises(ConfigError, match="allow 10 in all, 11 are asked for"):
        capped_shares(np.array([0.0, 1.0]), np.array([math.inf, 10.0]), 11)


def test_capacities_below_the_budget_are_refused() -> None:
    with pytest.raises(ConfigError, match="allow 30 in all, 31 are asked for"):
        capped_shares(np.array([0.5, 0.5]), np.array([10.0, 20.0]), 31)


@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.integers(1, 10_000)), min_size=1, max_size=8),
    st.floats(0.01, 1),
)
def test_capped_shares_sum_to_one_and_keep_caps(domains: list[tuple[float, int]], fraction: float) -> None:
    weights = np.array([weight for weight, _ in domains])
    weights /= weights.sum()
    capacities = np.array([float(capacity) for _, capacity in domains])
    budget = max(1.0, capacities.sum() * fraction)
    shares = capped_shares(weights, capacities, budget)
    assert shares.sum() == pytest.approx(1)
    assert (shares * budget <= capacities * (1 + 1e-9)).all()
    free = shares * budget < capacities * (1 - 1e-9)
    ratios = shares[free] / weights[free]
    assert ratios == pytest.approx(np.full(len(ratios), ratios[0] if len(ratios) else 0.0))
    assert (ratios >= 1 - 1e-9).all()  # nobody below the cap gets less than asked for
