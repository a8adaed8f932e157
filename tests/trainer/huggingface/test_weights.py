"""Weights in safetensors: what is wrong with a folder is said by name, and nothing is half written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from dataeng.errors import ConfigError, FormatError
from dataeng.formats.atomic import commit_all
from tests.trainer.model.test_decoder import CONFIG, random_decoder
from trainer.huggingface.weights import (
    INDEX_NAME,
    SINGLE_NAME,
    WeightFiles,
    huggingface_name,
    load_weights,
    write_weights,
)
from trainer.model.decoder import Decoder
from trainer.model.presets import ModelConfig
from trainer.tensor_file import StreamedTensor

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def tensors() -> Tensors:
    return {huggingface_name(name): value for name, value in random_decoder().float().state_dict().items()}


def streamed(tensors: Tensors, dtype: torch.dtype = torch.float32) -> dict[str, StreamedTensor]:
    return {name: StreamedTensor(tuple(value.shape), dtype, lambda v=value: v) for name, value in tensors.items()}


def write(folder: Path, tensors: Tensors, max_file_bytes: int = 1 << 30, dtype: torch.dtype = torch.float32) -> Path:
    commit_all(write_weights(folder, streamed(tensors, dtype), max_file_bytes))
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_files_are_what_the_library_reads(tensors: Tensors, tmp_path: Path, dtype: torch.dtype) -> None:
    tensors["scalar"] = torch.tensor(3.0)
    write(tmp_path, tensors, dtype=dtype)
    found = safetensors.torch.load_file(tmp_path / SINGLE_NAME)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(value, tensors[name].to(dtype)) for name, value in found.items())
    with safetensors.safe_open(tmp_path / SINGLE_NAME, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    header = int.from_bytes((tmp_path / SINGLE_NAME).read_bytes()[:8], "little")
    assert header % 8 == 0


def test_several_files_and_their_index(tensors: Tensors, tmp_path: Path) -> None:
    write(tmp_path, tensors, max_file_bytes=5000)
    index = json.loads((tmp_path / INDEX_NAME).read_text())
    assert index["metadata"]["total_size"] == sum(4 * value.numel() for value in tensors.values())
    assert index["weight_map"].keys() == tensors.keys()
    largest = max(4 * value.numel() for value in tensors.values())
    for path in tmp_path.glob("*.safetensors"):
        held = safetensors.torch.load_file(path)
        assert {index["weight_map"][name] for name in held} == {path.name}
        assert sum(4 * value.numel() for value in held.values()) <= max(5000, largest)
    files = WeightFiles(tmp_path)
    assert files.paths == sorted(tmp_path.glob("*.safetensors"))
    assert all(torch.equal(files.read(name), value) for name, value in tensors.items())


def test_loading_changes_every_weight(tensors: Tensors, tmp_path: Path) -> None:
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(3)  # as old files have
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()  # tied, and yet there
    model = Decoder(CONFIG)
    load_weights(model, write(tmp_path, tensors))
    assert all(torch.equal(value, tensors[huggingface_name(name)]) for name, value in model.state_dict().items())


def refused(folder: Path, message: str, error: type[Exception] = FormatError, config: ModelConfig = CONFIG) -> None:
    model = Decoder(config)
    model.initialize(0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(error, match=message):
        load_weights(model, folder)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_missing_surplus_and_misshapen_weights_are_named(tensors: Tensors, tmp_path: Path) -> None:
    norm = tensors.pop("model.norm.weight")
    refused(write(tmp_path / "missing", tensors), r"lacks model\.norm\.weight of the model")
    tensors["model.norm.weight"] = norm
    tensors["model.layers.0.self_attn.q_proj.bias"] = norm
    refused(write(tmp_path / "surplus", tensors), r"has model\.layers\.0\.self_attn\.q_proj\.bias, which its config")
    del tensors["model.layers.0.self_attn.q_proj.bias"]
    tensors["model.norm.weight"] = norm[:-1]
    refused(write(tmp_path / "shape", tensors), r"model\.norm\.weight is \(23,\); config\.json describes \(24,\)")
    untied = ModelConfig(**{**vars(CONFIG), "tied_embeddings": False, "num_layers": 3})
    refused(tmp_path / "shape", r"lacks model\.layers\.2\..*, .*, .*, .* and 6 more", config=untied)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_files_are_named(tensors: Tensors, tmp_path: Path, keep: int) -> None:
    path = write(tmp_path, tensors) / SINGLE_NAME
    path.write_bytes(path.read_bytes()[:keep])
    refused(tmp_path, r"model\.safetensors is damaged or truncated")


def test_indexes_that_lie(tensors: Tensors, tmp_path: Path) -> None:
    write(tmp_path, tensors, max_file_bytes=5000)
    index = tmp_path / INDEX_NAME
    whole = json.loads(index.read_text())
    first = min(tmp_path.glob("*.safetensors"))
    content = first.read_bytes()
    first.unlink()
    refused(tmp_path, f"{first.name} is missing; {INDEX_NAME} names it")
    first.write_bytes(content)
    moved = {**whole, "weight_map": {**whole["weight_map"], "model.norm.weight": first.name}}
    index.write_text(json.dumps(moved))
    refused(tmp_path, rf"{first.name} lacks model\.norm\.weight, which")
    for text in ("{", "{}", '{"weight_map": 3}'):
        index.write_text(text)
        refused(tmp_path, f"{INDEX_NAME} is damaged")
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "../elsewhere.safetensors"}}))
    refused(tmp_path, r"not in its own folder")


def test_folders_without_safetensors(tmp_path: Path) -> None:
    refused(tmp_path, r"has neither model\.safetensors nor model\.safetensors\.index\.json\.$", ConfigError)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    refused(tmp_path, r"only pytorch_model\.bin: save it with transformers", ConfigError)


def test_a_failure_while_writing_leaves_nothing(tensors: Tensors, tmp_path: Path) -> None:
    def fail() -> torch.Tensor:
        raise OSError(28, "No space left on device")

    weights = streamed(tensors)
    weights["model.norm.weight"] = StreamedTensor((24,), torch.float32, fail)
    with pytest.raises(OSError, match="No space left"):
        write_weights(tmp_path, weights, 3000)
    assert list(tmp_path.iterdir()) == []
    weights["model.norm.weight"] = StreamedTensor((24,), torch.float32, lambda: torch.ones(25))
    with pytest.raises(FormatError, match=r"model\.norm\.weight is \(25,\); expected \(24,\)"):
        write_weights(tmp_path, weights, 3000)
    assert list(tmp_path.iterdir()) == []
