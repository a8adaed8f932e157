"""Named sizes, counted on the meta device, and shapes that cannot be."""

from __future__ import annotations

import pytest
import torch

from dataeng.errors import ConfigError
from trainer.model.decoder import Decoder
from trainer.model.presets import PRESETS, ModelConfig, RopeScaling


def num_parameters(name: str, vocab_size: int) -> int:
    with torch.device("meta"):
        return Decoder(PRESETS[name].model(vocab_size=vocab_size, max_positions=8192)).num_parameters()


@pytest.mark.parametrize(
    ("name", "vocab_size", "millions"),
    [
        ("5m", 32_000, 5),
        ("25m", 32_000, 25),
        ("124m", 50_304, 124),
        ("350m", 50_304, 350),
        ("1.3b", 50_304, 1300),
        ("3b", 50_304, 3000),
        ("8b", 128_256, 8000),
    ],
)
def test_presets_have_the_size_in_their_name(name: str, vocab_size: int, millions: int) -> None:
    assert num_parameters(name, vocab_size) / 1e6 == pytest.approx(millions, rel=0.07)


def test_the_largest_two_are_llamas() -> None:
    """The counts that Meta's model cards and checkpoints have."""
    assert num_parameters("3b", 128_256) == 3_212_749_824
    assert num_parameters("8b", 128_256) == 8_030_261_248


def test_options_override_the_preset() -> None:
    scaling = RopeScaling(kind="linear", factor=2)
    preset = PRESETS["8b"]
    config = preset.model(vocab_size=9, max_positions=7)
    assert (config.rope_theta, config.tied_embeddings, config.qk_norm, config.rope_scaling) == (5e5, False, False, None)
    config = preset.model(
        vocab_size=9, max_positions=7, rope_theta=3.0, rope_scaling=scaling, tied_embeddings=True, qk_norm=True
    )
    assert (config.rope_theta, config.tied_embeddings, config.qk_norm, config.rope_scaling) == (
        3.0,
        True,
        True,
        scaling,
    )


SHAPE = {
    "vocab_size": 50, "dim": 24, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "hidden_dim": 32,
    "max_positions": 16,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 0}, "num_layers is 0"),
        ({"dim": 25}, "dim 25 is no multiple of its 4 heads"),
        ({"num_kv_heads": 3}, "4 heads cannot share 3"),
        ({"head_size": 7}, "heads of size 7"),
        ({"qk_norm": True, "qkv_bias": True}, "choose one"),
    ],
)
def test_shapes_that_cannot_be(changes: dict[str, object], message: str) -> None:
    ModelConfig(**SHAPE)
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**{**SHAPE, **changes})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "yarn", "factor": 2}, "'yarn' needs original_max_positions"),
        ({"kind": "llama3", "factor": 2, "original_max_positions": 8}, "needs low_frequency_factor, high_freq"),
        ({"kind": "linear", "factor": 0.5}, "factor 0.5; expected at least 1"),
        ({"kind": "linear", "factor": float("nan")}, "factor nan"),
    ],
)
def test_scalings_that_cannot_be(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RopeScaling(**values)
