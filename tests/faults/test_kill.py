"""kill -9 of everything, at several moments of a real run; the next run must leave what an undisturbed one leaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

import dataeng
from tests.engine.conftest import PIPELINE, Toy, make_toy, toy

__all__ = ["make_toy", "toy"]  # fixtures

SLOW_LINES = 2  # per part; each takes 0.2 s in every phase that looks at it


def slow(toy: Toy) -> Toy:
    """Three parts, with texts that take their time before the exchange and after it."""
    toy.file.write_text(
        PIPELINE.replace("  - toy:Upper:\n", "  - toy:Fragile:\n    name: fragile_again\n  - toy:Upper:\n")
    )
    for part in range(3):
        toy.write_input(f"{part}.txt", [f"sleep {part} {i}" for i in range(SLOW_LINES)] + ["bad", "repeated"])
    return toy


def start(toy: Toy, *options: str) -> subprocess.Popen[str]:
    """Starts `dataeng run` in a process group of its own."""
    command = [sys.executable, "-m", "dataeng", "run", str(toy.file), "--allow-code", "--set", f"run={toy.run_dir}"]
    environment = {**os.environ, "PYTHONPATH": str(Path(dataeng.__file__).parents[1])}
    return subprocess.Popen(
        [*command, *options], env=environment, cwd=toy.folder, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


def records(toy: Toy, phase: str) -> int:
    return len(list((toy.run_dir / "phases" / phase).glob("task-*.json")))


def temporary(toy: Toy) -> list[Path]:
    return list(toy.run_dir.rglob("*.tmp"))


MOMENTS: dict[str, Callable[[Toy], bool]] = {
    "the first task writes": lambda toy: bool(temporary(toy)) and (toy.run_dir / "documents").exists(),
    "the first task is done": lambda toy: records(toy, "read") >= 1,
    "the exchange reduces": lambda toy: records(toy, "read") == 3 and (toy.run_dir / "phases/read/phase.json").exists(),
    "verdicts are applied": lambda toy: (toy.run_dir / "documents/dedup.apply").exists(),
    "the sink has a part": lambda toy: records(toy, "dedup.apply") >= 1,
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    toy = slow(Toy(tmp_path_factory.mktemp("undisturbed")))
    finish(start(toy, "--scheduler", "inline"))
    results = toy.results()
    assert len(results) > 15 and pl.read_parquet(toy.run_dir / "rejects/*/*.parquet").height == 3 + 2
    return results


@pytest.mark.parametrize(
    ("scheduler", "moment"),
    [
        *(("processes", moment) for moment in MOMENTS),
        ("inline", "the first task writes"),
        ("inline", "verdicts are applied"),
    ],
)
def test_killed_and_run_again(toy: Toy, expected: dict[str, bytes], scheduler: str, moment: str) -> None:
    slow(toy)
    options = ("--scheduler", scheduler, "--workers", "2")
    process = start(toy, *options)
    deadline = time.monotonic() + 60
    while not MOMENTS[moment](toy):
        assert process.poll() is None and time.monotonic() < deadline, f"the run never came to where {moment}"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert (toy.run_dir / "lease.json").exists() and toy.results() != expected
    committed = sum(records(toy, phase) for phase in ("read", "dedup.spread", "dedup.judge", "dedup.apply"))

    output = finish(start(toy, *options))
    assert toy.results() == expected
    assert not temporary(toy) and not (toy.run_dir / "lease.json").exists()
    assert (toy.run_dir / "stats/stages.parquet").exists()
    tasks_run, reused = (int(word) for word in output.split(" reused,")[0].replace(" tasks run,", "").split()[-2:])
    assert tasks_run + reused == 12 and reused >= committed
    if moment in ("the exchange reduces", "verdicts are applied", "the sink has a part"):
        assert reused >= 3


def test_killed_again_and_again(toy: Toy, expected: dict[str, bytes]) -> None:
    """Ever later kills; every attempt gets a little further because nothing that was committed is done again."""
    slow(toy)
    attempts, process = 0, start(toy, "--workers", "2")
    while attempts < 20:
        attempts += 1
        try:
            process.communicate(timeout=1.5 + attempts)
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            process = start(toy, "--workers", "2")
    assert process.returncode == 0 and attempts > 1
    assert toy.results() == expected and not temporary(toy)


def test_an_interrupt_from_the_keyboard_ends_the_run_and_keeps_what_was_done(
    toy: Toy, expected: dict[str, bytes]
) -> None:
    slow(toy)
    process = start(toy, "--workers", "2")
    deadline = time.monotonic() + 60
    while records(toy, "read") < 1:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "stopped. What was finished is kept" in output and "Traceback" not in output
    assert not (toy.run_dir / "lease.json").exists()
    finish(start(toy, "--workers", "2"))
    assert toy.results() == expected


def test_a_copied_run_folder_needs_nothing_done(toy: Toy) -> None:
    """A run folder may move, with other modification times, and stay complete: content decides."""
    toy.run()
    expected = toy.results()
    moved = toy.run_dir.with_name("moved")
    shutil.copytree(toy.run_dir, moved, copy_function=shutil.copy)
    shutil.rmtree(toy.run_dir)
    moved.rename(toy.run_dir)
    assert toy.run().nothing_to_do
    assert toy.results() == expected
