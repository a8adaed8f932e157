"""‖Δw‖ / ‖w‖ against plain NumPy, cut over ranks, and without a trace in the weights."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from trainer.watching.update_ratio import Floats, UpdateRatio, is_measured


def network() -> nn.Module:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 4), nn.LayerNorm(4))
    model[1].bias.requires_grad_(False)
    return model


def step(model: nn.Module) -> None:
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=0.01)
    model(torch.arange(7)).square().sum().backward()
    optimizer.step()


def flat(model: nn.Module) -> Floats:
    return np.concatenate([p.detach().double().numpy().ravel() for p in model.parameters() if p.requires_grad])


def test_it_is_the_plain_ratio_and_changes_nothing() -> None:
    model = network()
    alone = copy.deepcopy(model)
    before = flat(model)
    measured = UpdateRatio(model.parameters())
    step(model)
    ratio = measured.ratio()
    assert ratio == pytest.approx(np.linalg.norm(flat(model) - before) / np.linalg.norm(before), rel=1e-5)
    step(alone)
    assert np.array_equal(flat(alone), flat(model))
    assert measured.before == []  # copies are not kept


def test_ranks_that_hold_parts_find_the_ratio_of_the_whole() -> None:
    before = torch.arange(1.0, 7.0)
    changes = torch.tensor([0.1, 0.0, -0.2, 0.3, 0.0, 0.5])
    expected = float(changes.norm() / before.norm())
    parts = [nn.Parameter(before[:4].clone()), nn.Parameter(before[4:].clone())]
    nothing = nn.Parameter(torch.empty(0, 3))  # what a rank holds of a weight smaller than the number of ranks
    sums = []
    for part, change in zip(parts, (changes[:4], changes[4:]), strict=True):
        kept = UpdateRatio([part, nothing], lambda own: sums.append(own.copy()) or own)  # type: ignore[func-returns-value]
        with torch.no_grad():
            part += change
        kept.ratio()
    total = np.sum(sums, axis=0)
    measured = UpdateRatio([parts[0]], lambda own: total)
    assert measured.ratio() == pytest.approx(expected, rel=1e-6)


def test_weights_of_zero_have_no_ratio() -> None:
    measured = UpdateRatio([nn.Parameter(torch.zeros(3))])
    assert measured.ratio() is None
    assert UpdateRatio([]).ratio() is None


def test_which_steps_are_measured() -> None:
    assert [s for s in range(1, 21) if is_measured(s, 5)] == [1, 5, 10, 15, 20]
    assert not any(is_measured(s, 0) for s in range(1, 21))
