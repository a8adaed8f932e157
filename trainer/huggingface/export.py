"""A checkpoint as a folder of Hugging Face's: transformers, vLLM, lm-eval, TRL and PEFT take over from there.

    DIR/
      model.safetensors        or several with model.safetensors.index.json
      tokenizer.json           the packs' own, byte for byte
      tokenizer_config.json    with the token that ends documents
      generation_config.json
      config.json              written last

Weights are streamed from one file into the other: an 8B model needs the memory of one matrix. With LoRA the adapters
are merged into the base, or written alone in PEFT's format.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from dataeng.errors import ConfigError, FormatError, nearest
from dataeng.formats.atomic import commit_all, read_json, sha256_file, write_bytes, write_json
from dataeng.formats.mixture import load_mixture
from dataeng.formats.training_run import DESCRIPTION_NAME, found_instead
from trainer.huggingface.config import CONFIG_NAME, fingerprint, to_huggingface
from trainer.huggingface.tokenizer_files import TOKENIZER_NAME, PackTokenizer, tokenizer_of
from trainer.huggingface.weights import (
    SINGLE_NAME,
    WeightFiles,
    decoder_shapes,
    huggingface_name,
    write_weights,
)
from trainer.model.decoder import Decoder
from trainer.model.lora import lora_change, save_adapter
from trainer.model.presets import LoraConfig, ModelConfig, RopeScaling
from trainer.recovery.checkpoint import FORMAT, STATE_NAME
from trainer.tensor_file import StreamedTensor

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: What goes along from the model that a run started from, if it has it.
COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json")


@dataclass(frozen=True)
class Exported:
    """What was written: the folder, from which step, how many weights."""

    folder: Path
    step: int
    num_parameters: int


@dataclass(frozen=True)
class Source:
    """A checkpoint, opened: its folder, step, the model's shape, adapters, and what it was started from."""

    folder: Path
    step: int
    model: ModelConfig
    lora: LoraConfig | None
    init_from: Path | None
    init_from_sha256: str | None
    mixture: Path
    tokenizer_sha256: str
    read: Callable[[str], Tensor]
    names: frozenset[str]


def export_checkpoint(
    checkpoint: Path, to: Path, *, dtype: str = "float32", adapter: bool = False, max_file_bytes: int = 5_000_000_000
) -> Exported:
    """Writes the model of a checkpoint (or of a run's newest) into the new folder ``to``.

    ``adapter`` writes a LoRA run's adapters alone. Raises `ConfigError` for what a person can put right, `FormatError`
    for a damaged checkpoint; ``to`` then has no ``config.json``.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"--dtype {dtype} is unknown{nearest(dtype, DTYPES)}")
    if to.exists() and any(to.iterdir()):
        raise ConfigError(f"--to {to} is not empty; name a new folder.")
    source = open_checkpoint(checkpoint)
    try:
        if adapter:
            return _export_adapter(source, to)
        return _export_model(source, to, dtype, max_file_bytes)
    except OSError as error:
        raise ConfigError(f"cannot write to {to}: {error.strerror or error}.") from error


def _export_adapter(source: Source, to: Path) -> Exported:
    if source.lora is None or source.init_from is None:
        raise ConfigError(f"{source.folder} has no adapters: its run was not started with --lora.")
    trained = {name: source.read(name) for name in sorted(source.names)}
    save_adapter(trained, source.lora, source.init_from, to)
    return Exported(to, source.step, sum(tensor.numel() for tensor in trained.values()))


def _export_model(source: Source, to: Path, dtype: str, max_file_bytes: int) -> Exported:
    tokenizer = _tokenizer(source)
    shapes = decoder_shapes(source.model)
    read = _merged(source) if source.lora is not None else source.read
    if source.lora is None and (missing := [name for name in shapes if name not in source.names]):
        raise FormatError(f"{source.folder} lacks the weight {missing[0]}.")
    weights = {
        huggingface_name(name): StreamedTensor(shape, DTYPES[dtype], partial(read, name))
        for name, shape in shapes.items()
    }
    to.mkdir(parents=True, exist_ok=True)
    commit_all(write_weights(to, weights, max_file_bytes))
    _write_tokenizer(source, tokenizer, to)
    write_json(to / CONFIG_NAME, to_huggingface(source.model, dtype, tokenizer.eos_id))
    count = sum(torch.Size(shape).numel() for shape in shapes.values())
    return Exported(to, source.step, count)


def _merged(source: Source) -> Callable[[str], Tensor]:
    """Returns what reads the base's weights with the adapters added."""
    lora, base = source.lora, _base(source)
    assert lora is not None
    trained = {name: source.read(name) for name in source.names}

    def read(name: str) -> Tensor:
        weight = base.read(huggingface_name(name)).float()
        change = lora_change(trained, name, lora)
        return weight if change is None else weight + change

    return read


def _base(source: Source) -> WeightFiles:
    folder = source.init_from
    if folder is None or not folder.is_dir():
        raise ConfigError(f"{folder}, the model that the run of {source.folder} started from, is gone.")
    if fingerprint(folder) != source.init_from_sha256:
        raise ConfigError(f"{folder} is not any more the model that the run of {source.folder} started from.")
    return WeightFiles(folder)


def _tokenizer(source: Source) -> PackTokenizer:
    try:
        manifest = load_mixture(source.mixture)
    except FormatError as error:
        raise ConfigError(f"the tokenizer is found through the mixture that the run was of: {error}") from error
    tokenizer = tokenizer_of(manifest, source.mixture)
    if tokenizer.sha256 != source.tokenizer_sha256:
        raise ConfigError(f"{source.mixture} is of another tokenizer by now than {source.folder} was trained with.")
    return tokenizer


def _write_tokenizer(source: Source, tokenizer: PackTokenizer, to: Path) -> None:
    """Copies the tokenizer, and says in the files beside it which token ends a document."""
    name = TOKENIZER_NAME if tokenizer.path.suffix == ".json" else "tokenizer.model"
    contents = {name: tokenizer.path.read_bytes()}
    description: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast" if name == TOKENIZER_NAME else "LlamaTokenizer",
        "model_max_length": source.model.max_positions,
        "clean_up_tokenization_spaces": False,
    }
    if name == TOKENIZER_NAME:
        from tokenizers import Tokenizer

        description["eos_token"] = Tokenizer.from_file(str(tokenizer.path)).id_to_token(tokenizer.eos_id)
    contents["tokenizer_config.json"] = _json(description)
    contents["generation_config.json"] = _json({"_from_model_config": True, "eos_token_id": tokenizer.eos_id})
    if source.init_from is not None:
        found = [source.init_from / companion for companion in COMPANIONS]
        contents.update({path.name: path.read_bytes() for path in found if path.exists()})
    for target, content in contents.items():
        write_bytes(to / target, content)


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()


def open_checkpoint(path: Path) -> Source:
    """Opens a checkpoint's folder, or the newest one of a run's folder, and checks its weights' SHA-256.

    Raises `ConfigError` where there is none, and `FormatError` where it is damaged.
    """
    folder = _checkpoint_folder(path)
    state = _state(folder)
    identity, weights = state["identity"], folder / SINGLE_NAME
    if not weights.exists() or sha256_file(weights) != state["files"][SINGLE_NAME]["sha256"]:
        raise FormatError(f"{weights} is missing or was altered: its SHA-256 is not the one in {STATE_NAME}.")
    try:
        run = read_json(folder.parents[1] / "training.json")["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"cannot read what the run was: {folder.parents[1] / 'training.json'}: {error!r}.") from error
    lora = None
    if "lora.rank" in identity:
        targets = tuple(identity["lora.targets"].split(", "))
        lora = LoraConfig(rank=identity["lora.rank"], alpha=identity["lora.alpha"], targets=targets)
    opened: Any = safe_open(weights, framework="pt")
    return Source(
        folder=folder,
        step=int(state["step"]),
        model=_model_config(identity),
        lora=lora,
        init_from=None if run.get("init_from") is None else Path(run["init_from"]),
        init_from_sha256=identity.get("init_from_sha256"),
        mixture=Path(run["mixture"]),
        tokenizer_sha256=identity["tokenizer_sha256"],
        read=opened.get_tensor,
        names=frozenset(opened.keys()),
    )


def checkpoint_config(path: Path) -> ModelConfig:
    """Returns the shape of a checkpoint's model, or of a run's newest; its weights are not looked at."""
    return _model_config(_state(_checkpoint_folder(path))["identity"])


def _state(folder: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = read_json(folder / STATE_NAME)
        _ = state["identity"]["tokenizer_sha256"], state["files"][SINGLE_NAME]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"cannot read checkpoint {folder / STATE_NAME}: {error!r}.") from error
    if state.get("format") != FORMAT:
        raise FormatError(f"{folder} is not a checkpoint of this trainer (expected format '{FORMAT}').")
    return state


def _model_config(identity: dict[str, Any]) -> ModelConfig:
    values = {key.removeprefix("model."): value for key, value in identity.items() if key.startswith("model.")}
    if values.get("rope_scaling") is not None:
        values["rope_scaling"] = RopeScaling(**values["rope_scaling"])
    return ModelConfig(**values)


def model_of(source: Source) -> Decoder:
    """Returns an opened checkpoint's model, adapters merged."""
    read = _merged(source) if source.lora is not None else source.read
    model = Decoder(source.model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(read(name))
    return model


def _checkpoint_folder(path: Path) -> Path:
    if (path / STATE_NAME).exists():
        return path
    found = sorted(path.glob(f"checkpoints/step-*/{STATE_NAME}")) or sorted(path.glob(f"step-*/{STATE_NAME}"))
    if not found:
        if (path / DESCRIPTION_NAME).exists():
            raise ConfigError(f"there is no checkpoint in {path} yet.")
        raise ConfigError(f"there is no checkpoint in {path}, which is no training run: {found_instead(path)}.")
    return found[-1].parent
