"""Runs that are killed, stopped, and that run out of disk, by the command line and the kernel's own means."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import save_file
from typer.testing import CliRunner

from dataeng.formats.atomic import write_json
from tests.trainer.test_loop import assert_same_run
from trainer.cli import app
from trainer.huggingface import to_huggingface
from trainer.model import Decoder
from trainer.presets import ModelConfig
from trainer.weights import huggingface_name

SHAPE = ModelConfig(vocab_size=257, dim=16, num_layers=1, num_heads=2, num_kv_heads=1, hidden_dim=24, max_positions=32)
STEPS = 200


@pytest.fixture
def small(mixture: Path, tmp_path: Path) -> list[str]:
    """The arguments of a run of 200 steps of milliseconds: a model of some 7,000 weights, rows of 16 tokens."""
    model, folder = Decoder(SHAPE), tmp_path / "model"
    model.initialize(0)
    folder.mkdir()
    weights = {huggingface_name(name): weight for name, weight in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", to_huggingface(SHAPE, "float32", 0))
    options = ["--batch-size", "2", "--sequence-length", "16", "--checkpoint-every", "30"]
    steps = ["--steps", str(STEPS), "--threads", "1", "--device", "cpu"]
    return ["--mixture", str(mixture), "--init-from", str(folder), *options, *steps]


def signalled(arguments: list[str], out: Path, checkpoint: int, number: signal.Signals) -> int:
    """Runs the command in a process of its own and sends it a signal some time after a checkpoint; its exit code."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", *arguments, "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    state = out / "checkpoints" / f"step-{checkpoint:08d}" / "state.json"
    while not state.exists() and process.poll() is None:
        time.sleep(0.002)
    time.sleep(random.uniform(0, 0.1))
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert not errors, errors
    return process.returncode


def saved_steps(out: Path) -> list[int]:
    return sorted(int(path.parent.name.removeprefix("step-")) for path in out.glob("checkpoints/*/state.json"))


def test_a_run_that_is_killed_and_then_stopped_ends_as_if_it_never_was(small: list[str], tmp_path: Path) -> None:
    """200 steps; and the same killed at any moment, resumed, told to stop at any moment, resumed: bit for bit."""
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    assert CliRunner().invoke(app, [*small, "--out", str(unbroken)]).exit_code == 0
    while signalled(small, broken, 60, signal.SIGKILL) != -signal.SIGKILL:
        shutil.rmtree(broken)  # it had finished before: once more
    assert 60 <= saved_steps(broken)[-1] < STEPS
    killed = tmp_path / "killed"
    shutil.copytree(broken, killed)
    while signalled(small, broken, 120, signal.SIGTERM) != 130:
        shutil.rmtree(broken)
        shutil.copytree(killed, broken)
    stopped_at = saved_steps(broken)[-1]
    assert 120 <= stopped_at < STEPS
    done = CliRunner().invoke(app, [*small, "--out", str(broken)])
    assert done.exit_code == 0, done.output
    assert f"resuming {broken} after step {stopped_at}" in done.stdout
    assert_same_run(broken, unbroken, STEPS)
    assert (broken / "mix.json").read_bytes() == (unbroken / "mix.json").read_bytes()
    assert not list(broken.rglob("*.tmp"))
