"""Weights within bounds: floors, caps and trust regions at once."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SMALLEST = 1e-30  # of a target: what bounds cut off goes also to those that were rounded to 0


def nearest_within(target: Floats, low: Floats, high: Floats) -> Floats:
    """Returns the weights nearest to ``target`` with ``low`` ≤ weights ≤ ``high`` that sum to 1, float64 [n].

    Nearest is the smallest Kullback-Leibler divergence from them to the target, whose solution is
    clip(λ · target, low, high) with the λ that makes the sum 1: those within their bounds keep their proportions. A
    target within the bounds stays as it is. ``low`` must sum to 1 at most, ``high`` to 1 at least.
    """
    if (target >= low).all() and (target <= high).all():
        return target
    target = np.maximum(target, SMALLEST)

    def at(scale: float) -> Floats:
        return np.clip(scale * target, low, high)

    # The sum grows with λ, in straight lines between the λ at which some weight meets a bound.
    corners = np.sort(np.concatenate([low / target, high / target]))
    found = bisect_left(corners, 1.0, key=lambda scale: float(at(scale).sum()))
    if found == 0:
        return at(float(corners[0]))
    if found == len(corners):
        return at(float(corners[-1]))
    weights = at(float(corners[found - 1] + corners[found]) / 2)
    free = (weights > low) & (weights < high)
    if free.any():
        weights[free] = target[free] / target[free].sum() * (1 - weights[~free].sum())
    return weights
