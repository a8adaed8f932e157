"""Running pipelines as a user does, and comparing what they leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ("documents", "rejects", "signals", "dedup", "tokenizer", "packs")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dataeng", *arguments]


def dataeng(*arguments: str, expect: int = 0) -> str:
    """Runs the command line and returns what it printed."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, cwd=ROOT, timeout=550)
    assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def results(run_dir: Path) -> dict[str, bytes]:
    """Returns every result file of a run; records and stats hold times and are left out."""
    files = [path for top in RESULTS for path in sorted((run_dir / top).rglob("*")) if path.is_file()]
    return {str(path.relative_to(run_dir)): path.read_bytes() for path in files}


def assert_same(first: dict[str, bytes], second: dict[str, bytes]) -> None:
    assert sorted(first) == sorted(second)
    different = [name for name in first if first[name] != second[name]]
    assert not different, different


def kill_when(arguments: list[str], ripe: Callable[[], bool], patience: float = 120.0) -> bool:
    """Starts the command line and kills its whole process group with SIGKILL as soon as ``ripe``.

    Returns whether it was still running.
    """
    process = subprocess.Popen(
        command(*arguments), cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + patience
    while process.poll() is None and not ripe():
        assert time.monotonic() < deadline, "the run never came to the point where it should be killed"
        time.sleep(0.01)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running
