"""Checkpoints: tensors in safetensors, everything else in JSON, no pickle; whole or not there.

    checkpoints/step-00000050/
      model.safetensors      weights by name
      optimizer.safetensors  the optimizer's moments, "exp_avg.<weight>" …
      rng.safetensors        PyTorch's generators
      state.json             written last: step, identity of the run, sampler, controller, SHA-256 of the above

Tensors are streamed: shards come together, are written and hashed one tensor at a time. Reading maps the files; what is
restored from them is copied, so that a checkpoint's files can go while the run goes on.

A folder without ``state.json`` is no checkpoint. One whose files are not what ``state.json`` says is refused, by name;
an older one is taken only when the user says so.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from dataeng.errors import ConfigError, FormatError
from dataeng.formats.atomic import AtomicFile, commit_all, fs, read_json, write_json
from dataeng.formats.atomic import sha256_file as sha256_of
from trainer.identity import changes
from trainer.optimizer.optimizers import Optimizers
from trainer.parallel.spread import in_order, shard_like, whole
from trainer.tensor_file import StreamedTensor, write_tensors

FORMAT = "trainer checkpoint 2"
OLD_FORMATS = ("trainer checkpoint 1",)  # 1: rows were planned one by one and had no padding
STATE_NAME = "state.json"
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint: ``tensors`` by file (model, optimizer, rng), mapped; ``state`` as in state.json."""

    step: int
    tensors: dict[str, Tensors]
    state: dict[str, Any]


class CheckpointFolder:
    """The checkpoints of one run. ``identity`` is what a checkpoint must have been made with to fit.

    The last ``keep`` stay, and the one with the smallest ``score`` (a validation loss), if any has one.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], keep: int) -> None:
        self.folder, self.identity, self.keep = folder, identity, keep

    def steps(self) -> list[int]:
        """Returns the steps that a checkpoint exists of, ascending."""
        found = (path.parent.name.removeprefix("step-") for path in self.folder.glob(f"step-*/{STATE_NAME}"))
        return sorted(int(name) for name in found if name.isdigit())

    def best(self) -> int | None:
        """Returns the step of the checkpoint with the smallest score; the older of two equal ones."""
        scores = {step: self._score(step) for step in self.steps()}
        scored = {step: score for step, score in scores.items() if score is not None}
        return min(scored, key=lambda step: scored[step]) if scored else None

    def _score(self, step: int) -> float | None:
        try:
            score = read_json(self._path(step) / STATE_NAME).get("score")
        except (OSError, ValueError, AttributeError):
            return None  # a damaged one; `load` says so when it is asked for
        return score if isinstance(score, float) else None

    def save(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: dict[str, Any],
        score: float | None = None,
    ) -> None:
        """Writes a checkpoint and then removes the oldest beyond ``keep``.

        Of tensors that are shards, the other ranks send theirs meanwhile (`send_shards`, of the same files).
        """
        folder = self._path(step)
        self._remove(folder)
        files = {name: AtomicFile(folder / f"{name}.safetensors") for name in tensors}
        try:
            for name, file in files.items():
                write_tensors(file, {key: _streamed(tensors[name][key]) for key in in_order(tensors[name])})
            commit_all(files.values())
        except BaseException:
            for file in files.values():
                file.discard()
            raise
        listed = {f.target.name: {"size_bytes": f.size_bytes, "sha256": f.sha256} for f in files.values()}
        write_json(
            folder / STATE_NAME,
            {"format": FORMAT, "step": step, "identity": self.identity, "score": score, "files": listed, **state},
        )
        best = self.best()
        for old in self.steps()[: -self.keep]:
            if old != best:
                self._remove(self._path(old))

    def load(self, step: int | None = None, verify: bool = True) -> Checkpoint | None:
        """Opens the checkpoint of ``step``, or the newest; None when there is none at all.

        ``verify`` False leaves it to another rank to compare the files' SHA-256.
        Raises `FormatError` for a damaged or foreign checkpoint and `ConfigError` for one of another configuration.
        """
        steps = self.steps()
        if step is None:
            if not steps:
                return None
            step = steps[-1]
        elif step not in steps:
            raise ConfigError(f"there is no checkpoint of step {step} in {self.folder}; there are: {steps or 'none'}.")
        try:
            return self._load(self._path(step), verify)
        except FormatError as error:
            older = [s for s in steps if s < step]
            advice = f"--resume-from {older[-1]} goes back to the one before, " if older else ""
            raise FormatError(f"{error} Nothing was changed. {advice}--no-resume starts over.") from error

    def _load(self, folder: Path, verify: bool) -> Checkpoint:
        path = folder / STATE_NAME
        try:
            state = read_json(path)
        except (OSError, ValueError) as error:
            raise FormatError(f"cannot read checkpoint {path}: {error}.") from error
        if isinstance(state, dict) and state.get("format") in OLD_FORMATS:
            raise FormatError(
                f"{path} was written by an earlier version of this trainer, whose rows came in another order; that "
                "version goes on from it."
            )
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise FormatError(f"{path} is not a checkpoint of this trainer (expected format '{FORMAT}').")
        self._check_identity(path, state["identity"])
        tensors = {}
        for name, expected in state["files"].items():
            file = folder / name
            size = file.stat().st_size if file.exists() else None
            if size != expected["size_bytes"]:
                found = "is missing" if size is None else f"has {size:,} bytes"
                raise FormatError(f"checkpoint file {file} {found}; {expected['size_bytes']:,} bytes were written.")
            if verify and sha256_of(file) != expected["sha256"]:
                raise FormatError(f"checkpoint file {file} was altered: its SHA-256 is not the one in {STATE_NAME}.")
            tensors[file.stem] = safetensors.torch.load_file(file)
        return Checkpoint(int(state["step"]), tensors, state)

    def _check_identity(self, path: Path, found: dict[str, Any]) -> None:
        changed = changes(found, self.identity)
        if changed:
            listed = "; ".join(changed[:6]) + (f"; and {len(changed) - 6} more" if len(changed) > 6 else "")
            raise ConfigError(
                f"{path.parent} was made with another configuration: {listed}. Use the same to resume, another --out "
                "for a new run, or --no-resume to discard this one."
            )

    def discard_after(self, step: int) -> None:
        """Removes the checkpoints of later steps (0: all), and what a killed process left half-written."""
        for later in self.steps():
            if later > step:
                self._remove(self._path(later))
        for folder in self.folder.glob("step-*"):
            if not (folder / STATE_NAME).exists():
                self._remove(folder)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    @staticmethod
    def _remove(folder: Path) -> None:
        """Removes a checkpoint, ``state.json`` first, so that no half of one is ever taken for a whole."""
        fs.remove(folder / STATE_NAME)
        if folder.exists():
            shutil.rmtree(folder)


def _streamed(tensor: Tensor) -> StreamedTensor:
    return StreamedTensor(tuple(tensor.shape), tensor.dtype, partial(whole, tensor))


def optimizer_tensors(optimizers: Optimizers) -> Tensors:
    """Returns the optimizers' state as tensors named ``<moment>.<weight>``."""
    tensors: Tensors = {}
    for part in optimizers.parts:
        state = part.state_dict()
        for name, index in _indexes(state).items():
            tensors.update({f"{moment}.{name}": value for moment, value in state["state"].get(index, {}).items()})
    return tensors


def load_optimizer_tensors(optimizers: Optimizers, tensors: Tensors) -> None:
    """Restores `optimizer_tensors`; learning rate and other settings stay as configured."""
    moments: dict[str, Tensors] = {}
    for key, value in tensors.items():
        moment, _, name = key.partition(".")
        moments.setdefault(name, {})[moment] = value
    for part in optimizers.parts:
        state = {**part.state_dict(), "state": {}}
        part.state.clear()  # what it held goes before the copies are made
        held = dict(enumerate(p for group in part.param_groups for p in group["params"]))
        known = {
            index: {moment: _like(value, held[index]) for moment, value in moments.pop(name).items()}
            for name, index in _indexes(state).items()
            if name in moments
        }
        part.load_state_dict({**state, "state": known})
    for name, left in moments.items():
        raise FormatError(
            f"the checkpoint's optimizer has '{next(iter(left))}.{name}', which is no weight of this model."
        )


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """Returns a moment as its weight is held, whole or a shard; one of another shape is whole everywhere.

    A copy: the optimizer would keep what it is given, which is the checkpoint's file, mapped.
    """
    return (shard_like(value, parameter) if value.shape == parameter.shape else value).clone()


def _indexes(state: dict[str, Any]) -> dict[str, int]:
    """Returns each weight's number in an optimizer's state_dict; the optimizer was built with the weights' names."""
    groups = state["param_groups"]
    return {n: i for group in groups for n, i in zip(group["param_names"], group["params"], strict=True)}


def model_tensors(model: nn.Module) -> Tensors:
    """Returns the weights that training changes, by name: all, or with LoRA the adapters' alone."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def load_model_tensors(model: nn.Module, tensors: Tensors) -> None:
    """Restores `model_tensors`; raises `FormatError` naming the first that is missing, surplus or of another shape."""
    held = model_tensors(model)
    expected = {name: tuple(value.shape) for name, value in held.items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in [*expected, *found]:
        if expected.get(name) != found.get(name):
            raise FormatError(
                f"the checkpoint is of another model: {name} is {found.get(name, 'absent')} in it, "
                f"{expected.get(name, 'absent')} in this one."
            )
    for name, value in held.items():
        value.copy_(shard_like(tensors[name], value))


def _gpus_are_in_use() -> bool:
    """False in a run on the CPU, which is not to open GPUs that may be others'."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def random_state() -> tuple[Tensors, dict[str, Any]]:
    """Returns the state of all global generators: PyTorch's as tensors, Python's and NumPy's as JSON values."""
    tensors = {"cpu": torch.get_rng_state()}
    if _gpus_are_in_use():
        tensors.update({f"cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())})
    version, internal, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return tensors, {
        "python": [version, list(internal), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
    }


def load_random_state(tensors: Tensors, state: dict[str, Any]) -> None:
    """Restores `random_state`. Generators of GPUs that this machine lacks are left out."""
    torch.set_rng_state(tensors["cpu"])
    if _gpus_are_in_use():
        for i in range(torch.cuda.device_count()):
            if f"cuda{i}" in tensors:
                torch.cuda.set_rng_state(tensors[f"cuda{i}"], i)
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), position, has_gauss, cached))
