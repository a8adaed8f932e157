"""A run in a process of its own that is killed at a given point: as `kill -9` would, but always at the same one."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

PHASES = (
    "read",
    *(
        f"deduplicate_minhash.{step}"
        for step in ("buckets", "fetch", "verify", "connect", "cluster", "choose", "apply")
    ),
)
KILLED = -signal.SIGKILL


def killed_run(file: Path, phase: str, recorded: bool = False) -> int | None:
    """Runs a pipeline until the first task of ``phase`` is about to be recorded, or just was; returns the exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dataeng.engine.runner", "dataeng.engine.task", "tests.engine.conftest"])
    process = context.Process(target=_run_and_die, args=(str(file), phase, recorded))
    process.start()
    process.join(timeout=120)
    return process.exitcode


def _run_and_die(file: str, phase: str, recorded: bool) -> None:
    from dataeng.config import load_pipeline
    from dataeng.engine import task
    from dataeng.engine.executor import Pool
    from dataeng.engine.records import TaskRecord, write_record
    from dataeng.engine.runner import run_plan
    from dataeng.plan import make_plan
    from tests.engine.conftest import Listener

    def write_or_die(run_dir: Path, record: TaskRecord) -> str:
        if record.phase == phase and not recorded:
            os.kill(os.getpid(), signal.SIGKILL)
        digest = write_record(run_dir, record)
        if record.phase == phase:
            os.kill(os.getpid(), signal.SIGKILL)
        return digest

    task.write_record = write_or_die
    pipeline = load_pipeline(Path(file))
    run_plan(make_plan(pipeline), pipeline.run_dir, Pool("inline", 1), Listener())
