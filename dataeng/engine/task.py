"""One task, from description to committed record. Runs anywhere: in this process, a worker, or a Dask cluster.

Only descriptions, paths and counts travel between processes; documents never do.
"""

from __future__ import annotations

import pickle
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dataeng.config import Step
from dataeng.engine.exchange import PARTITION, TableSlice, iter_slices, read_slices, write_partitioned
from dataeng.engine.ledger import StageCount
from dataeng.engine.outputs import TaskOutputs, now
from dataeng.engine.records import TaskRecord, damaged_file, read_record, write_record
from dataeng.engine.rows import RowTask, RowTaskInput, stage_key
from dataeng.errors import DataengError, TaskError
from dataeng.plan import Phase, Task
from dataeng.stage import ExchangeStage, Source, Stage

_ready: dict[str, Stage] = {}
"""Stages that this process has set up: models are loaded once, not once per task."""


@dataclass(frozen=True)
class TaskSpec:
    """A task with everything that a worker needs to run it."""

    run_dir: str
    phase: Phase
    task: Task
    documents: str | None = None
    slices: tuple[TableSlice, ...] = ()
    keep_rejected_text: bool = True
    max_error_share: float = 0.05
    import_path: tuple[str, ...] = ()
    """Folders that stages from outside dataeng are imported from."""

    @property
    def label(self) -> str:
        """What the task reads, for people."""
        if self.task.file is not None:
            return self.task.file.path
        return self.documents or f"partition {self.task.index}"


def run_task(spec: TaskSpec) -> TaskRecord:
    """Runs a task and commits it. If it was committed already (by an attempt whose answer was lost), returns that."""
    run_dir = Path(spec.run_dir)
    done = read_record(run_dir, spec.phase.name, spec.task.index)
    if done is not None and done.fingerprint == spec.task.fingerprint and damaged_file(run_dir, done) is None:
        return done
    outputs = TaskOutputs(run_dir)
    start = now()
    try:
        counts, shards = _run_rows(spec, outputs) if spec.phase.kind == "rows" else _run_reduce(spec, outputs)
        files = outputs.commit()
    except BaseException:
        outputs.discard()
        raise
    record = TaskRecord(
        phase=spec.phase.name,
        index=spec.task.index,
        fingerprint=spec.task.fingerprint,
        token=secrets.token_hex(8),
        input=spec.label,
        files=files,
        counts=counts,
        shards=shards,
        seconds=round(now() - start, 4),
    )
    write_record(run_dir, record)
    return record


def _stages(spec: TaskSpec, steps: tuple[Step, ...]) -> dict[str, Stage]:
    """Returns the phase's stages, set up, by step name."""
    artifacts = {name: Path(spec.run_dir) / file for name, file in spec.phase.artifacts.items()}
    stages = {}
    for step in steps:
        key = stage_key(step, artifacts)
        if key not in _ready:
            step.stage.setup(artifacts)
            _ready[key] = step.stage
        stages[step.name] = _ready[key]
    return stages


def _run_rows(spec: TaskSpec, outputs: TaskOutputs) -> tuple[dict[str, StageCount], dict[str, list[dict[str, Any]]]]:
    phase = spec.phase
    sources = (spec.task.source,) if spec.task.source else ()
    rows = tuple(step for step in phase.steps if not isinstance(step.stage, Source))
    ends = (phase.emits_to,) if phase.emits_to else ()
    applied = (phase.applies,) if phase.applies else ()
    stages = _stages(spec, (*sources, *applied, *rows, *ends, *phase.sinks))
    given = RowTaskInput(spec.documents, spec.slices)
    task = RowTask(
        Path(spec.run_dir), phase, spec.task, given, outputs, spec.keep_rejected_text, spec.max_error_share, stages
    )
    return task.run()


def _run_reduce(spec: TaskSpec, outputs: TaskOutputs) -> tuple[dict[str, StageCount], dict[str, list[dict[str, Any]]]]:
    phase, step = spec.phase, spec.phase.exchange
    assert step is not None
    stage = _stages(spec, (step,))[step.name]
    assert isinstance(stage, ExchangeStage)
    start = now()
    table = _read_combined(spec, stage)
    if table is None and stage.artifacts():
        raise TaskError(
            f"'{step.name}' has nothing to work on: no document is left before it. What dropped them: "
            f'dataeng sql {spec.run_dir} "SELECT stage, reason, sum(documents) FROM drops GROUP BY ALL"'
        )
    last = phase.exchange_step == len(stage.steps()) - 1
    result = pl.DataFrame() if table is None else stage.reduce(phase.exchange_step, table, outputs)
    key = "part" if last else PARTITION
    if result.height:
        _check_result(step, result, stage.verdict_columns() if last else {key: pl.UInt32()})
    else:
        result = pl.DataFrame(schema={key: pl.UInt32()})
    name = (
        f"dedup/{step.name}/{spec.task.index:05d}.parquet"
        if last
        else f"exchange/{phase.name}/{spec.task.index:05d}.parquet"
    )
    write_partitioned(outputs, "exchange", name, result, key)
    count = StageCount(seconds=now() - start)
    return {phase.name: count}, {}


def _read_combined(spec: TaskSpec, stage: ExchangeStage) -> pl.DataFrame | None:
    """Reads a partition, task by task; a stage that can combine rows does so on the way, so that they stay few."""
    run_dir = Path(spec.run_dir)
    if spec.phase.exchange_step > 0 or type(stage).combine is ExchangeStage.combine:
        return read_slices(run_dir, spec.slices)
    table: pl.DataFrame | None = None
    for piece in iter_slices(run_dir, spec.slices):
        table = stage.combine(piece if table is None else pl.concat([table, piece]))
    return table


def _check_result(step: Step, result: pl.DataFrame, needed: Mapping[str, pl.DataType]) -> None:
    for column, dtype in needed.items():
        if result.schema.get(column) != dtype:
            found = result.schema.get(column, "missing")
            raise TaskError(f"'{step.name}' reduced to a table whose '{column}' is {found}; expected {dtype}.")


def pack_task(spec: TaskSpec) -> tuple[tuple[str, ...], bytes]:
    """Returns the arguments of `run_packed_task`."""
    return spec.import_path, pickle.dumps(spec)


def run_packed_task(import_path: tuple[str, ...], packed: bytes) -> TaskRecord | str:
    """Runs a task in a process that need not know yet where the task's stages are imported from.

    A Dask scheduler and its workers unpickle arguments before any code of ours runs, so the task itself travels packed.
    """
    for folder in import_path:
        if folder not in sys.path:
            sys.path.insert(0, folder)
    return run_task_safely(pickle.loads(packed))


def run_task_safely(spec: TaskSpec) -> TaskRecord | str:
    """Like `run_task`, but returns the message of a failure that is about the task and not about the worker."""
    try:
        return run_task(spec)
    except DataengError as error:
        return str(error)
    except OSError as error:
        return f"{type(error).__name__}: {error}"
