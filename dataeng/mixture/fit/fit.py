"""From proxy runs to weights: fit, measure the fit on runs it has not seen, and find the best mixture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dataeng.errors import ConfigError
from dataeng.mixture.fit.exponential import fit_exponential
from dataeng.mixture.fit.optimum import best_simulated, minimize_convex
from dataeng.mixture.fit.quality import Quality, held_out_predictions, qualities
from dataeng.mixture.fit.runs import ProxyRuns
from dataeng.mixture.fit.trees import fit_trees
from dataeng.mixture.policies import Floats, given_weights

Method = Literal["olmix", "regmix"]
DEFAULT_KL: dict[Method, float] = {"olmix": 0.05, "regmix": 0.0}
FEW_RUNS_PER_PARAMETER = 3
POOR_R2 = 0.5
RANGE_SLACK = 0.02  # a weight may lie so far outside those of the runs before it is called an extrapolation


@dataclass(frozen=True)
class FitOptions:
    """How to fit. ``kl`` None is the method's own: 0.05 of Olmix, none of RegMix."""

    method: Method = "olmix"
    kl: float | None = None
    importance: Mapping[str, float] | None = None  # of losses, by target; None: all alike
    num_simulations: int = 100_000
    num_best: int = 128
    seed: int = 42


@dataclass(frozen=True)
class FittedMixture:
    """What came out."""

    method: Method
    kl: float
    domains: tuple[str, ...]
    targets: tuple[str, ...]
    weights: Floats  # [K]
    prior: Floats  # [K]
    limits: Floats  # [K]
    lowest: Floats  # [K], of the runs
    highest: Floats  # [K], of the runs
    predicted: Floats  # [T], at the weights
    predicted_at_prior: Floats  # [T]
    qualities: list[Quality]
    num_runs: int
    warnings: list[str]

    def by_domain(self) -> dict[str, float]:
        """Returns the weights by name."""
        return dict(zip(self.domains, self.weights.tolist(), strict=True))


def fit_mixture(
    runs: ProxyRuns,
    options: FitOptions,
    prior: Mapping[str, float] | None = None,
    limits: Mapping[str, float] | None = None,
) -> FittedMixture:
    """Returns the mixture with the smallest predicted loss, near the prior and within the limits.

    Args:
      prior: a weight for each domain; None: the mean of the runs.
      limits: the largest weight of a domain (epochs · tokens / budget); domains that are not in it have none.

    Raises:
      ConfigError: too few runs for the method, losses that do not vary, limits that sum to less than 1.
    """
    kl = DEFAULT_KL[options.method] if options.kl is None else options.kl
    if not (np.isfinite(kl) and kl >= 0):
        raise ConfigError(f"the KL penalty is {kl:g}; expected a number of at least 0.")
    if options.importance is not None:
        runs = runs.chosen(list(options.importance))
    _check(runs, options.method)
    importance = _importance(runs, options.importance)
    start = runs.weights.mean(axis=0) if prior is None else given_weights(runs.domains, prior)
    start = np.maximum(start, 1e-6) / np.maximum(start, 1e-6).sum()
    bounds = np.array([np.inf if limits is None else limits.get(name, np.inf) for name in runs.domains])
    fit = _fitter(options)
    measured = qualities(held_out_predictions(fit, runs.weights, runs.losses, options.seed), runs.losses)
    predict = fit(runs.weights, runs.losses)
    if options.method == "olmix":
        law = fit_exponential(runs.weights, runs.losses)
        weights = minimize_convex(
            lambda p: float(law.predict(p[None])[0] @ importance),
            lambda p: law.gradient(p, importance),
            start,
            bounds,
            kl,
        )
    else:
        weights = best_simulated(
            lambda mixtures: predict(mixtures) @ importance,
            start,
            bounds,
            kl,
            num_simulations=options.num_simulations,
            num_best=options.num_best,
            seed=options.seed,
        )
    predicted, at_prior = predict(np.stack([weights, start]))
    return FittedMixture(
        options.method,
        kl,
        runs.domains,
        runs.targets,
        weights,
        start,
        bounds,
        runs.weights.min(axis=0),
        runs.weights.max(axis=0),
        predicted,
        at_prior,
        measured,
        len(runs),
        _warnings(runs, options.method, weights, measured),
    )


def _fitter(options: FitOptions) -> Callable[[Floats, Floats], Callable[[Floats], Floats]]:
    if options.method == "regmix":
        return lambda weights, losses: fit_trees(weights, losses, options.seed)
    return lambda weights, losses: fit_exponential(weights, losses).predict


def _check(runs: ProxyRuns, method: Method) -> None:
    num_parameters = len(runs.domains) + 1
    if method == "olmix" and len(runs) < num_parameters + 1:
        raise ConfigError(
            f"{len(runs)} runs are too few for {len(runs.domains)} domains: the exponential law has {num_parameters} "
            f"parameters for each loss; give at least {num_parameters + 1} runs, better {3 * num_parameters}."
        )
    for target, values in zip(runs.targets, runs.losses.T, strict=True):
        if np.ptp(values) <= 1e-9 * np.abs(values).max():
            raise ConfigError(f"the loss '{target}' is {values[0]:g} in all runs; there is nothing to fit.")
        if method == "olmix" and values.min() <= 0:
            raise ConfigError(
                f"the loss '{target}' is {values.min():g} in run {int(values.argmin()) + 1}; the exponential law is of "
                "losses above 0."
            )


def _importance(runs: ProxyRuns, importance: Mapping[str, float] | None) -> Floats:
    if importance is None:
        return np.full(len(runs.targets), 1 / len(runs.targets))
    values = np.array([importance[target] for target in runs.targets], np.float64)
    for target, value in importance.items():
        if not (np.isfinite(value) and value > 0):
            raise ConfigError(f"the importance of loss '{target}' is {value:g}; expected a number above 0.")
    return np.asarray(values / values.sum())


def _warnings(runs: ProxyRuns, method: Method, weights: Floats, measured: list[Quality]) -> list[str]:
    found = []
    num_parameters = len(runs.domains) + 1
    enough = FEW_RUNS_PER_PARAMETER * num_parameters if method == "olmix" else 16 * len(runs.domains)
    if len(runs) < enough:
        found.append(
            f"{len(runs)} runs are few for {len(runs.domains)} domains; {enough} or more would make {method} reliable."
        )
    for name, values in zip(runs.domains, runs.weights.T, strict=True):
        if np.ptp(values) < 1e-6:
            found.append(f"the weight of '{name}' is {values[0]:.4g} in all runs: nothing is known of its effect.")
    for target, quality in zip(runs.targets, measured, strict=True):
        if quality.r2 < POOR_R2:
            found.append(f"runs that were held out are predicted badly: R² {quality.r2:.2f} of loss '{target}'.")
    for index, name in enumerate(runs.domains):
        lowest, highest = float(runs.weights[:, index].min()), float(runs.weights[:, index].max())
        if not lowest - RANGE_SLACK <= weights[index] <= highest + RANGE_SLACK:
            found.append(
                f"the weight of '{name}', {weights[index]:.3f}, lies outside those of the runs ({lowest:.3f} to "
                f"{highest:.3f}): an extrapolation. A larger --kl stays nearer to the prior."
            )
    return found
