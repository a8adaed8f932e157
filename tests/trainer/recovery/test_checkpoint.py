"""Checkpoints: round trip, keeping the last, and every kind of damage."""

from __future__ import annotations

import json
import random
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dataeng.errors import ConfigError, FormatError
from dataeng.formats import atomic
from trainer.config import OptimizerConfig
from trainer.model.decoder import Decoder
from trainer.model.presets import ModelConfig
from trainer.optimizer.optimizers import build_optimizer
from trainer.recovery.checkpoint import (
    CheckpointFolder,
    load_model_tensors,
    load_optimizer_tensors,
    load_random_state,
    optimizer_tensors,
    random_state,
)

CONFIG = ModelConfig(vocab_size=20, dim=8, num_layers=1, num_heads=2, num_kv_heads=1, hidden_dim=12, max_positions=8)
TENSORS = {"model": {"w": torch.arange(6.0).reshape(2, 3), "scalar": torch.tensor(3.5)}, "rng": {"cpu": torch.ones(2)}}


def folder_in(tmp_path: Path, keep: int = 2, **identity: object) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints", {"steps": 60, "seed": 0, **identity}, keep)


def test_round_trip(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    assert folder.load() is None
    folder.save(30, TENSORS, {"sampler": {"drawn": [1, 2], "deficits": [0.1, -0.1]}})
    loaded = folder.load()
    assert loaded is not None and loaded.step == 30
    assert loaded.state["sampler"] == {"drawn": [1, 2], "deficits": [0.1, -0.1]}
    for name, tensors in TENSORS.items():
        assert all(torch.equal(loaded.tensors[name][key], value) for key, value in tensors.items())


def test_the_last_are_kept_and_the_newest_is_loaded(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    for step in (10, 20, 30):
        folder.save(step, TENSORS, {})
    assert folder.steps() == [20, 30]
    assert sorted(path.name for path in folder.folder.iterdir()) == ["step-00000020", "step-00000030"]
    newest, older = folder.load(), folder.load(20)
    assert newest is not None and older is not None
    assert (newest.step, older.step) == (30, 20)
    folder.discard_after(20)
    assert folder.steps() == [20]
    with pytest.raises(ConfigError, match=r"no checkpoint of step 30.*there are: \[20\]"):
        folder.load(30)


def test_the_best_stays_beyond_the_last(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    for step, score in ((10, 3.0), (20, 2.5), (30, None), (40, 2.75), (50, 2.5)):
        folder.save(step, TENSORS, {}, score)
    assert folder.steps() == [20, 40, 50] and folder.best() == 20
    folder.save(60, TENSORS, {}, 2.0)
    assert folder.steps() == [50, 60] and folder.best() == 60
    newest = folder.load()
    assert newest is not None and newest.state["score"] == 2.0


def test_shards_come_together_one_tensor_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[torch.Tensor]] = []

    def whole(tensor: torch.Tensor) -> torch.Tensor:
        assert all(reference() is None for reference in made)
        made.append(weakref.ref(found := tensor.clone()))
        return found

    monkeypatch.setattr("trainer.recovery.checkpoint.whole", whole)
    folder = folder_in(tmp_path)
    folder.save(30, {"model": {name: torch.ones(3) for name in "abc"}, "optimizer": {"m": torch.ones(2)}}, {})
    assert len(made) == 4 and folder.load() is not None


def test_one_rank_looks_for_damage_for_all(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    folder.save(30, TENSORS, {})
    damage_flip(folder.folder / "step-00000030" / "model.safetensors")
    assert folder.load(verify=False) is not None
    with pytest.raises(FormatError, match=r"model.safetensors was altered"):
        folder.load()


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def damage_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("model.safetensors", damage_truncate, "model.safetensors has .* bytes; .* bytes were written"),
        ("model.safetensors", damage_flip, "model.safetensors was altered"),
        ("rng.safetensors", Path.unlink, "rng.safetensors is missing"),
        ("state.json", lambda path: path.write_text("{"), "cannot read checkpoint .*state.json"),
        ("state.json", lambda path: path.write_text('{"step": 20}'), "state.json is not a checkpoint of this trainer"),
        ("state.json", lambda path: path.write_text("[]"), "state.json is not a checkpoint of this trainer"),
    ],
)
def test_damage_is_named_and_an_older_one_never_taken_silently(
    tmp_path: Path, name: str, damage: Callable[[Path], object], message: str
) -> None:
    folder = folder_in(tmp_path)
    for step in (10, 20):
        folder.save(step, TENSORS, {})
    damage(folder.folder / "step-00000020" / name)
    with pytest.raises(FormatError, match=message) as caught:
        folder.load()
    assert "--resume-from 10 goes back to the one before, --no-resume starts over" in str(caught.value)
    older = folder.load(10)
    assert older is not None and older.step == 10


def test_another_configuration_is_refused_by_name(tmp_path: Path) -> None:
    folder_in(tmp_path, lr=0.1).save(10, TENSORS, {})
    with pytest.raises(ConfigError, match=r"--seed 0 → 5; dim none → 8; lr 0.1 → none"):
        CheckpointFolder(tmp_path / "checkpoints", {"steps": 60, "seed": 5, "dim": 8}, 2).load()


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every primitive call of a save fails in turn; afterwards the older or the new checkpoint loads, whole."""
    real = atomic.fs

    class Failing(atomic.FileSystem):
        def __init__(self, allowed: int) -> None:
            self.allowed = allowed

        def __getattribute__(self, name: str):
            if name in ("create", "write", "sync", "rename", "sync_folder"):
                self.allowed -= 1
                if self.allowed < 0:
                    raise OSError(28, "No space left on device")
            return super().__getattribute__(name)

    folder = folder_in(tmp_path)
    folder.save(10, TENSORS, {})
    for allowed in range(100):
        monkeypatch.setattr(atomic, "fs", Failing(allowed))
        try:
            folder.save(20, TENSORS, {"allowed": allowed})
        except OSError:
            monkeypatch.setattr(atomic, "fs", real)
            loaded = folder.load()
            assert loaded is not None and loaded.step in (10, 20)
            folder.discard_after(10)
            assert [path.name for path in folder.folder.iterdir()] == ["step-00000010"]
            continue
        break
    assert allowed > 10  # two tensor files and state.json: at least create, write, sync, rename each
    monkeypatch.setattr(atomic, "fs", real)
    loaded = folder.load()
    assert loaded is not None and loaded.state["allowed"] == allowed


def trained_model(num_steps: int) -> tuple[Decoder, torch.optim.Optimizer]:
    model = Decoder(CONFIG)
    model.initialize(0)
    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=0.01))
    train_model(model, optimizer, range(num_steps))
    return model, optimizer


def train_model(model: Decoder, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        tokens = torch.randint(20, (2, 8), generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        model.logits(tokens).square().mean().backward()
        optimizer.step()


def test_the_optimizer_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    unbroken, _ = trained_model(6)
    model, optimizer = trained_model(3)
    folder = folder_in(tmp_path)
    folder.save(3, {"model": model.state_dict(), "optimizer": optimizer_tensors(optimizer)}, {})
    loaded = folder.load()
    assert loaded is not None
    resumed, optimizer = trained_model(0)
    load_model_tensors(resumed, loaded.tensors["model"])
    load_optimizer_tensors(optimizer, loaded.tensors["optimizer"])
    # Moments of their own: the file's would keep it on the disk when it is removed, and in use on a network's.
    mapped = {value.untyped_storage().data_ptr() for value in loaded.tensors["optimizer"].values()}
    held = {value.untyped_storage().data_ptr() for value in optimizer_tensors(optimizer).values()}
    assert not mapped & held
    train_model(resumed, optimizer, range(3, 6))
    for name, value in unbroken.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_tensors_of_another_model_are_refused() -> None:
    model, optimizer = trained_model(1)
    tensors = dict(model.state_dict())
    with pytest.raises(FormatError, match=r"norm.weight is \(9,\) in it, \(8,\) in this one"):
        load_model_tensors(model, {**tensors, "norm.weight": torch.ones(9)})
    with pytest.raises(FormatError, match=r"extra is .* in it, absent in this one"):
        load_model_tensors(model, {**tensors, "extra": torch.ones(1)})
    with pytest.raises(FormatError, match=r"'exp_avg.other', which is no weight"):
        load_optimizer_tensors(optimizer, {"exp_avg.other": torch.ones(1)})


def test_all_generators_go_on_where_they_were() -> None:
    tensors, state = random_state()
    expected = (torch.rand(3).tolist(), random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn())
    load_random_state(tensors, json.loads(json.dumps(state)))
    assert (
        torch.rand(3).tolist(),
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.randn(),
    ) == expected


def test_a_run_on_the_cpu_leaves_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("a GPU that is not computed on")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", opened)
    monkeypatch.setattr(torch.cuda, "set_rng_state", opened)
    tensors, state = random_state()
    load_random_state({**tensors, "cuda0": tensors["cpu"]}, json.loads(json.dumps(state)))
