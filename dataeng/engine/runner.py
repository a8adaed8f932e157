"""Runs a plan: phase after phase, only what is missing, with the books checked at every step.

lease ─► for each phase: what is done? ─► run the rest ─► check ─► finish sinks ─► phase manifest ─► stats
"""

from __future__ import annotations

import platform
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import dataeng
from dataeng.config import Pipeline, Step
from dataeng.engine.dispatch import Failure, run_all
from dataeng.engine.exchange import TableSlice
from dataeng.engine.executor import Pool
from dataeng.engine.lease import hold_lease
from dataeng.engine.ledger import StageCount, too_many_errors, total
from dataeng.engine.ownership import check_ownership
from dataeng.engine.prune import prune
from dataeng.engine.records import (
    TaskRecord,
    complete_records,
    forget_phase,
    record_path,
    write_phase_manifest,
    write_record,
)
from dataeng.engine.reuse import PhaseState, inspect_phase
from dataeng.engine.run_removal import finish_removal
from dataeng.engine.task import TaskSpec
from dataeng.errors import LedgerError, TaskError
from dataeng.formats.atomic import fs, read_json, write_json
from dataeng.plan import Phase, Plan, with_round
from dataeng.stage import ExchangeStage, RowStage, Sink

MAX_ROUNDS = 64
"""Rounds of a repeated step; a stage that needs more has a fault."""


class Progress(Protocol):
    """What the runner tells whoever watches."""

    def phase_started(self, state: PhaseState, num_tasks: int) -> None: ...

    def task_done(self, record: TaskRecord) -> None: ...

    def phase_done(self, phase: Phase, seconds: float) -> None: ...

    def message(self, text: str) -> None: ...


@dataclass
class RunResult:
    """What a run did."""

    run_dir: Path
    records: dict[str, list[TaskRecord]] = field(default_factory=dict)
    tasks_run: int = 0
    tasks_reused: int = 0
    seconds: float = 0.0

    @property
    def nothing_to_do(self) -> bool:
        return self.tasks_run == 0


def run_plan(
    plan: Plan,
    run_dir: Path,
    pool: Pool,
    progress: Progress,
    prepare: Callable[[], None] = lambda: None,
    thorough: bool = False,
    import_path: tuple[str, ...] = (),
    finish: Callable[[Mapping[str, list[TaskRecord]]], None] = lambda records: None,
    replace: bool = False,
) -> RunResult:
    """Brings a run folder to the state that a plan describes.

    Args:
      pool: where tasks run.
      progress: who is told.
      prepare: called once before the first task that has to run, e.g. to compile kernels.
      thorough: hash every committed file instead of trusting size and modification time.
      import_path: folders that workers import stages from outside dataeng from.
      finish: called with all records before the run is declared complete, e.g. to write statistics.
      replace: allow to replace the run of another pipeline.

    Raises:
      ConfigError: the folder is somebody else's.
      LeaseError: another process holds the folder.
      TaskError: tasks failed; all others were finished and committed.
      LedgerError: documents were lost or invented.
    """
    result = RunResult(run_dir)
    start = time.perf_counter()
    check_ownership(run_dir, plan.pipeline.path, replace)
    with hold_lease(run_dir):
        check_ownership(run_dir, plan.pipeline.path, replace)  # again: it may have become somebody's in between
        if finish_removal(run_dir):
            progress.message(f"finished a removal of documents from {run_dir} that was interrupted")
        runner = _Runner(plan, run_dir, pool, progress, prepare, thorough, import_path, result)
        try:
            runner.run()
        except BaseException:
            pool.close()  # before the lease is given up: nobody may still be writing here then
            raise
        plan = runner.plan
        _check_phases(plan, result.records)
        if result.tasks_run or _status(run_dir) != "complete":
            prune(run_dir, result.records)
            finish(result.records)
            _write_run_json(plan, run_dir, "complete")
    result.seconds = time.perf_counter() - start
    return result


@dataclass
class _Runner:
    plan: Plan
    run_dir: Path
    pool: Pool
    progress: Progress
    prepare: Callable[[], None]
    thorough: bool
    import_path: tuple[str, ...]
    result: RunResult
    started: bool = False

    def run(self) -> None:
        """Runs all phases, and rounds of repeated ones until nothing changes."""
        number = 0
        while number < len(self.plan.phases):
            phase = self.plan.phases[number]
            self.run_phase(phase)
            if phase.repeats and any(record.changed for record in self.result.records[phase.name]):
                if phase.round + 1 >= MAX_ROUNDS:
                    raise TaskError(f"'{phase.name}' did not come to an end in {MAX_ROUNDS} rounds.")
                self.plan, _ = with_round(self.plan, phase)
            number += 1

    def run_phase(self, phase: Phase) -> None:
        """Runs what is missing of one phase and declares it complete."""
        state = inspect_phase(self.plan, phase, self.run_dir, self.thorough)
        self.result.tasks_reused += len(state.done)
        if state.complete:
            self.result.records[phase.name] = [state.done[index] for index in sorted(state.done)]
            return
        if not self.started:
            _write_run_json(self.plan, self.run_dir, "running")
            if state.todo:
                self.prepare()
            self.started = True
        start = time.perf_counter()
        self.progress.phase_started(state, len(self.plan.tasks[phase.name]))
        forget_phase(self.run_dir, phase.name)
        for index in state.todo:
            fs.remove(record_path(self.run_dir, phase.name, index))
        empty = [self._empty_record(phase, index) for index in state.todo if self._is_empty(phase, index)]
        skipped = {record.index for record in empty}
        specs = [self._spec(phase, index) for index in state.todo if index not in skipped]
        records, failures = run_all(specs, self.pool, self.progress.task_done, self.progress.message)
        records += empty
        self.result.tasks_run += len(records)
        if failures:
            _write_run_json(self.plan, self.run_dir, "failed")
            raise TaskError(_describe(failures, len(specs)))
        both = {**state.done, **{record.index: record for record in records}}
        records = [both[index] for index in sorted(both)]
        self._check_errors(phase, records)
        finished: list[Path] = []
        for step in phase.sinks:
            assert isinstance(step.stage, Sink)
            shards = [shard for record in records for shard in record.shards[step.name]]
            finished += step.stage.finish(self.run_dir, shards)
        finished += self._finish_exchange(phase, records)
        write_phase_manifest(self.run_dir, phase.name, self.plan.recipes[phase.name], records, finished)
        self.result.records[phase.name] = records
        self.progress.phase_done(phase, time.perf_counter() - start)

    def _finish_exchange(self, phase: Phase, records: list[TaskRecord]) -> list[Path]:
        """Tells an exchange that its last step is complete."""
        stage = phase.exchange.stage if phase.exchange else None
        if not isinstance(stage, ExchangeStage) or phase.exchange_step < len(stage.steps()) - 1:
            return []
        before = [other.name for other in self.plan.phases if other.exchange is phase.exchange and other is not phase]
        groups = [*(self.result.records[name] for name in before), records]
        files = [file for group in groups for record in group for file in record.files if file.kind == "sink"]
        return stage.finish(self.run_dir, {file.name: file.sha256 for file in files})

    def _check_errors(self, phase: Phase, records: list[TaskRecord]) -> None:
        """Fails a phase in which a stage broke on all, or on too many, documents of all tasks together."""
        counts = phase_counts(records)
        for step in phase.steps:
            count = counts.get(step.name, StageCount())
            if isinstance(step.stage, RowStage) and too_many_errors(count, self.plan.pipeline.max_error_share):
                _write_run_json(self.plan, self.run_dir, "failed")
                raise TaskError(
                    f"'{step.name}' raised an error on {count.documents_broken} of {count.documents_in} documents "
                    f"(max_error_share is {self.plan.pipeline.max_error_share:g}). "
                    f"See: SELECT reason, detail FROM read_parquet('{self.run_dir}/rejects/{phase.name}/*.parquet')"
                )

    def _spec(self, phase: Phase, index: int) -> TaskSpec:
        documents = None
        if phase.reads_documents_of is not None:
            file = self.result.records[phase.reads_documents_of][index].file("documents")
            assert file is not None
            documents = file.name
        return TaskSpec(
            run_dir=str(self.run_dir),
            phase=phase,
            task=self.plan.tasks[phase.name][index],
            documents=documents,
            slices=self._slices(phase, index),
            keep_rejected_text=self.plan.pipeline.keep_rejected_text,
            max_error_share=self.plan.pipeline.max_error_share,
            worker_memory_mb=self.plan.pipeline.worker_memory_mb,
            import_path=self.import_path,
        )

    def _is_empty(self, phase: Phase, index: int) -> bool:
        """Whether a step of an exchange has nothing to do here: no rows, and no artifact to make."""
        stage = phase.exchange.stage if phase.exchange else None
        return isinstance(stage, ExchangeStage) and not stage.artifacts() and not self._slices(phase, index)

    def _empty_record(self, phase: Phase, index: int) -> TaskRecord:
        """Commits the task of a partition that nobody sent rows to; no worker is asked."""
        task = self.plan.tasks[phase.name][index]
        record = TaskRecord(
            phase=phase.name,
            index=index,
            fingerprint=task.fingerprint,
            token=secrets.token_hex(8),
            input=f"partition {index}",
            files=[],
            counts={phase.name: StageCount()},
        )
        write_record(self.run_dir, record)
        return record

    def _slices(self, phase: Phase, index: int) -> tuple[TableSlice, ...]:
        """Returns where the rows for one partition (or the verdicts for one part) are, in order of task."""
        if phase.exchange_phase is None:
            return ()
        slices = []
        for record in self.result.records[phase.exchange_phase]:
            file = record.file("exchange")
            if file is not None and str(index) in file.row_groups:
                slices.append(TableSlice(file.name, tuple(file.row_groups[str(index)])))
        return tuple(slices)


def _describe(failures: list[Failure], num_tasks: int) -> str:
    rest = "; the others were finished and will be reused" if len(failures) < num_tasks else ""
    lines = [f"{len(failures)} of {num_tasks} tasks failed{rest}."]
    lines += [f"  {failure.spec.phase.name}, {failure.spec.label}: {failure.message}" for failure in failures[:10]]
    if len(failures) > 10:
        lines.append(f"  and {len(failures) - 10} more")
    return "\n".join(lines)


def phase_counts(records: list[TaskRecord]) -> dict[str, StageCount]:
    """Returns the sum over tasks for every counted station of a phase, in order: first where documents come in."""
    first = [next(iter(record.counts)) for record in records if record.counts]
    names = list(dict.fromkeys([*first, *(name for record in records for name in record.counts)]))
    return {name: total(record.counts[name] for record in records if name in record.counts) for name in names}


def _check_phases(plan: Plan, records: Mapping[str, list[TaskRecord]]) -> None:
    """Checks that what one row phase wrote is what the next one read, part by part."""
    for phase in plan.phases:
        if phase.reads_documents_of is None or phase.kind != "rows":
            continue
        for before, after in zip(records[phase.reads_documents_of], records[phase.name], strict=True):
            written = before.file("documents")
            first = next(iter(after.counts.values()), StageCount())
            if written is None or written.num_rows != first.documents_in:
                raise LedgerError(
                    f"part {after.index}: '{before.phase}' wrote {written.num_rows if written else 0} documents, "
                    f"'{after.phase}' read {first.documents_in}."
                )


def _status(run_dir: Path) -> str:
    try:
        return str(read_json(run_dir / "run.json")["status"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _write_run_json(plan: Plan, run_dir: Path, status: str) -> None:
    """Writes what the run is: the pipeline as resolved, versions, phases and fingerprints."""
    pipeline = plan.pipeline
    write_json(
        run_dir / "run.json",
        {
            "format_version": 1,
            "status": status,
            "pipeline": resolved(pipeline),
            "versions": {"dataeng": dataeng.__version__, "python": platform.python_version()},
            "phases": [
                {
                    "name": phase.name,
                    "kind": phase.kind,
                    "num_tasks": len(plan.tasks[phase.name]),
                    "stations": [step.name for step in phase.steps],
                    "fingerprints": [task.fingerprint for task in plan.tasks[phase.name]],
                    "exchange": phase.exchange.name if phase.exchange else None,
                }
                for phase in plan.phases
            ],
        },
    )


def resolved(pipeline: Pipeline) -> dict[str, Any]:
    """Returns a pipeline with every option spelled out, as JSON."""

    def entry(step: Step) -> dict[str, Any]:
        options = step.stage.model_dump(mode="json")
        return {step.key: options, "name": step.name, **({"where": step.where} if step.where else {})}

    return {
        "name": pipeline.name,
        "file": str(pipeline.path.resolve()),
        "description": pipeline.description,
        "seed": pipeline.seed,
        "max_error_share": pipeline.max_error_share,
        "keep_rejected_text": pipeline.keep_rejected_text,
        "worker_memory_mb": pipeline.worker_memory_mb,
        "alarm_cluster_share": pipeline.alarm_cluster_share,
        "alarm_source_share": pipeline.alarm_source_share,
        "sources": [entry(step) for step in pipeline.sources],
        "stages": [entry(step) for step in pipeline.steps],
    }


def load_records(run_dir: Path) -> dict[str, list[TaskRecord]]:
    """Returns the records of all complete phases of a run folder, in order of phase.

    A phase that was complete under another configuration, and that a run which did not end has yet to do again, is not
    part of the run that ``run.json`` describes.
    """
    run = read_json(run_dir / "run.json")
    complete = {}
    for phase in run["phases"]:
        records = complete_records(run_dir, phase["name"])
        if [record.fingerprint for record in records] == phase["fingerprints"]:
            complete[phase["name"]] = records
    return complete
