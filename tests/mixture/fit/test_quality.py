"""Held-out predictions and their measures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.mixture.fit.quality import folds, held_out_predictions, mean_ranks, qualities, spearman
from dataeng.mixture.policies import Floats


def test_by_hand() -> None:
    losses = np.array([[1.0], [2.0], [3.0], [4.0]])
    [perfect] = qualities(losses, losses)
    assert (perfect.r2, perfect.spearman, perfect.error) == (1, pytest.approx(1), 0)
    [mean] = qualities(np.full((4, 1), 2.5), losses)
    assert (mean.r2, mean.spearman) == (0, 0)
    [reversed_] = qualities(losses[::-1], losses)
    assert (reversed_.r2, reversed_.spearman) == (1 - 5 / 1.25, pytest.approx(-1))
    assert mean_ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1, 3.5, 2]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=30))
def test_rank_correlation_is_scipy_s(pairs: list[tuple[int, int]]) -> None:
    from scipy.stats import spearmanr

    first, second = np.array(pairs, np.float64).T
    if np.ptp(first) and np.ptp(second):
        assert spearman(first, second) == pytest.approx(spearmanr(first, second).statistic)
    else:
        assert spearman(first, second) == 0


@pytest.mark.parametrize(("num_runs", "expected"), [(7, 7), (19, 19), (20, 5), (512, 5)])
def test_folds_hold_out_every_run_once(num_runs: int, expected: int) -> None:
    held_out = np.stack(list(folds(num_runs, 1)))
    assert len(held_out) == expected and (held_out.sum(axis=0) == 1).all()
    assert np.ptp(held_out.sum(axis=1)) <= 1


def test_no_run_helps_to_predict_itself() -> None:
    weights, losses = np.arange(30.0)[:, None], np.arange(30.0)[:, None]

    def remembers(seen: Floats, values: Floats):  # type: ignore[no-untyped-def]
        known = {float(w): float(v) for w, v in zip(seen[:, 0], values[:, 0], strict=True)}
        return lambda asked: np.array([[known.get(float(w), -1.0)] for w in asked[:, 0]])

    assert (held_out_predictions(remembers, weights, losses, 3) == -1).all()
