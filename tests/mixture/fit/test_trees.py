"""RegMix's trees on RegMix's own published runs, and on too few."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from dataeng.errors import ConfigError
from dataeng.mixture.fit.exponential import fit_exponential
from dataeng.mixture.fit.quality import spearman
from dataeng.mixture.fit.runs import ProxyRuns, read_runs
from dataeng.mixture.fit.trees import fit_trees


def published(name: str) -> ProxyRuns:
    """512 runs of 1 M parameters, 256 others, and 64 of 1 B; see regmix/NOTICE.md."""
    return read_runs(Path(__file__).parent / "regmix" / f"{name}.csv").chosen(["pile_cc"])


def test_ranks_of_published_runs_are_predicted() -> None:
    """Fitted to 512 runs of 1 M parameters, tried on 256 others and on 64 runs of 1 B parameters."""
    train, test, large = published("train_1m"), published("test_1m"), published("test_1b")
    trees = fit_trees(train.weights, train.losses)
    law = fit_exponential(train.weights, train.losses)
    assert spearman(trees(test.weights)[:, 0], test.losses[:, 0]) > 0.98
    assert spearman(law.predict(test.weights)[:, 0], test.losses[:, 0]) > 0.95
    # Models a thousand times as large rank the mixtures alike.
    assert spearman(trees(large.weights)[:, 0], large.losses[:, 0]) > 0.94
    assert spearman(law.predict(large.weights)[:, 0], large.losses[:, 0]) > 0.97


def test_the_same_runs_give_the_same_trees() -> None:
    train = published("train_1m")
    some, values = train.weights[:60], train.losses[:60]
    assert (fit_trees(some, values)(train.weights) == fit_trees(some, values)(train.weights)).all()


def test_few_runs_still_split() -> None:
    generator = np.random.default_rng(0)
    weights = generator.dirichlet(np.ones(3), 30)
    predicted = fit_trees(weights, weights[:, :1])(weights)
    assert spearman(predicted[:, 0], weights[:, 0]) > 0.8


def test_too_few_runs_and_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="at least 10 runs; there are 9"):
        fit_trees(np.full((9, 2), 0.5), np.ones((9, 1)))
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ConfigError, match=r"needs LightGBM: pip install 'dataeng\[fit\]'"):
        fit_trees(np.full((20, 2), 0.5), np.ones((20, 1)))
