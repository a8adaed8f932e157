"""Runs the tasks of one phase: keeps the workers busy, survives their deaths, and finishes what can be finished."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from dataeng.engine.executor import Pool
from dataeng.engine.records import TaskRecord
from dataeng.engine.task import TaskSpec, pack_task, run_packed_task

MAX_ATTEMPTS = 3
#: How often to look whether there still is anybody to run what is waited for.
WATCH_SECONDS = 15.0


@dataclass(frozen=True)
class Failure:
    """A task that failed for good."""

    spec: TaskSpec
    message: str


def run_all(
    specs: Sequence[TaskSpec], pool: Pool, done: Callable[[TaskRecord], None], say: Callable[[str], None]
) -> tuple[list[TaskRecord], list[Failure]]:
    """Runs every task; a failing one does not stop the others.

    A task whose worker died runs again, alone, up to `MAX_ATTEMPTS` times in all. ``done`` is told every task that
    succeeded, ``say`` what else a person should know.
    """
    waiting = deque(specs)
    running: dict[Future[TaskRecord | str], TaskSpec] = {}
    records: list[TaskRecord] = []
    failures: list[Failure] = []

    def finish(spec: TaskSpec, outcome: TaskRecord | str) -> None:
        if isinstance(outcome, str):
            failures.append(Failure(spec, outcome))
        else:
            records.append(outcome)
            done(outcome)

    while waiting or running:
        suspects: list[TaskSpec] = []
        while waiting and len(running) < pool.workers:
            spec = waiting.popleft()
            try:
                running[pool.shared().submit(run_packed_task, *pack_task(spec))] = spec
            except BrokenProcessPool:
                suspects.append(spec)
                break
        for future in _first_finished(running, pool, say):
            spec = running.pop(future)
            try:
                finish(spec, future.result())
            except Exception as error:
                if not _worker_died(error):
                    failures.append(Failure(spec, _unexpected(error)))
                    continue
                suspects.append(spec)
        if suspects:
            if pool.breaks_as_one:
                suspects += running.values()
                running.clear()
                pool.replace_broken()
            for spec in suspects:
                finish(spec, _run_alone(spec, pool, say))
    records.sort(key=lambda record: record.index)
    return records, failures


def _first_finished(
    running: Collection[Future[TaskRecord | str]], pool: Pool, say: Callable[[str], None]
) -> set[Future[TaskRecord | str]]:
    """Returns those that have finished, as soon as one has; says so if nobody is left to finish any."""
    looks = 0
    while True:
        finished, _ = wait(running, WATCH_SECONDS, FIRST_COMPLETED)
        if finished or not running:
            return finished
        looks = looks + 1 if pool.lacks_workers() else 0
        if looks == 2:  # for as long, workers that died may be on their way again
            what = "starting others" if pool.start_workers() else "waiting for one; Ctrl-C ends the run"
            say(f"no worker is left on the Dask cluster ({pool.scheduler}): {what}")


def _worker_died(error: BaseException) -> bool:
    # Dask's KilledWorker is matched by name: distributed is an optional package.
    return isinstance(error, BrokenProcessPool) or type(error).__name__ in ("KilledWorker", "CommClosedError")


def _unexpected(error: BaseException) -> str:
    """Says what went wrong and where, for an error that no stage or file explains."""
    frames = traceback.extract_tb(error.__traceback__)
    cause = str(error.__cause__ or "")  # a worker's traceback arrives as text
    where = cause.strip().splitlines()[-3:-1] if cause else [f"{f.filename}:{f.lineno}" for f in frames[-1:]]
    return f"{type(error).__name__}: {error} ({' '.join(line.strip() for line in where)})"


def _run_alone(spec: TaskSpec, pool: Pool, say: Callable[[str], None]) -> TaskRecord | str:
    """Runs a suspect by itself; its first death was with others, so it has `MAX_ATTEMPTS` - 1 tries left.

    Before a Dask cluster gives a task up it has tried it on several workers, so one more try is enough there.
    """
    for _ in range(MAX_ATTEMPTS - 1 if pool.breaks_as_one else 1):
        with pool.alone() as executor:
            try:
                future: Future[TaskRecord | str] = executor.submit(run_packed_task, *pack_task(spec))
                _first_finished([future], pool, say)
                return future.result()
            except Exception as error:
                if not _worker_died(error):
                    return _unexpected(error)
    return "the worker process died every time that it ran this (out of memory, or a crash in a library)"
