"""Model FLOPs utilization: what part of the hardware's peak the model's own arithmetic makes use of.

    MFU = positions per second · FLOPs per position / (peak FLOP/s of a device · devices)

Positions are those that the model computes, B · T a step, padding and tokens that do not count as labels included.
FLOPs per position, forward and backward: 6 N + 6 · layers · T · heads · head size (PaLM's, arXiv 2204.02311, appendix
B, with half its term for attention, see below). N counts the weights of matrices that multiply: all layers' and the
output's, which is the embedding where they are tied; the look-up in an embedding of its own costs nothing. A
multiplication and an addition are two FLOPs; the backward pass takes twice the forward's. Under LoRA a frozen matrix
has 4 instead of 6: its own gradient is not computed.

Attention is counted as causal, half of the full matrix of T · T (``causal=False`` gives the full one, 12 instead of 6,
as PaLM, nanoGPT and torchtitan count: their MFU is higher for the same speed). Documents within a row see less than
that half, so that the figure overstates what a kernel that skips the rest computes. Recomputed layers
(``recompute_every``) and logits are not counted again: MFU is about the model, not about how it is run. The optimizer's
arithmetic is left out; it does not grow with the batch.
"""

from __future__ import annotations

import re

import torch
from torch import nn

from trainer.model.presets import ModelConfig

#: Dense bfloat16 with float32 accumulation, from the vendors' data sheets, which often state twice that ("with
#: sparsity"). The first whose words are all in the device's name counts, so that "H100 NVL" goes before "H100".
#: A device that is not here has no MFU unless ``--peak-flops`` says what its peak is: a guess would look measured.
PEAK_FLOPS: list[tuple[str, float]] = [
    ("GB200", 2500e12),
    ("B200", 2250e12),
    ("H200 NVL", 835.5e12),
    ("H200", 989.4e12),
    ("GH200", 989.4e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835.5e12),
    ("H100", 989.4e12),
    ("H800 PCIe", 756e12),
    ("H800", 989.4e12),
    ("H20", 148e12),
    ("A100", 312e12),
    ("A800", 312e12),
    ("A40", 149.7e12),
    ("A30", 165e12),
    ("A10", 125e12),
    ("L40S", 362.05e12),
    ("L40", 181.05e12),
    ("L4", 121e12),
    ("RTX 6000 Ada", 364.2e12),
    ("RTX A6000", 154.8e12),
    ("RTX 5090", 209.5e12),
    ("RTX 4090", 165.2e12),
    ("RTX 3090", 71e12),
    ("MI325X", 1307.4e12),
    ("MI300X", 1307.4e12),
    ("MI250X", 191.5e12),  # of each of its two dies, which PyTorch counts as two devices
]
#: A part of a GPU has a part of its peak, and a notebook's GPU shares no more than the name.
NOT_WHOLE = ("MIG", "Laptop", "Max-Q")


def matrix_weights(model: nn.Module, config: ModelConfig) -> tuple[int, int]:
    """Returns how many weights multiply positions: those that are trained, and those that are frozen."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    trained = frozen = 0
    for parameter in model.parameters():
        if parameter.ndim < 2 or (id(parameter) in embeddings and not config.tied_embeddings):
            continue
        if parameter.requires_grad:
            trained += parameter.numel()
        else:
            frozen += parameter.numel()
    return trained, frozen


def flops_per_position(model: nn.Module, config: ModelConfig, length: int, *, causal: bool = True) -> float:
    """Returns the FLOPs of one position's forward and backward pass in rows of ``length``; see the formula above."""
    trained, frozen = matrix_weights(model, config)
    attention = 12 * config.num_layers * length * config.num_heads * config.head_dim
    return 6.0 * trained + 4.0 * frozen + attention * (0.5 if causal else 1.0)


def peak_flops(device: torch.device) -> float | None:
    """Returns the peak FLOP/s of a device in dense bfloat16, or None where it is not known, as for every CPU."""
    return None if device.type != "cuda" else peak_flops_of(torch.cuda.get_device_name(device))


def peak_flops_of(name: str) -> float | None:
    """Returns the peak FLOP/s of a device by its name, as `torch.cuda.get_device_name` gives it."""
    words = set(re.split(r"[^A-Za-z0-9]+", name))
    if words & {word for entry in NOT_WHOLE for word in entry.split("-")}:
        return None
    return next((peak for known, peak in PEAK_FLOPS if words.issuperset(known.split())), None)
