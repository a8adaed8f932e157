"""Warmup, stable, decay: values by hand."""

from __future__ import annotations

import pytest

from trainer.schedule import warmup_stable_decay


def test_the_whole_curve() -> None:
    factors = [warmup_stable_decay(step, 10, 4, 3) for step in range(1, 11)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 2 / 3, 1 / 3])


def test_no_step_has_a_factor_of_zero() -> None:
    for num_steps in (1, 2, 3, 50):
        for warmup_steps in (1, 3):
            for decay_steps in (1, 5):
                factors = [
                    warmup_stable_decay(step, num_steps, warmup_steps, decay_steps) for step in range(1, num_steps + 1)
                ]
                assert 0 < min(factors) <= max(factors) <= 1


def test_overlapping_warmup_and_decay_take_the_smaller() -> None:
    assert [warmup_stable_decay(step, 4, 4, 4) for step in (1, 2, 3, 4)] == [0.25, 0.5, 0.5, 0.25]
