"""What a step cost, from a configuration, and updates that are measured or not but always made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from trainer.config import TrainConfig
from trainer.model.decoder import Decoder
from trainer.optimizer.optimizers import build_optimizer
from trainer.parallel.ranks import Ranks
from trainer.watching.flops import flops_per_position
from trainer.watching.meter import StepMeter

MakeConfig = Callable[..., TrainConfig]
ALONE = Ranks(torch.device("cpu"))


def model_of(config: TrainConfig) -> Decoder:
    model = Decoder(replace(config.model, num_layers=1))
    model.initialize(0)
    return model


def test_mfu_is_positions_times_flops_over_the_peak_of_all_devices(make_config: MakeConfig) -> None:
    config = make_config(batch_size=8, batch_ramp=(2, 4), peak_flops=1e12)
    model = model_of(config)
    flops = flops_per_position(model, config.model, 64)
    assert StepMeter(config, model, ALONE).mfu(20, 0.5) == pytest.approx(8 * 64 * flops / 0.5 / 1e12)
    assert StepMeter(config, model, ALONE).mfu(1, 0.5) == pytest.approx(2 * 64 * flops / 0.5 / 1e12)  # the ramp
    two = StepMeter(config, model, Ranks(torch.device("cpu"), 0, 2))
    assert two.mfu(20, 0.5) == pytest.approx(4 * 64 * flops / 0.5 / 1e12)
    unknown = StepMeter(replace(config, peak_flops=None), model, ALONE)
    assert unknown.peak_flops is None and unknown.mfu(20, 0.5) is None


def test_every_step_is_made_and_some_are_measured(make_config: MakeConfig) -> None:
    config = make_config(update_ratio_every=2)
    model = model_of(config)
    meter, optimizer = StepMeter(config, model, ALONE), build_optimizer(model, config.optimizer)
    ratios = []
    for step in range(1, 5):
        before = [parameter.detach().clone() for parameter in model.parameters()]
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.1)
        meter.update(step, optimizer)
        assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
        ratios.append(meter.update_ratio(step))
    assert [ratio is None for ratio in ratios] == [False, False, True, False]
    assert meter.update_ratio(5) is None  # a step that was not taken has none
