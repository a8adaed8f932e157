"""From a pipeline to phases and tasks with fingerprints. Pure: looks at the input's names and sizes, runs nothing.

    sources, stages ─► phases ─► tasks

A *row phase* reads files (or the documents of the row phase before it), takes them through stages one batch at a
time, and ends by emitting rows to an exchange, by a sink, or with the documents themselves. A *reduce phase* is one
step of an exchange, one task per partition; a *visit phase* is one that looks at documents again, one task per part.
Task i of every row phase holds the documents of input file i.

The fingerprint of a task covers the configuration and version of every stage in its phase, the versions of the
libraries that decide their output, the content of their model files, and the fingerprints of what the task reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import polars as pl

from dataeng.column_check import Schema, checked_columns
from dataeng.config import Pipeline, Step, iter_steps
from dataeng.document import DETAIL, IDENTITY, REASON
from dataeng.errors import InputError, PlanError
from dataeng.fingerprint import digest, environment, step_recipe
from dataeng.stage import ExchangeStage, InputFile, RowStage, Sink, Source

ENGINE_VERSION = 2
"""Raise it when the engine itself writes something different for the same stages."""
MIN_PARTITIONS, MAX_PARTITIONS = 4, 65_536
PARTITION_BYTES_PER_MB = 512 << 10
"""Bytes of input per partition for every MB that a worker may use: half of its memory. What is emitted about a document
is mostly smaller than the document, and a reducer holds several copies of it."""


@dataclass(frozen=True)
class Phase:
    """A group of tasks that can run side by side, once all phases before it are complete."""

    name: str
    kind: Literal["rows", "reduce", "visit"]
    steps: tuple[Step, ...] = ()
    """Row stages, in order; for the first phase, its sources come first."""
    reads_documents_of: str | None = None
    """The row phase whose documents this one reads; None for the first, which reads files, and for reducers."""
    applies: Step | None = None
    """The exchange whose verdicts are applied first."""
    emits_to: Step | None = None
    sinks: tuple[Step, ...] = ()
    exchange: Step | None = None
    """For a phase of an exchange: the exchange, and which of its steps this is."""
    exchange_step: int = 0
    repeats: bool = False
    """Whether it is followed by another round of itself as long as its rows say that something changed."""
    round: int = 0
    exchange_phase: str | None = None
    """Whose tables a reduce phase reads, or whose verdicts a row phase applies: a phase's name."""
    schema: Mapping[str, pl.DataType] = field(default_factory=dict)
    """Columns of the documents when they leave a row phase."""
    signals: Mapping[str, pl.DataType] = field(default_factory=dict)
    """Signals that this phase adds."""
    artifacts: Mapping[str, str] = field(default_factory=dict)
    """Artifacts made by earlier phases that stages here may use: name → file relative to the run folder."""
    artifact_phases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """One unit of work: an input file (or a part, or a partition) through one phase."""

    phase: str
    index: int
    fingerprint: str
    source: Step | None = None
    file: InputFile | None = None


@dataclass(frozen=True)
class Plan:
    """Everything that is known before anything runs."""

    pipeline: Pipeline
    phases: tuple[Phase, ...]
    tasks: Mapping[str, tuple[Task, ...]]
    recipes: Mapping[str, dict[str, Any]]
    """Phase name → what its fingerprint is made of, for saying why it runs again."""

    def phase(self, name: str) -> Phase:
        return next(phase for phase in self.phases if phase.name == name)

    @property
    def final_documents(self) -> Phase:
        """The last row phase: what it leaves is the run's result."""
        return [phase for phase in self.phases if phase.kind == "rows"][-1]


def make_plan(pipeline: Pipeline) -> Plan:
    """Expands a pipeline into phases and tasks.

    Raises:
      PlanError: a missing column, an unknown name in a predicate, an artifact nobody makes, stages out of order.
      InputError: a source without files.
    """
    pipeline = _with_followers(pipeline)
    phases = _fold_schemas(pipeline, _split_into_phases(pipeline))
    files = [(step, file) for step in pipeline.sources for file in _source_files(pipeline, step)]
    _check_names(files)
    pipeline = _with_partitions(pipeline, sum(file.size_bytes for _, file in files))
    phases = _fold_schemas(pipeline, _split_into_phases(pipeline))
    tasks: dict[str, tuple[Task, ...]] = {}
    recipes: dict[str, dict[str, Any]] = {}
    for phase in phases:
        recipes[phase.name] = _recipe(pipeline, phase, files)
        tasks[phase.name] = _tasks(phase, recipes[phase.name], tasks, files)
    for step in iter_steps(pipeline):
        step.stage.check()
    return Plan(pipeline, tuple(phases), tasks, recipes)


def _with_followers(pipeline: Pipeline) -> Pipeline:
    """Tells stages that they are planned, and puts behind exchanges the stages that follow them."""
    steps: list[Step] = []
    for step in pipeline.steps:
        stage = step.stage.planned(pipeline.run_dir)
        steps.append(replace(step, stage=stage))
        follower = stage.follower(step.name) if isinstance(stage, ExchangeStage) else None
        if follower is not None:  # no name of a user's has a dot
            steps.append(Step(f"{step.name}.index", step.key, follower))
    return replace(pipeline, steps=tuple(steps))


def _with_partitions(pipeline: Pipeline, input_bytes: int) -> Pipeline:
    """Gives exchanges that do not say how many partitions they want a number that goes by the size of the input.

    A power of two, so that input that grows a little mostly keeps it.
    """
    wanted = max(
        MIN_PARTITIONS, min(MAX_PARTITIONS, input_bytes // (pipeline.worker_memory_mb * PARTITION_BYTES_PER_MB))
    )
    partitions = 1 << (wanted - 1).bit_length()
    steps = tuple(
        replace(step, stage=step.stage.model_copy(update={"partitions": partitions}))
        if isinstance(step.stage, ExchangeStage) and step.stage.partitions is None
        else step
        for step in pipeline.steps
    )
    return replace(pipeline, steps=steps)


def with_round(plan: Plan, phase: Phase) -> tuple[Plan, Phase]:
    """Puts another round of a repeated step behind ``phase``; whoever read the phase's rows reads the new round's."""
    name = f"{phase.name.removesuffix(f'-{phase.round}')}-{phase.round + 1}"
    following = replace(phase, name=name, round=phase.round + 1, exchange_phase=phase.name)
    phases: list[Phase] = []
    for other in plan.phases:
        phases.append(replace(other, exchange_phase=name) if other.exchange_phase == phase.name else other)
        if other is phase:
            phases.append(following)
    tasks = tuple(
        Task(name, task.index, digest([task.fingerprint, following.round])) for task in plan.tasks[phase.name]
    )
    recipe = plan.recipes[phase.name]
    return replace(
        plan, phases=tuple(phases), tasks={**plan.tasks, name: tasks}, recipes={**plan.recipes, name: recipe}
    ), following


def _source_files(pipeline: Pipeline, step: Step) -> list[InputFile]:
    source = step.stage
    assert isinstance(source, Source)
    files = source.files(pipeline.base)
    if not files:
        raise InputError(f"{step.name} found no input files (patterns start at {pipeline.base}).")
    for file in files:
        try:
            file.path.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{step.name}: the name of {file.path!r} is not UTF-8; rename the file.") from error
    return files


def _check_names(files: list[tuple[Step, InputFile]]) -> None:
    """Document ids are made from file names, so no two files of a pipeline may have the same one."""
    seen: dict[str, tuple[Step, InputFile]] = {}
    for step, file in files:
        other_step, other = seen.setdefault(file.name, (step, file))
        if other is not file:
            raise PlanError(
                f"'{other_step.name}' and '{step.name}' both read a file called '{file.name}' ({other.path} and "
                f"{file.path}), and document ids are made from that name. Let a wildcard cover the folders above, "
                "e.g. */part.jsonl instead of a/part.jsonl, so that the names differ."
            )


def _split_into_phases(pipeline: Pipeline) -> list[Phase]:
    """Cuts the list of steps at every exchange."""
    phases: list[Phase] = []
    rows: list[Step] = list(pipeline.sources)
    sinks: list[Step] = []
    pending: Step | None = None  # the exchange whose verdicts the next row phase applies
    verdicts: str | None = None
    documents: str | None = None
    artifacts: dict[str, str] = {}
    makers: list[str] = []

    def close(emits_to: Step | None) -> None:
        nonlocal documents
        name = "read" if pending is None else f"{pending.name}.apply"
        phases.append(
            Phase(
                name,
                "rows",
                tuple(rows),
                documents,
                pending,
                emits_to,
                tuple(sinks),
                exchange_phase=verdicts,
                artifacts=dict(artifacts),
                artifact_phases=tuple(makers),
            )
        )
        documents = name

    for step in pipeline.steps:
        stage = step.stage
        if sinks and not isinstance(stage, Sink):
            raise PlanError(
                f"{step.place()}'{step.name}' comes after the sink '{sinks[-1].name}'; sinks end a pipeline."
            )
        for needed in stage.needs_artifacts():
            if needed not in artifacts:
                raise PlanError(
                    f"{step.place()}'{step.name}' needs the artifact '{needed}', which no stage before it makes."
                )
        if isinstance(stage, RowStage):
            rows.append(step)
        elif isinstance(stage, Sink):
            other = next((sink for sink in sinks if type(sink.stage) is type(stage)), None)
            if other is not None:
                raise PlanError(f"'{other.name}' and '{step.name}' would write the same files; keep one of them.")
            sinks.append(step)
        elif isinstance(stage, ExchangeStage):
            close(step)
            previous = phases[-1].name
            for number, step_name in enumerate(stage.steps()):
                name = f"{step.name}.{step_name}"
                visits = stage.visits(number)
                phases.append(
                    Phase(
                        name,
                        "visit" if visits else "reduce",
                        reads_documents_of=documents if visits else None,
                        exchange=step,
                        exchange_step=number,
                        repeats=stage.repeats(number),
                        exchange_phase=previous,
                        artifacts=dict(artifacts),
                        artifact_phases=tuple(makers),
                    )
                )
                previous = name
            pending, verdicts, rows = step, previous, []
            for artifact in stage.artifacts():
                if artifact in artifacts:
                    raise PlanError(
                        f"{step.place()}'{step.name}' would make the artifact '{artifact}' a second time; "
                        "keep one stage."
                    )
            artifacts.update(stage.artifacts())
            if stage.artifacts():
                makers.append(previous)
    close(None)
    return phases


def _fold_schemas(pipeline: Pipeline, phases: list[Phase]) -> list[Phase]:
    """Takes the columns through every stage; a column that is missing anywhere stops the plan here."""
    schema: Schema = {}
    before: list[Step] = []
    folded = []
    for phase in phases:
        if phase.kind != "rows":
            folded.append(phase)
            continue
        signals: Schema = {}
        row_steps = phase.steps
        if phase.reads_documents_of is None:
            schema = dict(IDENTITY)
            for step in pipeline.sources:
                _merge(schema, {**step.stage.columns().adds, **step.stage.columns().signals}, step)
                signals.update(step.stage.columns().signals)
            row_steps = phase.steps[len(pipeline.sources) :]
        if phase.applies is not None:
            columns = phase.applies.stage.columns()
            _merge(schema, {**columns.adds, **columns.signals}, phase.applies)
            signals.update(columns.signals)
        for step in row_steps:
            columns = checked_columns(step, schema, before)
            before.append(step)
            _merge(schema, {**columns.adds, **columns.signals}, step)
            signals.update(columns.signals)
            for column in columns.removes:
                schema.pop(column, None)
        for end in (*([phase.emits_to] if phase.emits_to else []), *phase.sinks):
            checked_columns(end, schema, before)
        folded.append(Phase(**{**phase.__dict__, "schema": dict(schema), "signals": signals}))
    return folded


def _merge(schema: Schema, added: Mapping[str, pl.DataType], step: Step) -> None:
    for column, dtype in added.items():
        if column in (REASON, DETAIL):
            raise PlanError(
                f"{step.place()}'{step.name}' adds the column '{column}', which the engine keeps for itself."
            )
        if column in schema and schema[column] != dtype:
            raise PlanError(
                f"{step.place()}'{step.name}' adds '{column}' as {dtype}; it is already there as {schema[column]}."
            )
        schema[column] = dtype


def _recipe(pipeline: Pipeline, phase: Phase, files: list[tuple[Step, InputFile]]) -> dict[str, Any]:
    """Returns what decides a phase's output, apart from the data that it reads."""
    named = [
        ("", phase.steps),
        ("apply:", (phase.applies,)),
        ("emit:", (phase.emits_to,)),
        ("sink:", phase.sinks),
        ("reduce:", (phase.exchange,)),
    ]
    steps = {
        prefix + step.name: step_recipe(step, emits=prefix == "emit:")
        for prefix, group in named
        for step in group
        if step is not None
    }
    recipe: dict[str, Any] = {
        "engine": ENGINE_VERSION,
        "environment": environment(),
        "kind": phase.kind,
        "keep_rejected_text": pipeline.keep_rejected_text,
        "steps": steps,
        "order": list(steps),  # digests sort their keys
        "exchange_step": phase.exchange_step,
    }
    if phase.kind == "rows" and phase.reads_documents_of is None:
        recipe["input"] = {f"{step.name}:{file.name}": [file.size_bytes, file.modified_ns] for step, file in files}
    return recipe


def _tasks(
    phase: Phase, recipe: dict[str, Any], before: Mapping[str, tuple[Task, ...]], files: list[tuple[Step, InputFile]]
) -> tuple[Task, ...]:
    # The first phase's input is fingerprinted file by file. A part's number is in it too: a new file that sorts before
    # others moves them, and their tasks run again; one that sorts last makes one new task.
    base = digest({key: value for key, value in recipe.items() if key != "input"})
    shared = [_phase_digest(before[name]) for name in phase.artifact_phases]
    if phase.exchange_phase is not None:
        shared.append(_phase_digest(before[phase.exchange_phase]))
    if phase.kind == "reduce":
        stage = phase.exchange.stage if phase.exchange else None
        assert isinstance(stage, ExchangeStage)
        count = stage.step_partitions(phase.exchange_step)
        return tuple(Task(phase.name, index, digest([base, shared, index])) for index in range(count))
    if phase.reads_documents_of is not None:
        upstream = before[phase.reads_documents_of]
        return tuple(Task(phase.name, task.index, digest([base, shared, task.fingerprint])) for task in upstream)
    return tuple(
        Task(
            phase.name,
            index,
            digest([base, shared, index, step.name, file.name, file.size_bytes, file.modified_ns]),
            step,
            file,
        )
        for index, (step, file) in enumerate(files)
    )


def _phase_digest(tasks: tuple[Task, ...]) -> str:
    return digest([task.fingerprint for task in tasks])
