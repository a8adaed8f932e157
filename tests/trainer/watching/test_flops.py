"""The formula of MFU against FLOPs that PyTorch counts, and peaks by device name."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from trainer.model.decoder import Decoder
from trainer.model.lora import add_lora
from trainer.model.presets import LoraConfig, ModelConfig
from trainer.watching.flops import PEAK_FLOPS, flops_per_position, matrix_weights, peak_flops, peak_flops_of

SHAPE = ModelConfig(vocab_size=96, dim=32, num_layers=3, num_heads=4, num_kv_heads=2, hidden_dim=80, max_positions=64)
BATCH, LENGTH = 2, 16


def counted(model: Decoder) -> int:
    """FLOPs of a forward and backward pass, with attention as two matrix products and their four gradients.

    PyTorch's counter knows no causal half: it counts the whole matrices that this kernel does compute. (Of flash
    attention's backward pass it would also count the scores, which that computes again.)
    """
    tokens_bt = torch.randint(SHAPE.vocab_size, (BATCH, LENGTH))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.logits(tokens_bt).sum().backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops())


@pytest.mark.parametrize(
    "config",
    [SHAPE, replace(SHAPE, tied_embeddings=False), replace(SHAPE, head_size=20, qk_norm=True)],
    ids=["tied", "untied", "wide-heads"],
)
def test_the_formula_is_what_pytorch_counts(config: ModelConfig) -> None:
    model = Decoder(config)
    expected = flops_per_position(model, config, LENGTH, causal=False) * BATCH * LENGTH
    assert counted(model) == expected


def test_parts_of_the_formula() -> None:
    layer = 32 * (32 + 16 + 16 + 32) + 3 * 32 * 80
    assert matrix_weights(Decoder(SHAPE), SHAPE) == (3 * layer + 96 * 32, 0)
    untied = replace(SHAPE, tied_embeddings=False)
    assert matrix_weights(Decoder(untied), untied) == (3 * layer + 96 * 32, 0)
    assert flops_per_position(Decoder(SHAPE), SHAPE, 16) == 6 * (3 * layer + 96 * 32) + 6 * 3 * 16 * 32


def test_frozen_matrices_have_no_gradient_of_their_own() -> None:
    model = Decoder(SHAPE)
    add_lora(model, LoraConfig(rank=2, alpha=4, targets=("q_proj", "v_proj")), seed=0)
    adapters = 3 * 2 * ((32 + 32) + (32 + 16))
    trained, frozen = matrix_weights(model, SHAPE)
    assert (trained, frozen) == (adapters, matrix_weights(Decoder(SHAPE), SHAPE)[0])
    expected = flops_per_position(model, SHAPE, LENGTH, causal=False) * BATCH * LENGTH
    # Nothing in front of the first adapter needs a gradient: q and v get it, k's own path into layer 0 does not.
    assert 0.9 * expected < counted(model) <= expected


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA H200 NVL", 835.5e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA GH200 480GB", 989.4e12),
        ("NVIDIA H20", 148e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA L40S", 362.05e12),
        ("NVIDIA L40", 181.05e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA H200 MIG 1g.18gb", None),
        ("NVIDIA RTX 6000 Ada Generation", 364.2e12),
        ("AMD Instinct MI300X", 1307.4e12),
        ("AMD Instinct MI250X", 191.5e12),  # one die of two
        ("Quadro K2000", None),
    ],
)
def test_peaks_by_name(name: str, peak: float | None) -> None:
    assert peak_flops_of(name) == peak


def test_no_entry_hides_a_later_one() -> None:
    for known, peak in PEAK_FLOPS:
        assert peak_flops_of(f"NVIDIA {known}") == peak, known


def test_a_cpu_has_no_known_peak() -> None:
    assert peak_flops(torch.device("cpu")) is None
