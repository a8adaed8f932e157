"""Spikes among steps that are not."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from trainer.recovery.spikes import SpikeDetector


def usual_losses(count: int) -> list[float]:
    random = np.random.default_rng(0)
    return [float(3 + 2 / (1 + i / 50) + random.normal(0, 0.05)) for i in range(count)]


def test_a_run_that_learns_has_no_spikes() -> None:
    detector = SpikeDetector()
    norms = np.random.default_rng(1).lognormal(0, 0.3, 1000)
    assert [detector.judge(i, loss, norms[i]) for i, loss in enumerate(usual_losses(1000))] == [None] * 1000


@pytest.mark.parametrize(("loss", "norm", "of"), [(5.0, 1.0, "loss"), (3.2, 9.0, "gradient norm")])
def test_a_spike_is_found_and_does_not_become_usual(loss: float, norm: float, of: str) -> None:
    detector = SpikeDetector()
    random = np.random.default_rng(2)
    for i in range(200):
        assert detector.judge(i, float(3 + random.normal(0, 0.05)), float(1 + random.normal(0, 0.1))) is None
    for i in range(300):
        spike = detector.judge(200 + i, loss, norm)
        assert spike is not None and spike.of == of and spike.deviations > 6 and spike.step == 200 + i
    assert f"{of} " in str(spike) and "deviations above its median" in str(spike)
    assert detector.judge(600, 3.0, 1.0) is None
    assert detector.judge(601, 0.1, 0.1) is None  # downwards is good news


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_a_spike_from_the_first_step(value: float) -> None:
    spike = SpikeDetector().judge(1, value, 1.0)
    assert spike is not None and str(spike) == "loss is not finite in step 1"
    spike = SpikeDetector().judge(1, 1.0, value)
    assert spike is not None and str(spike) == "gradient norm is not finite in step 1"


def test_nothing_is_judged_by_few_steps_or_by_a_deviation_of_zero() -> None:
    detector = SpikeDetector()
    assert [detector.judge(i, 2.0, 1.0) for i in range(31)] == [None] * 31
    assert detector.judge(31, 50.0, 1.0) is None
    for i in range(200):
        detector.judge(32 + i, 2.0, 1.0)
    assert detector.judge(300, 2.1, 1.0) is None  # 5 % above a constant
    assert detector.judge(301, 2.3, 1.0) is not None


def test_a_stage_whose_domains_have_other_losses_is_no_spike() -> None:
    """Without a window of its own, every step of it would be left out, and the run end at the eleventh."""
    detector, again = SpikeDetector(), SpikeDetector()
    random = np.random.default_rng(3)
    for i in range(200):
        assert detector.judge(i, float(1 + random.normal(0, 0.05)), 1.0, stage=0) is None
    again.load_state(json.loads(json.dumps(detector.state())))
    for i in range(100):
        loss = float(3 + random.normal(0, 0.05))
        assert detector.judge(200 + i, loss, 1.0, stage=1) is None
        assert again.judge(200 + i, loss, 1.0, stage=1) is None
    again.load_state(json.loads(json.dumps(detector.state())))
    for found in (detector, again):
        assert found.judge(300, 5.0, 1.0, stage=1) is not None


def test_state_goes_through_json() -> None:
    first, second = SpikeDetector(), SpikeDetector()
    losses = usual_losses(150)
    for i, loss in enumerate(losses):
        first.judge(i, loss, 1.0)
    second.load_state(json.loads(json.dumps(first.state())))
    for value in (3.0, 4.5, 9.0):
        assert str(first.judge(151, value, 1.0)) == str(second.judge(151, value, 1.0))
