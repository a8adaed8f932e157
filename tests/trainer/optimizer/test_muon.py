"""Muon computes what PyTorch's does, step by step."""

from __future__ import annotations

import pytest
import torch

from trainer.optimizer.muon import Muon, orthogonalized


@pytest.mark.parametrize("shape", [(8, 8), (24, 6), (6, 24)])
def test_whole_matrices_as_in_pytorch(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    ours, theirs = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    first = Muon([ours], lr=0.02, weight_decay=0.1)
    second = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        ours.grad = torch.randn(shape, generator=generator)
        theirs.grad = ours.grad.clone()
        first.step()
        second.step()
        assert torch.equal(ours, theirs)
    (state,) = first.state.values()
    assert torch.equal(state["momentum_buffer"], second.state[theirs]["momentum_buffer"])


def test_orthogonal_matrices_come_out() -> None:
    values = torch.linalg.svdvals(
        orthogonalized(torch.randn(16, 5, generator=torch.Generator().manual_seed(2))).float()
    )
    assert values.min() > 0.5 and values.max() < 1.5


def test_a_matrix_without_gradient_stays() -> None:
    matrix = torch.nn.Parameter(torch.ones(2, 2))
    Muon([matrix], lr=1.0).step()
    assert torch.equal(matrix, torch.ones(2, 2))
    matrix.grad = torch.zeros(2, 2)
    Muon([matrix], lr=1.0, weight_decay=0.0).step()
    assert torch.equal(matrix, torch.ones(2, 2))
