"""Gradient-boosted trees as the predictor of losses: RegMix (Liu et al., arXiv 2407.01492).

LightGBM with the constants of RegMix's notebook (learning rate 0.01, at most 1,000 trees, stopped when three more do
not help on held-out runs). The notebook stops on the very runs that it reports on; here the number of trees comes from
runs held out of each fit, so that no run helps to predict itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dataeng.errors import ConfigError
from dataeng.mixture.policies import Floats

LEARNING_RATE = 0.01
MAX_TREES = 1000
PATIENCE = 3
HELD_OUT = 5  # every fifth run decides when to stop
MIN_RUNS = 10  # trees of fewer say nothing


def fit_trees(weights: Floats, losses: Floats, seed: int = 42) -> Callable[[Floats], Floats]:
    """Fits mixtures [n, K] to losses [n, T]; returns a function from mixtures [m, K] to losses [m, T].

    Raises `ConfigError` when LightGBM is not installed, or for fewer than `MIN_RUNS` runs.
    """
    try:
        import lightgbm
    except ImportError as error:
        raise ConfigError("--method regmix needs LightGBM: pip install 'dataeng[fit]'.") from error
    if len(weights) < MIN_RUNS:
        raise ConfigError(f"trees are fitted to at least {MIN_RUNS} runs; there are {len(weights)}.")
    parameters: dict[str, Any] = {
        "objective": "regression",
        "learning_rate": LEARNING_RATE,
        # LightGBM's own 20 runs a leaf would allow a swarm of 30 no split at all.
        "min_data_in_leaf": max(2, min(20, len(weights) // 20)),
        "seed": seed,
        "num_threads": 1,  # small tables: threads only wait for each other
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    stops = np.random.default_rng(seed).permutation(len(weights)) % HELD_OUT == 0
    models = []
    for target in range(losses.shape[1]):
        values = losses[:, target]
        training = lightgbm.Dataset(weights[~stops], values[~stops], free_raw_data=False)
        stopped = lightgbm.train(
            parameters,
            training,
            MAX_TREES,
            valid_sets=[lightgbm.Dataset(weights[stops], values[stops], reference=training)],
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
        )
        num_trees = max(1, stopped.best_iteration)
        models.append(lightgbm.train(parameters, lightgbm.Dataset(weights, values), num_trees))
    return lambda mixtures: np.column_stack([np.asarray(model.predict(mixtures, num_threads=0)) for model in models])
