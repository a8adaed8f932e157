"""Runs that are killed, stopped, and that run out of disk, by the command line and the kernel's own means."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from typer.testing import CliRunner

from dataeng.errors import DataengError
from dataeng.formats import atomic
from dataeng.formats.atomic import sha256_file, write_json
from tests.trainer.conftest import TOKENIZER
from tests.trainer.test_loop import Recorder, assert_same_run, run
from trainer.cli import app
from trainer.config import TrainConfig
from trainer.huggingface.config import to_huggingface
from trainer.huggingface.weights import huggingface_name
from trainer.model.decoder import Decoder
from trainer.model.presets import ModelConfig

SHAPE = ModelConfig(vocab_size=257, dim=16, num_layers=1, num_heads=2, num_kv_heads=1, hidden_dim=24, max_positions=64)
STEPS = 200

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture
def small(mixture: Path, tmp_path: Path) -> list[str]:
    """The arguments of a run of 200 steps of milliseconds: a model of some 7,000 weights, rows of 16 tokens."""
    model, folder = Decoder(SHAPE), tmp_path / "model"
    model.initialize(0)
    folder.mkdir()
    weights = {huggingface_name(name): weight for name, weight in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", to_huggingface(SHAPE, "float32", 0))
    (folder / "tokenizer.json").write_text("{}")
    for path in (mixture, *tmp_path.glob("run/packs/*/pack.json")):  # the packs', too, as far as anyone can tell
        path.write_text(path.read_text().replace(TOKENIZER, sha256_file(folder / "tokenizer.json")))
    options = ["--batch-size", "2", "--sequence-length", "16", "--checkpoint-every", "30"]
    steps = ["--steps", str(STEPS), "--threads", "1", "--device", "cpu"]
    return ["--mixture", str(mixture), "--init-from", str(folder), *options, *steps]


def called(arguments: list[str], out: Path) -> tuple[int, str]:
    """Runs the command in this process; its exit code and what it printed."""
    done = CliRunner().invoke(app, [*arguments, "--out", str(out)])
    return done.exit_code, done.output


def wait_for(out: Path, checkpoint: int, goes_on: Callable[[], bool]) -> None:
    """Returns some time after a checkpoint was saved, at no particular point of a step."""
    state = out / "checkpoints" / f"step-{checkpoint:08d}" / "state.json"
    while not state.exists() and goes_on():
        time.sleep(0.002)
    time.sleep(random.uniform(0, 0.1))


def killed(arguments: list[str], out: Path, checkpoint: int) -> bool:
    """Runs the command in a process of its own and kills it; False if it was done before."""
    command = [sys.executable, "-m", "trainer", *arguments, "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(out, checkpoint, lambda: process.poll() is None)
    process.kill()
    _, errors = process.communicate(timeout=300)
    assert not errors, errors
    return process.returncode == -signal.SIGKILL


def terminated(arguments: list[str], out: Path, checkpoint: int) -> bool:
    """Runs the command here, sends SIGTERM from beside, and expects exit code 130; False if it was done before."""
    ended = threading.Event()

    def terminate() -> None:
        wait_for(out, checkpoint, lambda: not ended.is_set())
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda *_: None)  # where the run is over, it is meant for nobody
    sender = threading.Thread(target=terminate)
    sender.start()
    code, output = called(arguments, out)
    ended.set()
    sender.join()
    signal.signal(signal.SIGTERM, before)
    assert code == 0 or (code == 130 and "stopped; the same command goes on at step" in output), output
    return code == 130


def saved_steps(out: Path) -> list[int]:
    return sorted(int(path.parent.name.removeprefix("step-")) for path in out.glob("checkpoints/*/state.json"))


def test_a_run_that_is_killed_and_then_stopped_ends_as_if_it_never_was(small: list[str], tmp_path: Path) -> None:
    """200 steps; and the same killed at any moment, resumed, told to stop at any moment, resumed: bit for bit."""
    unbroken, broken, before = tmp_path / "unbroken", tmp_path / "broken", tmp_path / "before"
    code, output = called(small, unbroken)
    assert code == 0, output
    while not killed(small, broken, 60):
        shutil.rmtree(broken)
    assert 60 <= saved_steps(broken)[-1] < STEPS
    for name in ("training.json", "mix.json"):  # as if it had died in the midst of one
        (broken / f".{name}.0123456789ab.tmp").write_text("{")
    (broken / ".notes.tmp").write_text("somebody's")
    shutil.copytree(broken, before)
    while not terminated(small, broken, 120):
        shutil.rmtree(broken)
        shutil.copytree(before, broken)
    stopped_at = saved_steps(broken)[-1]
    assert 120 <= stopped_at < STEPS
    code, output = called(small, broken)
    assert code == 0 and f"resuming {broken} after step {stopped_at}" in output, output
    assert_same_run(broken, unbroken, STEPS)
    assert (broken / "mix.json").read_bytes() == (unbroken / "mix.json").read_bytes()
    assert [path.name for path in broken.rglob("*.tmp")] == [".notes.tmp"]


#: Of the calls that fail: all of them take half a minute.
STRIDE = 4
FAILING = ("create", "write", "sync", "rename", "sync_folder")


@pytest.mark.parametrize("background", [False, True])
def test_wherever_the_disk_fills_up_the_run_says_so_and_can_go_on(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    """Calls that write, from the first to the last of a run, are the first to fail in turn."""
    options = {"steps": 4, "checkpoint_every": 2, "background_checkpoints": background}

    def config(name: str) -> TrainConfig:
        return replace(make_config(out=tmp_path / name, **options), model=SHAPE)

    run(config("unbroken"))
    count, allowed = 0, math.inf
    real = {name: getattr(atomic.fs, name) for name in FAILING}

    def failing(name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count > allowed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real[name](*arguments)

        return call

    for name in FAILING:
        monkeypatch.setattr(atomic.fs, name, failing(name))
    run(config("counted"))
    num_calls, past = count, []
    assert num_calls > 60  # two checkpoints of four files, two parts of metrics, training.json, mix.json
    for first in range(2 * background, num_calls, STRIDE):
        broken = config(f"broken{first}")
        count, allowed = 0, first
        with pytest.raises(DataengError, match=r"cannot write to .*: No space left on device; (the|there)") as caught:
            run(broken)
        saved = saved_steps(broken.out)
        told = f"the checkpoint of step {saved[-1]} is intact" if saved else "there is no checkpoint yet"
        assert f"{told}. Make room; the same command goes on." in str(caught.value)
        assert not (broken.out / "mix.json").exists() or saved[-1] == 4  # it is the last but one to be written
        allowed = math.inf
        watcher = Recorder()
        assert run(broken, watcher).step == 4
        assert watcher.steps == list(range(max(saved, default=0) + 1, 5))
        assert_same_run(broken.out, tmp_path / "unbroken", 4)
        assert (broken.out / "mix.json").read_bytes() == (tmp_path / "unbroken" / "mix.json").read_bytes()
        assert not list(broken.out.rglob("*.tmp"))
        past.append(max(saved, default=0))
    assert set(past) == {0, 2, 4}


@pytest.mark.parametrize("background", [False, True])
def test_a_disk_that_the_kernel_says_is_full(make_config: MakeConfig, tmp_path: Path, background: bool) -> None:
    """No file may grow beyond 45 kB from step 3 on: the weights fit, the optimizer's moments do not."""
    options = {"steps": 6, "checkpoint_every": 2, "background_checkpoints": background}
    unbroken, full = (replace(make_config(out=tmp_path / n, **options), model=SHAPE) for n in ("unbroken", "full"))
    run(unbroken)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_disk() -> None:
        while not saved_steps(full.out):  # what is saved beside the run is there
            time.sleep(0.002)
        resource.setrlimit(resource.RLIMIT_FSIZE, (45_000, before[1]))

    try:
        with pytest.raises(DataengError, match=r"File too large; the checkpoint of step 2 is intact\. Make room; the"):
            run(full, Recorder(3, fill_disk))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert saved_steps(full.out) == [2]
    status = json.loads((full.out / "training.json").read_text())["status"]
    assert status.startswith("failed: cannot write to") and "File too large" in status
    watcher = Recorder()
    run(full, watcher)
    assert watcher.steps == [3, 4, 5, 6]
    assert_same_run(full.out, unbroken.out, 6)


def test_a_folder_that_cannot_be_written_to(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = make_config(out=tmp_path / "file" / "run", steps=2)
    with pytest.raises(DataengError, match=rf"cannot write to {tmp_path}.*: Not a directory; there is no checkpoint"):
        run(config)
