"""Weights in Hugging Face's files: ``model.safetensors``, or several with ``model.safetensors.index.json``.

Reading takes one tensor at a time; writing streams them into files that stay invisible until all are whole. Names
differ from the decoder's by a prefix only: ``model.layers.0 …`` there is ``layers.0 …`` here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dataeng.errors import ConfigError, FormatError
from dataeng.formats.atomic import AtomicFile
from trainer.model.decoder import Decoder
from trainer.model.presets import ModelConfig
from trainer.tensor_file import StreamedTensor, write_tensors

SINGLE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
#: Buffers that old versions of transformers saved; they follow from the configuration.
DERIVED_SUFFIX = "rotary_emb.inv_freq"


def huggingface_name(name: str) -> str:
    """Returns the name in Hugging Face's files of a weight of `Decoder`."""
    return name if name.startswith("lm_head.") else f"model.{name}"


class WeightFiles:
    """Read access to the safetensors of a model folder. Opening reads the headers, which hold names and shapes.

    Raises `ConfigError` where there are none, and `FormatError` naming the file that is missing, damaged or truncated.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Any] = {}
        self._file_of: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file_name, expected in self._listing().items():
            path = folder / file_name
            try:
                opened: Any = safe_open(path, framework="pt")
                names = set(opened.keys())
            except FileNotFoundError as error:
                raise FormatError(f"{path} is missing; {INDEX_NAME} names it.") from error
            except (SafetensorError, OSError) as error:
                raise FormatError(f"{path} is damaged or truncated ({error}). Copy the model again.") from error
            if expected is not None and (absent := sorted(expected - names)):
                raise FormatError(f"{path} lacks {_some(absent)}, which {INDEX_NAME} places there.")
            self._files[file_name] = opened
            for name in names if expected is None else expected:
                self._file_of[name] = file_name
                self.shapes[name] = tuple(opened.get_slice(name).get_shape())

    def _listing(self) -> dict[str, set[str] | None]:
        """Returns the files and the names expected in each; None: whatever is there."""
        index = self.folder / INDEX_NAME
        if index.exists():
            try:
                weight_map = dict(json.loads(index.read_bytes())["weight_map"])
            except (ValueError, KeyError, TypeError) as error:
                raise FormatError(f"{index} is damaged: {error!r}.") from error
            listing: dict[str, set[str] | None] = {}
            for name, file_name in weight_map.items():
                if Path(file_name).name != file_name:
                    raise FormatError(f"{index} names the file '{file_name}', which is not in its own folder.")
                names = listing.setdefault(file_name, set())
                assert names is not None
                names.add(name)
            return listing
        if (self.folder / SINGLE_NAME).exists():
            return {SINGLE_NAME: None}
        found = sorted(path.name for path in self.folder.glob("*.bin")) or sorted(
            path.name for path in self.folder.glob("*.safetensors")
        )
        raise ConfigError(
            f"{self.folder} has neither {SINGLE_NAME} nor {INDEX_NAME}"
            + (f" (only {_some(found)}: save it with transformers' save_pretrained)." if found else ".")
        )

    @property
    def paths(self) -> list[Path]:
        """The files, in order of their names."""
        return [self.folder / name for name in sorted(self._files)]

    def read(self, name: str) -> Tensor:
        """Returns one tensor as it is stored."""
        tensor: Tensor = self._files[self._file_of[name]].get_tensor(name)
        return tensor


def load_weights(model: Decoder, folder: Path) -> None:
    """Copies the weights in ``folder`` into ``model``, whatever precision they are stored in.

    Raises `FormatError` naming weights that are missing, surplus or of another shape; the model is then unchanged.
    """
    files = WeightFiles(folder)
    parameters = {huggingface_name(name): parameter for name, parameter in model.named_parameters()}
    found = {name for name in files.shapes if not name.endswith(DERIVED_SUFFIX)}
    if model.config.tied_embeddings:
        found.discard("lm_head.weight")  # some files hold the shared matrix under both names
    if missing := [name for name in parameters if name not in found]:
        raise FormatError(f"{folder} lacks {_some(missing)} of the model that its config.json describes.")
    if surplus := sorted(found - parameters.keys()):
        raise FormatError(f"{folder} has {_some(surplus)}, which its config.json does not describe.")
    for name, parameter in parameters.items():
        if files.shapes[name] != tuple(parameter.shape):
            raise FormatError(
                f"{folder}: {name} is {files.shapes[name]}; config.json describes {tuple(parameter.shape)}."
            )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(files.read(name))


def decoder_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes of a decoder's weights, in order, without making them."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in Decoder(config).named_parameters()}


def write_weights(folder: Path, weights: Mapping[str, StreamedTensor], max_file_bytes: int) -> list[AtomicFile]:
    """Writes tensors under their (Hugging Face's) names, and returns the files, which the caller commits together.

    A file holds at most ``max_file_bytes``, unless a single tensor is larger; more than one come with an index. Needs
    the memory of one tensor. On failure nothing is left.
    """
    size_of = {name: weight.size_bytes for name, weight in weights.items()}
    groups = _groups(size_of, max_file_bytes)
    total = len(groups)
    names = [SINGLE_NAME] if total == 1 else [f"model-{i:05d}-of-{total:05d}.safetensors" for i in range(1, total + 1)]
    files: list[AtomicFile] = []
    try:
        for file_name, group in zip(names, groups, strict=True):
            files.append(AtomicFile(folder / file_name))
            write_tensors(files[-1], {name: weights[name] for name in group}, {"format": "pt"})
        if total > 1:
            weight_map = {name: file for file, group in zip(names, groups, strict=True) for name in group}
            files.append(AtomicFile(folder / INDEX_NAME))
            metadata = {"total_size": sum(size_of.values())}
            files[-1].write((json.dumps({"metadata": metadata, "weight_map": weight_map}, indent=2) + "\n").encode())
    except BaseException:
        for file in files:
            file.discard()
        raise
    return files


def _groups(size_of: Mapping[str, int], limit: int) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    filled = 0
    for name, size in size_of.items():
        if groups[-1] and filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    return groups


def _some(names: Sequence[str]) -> str:
    """Returns the first few names, and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
