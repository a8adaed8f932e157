"""How well a fit predicts runs that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dataeng.mixture.policies import Floats

NUM_FOLDS = 5
LEAVE_ONE_OUT_BELOW = 20  # runs; folds of fewer than four say little


@dataclass(frozen=True)
class Quality:
    """Of one loss, over runs that were held out."""

    r2: float  # 1 - squared error / variance; 0 is as good as the mean, below 0 worse
    spearman: float  # rank correlation
    error: float  # root of the mean squared error, in the loss's unit


def held_out_predictions(
    fit: Callable[[Floats, Floats], Callable[[Floats], Floats]], weights: Floats, losses: Floats, seed: int
) -> Floats:
    """Returns a prediction [n, T] for every run by a fit to the others: five folds, or all but one of few runs."""
    predictions = np.full(losses.shape, np.nan)
    for held_out in folds(len(weights), seed):
        predict = fit(weights[~held_out], losses[~held_out])
        predictions[held_out] = predict(weights[held_out])
    return predictions


def folds(num_runs: int, seed: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Yields, fold by fold, which of the runs are held out; each is in exactly one."""
    num_folds = num_runs if num_runs < LEAVE_ONE_OUT_BELOW else NUM_FOLDS
    numbers = np.random.default_rng(seed).permutation(num_runs) % num_folds
    for fold in range(num_folds):
        yield numbers == fold


def qualities(predicted: Floats, losses: Floats) -> list[Quality]:
    """Returns the quality of each loss, columns of [n, T]."""
    return [_quality(predicted[:, target], losses[:, target]) for target in range(losses.shape[1])]


def _quality(predicted: Floats, losses: Floats) -> Quality:
    squared = float(np.mean((predicted - losses) ** 2))
    return Quality(1 - squared / float(np.var(losses)), spearman(predicted, losses), float(np.sqrt(squared)))


def spearman(first: Floats, second: Floats) -> float:
    """Returns the rank correlation, with mean ranks for ties; 0 where one of them does not vary."""
    ranks = [mean_ranks(values) - (len(values) + 1) / 2 for values in (first, second)]
    spread = float(np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1])))
    return float(ranks[0] @ ranks[1]) / spread if spread > 0 else 0.0


def mean_ranks(values: Floats) -> Floats:
    """Returns ranks from 1; equal values have the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[group])
