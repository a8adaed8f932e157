"""The best mixture under fitted losses: within the epoch caps, and not far from a prior.

Minimized is  Σ importance · loss(p) + λ KL(p ‖ prior)  over p ≥ 0, Σ p = 1, p ≤ limits (Olmix, arXiv 2602.12237).
For a convex law, by proximal mirror descent with the entropy as its distance: each step has a closed form, and putting
it within the limits is water filling, which is the Kullback-Leibler projection. For any other predictor, by simulation
as RegMix does (arXiv 2407.01492): the mean of the best of many mixtures drawn around the prior.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dataeng.errors import ConfigError
from dataeng.mixture.policies import Floats, capped_shares

MAX_STEPS = 20_000
GAP_TOLERANCE = 1e-9  # of the objective: no mixture within the limits is better by more
TINY = 1e-300
CHUNK = 20_000  # simulated mixtures at a time


def divergence(weights: Floats, prior: Floats) -> Floats:
    """Returns KL(weights ‖ prior) along the last axis."""
    ratio = np.log(np.maximum(weights, TINY)) - np.log(prior)
    return np.asarray(np.where(weights > 0, weights * ratio, 0.0).sum(axis=-1))


def minimize_convex(
    objective: Callable[[Floats], float],
    gradient: Callable[[Floats], Floats],
    prior: Floats,
    limits: Floats,
    kl: float,
) -> Floats:
    """Returns the mixture [K] with the smallest objective + ``kl`` · KL(p ‖ prior); ∞ is no limit.

    Raises `ConfigError` when the limits sum to less than 1.
    """

    def total(weights: Floats) -> float:
        return objective(weights) + kl * float(divergence(weights, prior))

    weights = capped_shares(prior, limits, 1.0)
    value, size = total(weights), 1.0
    for _ in range(MAX_STEPS):
        slope = gradient(weights)
        whole = slope + kl * (np.log(np.maximum(weights, TINY)) - np.log(prior) + 1)
        if _gap(weights, whole, limits) <= GAP_TOLERANCE * max(abs(value), 1e-12):
            break
        while size > 1e-12:
            # argmin of slope · p + kl · KL(p ‖ prior) + KL(p ‖ weights) / size
            logs = (kl * np.log(prior) + np.log(np.maximum(weights, TINY)) / size - slope) / (kl + 1 / size)
            step = np.exp(logs - logs.max())
            candidate = capped_shares(step / step.sum(), limits, 1.0)
            new_value = total(candidate)
            if new_value <= value:
                break
            size /= 2
        else:
            break
        if value - new_value <= 1e-15 * abs(value) and np.abs(candidate - weights).max() < 1e-12:
            break
        weights, value, size = candidate, new_value, size * 1.5
    return weights


def _gap(weights: Floats, slope: Floats, limits: Floats) -> float:
    """Returns how much less the best mixture within the limits could be, at most (the Frank-Wolfe gap)."""
    left, best = 1.0, 0.0
    for domain in np.argsort(slope).tolist():
        taken = min(left, float(limits[domain]))
        best += taken * float(slope[domain])
        left -= taken
    return float(slope @ weights) - best


def best_simulated(
    predict: Callable[[Floats], Floats],
    prior: Floats,
    limits: Floats,
    kl: float,
    *,
    num_simulations: int,
    num_best: int,
    seed: int,
) -> Floats:
    """Returns the mean of the ``num_best`` mixtures with the smallest predicted value + ``kl`` · KL, of many.

    Mixtures are drawn from a Dirichlet distribution with the prior as its parameters, as RegMix's code does, and put
    within the limits. ``predict`` maps mixtures [n, K] to values [n].
    """
    if not 1 <= num_best <= num_simulations:
        raise ConfigError(f"the best {num_best:,} of {num_simulations:,} simulated mixtures are asked for.")
    generator = np.random.default_rng(seed)
    kept, kept_values = np.empty((0, len(prior))), np.empty(0)
    for start in range(0, num_simulations, CHUNK):
        drawn = generator.dirichlet(prior, min(CHUNK, num_simulations - start))
        drawn = within(drawn, prior, limits)
        values = predict(drawn) + kl * divergence(drawn, prior)
        kept, kept_values = np.vstack([kept, drawn]), np.concatenate([kept_values, values])
        order = np.argsort(kept_values, kind="stable")[:num_best]
        kept, kept_values = kept[order], kept_values[order]
    return np.asarray(kept.mean(axis=0) / kept.mean(axis=0).sum())


def within(mixtures: Floats, prior: Floats, limits: Floats) -> Floats:
    """Returns mixtures [n, K] within the limits [K], by water filling; those within stay as they are.

    Raises `ConfigError` when the limits sum to less than 1.
    """
    capped_shares(prior, limits, 1.0)  # refuses limits that cannot be kept
    over = (mixtures > limits).any(axis=1)
    # A domain that was drawn with (almost) no weight must be able to take what others cannot.
    weights = mixtures[over] + 1e-9 * prior
    weights /= weights.sum(axis=1, keepdims=True)
    shares, capped = weights, np.zeros(weights.shape, bool)
    while True:  # at most one round for each domain
        exceeds = ~capped & (shares > limits)
        if not exceeds.any():
            break
        capped |= exceeds
        taken = np.where(capped, np.where(np.isfinite(limits), limits, 0.0), 0.0).sum(axis=1, keepdims=True)
        free = np.where(capped, 0.0, weights)
        rest = free / np.maximum(free.sum(axis=1, keepdims=True), TINY) * np.maximum(1 - taken, 0.0)
        shares = np.where(capped, limits, rest)
    result = mixtures.copy()
    result[over] = shares
    return result
