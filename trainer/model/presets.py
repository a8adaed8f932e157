"""The decoder's shape, and named sizes of it from 5M to 8B parameters. Nothing here imports PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast, get_args

from dataeng.errors import ConfigError, nearest

RopeKind = Literal["linear", "dynamic", "llama3", "yarn"]

#: The matrices of every layer, by the names that they have here and in Hugging Face's models.
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are changed for contexts longer than those of pretraining (see `trainer.model.rotary`).

    Names and defaults are those of Hugging Face's ``rope_scaling``; what a kind does not use stays None.
    """

    kind: RopeKind
    factor: float
    original_max_positions: int | None = None
    """llama3, yarn: the context that the model was pretrained with."""
    low_frequency_factor: float | None = None
    high_frequency_factor: float | None = None
    attention_factor: float | None = None
    """yarn: what cosine and sine are multiplied by; None: 0.1 · ln(factor) + 1, or from both ``mscale``."""
    beta_fast: float | None = None
    beta_slow: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    def __post_init__(self) -> None:
        needed = {
            "llama3": ("original_max_positions", "low_frequency_factor", "high_frequency_factor"),
            "yarn": ("original_max_positions",),
        }.get(self.kind, ())
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ConfigError(f"rope scaling '{self.kind}' needs {', '.join(missing)}.")
        if not self.factor >= 1:
            raise ConfigError(f"rope scaling '{self.kind}' has factor {self.factor:g}; expected at least 1.")


def parse_rope_scaling(text: str | None, pretrained: int | None, length: int) -> RopeScaling | None:
    """Returns what ``KIND:FACTOR`` on the command line means; raises `ConfigError`.

    ``pretrained`` is the context of the model that is extended; None: a new one, trained in rows of ``length`` as if it
    had been extended to them.
    """
    if text is None:
        return None
    kind, _, number = text.partition(":")
    try:
        factor = float(number)
    except ValueError:
        factor = math.nan
    if kind not in get_args(RopeKind):
        raise ConfigError(f"--rope-scaling {text}: '{kind}' is unknown{nearest(kind, get_args(RopeKind))}")
    if not (math.isfinite(factor) and factor >= 1):
        raise ConfigError(f"--rope-scaling {text}: expected {kind}:FACTOR with a factor of at least 1.")
    original = max(1, math.floor(length / factor)) if pretrained is None else pretrained
    return RopeScaling(
        kind=cast(RopeKind, kind),
        factor=factor,
        original_max_positions=original if kind in ("llama3", "yarn") else None,
        low_frequency_factor=1.0 if kind == "llama3" else None,
        high_frequency_factor=4.0 if kind == "llama3" else None,
    )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The decoder's shape: Llama's; with ``qkv_bias`` Qwen2's, with ``qk_norm`` Qwen3's."""

    vocab_size: int
    dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    hidden_dim: int
    max_positions: int
    head_size: int | None = None
    """Size of one attention head; None: dim / num_heads."""
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_epsilon: float = 1e-5
    tied_embeddings: bool = True
    qk_norm: bool = False
    """RMSNorm on every head's queries and keys, before the rotation."""
    qkv_bias: bool = False

    def __post_init__(self) -> None:
        for name in ("vocab_size", "dim", "num_layers", "num_heads", "num_kv_heads", "hidden_dim", "max_positions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"the model's {name} is {getattr(self, name)}; expected at least 1.")
        if self.head_size is None and self.dim % self.num_heads:
            raise ConfigError(f"the model's dim {self.dim} is no multiple of its {self.num_heads} heads.")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f"{self.num_heads} heads cannot share {self.num_kv_heads} key/value heads evenly.")
        if self.head_dim % 2:
            raise ConfigError(f"heads of size {self.head_dim} cannot be rotated in pairs; expected an even size.")
        if self.qk_norm and self.qkv_bias:
            raise ConfigError("qk_norm and qkv_bias together are no architecture that Hugging Face knows; choose one.")

    @property
    def head_dim(self) -> int:
        """Size of one attention head."""
        return self.dim // self.num_heads if self.head_size is None else self.head_size


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Adapters in place of training all weights (see `trainer.model.lora`)."""

    rank: int
    alpha: float
    targets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A model size with the batch and peak learning rate that suit it. A row is one sequence."""

    dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    hidden_dim: int
    sequence_length: int
    batch_size: int
    learning_rate: float
    rope_theta: float = 10_000.0
    tied_embeddings: bool = True

    def model(
        self,
        *,
        vocab_size: int,
        max_positions: int,
        rope_theta: float | None = None,
        rope_scaling: RopeScaling | None = None,
        tied_embeddings: bool | None = None,
        qk_norm: bool = False,
    ) -> ModelConfig:
        """Returns the shape for a vocabulary and a context; None means the preset's own."""
        return ModelConfig(
            vocab_size=vocab_size,
            dim=self.dim,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            hidden_dim=self.hidden_dim,
            max_positions=max_positions,
            rope_theta=self.rope_theta if rope_theta is None else rope_theta,
            rope_scaling=rope_scaling,
            tied_embeddings=self.tied_embeddings if tied_embeddings is None else tied_embeddings,
            qk_norm=qk_norm,
        )


#: A size in a name counts all weights, those of a vocabulary of about 32,000 (5m, 25m), 50,000 (124m to 1.3b) or
#: 128,256 (3b, 8b) included. 3b and 8b have the shapes of Llama 3.2 3B and Llama 3.1 8B.
PRESETS: dict[str, Preset] = {
    "tiny": Preset(
        dim=128, num_layers=4, num_heads=4, num_kv_heads=2, hidden_dim=384,
        sequence_length=128, batch_size=8, learning_rate=1.5e-3,
    ),
    "small": Preset(
        dim=320, num_layers=6, num_heads=5, num_kv_heads=5, hidden_dim=864,
        sequence_length=512, batch_size=16, learning_rate=2e-3,
    ),
    "5m": Preset(
        dim=128, num_layers=5, num_heads=4, num_kv_heads=2, hidden_dim=384,
        sequence_length=512, batch_size=32, learning_rate=2e-3,
    ),
    "25m": Preset(
        dim=320, num_layers=12, num_heads=5, num_kv_heads=5, hidden_dim=864,
        sequence_length=1024, batch_size=32, learning_rate=1.5e-3,
    ),
    "124m": Preset(
        dim=768, num_layers=12, num_heads=12, num_kv_heads=12, hidden_dim=2048,
        sequence_length=1024, batch_size=32, learning_rate=6e-4,
    ),
    "350m": Preset(
        dim=1024, num_layers=24, num_heads=16, num_kv_heads=8, hidden_dim=2816,
        sequence_length=2048, batch_size=16, learning_rate=3e-4,
    ),
    "1.3b": Preset(
        dim=2048, num_layers=24, num_heads=16, num_kv_heads=8, hidden_dim=5632,
        sequence_length=2048, batch_size=8, learning_rate=2e-4,
    ),
    "3b": Preset(
        dim=3072, num_layers=28, num_heads=24, num_kv_heads=8, hidden_dim=8192, rope_theta=500_000.0,
        sequence_length=4096, batch_size=8, learning_rate=1.5e-4,
    ),
    "8b": Preset(
        dim=4096, num_layers=32, num_heads=32, num_kv_heads=8, hidden_dim=14336, rope_theta=500_000.0,
        tied_embeddings=False, sequence_length=8192, batch_size=4, learning_rate=1e-4,
    ),
}  # fmt: skip
