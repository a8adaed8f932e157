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
    errors = [_fit(n, losses, float(exponent))[2] for exponent in grid]
    best = int(np.argmin(errors))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
    fine = np.linspace(low, high, 41)
    exponent = float(fine[int(np.argmin([_fit(n, losses, float(value))[2] for value in fine]))])
    irreducible, scale, _ = _fit(n, losses, exponent)
    return PowerLaw(irreducible, scale, exponent)


def _fit(n: Floats, losses: Floats, exponent: float) -> tuple[float, float, float]:
    """Returns (ε, β, Huber error) for one exponent, ε and β at least 0."""
    x = n**-exponent
    weights = np.ones(len(n))
    irreducible = scale = 0.0
    residuals = losses
    for _ in range(_ITERATIONS):
        irreducible, scale = _line(x, losses, weights)
        residuals = losses - irreducible - scale * x
        weights = 1 / np.maximum(np.abs(residuals) / HUBER_DELTA, 1)
    size = np.abs(residuals)
    huber = np.where(size <= HUBER_DELTA, size**2 / 2, HUBER_DELTA * (size - HUBER_DELTA / 2))
    return irreducible, scale, float(huber.sum())


def _line(x: Floats, y: Floats, weights: Floats) -> tuple[float, float]:
    """Returns the weighted least-squares (intercept, slope), both at least 0."""
    total = weights.sum()
    mean_x, mean_y = (weights * x).sum() / total, (weights * y).sum() / total
    spread = (weights * (x - mean_x) ** 2).sum()
    slope = (weights * (x - mean_x) * (y - mean_y)).sum() / spread if spread > 0 else 0.0
    if slope <= 0:  # rising or flat: all of it is irreducible
        return max(float(mean_y), 0.0), 0.0
    intercept = mean_y - slope * mean_x
    if intercept < 0:
        return 0.0, max(float((weights * x * y).sum() / (weights * x**2).sum()), 0.0)
    return float(intercept), float(slope)
