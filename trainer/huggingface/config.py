"""Hugging Face's ``config.json`` for Llama, Qwen2 and Qwen3, to and from `ModelConfig`. No PyTorch, no transformers.

What this decoder cannot compute (other architectures, sliding windows, biases elsewhere, quantized weights …) is
refused by name rather than read as something near.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, get_args

from dataeng.errors import ConfigError, FormatError, nearest
from dataeng.formats.atomic import sha256_file
from trainer.model.presets import ModelConfig, RopeKind, RopeScaling

CONFIG_NAME = "config.json"
ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}

#: `RopeScaling`'s fields by Hugging Face's names.
ROPE_FIELDS = {
    "factor": "factor",
    "original_max_position_embeddings": "original_max_positions",
    "low_freq_factor": "low_frequency_factor",
    "high_freq_factor": "high_frequency_factor",
    "attention_factor": "attention_factor",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "mscale": "mscale",
    "mscale_all_dim": "mscale_all_dim",
    "truncate": "truncate",
}

#: Settings that change what is computed, with the only values that this decoder has.
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False,),  # would be one on o_proj as well; Qwen2's are not called so
    "mlp_bias": (False,),
    "use_sliding_window": (False,),
    "quantization_config": (None,),
    "partial_rotary_factor": (1.0, None),
}
NEEDED = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings",
)  # fmt: skip


def model_type(config: ModelConfig) -> str:
    """Returns ``llama``, ``qwen2`` or ``qwen3``: the architecture that has just what ``config`` has."""
    if config.qk_norm:
        return "qwen3"
    return "qwen2" if config.qkv_bias else "llama"


def read_model_config(folder: Path) -> ModelConfig:
    """Returns the shape of the model in a folder of Hugging Face's.

    Raises `ConfigError` for a folder or an architecture that is not supported, `FormatError` for a damaged file.
    """
    path = folder / CONFIG_NAME
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"{folder} is no model folder of Hugging Face's: cannot read {CONFIG_NAME} ({error.strerror})."
        ) from error
    except ValueError as error:
        raise FormatError(f"{path} is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise FormatError(f"{path} is a {type(values).__name__}; expected an object.")
    return from_huggingface(values, path)


def fingerprint(folder: Path) -> str:
    """Returns the SHA-256 over a model folder's ``config.json`` and weights."""
    digest = hashlib.sha256()
    for path in [folder / CONFIG_NAME, *sorted(folder.glob("model*.safetensors"))]:
        digest.update(f"{path.name} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def from_huggingface(values: dict[str, Any], path: Path) -> ModelConfig:
    """Returns what a ``config.json`` describes; ``path`` is where it is from, for messages. Raises `ConfigError`."""
    kind = str(values.get("model_type"))
    if kind not in ARCHITECTURES:
        raise ConfigError(
            f"{path} is of a '{kind}' model, which this trainer cannot compute{nearest('', ARCHITECTURES)}"
        )
    missing = [name for name in NEEDED if not isinstance(values.get(name), int)]
    if missing:
        raise ConfigError(f"{path} does not say {', '.join(missing)}.")
    for name, supported in SUPPORTED.items():
        if name in values and values[name] not in supported:
            raise ConfigError(f"{path} has {name} {values[name]!r}; this trainer only computes {supported[0]!r}.")
    if other := sorted(set(values.get("layer_types") or ()) - {"full_attention"}):
        raise ConfigError(f"{path} has layers of the type '{other[0]}'; this trainer only computes 'full_attention'.")
    theta, scaling = _rope(values, path)
    heads = values["num_attention_heads"]
    head_size = values.get("head_dim") or (128 if kind == "qwen3" else None)  # as transformers does
    return ModelConfig(
        vocab_size=values["vocab_size"],
        dim=values["hidden_size"],
        num_layers=values["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=values.get("num_key_value_heads") or heads,
        hidden_dim=values["intermediate_size"],
        max_positions=values["max_position_embeddings"],
        head_size=None if head_size == values["hidden_size"] / heads else head_size,
        rope_theta=theta,
        rope_scaling=scaling,
        norm_epsilon=float(values.get("rms_norm_eps", 1e-6)),
        tied_embeddings=bool(values.get("tie_word_embeddings", False)),
        qk_norm=kind == "qwen3",
        qkv_bias=kind == "qwen2",
    )


def _rope(values: dict[str, Any], path: Path) -> tuple[float, RopeScaling | None]:
    """Reads ``rope_parameters`` (transformers 5) or ``rope_theta`` and ``rope_scaling`` (before)."""
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    theta = float(rope.get("rope_theta") or values.get("rope_theta") or 10_000.0)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if rope.get("partial_rotary_factor") not in (None, 1.0):
        raise ConfigError(f"{path} rotates only a part of every head, which this trainer cannot compute.")
    if kind == "default":
        return theta, None
    if kind not in get_args(RopeKind):
        raise ConfigError(f"{path} has rope type '{kind}'{nearest(str(kind), get_args(RopeKind))}")
    found = {ours: rope[theirs] for theirs, ours in ROPE_FIELDS.items() if rope.get(theirs) is not None}
    if kind in ("llama3", "yarn"):
        found.setdefault("original_max_positions", values["max_position_embeddings"])
    if kind == "yarn" and "factor" not in found:
        found["factor"] = values["max_position_embeddings"] / found["original_max_positions"]
    if "factor" not in found:
        raise ConfigError(f"{path} has rope type '{kind}' without a factor.")
    return theta, RopeScaling(kind=kind, **found)


def to_huggingface(config: ModelConfig, dtype: str, eos_id: int | None, bos_id: int | None = None) -> dict[str, Any]:
    """Returns ``config.json``, in the form that transformers 4 and 5, vLLM and lm-eval all read."""
    kind, scaling = model_type(config), config.rope_scaling
    values: dict[str, Any] = {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": kind,
        "torch_dtype": dtype,
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "intermediate_size": config.hidden_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_positions,
        "initializer_range": 0.02,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "tie_word_embeddings": config.tied_embeddings,
        "attention_dropout": 0.0,
        "use_cache": True,
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
    }
    if kind != "qwen2":
        values["attention_bias"] = False
    if kind == "llama":
        values["mlp_bias"] = False
    else:
        values["use_sliding_window"] = False
    if scaling is not None:
        fields = {theirs: getattr(scaling, ours) for theirs, ours in ROPE_FIELDS.items() if theirs != "truncate"}
        rope = {name: value for name, value in fields.items() if value is not None}
        if not scaling.truncate:
            rope["truncate"] = False
        values["rope_scaling"] = {"rope_type": scaling.kind, **rope}
    return values
