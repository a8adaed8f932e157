"""Weights of the domains of a mixture, before training: natural, temperature, UniMax, given; and epoch caps.

All functions take and return float64 arrays with one entry per domain and know no names. Temperature sampling after
mT5 (arXiv 2010.11934, where its exponent is α = 1/temperature). Caps are met by water filling: what a capped domain
cannot take goes to the others in proportion to their weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dataeng.errors import ConfigError, nearest

Floats = npt.NDArray[np.float64]

#: Given weights may miss 1 by this much (0.333 three times) and are then scaled; more is taken for a mistake.
GIVEN_SUM_TOLERANCE = 0.005


def natural_weights(num_tokens: Sequence[int]) -> Floats:
    """Returns weights in proportion to the domains' tokens."""
    return temperature_weights(num_tokens, 1.0)


def temperature_weights(num_tokens: Sequence[int], temperature: float) -> Floats:
    """Returns weights ∝ tokens^(1/temperature): 1 is natural, ∞ is uniform, below 1 favours the large domains."""
    if not temperature > 0:
        raise ConfigError(f"temperature is {temperature:g}; expected a number above 0 (1 is natural, inf is uniform).")
    counts = np.asarray(num_tokens, np.float64)
    if (counts <= 0).any():
        raise ConfigError(f"domain {int(np.argmax(counts <= 0))} of {len(counts)} has no tokens; leave it out.")
    logarithms = np.log(counts) / temperature
    weights = np.exp(logarithms - logarithms.max())
    return np.asarray(weights / weights.sum())


def unimax_weights(num_tokens: Sequence[int], max_epochs: float, token_budget: float) -> Floats:
    """Returns UniMax weights (Chung et al., arXiv 2304.09151, algorithm 1): uniform, but nobody beyond ``max_epochs``.

    From the smallest domain to the largest, each gets an equal part of what is left of ``token_budget``, or
    ``max_epochs`` of its own tokens where that is less; what it cannot take is left to the larger ones. When all
    domains together have less than the budget, all are read ``max_epochs`` times and the weights are natural.
    """
    if not (max_epochs > 0 and math.isfinite(max_epochs)):
        raise ConfigError(f"UniMax is given {max_epochs:g} epochs; expected a number above 0.")
    if not token_budget > 0:
        raise ConfigError(f"UniMax is given a budget of {token_budget:g} tokens; expected a number above 0.")
    counts = np.asarray(num_tokens, np.float64)
    taken = np.zeros(len(counts))
    left = float(token_budget)
    for position, domain in enumerate(np.argsort(counts, kind="stable").tolist()):
        part = left / (len(counts) - position)
        taken[domain] = min(part, max_epochs * counts[domain])
        left -= taken[domain]
    return np.asarray(taken / taken.sum())


def given_weights(names: Sequence[str], weights: Mapping[str, float]) -> Floats:
    """Returns ``weights`` in the order of ``names``, scaled to sum exactly to 1.

    Raises `ConfigError` for a name that is missing or unknown, a weight that is not positive, or a sum that is not 1.
    """
    for name in weights:
        if name not in names:
            raise ConfigError(f"a weight is given for '{name}', which is no domain of the packs{nearest(name, names)}")
    for name in names:
        if name not in weights:
            raise ConfigError(f"no weight is given for domain '{name}'; give one for each of {', '.join(names)}.")
        if not (math.isfinite(weights[name]) and weights[name] > 0):
            raise ConfigError(
                f"the weight of domain '{name}' is {weights[name]:g}; expected a number above 0 "
                "(to leave a domain out, leave out its packs)."
            )
    total = math.fsum(weights.values())
    if abs(total - 1) > GIVEN_SUM_TOLERANCE:
        listed = ", ".join(f"{name} {weights[name]:g}" for name in names)
        raise ConfigError(f"the given weights sum to {total:g}, expected 1 ({listed}).")
    return np.array([weights[name] / total for name in names], np.float64)


def epochs_at_budget(shares: Floats, num_tokens: Sequence[int], token_budget: float) -> Floats:
    """Returns how often each domain's tokens are read when ``token_budget`` tokens are drawn in these shares."""
    return np.asarray(shares * token_budget / np.asarray(num_tokens, np.float64))


def capped_shares(weights: Floats, capacities: Floats, budget: float) -> Floats:
    """Returns the shares nearest to ``weights`` that draw at most ``capacities`` from each domain.

    ``capacities`` and ``budget`` are in the same unit (tokens or rows); ∞ is no cap. A domain that would exceed its
    capacity gets just that; the rest of the budget is split among the others in proportion to their weights, until
    none exceeds (water filling, at most one round per domain).

    Raises `ConfigError` when the capacities of all domains with a weight are together smaller than the budget.
    """
    total = float(capacities[weights > 0].sum())  # a domain of weight 0 cannot help out
    if total < budget * (1 - 1e-12):
        raise ConfigError(f"the epoch caps allow {total:,.0f} in all, {budget:,.0f} are asked for.")
    capped = np.zeros(len(weights), bool)
    shares = np.array(weights, np.float64)
    while True:
        exceeds = ~capped & (shares * budget > capacities)
        if not exceeds.any():
            return shares
        capped |= exceeds
        shares[capped] = capacities[capped] / budget
        free = weights[~capped]
        if free.any():
            shares[~capped] = free / free.sum() * max(0.0, 1 - float(shares[capped].sum()))
