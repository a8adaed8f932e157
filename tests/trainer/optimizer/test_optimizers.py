"""Which weights are decayed by which optimizer, and single steps by hand."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from trainer.config import OptimizerConfig, OptimizerName
from trainer.model.decoder import Decoder
from trainer.model.presets import ModelConfig
from trainer.optimizer.muon import Muon
from trainer.optimizer.optimizers import Optimizers, build_optimizer
from trainer.recovery.checkpoint import load_optimizer_tensors, optimizer_tensors

CONFIG = ModelConfig(vocab_size=20, dim=8, num_layers=1, num_heads=2, num_kv_heads=1, hidden_dim=12, max_positions=8)


def model_and_optimizer(name: str, tied: bool = True) -> tuple[Decoder, Optimizers]:
    model = Decoder(ModelConfig(**{**vars(CONFIG), "tied_embeddings": tied}))
    model.initialize(0)
    return model, build_optimizer(model, OptimizerConfig(learning_rate=0.01, name=name))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", get_args(OptimizerName))
@pytest.mark.parametrize("tied", [True, False])
def test_only_matrices_are_decayed_and_every_weight_is_in_one_group(name: str, tied: bool) -> None:
    model, optimizer = model_and_optimizer(name, tied)
    decay = {n: group["weight_decay"] for group in optimizer.param_groups for n in group["param_names"]}
    assert sum(len(group["param_names"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    assert decay == {
        n: 0.1 if n.endswith("_proj.weight") or n == "lm_head.weight" else 0.0 for n, _ in model.named_parameters()
    }


@pytest.mark.parametrize("tied", [True, False])
def test_muon_gets_the_hidden_matrices(tied: bool) -> None:
    _, optimizer = model_and_optimizer("muon", tied)
    muon, adamw = optimizer.parts
    assert isinstance(muon, Muon) and isinstance(adamw, torch.optim.AdamW)
    assert all(n.endswith("_proj.weight") for group in muon.param_groups for n in group["param_names"])


def test_the_first_step_of_adamw_by_hand() -> None:
    """Adam's first step is lr · sign(gradient); decay takes lr · 0.1 of the weight first."""
    model, optimizer = model_and_optimizer("adamw")
    matrix, gain = model.layers[0].mlp.up_proj.weight, model.norm.weight
    before = matrix.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, -2.0)
    optimizer.step()
    torch.testing.assert_close(matrix.detach(), before * (1 - 0.01 * 0.1) + 0.01)
    assert gain.detach().tolist() == pytest.approx([1.01] * 8)


def test_two_steps_of_lion_by_hand() -> None:
    model, optimizer = model_and_optimizer("lion")
    optimizer.set_learning_rate(0.1)
    gain = model.norm.weight
    for value in (2.0, -1.0):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, value)
        optimizer.step()
    # m = 0.02 after the first; 0.9 · 0.02 - 0.1 · 1 < 0: up again. Without decay: 1 - 0.1 + 0.1.
    assert gain.detach().tolist() == pytest.approx([1.0] * 8)
    assert optimizer_tensors(optimizer)["exp_avg.norm.weight"].tolist() == pytest.approx([0.99 * 0.02 - 0.01] * 8)


def test_muon_makes_updates_of_one_size_in_all_directions() -> None:
    model, optimizer = model_and_optimizer("muon")
    matrix = model.layers[0].mlp.up_proj.weight
    before = matrix.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    optimizer.step()
    update = matrix.detach() - before * (1 - 0.01 * 0.1)
    sizes = torch.linalg.svdvals(update) / (0.01 * 0.2 * max(matrix.shape) ** 0.5)
    assert 0.6 < float(sizes.min()) <= float(sizes.max()) < 1.3


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_learning_and_going_on_from_saved_state(name: str) -> None:
    tokens = torch.randint(0, 20, (4, 9), generator=torch.Generator().manual_seed(0))

    def step(model: Decoder, optimizer: Optimizers) -> float:
        loss = torch.nn.functional.cross_entropy(model.logits(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    model, optimizer = model_and_optimizer(name)
    losses = [step(model, optimizer) for _ in range(5)]
    other, again = model_and_optimizer(name)
    other.load_state_dict(model.state_dict())
    load_optimizer_tensors(again, {key: value.clone() for key, value in optimizer_tensors(optimizer).items()})
    going_on = [step(model, optimizer) for _ in range(5)]
    assert [step(other, again) for _ in range(5)] == pytest.approx(going_on, rel=1e-6)
    assert going_on[-1] < losses[0]


def test_weights_without_gradients_are_left_out() -> None:
    model = Decoder(CONFIG)
    model.embed_tokens.weight.requires_grad_(False)
    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=0.01))
    assert "embed_tokens.weight" not in [n for group in optimizer.param_groups for n in group["param_names"]]
