"""Parity with transformers' Llama, Qwen2 and Qwen3: configurations, weights and logits, in both directions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from dataeng.errors import ConfigError, FormatError
from dataeng.formats.atomic import commit_all, write_json
from trainer.huggingface.config import read_model_config, to_huggingface
from trainer.huggingface.weights import decoder_shapes, huggingface_name, load_weights, write_weights
from trainer.model.decoder import Decoder
from trainer.model.presets import ModelConfig, RopeScaling
from trainer.model.rotary import rope_frequencies, rotary_tables, rotate
from trainer.tensor_file import StreamedTensor

SHAPE: dict[str, Any] = {
    "vocab_size": 61, "dim": 32, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "hidden_dim": 48,
    "max_positions": 32, "tied_embeddings": False,
}  # fmt: skip
LINEAR = RopeScaling(kind="linear", factor=4.0)
DYNAMIC = RopeScaling(kind="dynamic", factor=2.0)
LLAMA3 = RopeScaling(
    kind="llama3", factor=8.0, original_max_positions=16, low_frequency_factor=1.0, high_frequency_factor=4.0
)
YARN = RopeScaling(kind="yarn", factor=4.0, original_max_positions=8)
YARN_ALL = RopeScaling(
    kind="yarn", factor=4.0, original_max_positions=16, beta_fast=16.0, beta_slow=2.0, mscale=1.5, mscale_all_dim=0.5,
    truncate=False,
)  # fmt: skip
YARN_FIXED = RopeScaling(kind="yarn", factor=2.0, original_max_positions=16, attention_factor=1.25)
VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "tied": {"tied_embeddings": True},
    "wide heads": {"head_size": 16},
    "qwen2": {"qkv_bias": True, "tied_embeddings": True, "norm_epsilon": 1e-6},
    "qwen3": {"qk_norm": True, "head_size": 16, "rope_theta": 1e6},
    "linear": {"rope_scaling": LINEAR},
    "dynamic": {"rope_scaling": DYNAMIC, "max_positions": 16},
    "llama3": {"rope_scaling": LLAMA3, "rope_theta": 500_000.0},
    "yarn": {"rope_scaling": YARN},
    "yarn, everything set": {"rope_scaling": YARN_ALL},
    "yarn, attention factor": {"rope_scaling": YARN_FIXED, "qk_norm": True},
}


def decoder(variant: dict[str, Any], seed: int = 0) -> Decoder:
    """A decoder whose every weight matters."""
    model = Decoder(ModelConfig(**{**SHAPE, **variant}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(float(parameter.ndim == 1), 0.2, generator=generator)
    return model


def save(model: Decoder, folder: Path, dtype: torch.dtype = torch.float32, max_file_bytes: int = 1 << 30) -> Path:
    parameters = dict(model.named_parameters())
    weights = {
        huggingface_name(name): StreamedTensor(shape, dtype, lambda p=parameters[name]: p)
        for name, shape in decoder_shapes(model.config).items()
    }
    commit_all(write_weights(folder, weights, max_file_bytes))
    write_json(folder / "config.json", to_huggingface(model.config, str(dtype).removeprefix("torch."), 0))
    return folder


def load(folder: Path) -> Decoder:
    model = Decoder(read_model_config(folder))
    load_weights(model, folder)
    return model


TOKENS = torch.randint(61, (2, 32), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", VARIANTS)
def test_transformers_computes_the_same_logits_from_our_files(name: str, tmp_path: Path) -> None:
    model = decoder(VARIANTS[name])
    theirs = AutoModelForCausalLM.from_pretrained(save(model, tmp_path))
    assert theirs.dtype == torch.float32
    assert sum(p.numel() for p in theirs.parameters()) == model.num_parameters()
    with torch.no_grad():
        torch.testing.assert_close(theirs(TOKENS).logits, model.logits(TOKENS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_what_transformers_saves_comes_back_the_same(name: str, tmp_path: Path) -> None:
    """Our files → transformers → its files → our model: configuration and every weight."""
    model = decoder(VARIANTS[name])
    AutoModelForCausalLM.from_pretrained(save(model, tmp_path / "ours")).save_pretrained(tmp_path / "theirs")
    back = load(tmp_path / "theirs")
    assert back.config == model.config
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in back.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (LlamaConfig, {"num_key_value_heads": 1, "rope_theta": 5e4, "head_dim": 12}),
        (Qwen2Config, {"num_key_value_heads": 2, "tie_word_embeddings": True}),
        (Qwen3Config, {"num_key_value_heads": 4, "head_dim": 8, "rms_norm_eps": 1e-5}),
    ],
)
def test_models_made_by_transformers_give_the_same_logits_here(
    kind: type[Any], values: dict[str, Any], tmp_path: Path
) -> None:
    config = kind(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, **values
    )
    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)  # norms and biases, too, start as nothing special
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(TOKENS), theirs(TOKENS).logits, rtol=1e-4, atol=1e-4)
    labels = TOKENS.clone()
    loss = torch.nn.functional.cross_entropy(ours.logits(TOKENS[:, :-1]).flatten(0, 1), TOKENS[:, 1:].flatten())
    torch.testing.assert_close(loss, theirs(TOKENS, labels=labels).loss, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_several_files_in_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    model = decoder({})
    save(model, tmp_path, dtype, max_file_bytes=6000)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(files) > 3 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert theirs.dtype == dtype
    ours = load(tmp_path)
    rounded = {name: value.to(dtype).float() for name, value in model.state_dict().items()}
    assert all(torch.equal(value, rounded[name]) for name, value in ours.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(theirs.float()(TOKENS).logits, ours.logits(TOKENS), rtol=1e-4, atol=1e-4)


def test_a_row_longer_than_the_model_s_context_stretches_dynamic_scaling_only() -> None:
    short, long = (ModelConfig(**{**SHAPE, "rope_scaling": DYNAMIC, "max_positions": n}) for n in (16, 64))
    device = torch.device("cpu")
    plain = rope_frequencies(ModelConfig(**SHAPE), 32, device)[0]
    assert torch.equal(rope_frequencies(long, 32, device)[0], plain)
    assert (rope_frequencies(short, 32, device)[0][1:] < plain[1:]).all()


def test_rotation_keeps_lengths_and_makes_scores_relative() -> None:
    config = ModelConfig(**SHAPE)
    tables = rotary_tables(config, torch.arange(32)[None], 32)
    q, k = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    rotated_q, rotated_k = (rotate(x.expand(1, 1, 32, 8), tables)[0, 0] for x in (q, k))
    torch.testing.assert_close(rotated_q.norm(dim=-1), q.norm().expand(32))
    scores = rotated_q @ rotated_k.T
    torch.testing.assert_close(scores[3, 1], scores[20, 18])
    torch.testing.assert_close(scores.diagonal(), (q * k).sum().expand(32), rtol=1e-4, atol=1e-5)
    angle = 5 * 10_000 ** (-2 / 8)  # by hand: position 5, pair 1 of 4
    assert rotated_q[5, 1].item() == pytest.approx(q[1].item() * math.cos(angle) - q[5].item() * math.sin(angle), 1e-4)


def edited(folder: Path, **values: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return folder


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "gpt2"}, "a 'gpt2' model, which this trainer cannot compute; known: llama, qwen2, qwen3"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'; this trainer only computes 'silu'"),
        ({"attention_bias": True}, "attention_bias True"),
        ({"use_sliding_window": True}, "use_sliding_window True"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layers of the type 'sliding_attention'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config {'bits': 4}"),
        ({"hidden_size": None, "vocab_size": "9"}, "does not say vocab_size, hidden_size"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "rope type 'longrope'"),
        ({"rope_scaling": {"type": "linear"}}, "rope type 'linear' without a factor"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "'llama3' needs low_frequency_factor"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "only a part of every head"),
    ],
)
def test_what_cannot_be_computed_is_refused(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read_model_config(edited(save(decoder({}), tmp_path), **values))


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no model folder of Hugging Face's: cannot read config.json"):
        read_model_config(tmp_path)
    for text in ("{", "[]"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(FormatError, match=r"config.json is"):
            read_model_config(tmp_path)
