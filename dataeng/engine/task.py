"""One task, from description to committed record. Runs anywhere: in this process, a worker, or a Dask cluster.

Only descriptions, paths and counts travel between processes; documents never do.
"""

from __future__ import annotations

import pickle
import secrets
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from dataeng.config import Step
from dataeng.engine.exchange import PARTITION, Buffers, PartitionedWriter, PartitionSlices, RowsAbout, TableSlice
from dataeng.engine.ledger import StageCount
from dataeng.engine.outputs import TaskOutputs, now
from dataeng.engine.records import TaskRecord, damaged_file, read_record, write_record
from dataeng.engine.rows import RowTask, RowTaskInput, stage_key
from dataeng.errors import DataengError, TaskError
from dataeng.plan import Phase, Task
from dataeng.stage import ExchangeStage, Source, Stage, StartAgain

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
    worker_memory_mb: int = 1024
    import_path: tuple[str, ...] = ()
    """Folders that stages from outside dataeng are imported from."""

    @property
    def buffers(self) -> Buffers:
        return Buffers.of_worker(self.worker_memory_mb)

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
    try:
        return _attempt(spec)
    except StartAgain:
        pass
    try:
        return _attempt(spec)
    except StartAgain as again:
        raise TaskError(f"a stage started the task again twice: {again}") from again


def _attempt(spec: TaskSpec) -> TaskRecord:
    """Runs a task from its start and commits it."""
    run_dir = Path(spec.run_dir)
    outputs = TaskOutputs(run_dir)
    start = now()
    try:
        changed = 0
        if spec.phase.kind == "rows":
            counts, shards = _run_rows(spec, outputs)
        else:
            counts, changed = _run_exchange(spec, outputs)
            shards = {}
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
        changed=changed,
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
        Path(spec.run_dir), phase, spec.task, given, outputs, spec.keep_rejected_text, spec.max_error_share, stages,
        spec.buffers,
    )  # fmt: skip
    return task.run()


def _run_exchange(spec: TaskSpec, outputs: TaskOutputs) -> tuple[dict[str, StageCount], int]:
    """Runs one step of an exchange on a partition or part; returns counts and how many rows say ``changed``."""
    phase, step = spec.phase, spec.phase.exchange
    assert step is not None
    stage = _stages(spec, (step,))[step.name]
    assert isinstance(stage, ExchangeStage)
    start = now()
    last = phase.exchange_step == len(stage.steps()) - 1
    key = "part" if last else PARTITION
    needed: dict[str, pl.DataType] = dict(stage.verdict_columns()) if last else {key: pl.UInt32()}
    if phase.repeats:
        needed["changed"] = pl.Boolean()
    folder = f"dedup/{step.name}" if last else f"exchange/{phase.name}"
    writer = PartitionedWriter(
        outputs, "exchange", f"{folder}/{spec.task.index:05d}.parquet", key, spec.buffers.write_bytes
    )
    changed = 0
    results = _visited(spec, stage) if phase.kind == "visit" else _reduced(spec, step, stage, outputs)
    for result in results:
        if result.height == 0:
            continue
        _check_result(step, result, needed)
        if phase.repeats:
            changed += int(result.get_column("changed").sum())
            result = result.drop("changed")
        writer.write(result)
    writer.close()
    return {phase.name: StageCount(seconds=now() - start)}, changed


def _reduced(spec: TaskSpec, step: Step, stage: ExchangeStage, outputs: TaskOutputs) -> Iterator[pl.DataFrame]:
    slices = PartitionSlices(Path(spec.run_dir), spec.slices, spec.buffers)
    if slices.num_rows == 0 and stage.artifacts():
        raise TaskError(
            f"'{step.name}' has nothing to work on: no document is left before it. What dropped them: "
            f'dataeng sql {spec.run_dir} "SELECT stage, reason, sum(documents) FROM drops GROUP BY ALL"'
        )
    if slices.num_rows == 0:
        return
    streams = type(stage).reduce_slices is not ExchangeStage.reduce_slices
    if spec.phase.exchange_step > 0 or streams or type(stage).combine is ExchangeStage.combine:
        yield from stage.reduce_slices(spec.phase.exchange_step, slices, outputs)
        return
    table: pl.DataFrame | None = None  # a stage that can combine rows does so on the way, so that they stay few
    for piece in slices:
        table = stage.combine(piece if table is None else pl.concat([table, piece]))
    assert table is not None
    yield stage.reduce(spec.phase.exchange_step, table, outputs)


def _visited(spec: TaskSpec, stage: ExchangeStage) -> Iterator[pl.DataFrame]:
    """Shows a stage those documents of a part that rows were sent about."""
    slices = PartitionSlices(Path(spec.run_dir), spec.slices, spec.buffers)
    if slices.num_rows == 0:
        return
    assert spec.documents is not None
    step, columns = spec.phase.exchange_step, list(stage.visit_columns(spec.phase.exchange_step))
    with pq.ParquetFile(Path(spec.run_dir) / spec.documents) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        about = RowsAbout(slices, spec.buffers, sum(sizes))
        for group, start in enumerate(accumulate(sizes[:-1], initial=0)):
            rows = about.documents(start, start + sizes[group])
            if rows is None:
                continue
            batch = pl.from_arrow(file.read_row_group(group, columns=columns))
            assert isinstance(batch, pl.DataFrame)
            found = stage.visit(
                step,
                batch.with_columns(
                    pl.lit(spec.task.index, dtype=pl.UInt32).alias("part"),
                    (pl.int_range(pl.len(), dtype=pl.UInt32) + start).cast(pl.UInt32).alias("row"),
                ),
                rows,
            )
            yield from (found,) if isinstance(found, pl.DataFrame) else found


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
