"""The best mixture: against closed forms, against scipy's own solver, and within the limits whatever they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.errors import ConfigError
from dataeng.mixture.fit.exponential import ExponentialLaw
from dataeng.mixture.fit.optimum import best_simulated, divergence, minimize_convex, within
from dataeng.mixture.policies import Floats, capped_shares

NO_LIMITS = np.full(3, np.inf)


def test_divergence_by_hand() -> None:
    prior = np.array([0.5, 0.25, 0.25])
    assert divergence(np.array([0.5, 0.5, 0.0]), prior) == pytest.approx(0.5 * math.log(2))
    assert divergence(np.stack([prior, prior]), prior).tolist() == [0, 0]


def test_a_linear_objective_has_a_closed_form() -> None:
    """Σ a·p + λ KL(p ‖ q) is smallest at p ∝ q exp(-a/λ)."""
    prior, costs = np.array([0.2, 0.3, 0.5]), np.array([0.3, 0.1, 0.2])
    found = minimize_convex(lambda p: float(costs @ p), lambda p: costs, prior, NO_LIMITS, 0.05)
    expected = prior * np.exp(-costs / 0.05)
    assert found == pytest.approx(expected / expected.sum(), abs=1e-6)


def test_without_a_penalty_the_best_domain_takes_all_it_may() -> None:
    costs, prior = np.array([0.1, 0.2, 0.3]), np.full(3, 1 / 3)
    found = minimize_convex(lambda p: float(costs @ p), lambda p: costs, prior, NO_LIMITS, 0.0)
    assert found == pytest.approx([1, 0, 0], abs=1e-6)
    limited = minimize_convex(lambda p: float(costs @ p), lambda p: costs, prior, np.array([0.2, 0.5, 1.0]), 0.0)
    assert limited == pytest.approx([0.2, 0.5, 0.3], abs=1e-6)


def test_limits_that_leave_too_little() -> None:
    with pytest.raises(ConfigError, match="allow"):
        minimize_convex(lambda p: 0.0, lambda p: np.zeros(3), np.full(3, 1 / 3), np.full(3, 0.3), 0.1)
    with pytest.raises(ConfigError, match="allow"):
        within(np.full((1, 3), 1 / 3), np.full(3, 1 / 3), np.full(3, 0.3))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kl", [0.0, 0.05])
def test_laws_against_scipy(seed: int, kl: float) -> None:
    from scipy.optimize import minimize

    generator = np.random.default_rng(seed)
    law = ExponentialLaw(np.zeros(3), generator.normal(0, 1.5, (3, 5)))
    prior = generator.dirichlet(np.full(5, 3.0))
    limits = np.where(generator.uniform(size=5) < 0.5, np.inf, 0.35)
    importance = np.full(3, 1 / 3)

    def objective(weights: Floats) -> float:
        return float(law.predict(weights[None])[0] @ importance)

    found = minimize_convex(objective, lambda p: law.gradient(p, importance), prior, limits, kl)
    assert found.sum() == pytest.approx(1) and (found <= limits + 1e-9).all() and (found >= 0).all()
    solved = minimize(
        lambda p: objective(p) + kl * float(divergence(p, prior)),
        capped_shares(prior, limits, 1.0),
        bounds=[(1e-12, min(1.0, float(limit))) for limit in limits],
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-12},
    )
    assert objective(found) + kl * float(divergence(found, prior)) <= solved.fun + 1e-7


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(0, 1000), st.floats(1.0001, 4))
def test_mixtures_are_put_within_limits(num_domains: int, seed: int, room: float) -> None:
    generator = np.random.default_rng(seed)
    limits = generator.dirichlet(np.ones(num_domains)) * room
    mixtures = generator.dirichlet(np.full(num_domains, 0.5), 20)
    prior = np.full(num_domains, 1 / num_domains)
    result = within(mixtures, prior, limits)
    assert result.sum(axis=1) == pytest.approx(np.ones(20)) and (result <= limits + 1e-9).all()
    for before, after in zip(mixtures, result, strict=True):
        if (before <= limits).all():
            assert (before == after).all()
        else:
            weights = before + 1e-9 * prior
            assert after == pytest.approx(capped_shares(weights / weights.sum(), limits, 1.0), abs=1e-9)


def test_simulation_finds_the_neighbourhood_of_the_best() -> None:
    best = np.array([0.6, 0.3, 0.1])
    arguments = {"num_simulations": 20_000, "num_best": 64, "seed": 1}
    found = best_simulated(lambda p: ((p - best) ** 2).sum(axis=1), np.full(3, 1.0) / 3, NO_LIMITS, 0.0, **arguments)
    assert found == pytest.approx(best, abs=0.02)
    limited = best_simulated(
        lambda p: ((p - best) ** 2).sum(axis=1), np.full(3, 1.0) / 3, np.array([0.4, np.inf, np.inf]), 0.0, **arguments
    )
    assert limited == pytest.approx([0.4, 0.4, 0.2], abs=0.02)
    again = best_simulated(lambda p: ((p - best) ** 2).sum(axis=1), np.full(3, 1.0) / 3, NO_LIMITS, 0.0, **arguments)
    assert (found == again).all()
    with pytest.raises(ConfigError, match="best 5 of 4 simulated"):
        best_simulated(lambda p: p[:, 0], best, NO_LIMITS, 0.0, num_simulations=4, num_best=5, seed=1)
