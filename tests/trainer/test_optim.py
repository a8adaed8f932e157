"""Which weights are decayed, and one AdamW step by hand."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.config import ModelConfig, OptimizerConfig
from trainer.model import Decoder
from trainer.optim import build_optimizer, set_learning_rate

CONFIG = ModelConfig(vocab_size=20, dim=8, num_layers=1, num_heads=2, num_kv_heads=1, hidden_dim=12, max_positions=8)


def test_only_matrices_are_decayed_and_every_weight_is_in_one_group() -> None:
    model = Decoder(CONFIG)
    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=1.0, warmup_steps=1, decay_steps=1))
    decayed, others = (group["param_names"] for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert sorted(decayed) == sorted(name for name, _ in model.named_parameters() if name.endswith("_proj.weight"))
    assert "embed_tokens.weight" in others
    assert sorted([*decayed, *others]) == sorted(name for name, _ in model.named_parameters())


def test_the_first_step_by_hand() -> None:
    """Adam's first step is lr · sign(gradient); decay takes lr · 0.1 of the weight first."""
    model = Decoder(CONFIG)
    model.initialize(0)
    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=1.0, warmup_steps=1, decay_steps=1))
    set_learning_rate(optimizer, 0.01)
    matrix, gain = model.layers[0].mlp.up_proj.weight, model.norm.weight
    before = matrix.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, -2.0)
    optimizer.step()
    torch.testing.assert_close(matrix.detach(), before * (1 - 0.01 * 0.1) + 0.01)
    assert gain.detach().tolist() == pytest.approx([1.01] * 8)
    assert math.isclose(optimizer.param_groups[0]["lr"], 0.01)
