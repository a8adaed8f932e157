"""The exponential mixing law: L(p) = exp(c) + exp(t · p), one c and one t for each loss.

Of data mixing laws (Ye et al., arXiv 2403.16952: L = c + k exp(t · p); k is a constant added to all of t, since the
weights p sum to 1) in the form of Olmix (arXiv 2602.12237). It is convex in p, so its smallest value over mixtures can
be found, not searched for. Fitted by least squares: Levenberg-Marquardt from several starts, each a value of exp(c)
for which log(L - exp(c)) = t · p is a linear regression.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dataeng.mixture.policies import Floats

STARTS = (0.0, 0.3, 0.6, 0.8, 0.9, 0.97, 0.99)  # exp(c) as a part of the smallest loss
RIDGE = 1e-8  # of the mean squared loss: decides t where the runs do not (a domain that never varies)
FIRST_ITERATIONS, MAX_ITERATIONS = 8, 200  # of every start, and of the two that are best by then
CONVERGED = 1e-11  # part of the cost that a step must gain
SMALLEST_FLOOR = 1e-9  # of the smallest loss: exp(c) is never 0


@dataclass(frozen=True)
class ExponentialLaw:
    """A fitted law for T losses over K domains."""

    log_floors: Floats  # c, [T]
    slopes: Floats  # t, [T, K]

    def predict(self, weights: Floats) -> Floats:
        """Returns losses [n, T] for mixtures [n, K]."""
        return np.asarray(np.exp(self.log_floors) + np.exp(weights @ self.slopes.T))

    def gradient(self, weights: Floats, importance: Floats) -> Floats:
        """Returns the gradient [K] of Σ importance · loss at one mixture [K]."""
        return np.asarray((importance * np.exp(self.slopes @ weights)) @ self.slopes)


def fit_exponential(weights: Floats, losses: Floats) -> ExponentialLaw:
    """Fits mixtures [n, K] to positive losses [n, T]."""
    fitted = [_fit_one(weights, losses[:, target]) for target in range(losses.shape[1])]
    return ExponentialLaw(np.array([parameters[0] for parameters in fitted]), np.stack([p[1:] for p in fitted]))


def _fit_one(weights: Floats, losses: Floats) -> Floats:
    """Returns (c, t_1 … t_K) with the smallest squared error over the starts."""
    first: list[tuple[float, Floats]] = []
    for start in STARTS:
        floor = max(start, SMALLEST_FLOOR) * float(losses.min())
        # A weight of (L - floor)² makes the regression on logarithms one on losses, to first order.
        gaps = losses - floor
        scale = gaps / gaps.mean()
        slopes = np.linalg.lstsq(weights * scale[:, None], np.log(gaps) * scale, rcond=1e-8)[0]
        first.append(_refine(weights, losses, np.concatenate([[np.log(floor)], slopes]), FIRST_ITERATIONS))
    first.sort(key=lambda found: found[0])
    return min((_refine(weights, losses, found, MAX_ITERATIONS) for _, found in first[:2]), key=lambda best: best[0])[1]


def _refine(weights: Floats, losses: Floats, parameters: Floats, max_iterations: int) -> tuple[float, Floats]:
    """Levenberg-Marquardt on (c, t), with a weak pull of t to its mean; returns the cost and the parameters."""
    ridge = np.sqrt(RIDGE * float(np.mean(losses**2)))
    num_domains = weights.shape[1]
    centering = np.eye(num_domains) - 1 / num_domains

    def residuals(values: Floats) -> Floats:
        with np.errstate(over="ignore"):
            errors = np.exp(values[0]) + np.exp(weights @ values[1:]) - losses
        return np.concatenate([errors, ridge * centering @ values[1:]])

    def jacobian(values: Floats) -> npt.NDArray[np.float64]:
        rises = np.exp(weights @ values[1:])
        top = np.column_stack([np.full(len(losses), np.exp(values[0])), rises[:, None] * weights])
        return np.vstack([top, np.column_stack([np.zeros(num_domains), ridge * centering])])

    damping = 1e-3
    errors = residuals(parameters)
    cost = float(errors @ errors)
    for _ in range(max_iterations):
        slope = jacobian(parameters)
        normal = slope.T @ slope
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-12), -(slope.T @ errors))
        candidate = parameters + np.clip(step, -2, 2)
        new_errors = residuals(candidate)
        new_cost = float(new_errors @ new_errors)
        if np.isfinite(new_cost) and new_cost < cost:
            gained = cost - new_cost
            parameters, errors, cost, damping = candidate, new_errors, new_cost, max(damping / 3, 1e-12)
            if gained <= CONVERGED * cost:
                break
        else:
            damping *= 4
            if damping > 1e12:
                break
    return cost, parameters
