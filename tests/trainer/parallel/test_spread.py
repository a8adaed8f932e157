"""A model over ranks, as far as one process can tell."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trainer.model.decoder import Decoder
from trainer.model.presets import PRESETS
from trainer.parallel.ranks import Ranks
from trainer.parallel.spread import SpreadModel


def test_groups_of_ranks_judge_a_step_by_the_first_ones_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their sums may differ in the last digit; a step that one of them alone calls a spike would part them."""
    model = Decoder(PRESETS["tiny"].model(vocab_size=32, max_positions=8))
    model.initialize(0)
    ranks = Ranks(torch.device("cpu"))
    spread = SpreadModel(model, "zero3", ranks)
    model(torch.zeros(1, 8, dtype=torch.int64)).square().sum().backward()
    own = spread.clip_gradient(1.0)
    assert own > 0

    clipped = spread.clip_gradient(1.0)
    assert clipped == pytest.approx(min(own, 1.0), rel=1e-4)
    monkeypatch.setattr(ranks, "mesh", SimpleNamespace(ndim=2))
    monkeypatch.setattr(ranks, "gather", lambda values: np.stack([values + 0.5, values]))
    assert spread.clip_gradient(10.0) == pytest.approx(clipped + 0.5, rel=1e-4)
