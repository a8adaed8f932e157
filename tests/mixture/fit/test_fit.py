"""Whole fits: laws with a known optimum, caps, priors, and what is said about poor evidence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dataeng.errors import ConfigError
from dataeng.mixture.fit.exponential import ExponentialLaw
from dataeng.mixture.fit.fit import FitOptions, fit_mixture
from dataeng.mixture.fit.optimum import divergence
from dataeng.mixture.fit.runs import ProxyRuns, read_runs

DOMAINS = ("books", "code", "web")
#: One loss for each domain, which its own tokens lower: the mean is smallest in the middle, near what weighs most.
LAW = ExponentialLaw(np.log([1.5, 0.8, 2.0]), np.array([[-2.5, 0.2, 0.1], [0.3, -3.0, 0.2], [0.1, 0.2, -2.0]]))


def runs_of(law: ExponentialLaw, num_runs: int, noise: float = 0.0, seed: int = 0) -> ProxyRuns:
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.ones(3), num_runs)
    losses = law.predict(weights) + noise * generator.normal(size=(num_runs, 3))
    return ProxyRuns(DOMAINS, ("books", "code", "web"), weights, losses)


def best_on_a_grid(kl: float, prior: list[float], limits: list[float], size: int = 400) -> list[float]:
    """The slow and obvious way: every mixture of a grid."""
    steps = np.arange(1, size) / size
    first, second = (axis.ravel() for axis in np.meshgrid(steps, steps, indexing="ij"))
    inside = first + second < 1
    grid = np.column_stack([first, second, 1 - first - second])[inside]
    grid = grid[(grid <= np.array(limits) + 1e-12).all(axis=1)]
    values = LAW.predict(grid).mean(axis=1) + kl * divergence(grid, np.array(prior))
    return [float(weight) for weight in grid[values.argmin()]]


@pytest.mark.parametrize("kl", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("limits", [{}, {"code": 0.2, "books": 0.3}])
def test_the_optimum_of_a_known_law_is_found(kl: float, limits: dict[str, float]) -> None:
    prior = {"books": 0.2, "code": 0.2, "web": 0.6}
    fitted = fit_mixture(runs_of(LAW, 24), FitOptions(kl=kl), prior, limits)
    expected = best_on_a_grid(kl, list(prior.values()), [limits.get(name, 1.0) for name in DOMAINS])
    assert fitted.weights == pytest.approx(expected, abs=0.01)
    assert (fitted.weights <= fitted.limits + 1e-9).all()
    assert all(quality.r2 > 0.99 for quality in fitted.qualities) and fitted.warnings == []
    assert fitted.predicted == pytest.approx(LAW.predict(fitted.weights[None])[0], abs=0.01)


def test_noise_moves_it_little() -> None:
    fitted = fit_mixture(runs_of(LAW, 60, noise=0.01), FitOptions(kl=0.0))
    assert fitted.weights == pytest.approx(best_on_a_grid(0, [1 / 3] * 3, [1] * 3), abs=0.06)


def test_trees_find_the_neighbourhood() -> None:
    options = FitOptions(method="regmix", num_simulations=4_000, num_best=32)
    fitted = fit_mixture(runs_of(LAW, 100), options, {"books": 1 / 3, "code": 1 / 3, "web": 1 / 3}, {"code": 0.25})
    expected = best_on_a_grid(0, [1 / 3] * 3, [1, 0.25, 1])
    assert LAW.predict(fitted.weights[None]).mean() <= LAW.predict(np.array([expected])).mean() + 0.03
    assert fitted.weights[1] <= 0.25 + 1e-9 and fitted.kl == 0


def test_importance_moves_weight_to_what_matters() -> None:
    runs = runs_of(LAW, 24)
    alike = fit_mixture(runs, FitOptions())
    code = fit_mixture(runs, FitOptions(importance={"code": 1.0}))
    assert code.targets == ("code",) and code.by_domain()["code"] > alike.by_domain()["code"] + 0.1
    mostly = fit_mixture(runs, FitOptions(importance={"code": 8, "web": 1, "books": 1})).by_domain()["code"]
    assert alike.by_domain()["code"] < mostly < code.by_domain()["code"]


def test_a_strong_prior_is_kept() -> None:
    prior = {"books": 0.1, "code": 0.1, "web": 0.8}
    fitted = fit_mixture(runs_of(LAW, 24), FitOptions(kl=1e4), prior)
    assert fitted.by_domain() == pytest.approx(prior, abs=1e-3)


def test_regmix_s_own_result() -> None:
    """The notebook's optimum for Pile-CC's loss gives most of the weight to Pile-CC."""
    runs = read_runs(Path(__file__).parent / "regmix" / "train_1m.csv")
    options = FitOptions(method="regmix", importance={"pile_cc": 1.0}, num_simulations=5_000, num_best=32)
    fitted = fit_mixture(runs, options)
    assert fitted.by_domain()["pile_cc"] > 0.8 and fitted.qualities[0].spearman > 0.97


def test_poor_evidence_is_named() -> None:
    few = fit_mixture(runs_of(LAW, 6), FitOptions(kl=0.0))
    assert any("6 runs are few for 3 domains; 12 or more would make olmix reliable" in line for line in few.warnings)
    runs = runs_of(LAW, 24)
    noise = np.random.default_rng(5).normal(3, 0.1, (24, 1))
    unexplained = fit_mixture(ProxyRuns(DOMAINS, ("noise",), runs.weights, noise), FitOptions())
    assert any("predicted badly: R² " in line and "of loss 'noise'" in line for line in unexplained.warnings)
    narrow = runs.weights * 0.1 + np.array([0.1, 0.1, 0.7])
    narrowly = fit_mixture(ProxyRuns(DOMAINS, runs.targets, narrow, LAW.predict(narrow)), FitOptions(kl=0.0))
    assert any("the weight of 'code', 0." in line and "an extrapolation" in line for line in narrowly.warnings)
    still = np.column_stack([runs.weights[:, :1] * 0.8, 0.8 - runs.weights[:, :1] * 0.8, np.full((24, 1), 0.2)])
    fixed = fit_mixture(ProxyRuns(DOMAINS, runs.targets, still, LAW.predict(still)), FitOptions())
    assert any("the weight of 'web' is 0.2 in all runs" in line for line in fixed.warnings)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"num": 4}, FitOptions(), "4 runs are too few for 3 domains: .* 4 parameters .* at least 5 runs, better 12"),
        ({}, FitOptions(kl=-1), "the KL penalty is -1"),
        ({}, FitOptions(importance={"cod": 1}), "no loss 'cod' in the runs; did you mean 'code'"),
        ({}, FitOptions(importance={"code": 0}), "the importance of loss 'code' is 0"),
        ({"losses": 2.0}, FitOptions(), "the loss 'books' is 2 in all runs"),
        ({"shift": -3.0}, FitOptions(), "the loss 'books' is -.* in run .*; the exponential law is of losses above 0"),
    ],
)
def test_what_cannot_be_fitted(change: dict[str, float], options: FitOptions, message: str) -> None:
    runs = runs_of(LAW, int(change.get("num", 24)))
    losses = runs.losses + change.get("shift", 0.0)
    if "losses" in change:
        losses = np.full_like(losses, change["losses"])
    with pytest.raises(ConfigError, match=message):
        fit_mixture(ProxyRuns(runs.domains, runs.targets, runs.weights, losses), options)
