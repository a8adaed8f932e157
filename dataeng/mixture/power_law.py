"""Fitting loss = ε + β n^-α to one domain's losses, robustly and always with the same result.

For a given α the curve is linear in (ε, β): a weighted least-squares problem in closed form, made robust by iterating
it with Huber's weights. α itself is found on a grid and refined around the best. No start values, nothing random.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LARGEST_EXPONENT = 0.8  # ADO's bound (arXiv 2410.11820)
HUBER_DELTA = 1e-3  # likewise, in nats
MIN_POINTS = 4
_ITERATIONS = 8


class PowerLaw(NamedTuple):
    """loss(n) = ``irreducible`` + ``scale`` · n^-``exponent``; all at least 0."""

    irreducible: float
    scale: float
    exponent: float

    def at(self, n: float) -> float:
        """Returns the loss after ``n``."""
        return float(self.irreducible + self.scale * n**-self.exponent)


def fit_power_law(n: Floats, losses: Floats) -> PowerLaw | None:
    """Returns the law that fits best in the sense of Huber's loss, or None for fewer than 4 points.

    Args:
      n: float64 [points], above 0: steps or tokens.
      losses: float64 [points], nats.
    """
    if len(n) < MIN_POINTS:
        return None
    grid = np.linspace(0.01, LARGEST_EXPONENT, 80)
    best = int(np.argmin(_fit(n, losses, grid)[2]))
    fine = np.linspace(grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)], 41)
    irreducible, scale, errors = _fit(n, losses, fine)
    best = int(np.argmin(errors))
    return PowerLaw(float(irreducible[best]), float(scale[best]), float(fine[best]))


def _fit(n: Floats, losses: Floats, exponents: Floats) -> tuple[Floats, Floats, Floats]:
    """Returns (ε, β, Huber error) for each exponent, float64 [E] each; ε and β are at least 0."""
    x = n ** -exponents[:, None]  # [E, points]
    weights = np.ones_like(x)
    for _ in range(_ITERATIONS):
        irreducible, scale = _line(x, losses, weights)
        residuals = losses - irreducible[:, None] - scale[:, None] * x
        weights = 1 / np.maximum(np.abs(residuals) / HUBER_DELTA, 1)
    size = np.abs(residuals)
    huber = np.where(size <= HUBER_DELTA, size**2 / 2, HUBER_DELTA * (size - HUBER_DELTA / 2))
    return irreducible, scale, huber.sum(axis=1)


def _line(x: Floats, y: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Returns the weighted least-squares intercept and slope of each row of ``x``, both at least 0."""
    total = weights.sum(axis=1)
    mean_x, mean_y = (weights * x).sum(axis=1) / total, (weights * y).sum(axis=1) / total
    from_mean_x, from_mean_y = x - mean_x[:, None], y - mean_y[:, None]
    spread = (weights * from_mean_x**2).sum(axis=1)
    slope = (weights * from_mean_x * from_mean_y).sum(axis=1) / np.where(spread > 0, spread, 1.0)
    intercept = mean_y - slope * mean_x
    through_origin = np.maximum((weights * x * y).sum(axis=1) / (weights * x**2).sum(axis=1), 0.0)
    rises = (spread > 0) & (slope > 0)  # of x, so that the losses fall; otherwise all of it is irreducible
    return (
        np.where(rises, np.maximum(intercept, 0.0), np.maximum(mean_y, 0.0)),
        np.where(rises, np.where(intercept < 0, through_origin, slope), 0.0),
    )
