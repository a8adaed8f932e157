"""Running pipelines as a user does, and comparing what they leave."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.conftest import ONE_THREAD

ROOT = Path(__file__).parents[2]
#: Options of ``dataeng run``. A single worker works in the process itself: that saves what a worker takes to start.
WITH_WORKERS = {1: ("--scheduler", "inline"), 2: ("--scheduler", "processes", "--workers", "2")}
RESULTS = ("documents", "rejects", "signals", "dedup", "tokenizer", "packs")


def environment() -> dict[str, str]:
    """Returns the environment for a process that is to run as a user's does, with all its threads."""
    return {name: value for name, value in os.environ.items() if name not in ONE_THREAD}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dataeng", *arguments]


#: What commands have loaded when they start. Nothing of it may start threads, which a fork does not survive.
PRELOADED = (
    "dataeng.engine.task",
    "dataeng.engine.runner",
    "dataeng.cli",
    "dataeng.report.explain",
    "tests.end_to_end.runs",
)


def dataeng(*arguments: str, expect: int = 0, folder: Path = ROOT) -> str:
    """Runs the command line in a process of its own, in a folder, and returns what it printed.

    The process is forked from a server that has the modules loaded: a fresh interpreter spends more time with imports
    than most commands need.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    with tempfile.TemporaryDirectory() as printed:
        streams = [Path(printed, name) for name in ("stdout", "stderr")]
        process = context.Process(target=_main, args=(arguments, folder, streams, environment()))
        process.start()
        process.join(timeout=550)
        if process.exitcode is None:
            process.kill()
            process.join()
        out, err = (path.read_text() if path.exists() else "" for path in streams)
    assert process.exitcode == expect, f"exit {process.exitcode}\n{out}\n{err}"
    assert "Traceback" not in err, err
    return out + err


def _main(arguments: Sequence[str], folder: Path, streams: Sequence[Path], variables: dict[str, str]) -> None:
    """What the forked process does: the entry point of ``dataeng``, with its output in files."""
    from dataeng.cli import main

    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    for number, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["dataeng", *arguments]
    main()


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
        command(*arguments), cwd=ROOT, env=environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + patience
    while process.poll() is None and not ripe():
        assert time.monotonic() < deadline, "the run never came to the point where it should be killed"
        time.sleep(0.01)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running
