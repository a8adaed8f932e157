"""Rotary positions (Su et al., arXiv 2104.09864), and their scaling for contexts longer than those of pretraining.

A head's pair (x_i, x_{i+E/2}) is turned by position · frequency_i, with frequency_i = theta^(-2i/E). What a scaling
changes is the frequencies, and for YaRN the length of what was turned:

- ``linear`` divides all of them by the factor (kaiokendev; Chen et al., arXiv 2306.15595).
- ``dynamic`` is NTK-aware: a row longer than ``max_positions`` gets a larger theta, shorter ones are left alone
  (bloc97, emozilla). NTK-aware scaling of a fixed amount is a larger ``rope_theta`` and needs no kind of its own.
- ``llama3`` divides low frequencies by the factor, keeps high ones, and blends between them (Llama 3.1).
- ``yarn`` blends between divided and kept by how often a frequency turns within the old context, and raises the
  attention's temperature (Peng et al., arXiv 2309.00071).

The formulas, their constants and the float32 arithmetic are those of Hugging Face's ``modeling_rope_utils.py``, so
that what is trained here behaves the same there. Frequencies are computed in every forward pass rather than kept: E/2
numbers cost nothing, and there is no buffer that a meta device leaves empty or that a cast to bfloat16 ruins.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainer.model.presets import ModelConfig, RopeScaling


def rope_frequencies(config: ModelConfig, length: int, device: torch.device) -> tuple[Tensor, float]:
    """Returns float32[E/2] radians per position for rows of ``length``, and the factor on cosine and sine."""
    size, theta, scaling = config.head_dim, config.rope_theta, config.rope_scaling
    if scaling is not None and scaling.kind == "dynamic" and length > config.max_positions:
        stretch = scaling.factor * length / config.max_positions - (scaling.factor - 1)
        theta *= stretch ** (size / (size - 2))
    frequencies = 1.0 / theta ** (torch.arange(0, size, 2, dtype=torch.float32, device=device) / size)
    if scaling is None or scaling.kind == "dynamic":
        return frequencies, 1.0
    if scaling.kind == "linear":
        return frequencies / scaling.factor, 1.0
    if scaling.kind == "llama3":
        return _llama3(frequencies, scaling), 1.0
    return _yarn(frequencies, theta, scaling), yarn_attention_factor(scaling)


def _llama3(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    assert scaling.original_max_positions and scaling.low_frequency_factor and scaling.high_frequency_factor
    low, high, context = scaling.low_frequency_factor, scaling.high_frequency_factor, scaling.original_max_positions
    wavelengths = 2 * math.pi / frequencies
    divided = frequencies / scaling.factor
    smooth = (context / wavelengths - low) / (high - low)
    blended = (1 - smooth) * divided + smooth * frequencies
    kept_or_blended = torch.where(wavelengths < context / high, frequencies, blended)
    return torch.where(wavelengths > context / low, divided, kept_or_blended)


def _yarn(frequencies: Tensor, theta: float, scaling: RopeScaling) -> Tensor:
    assert scaling.original_max_positions
    half, context = len(frequencies), scaling.original_max_positions

    def index_with(turns: float) -> float:
        """The (fractional) i whose frequency makes so many turns within the old context."""
        return 2 * half * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = index_with(scaling.beta_fast or 32), index_with(scaling.beta_slow or 1)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * half - 1)
    if low == high:
        high += 0.001
    indexes = torch.arange(half, dtype=torch.float32, device=frequencies.device)
    kept = 1 - ((indexes - low) / (high - low)).clamp(0, 1)
    return frequencies / scaling.factor * (1 - kept) + frequencies * kept


def yarn_attention_factor(scaling: RopeScaling) -> float:
    """Returns what YaRN multiplies cosine and sine by."""

    def temperature(mscale: float) -> float:
        return 1.0 if scaling.factor <= 1 else 0.1 * mscale * math.log(scaling.factor) + 1.0

    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return temperature(scaling.mscale) / temperature(scaling.mscale_all_dim)
    return temperature(1.0)


def rotary_tables(config: ModelConfig, positions_bt: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Returns cosine and sine, float32[B or 1, 1, T, E], of every position in rows of ``length``."""
    frequencies, factor = rope_frequencies(config, length, positions_bt.device)
    angles = positions_bt[:, None, :, None].float() * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos() * factor, angles.sin() * factor


def rotate(x_bhte: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Turns every pair (x_i, x_{i+E/2}) by its angle, in float32 at least; returns the dtype that came."""
    cos, sin = tables
    first, second = x_bhte.chunk(2, dim=-1)
    return (x_bhte * cos + torch.cat([-second, first], dim=-1) * sin).to(x_bhte.dtype)
