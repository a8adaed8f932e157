"""Learning rates and batch sizes by hand."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest

from trainer.config import Decay, Schedule, ScheduleConfig
from trainer.optimizer.schedule import batch_size_at, is_decaying, learning_rate_factor, total_rows


def curve(num_steps: int, warmup_steps: int, decay_steps: int, **options: Any) -> list[float]:
    config = ScheduleConfig(warmup_steps=warmup_steps, decay_steps=decay_steps, **options)
    return [learning_rate_factor(step, num_steps, config) for step in range(1, num_steps + 1)]


def test_warmup_stable_decay() -> None:
    assert curve(10, 4, 3) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 2 / 3, 1 / 3])
    assert curve(4, 4, 4) == [0.25, 0.5, 0.5, 0.25]  # where both overlap, the smaller
    assert curve(4, 0, 2) == [1, 1, 1, 0.5]  # none of either: the peak from the first step, and to the last
    assert curve(4, 2, 0) == [0.5, 1, 1, 1]


def test_the_shapes_of_the_decay() -> None:
    def last(decay: str) -> list[float]:
        return curve(8, 1, 4, decay=decay)[4:]

    assert last("linear") == pytest.approx([1, 0.75, 0.5, 0.25])
    assert last("cosine") == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2])
    assert last("1-sqrt") == pytest.approx([1, 0.5, 1 - math.sqrt(0.5), 1 - math.sqrt(0.75)])
    assert last("exponential") == pytest.approx([1, 0.5**2.5, 0.5**5, 0.5**7.5], abs=2e-3)


def test_cosine_linear_and_constant() -> None:
    assert curve(6, 2, 1, name="linear") == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25])
    assert curve(6, 2, 1, name="cosine")[2:] == pytest.approx([(1 + math.cos(math.pi * i / 4)) / 2 for i in range(4)])
    assert curve(6, 2, 1, name="cosine", final_factor=0.1)[4] == pytest.approx(0.1 + 0.9 * 0.5)
    assert curve(6, 2, 3, name="constant") == [0.5, 1, 1, 1, 1, 1]


def test_no_step_has_a_factor_of_zero() -> None:
    for num_steps in (1, 2, 3, 50):
        for warmup_steps in (0, 1, 3):
            for decay_steps in (0, 1, 5):
                for name in get_args(Schedule):
                    for decay in get_args(Decay):
                        factors = curve(num_steps, warmup_steps, decay_steps, name=name, decay=decay)
                        assert 0 < min(factors) <= max(factors) <= 1


def test_the_decay_phase() -> None:
    config = ScheduleConfig(warmup_steps=1, decay_steps=3)
    assert [is_decaying(step, 5, config) for step in range(1, 6)] == [False, False, True, True, True]
    assert not is_decaying(5, 5, ScheduleConfig(warmup_steps=1, decay_steps=3, name="cosine"))


def test_the_batch_grows_in_multiples_of_the_first() -> None:
    config = ScheduleConfig(warmup_steps=1, decay_steps=1, ramp_start=4, ramp_steps=8)
    sizes = [batch_size_at(step, 16, config) for step in range(1, 11)]
    assert sizes == [4, 4, 8, 8, 12, 12, 16, 16, 16, 16]
    for num_steps in range(1, 11):
        assert total_rows(num_steps, 16, config) == sum(sizes[:num_steps])
    assert total_rows(7, 16, ScheduleConfig(warmup_steps=1, decay_steps=1)) == 7 * 16
