"""The contracts of a pipeline's steps.

    Source  ──►  RowStage ──► RowStage ──► ExchangeStage ──► RowStage ──►  Sink
    files         one batch at a time       the whole corpus                files

A stage *is* its configuration: a frozen pydantic model whose fields are the keys that a user writes in YAML.
Stages know nothing of files, processes, retries or counting; the engine does all of that.

To add a stage, subclass `RowStage`, write `apply`, and name the class by its dotted path in the pipeline.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, Self

import polars as pl
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

from dataeng.document import DETAIL, DOMAIN_PATTERN, REASON
from dataeng.formats.atomic import AtomicFile

SAMPLE_PREFIX = "sample:"
"""Paths that start so are relative to the data that come with the package."""


def sample_folder() -> Path:
    """Returns where the data that come with the package are."""
    return Path(__file__).parent / "sample"


def beside_pipeline(path: Path, info: ValidationInfo) -> Path:
    """Resolves a path in a pipeline file, as input patterns are: relative ones start at the file's folder."""
    base = (info.context or {}).get("base")
    if str(path).startswith(SAMPLE_PREFIX):
        return sample_folder() / str(path).removeprefix(SAMPLE_PREFIX)
    return path if base is None else base / path.expanduser()


PipelinePath = Annotated[Path, AfterValidator(beside_pipeline)]
"""The type of options that name a file."""


@dataclass(frozen=True)
class Columns:
    """What a stage does to the columns of a batch; the planner checks the chain before anything runs."""

    reads: tuple[str, ...] = ()
    adds: Mapping[str, pl.DataType] = field(default_factory=dict)
    signals: Mapping[str, pl.DataType] = field(default_factory=dict)
    """Also added, and kept for every document, dropped or not, in the run's `signals` table."""
    removes: tuple[str, ...] = ()
    read_by: Mapping[str, str] = field(default_factory=dict)
    """Which option asks for a column (``presets.0``), where one does: an error then points at it."""
    hints: Mapping[str, str] = field(default_factory=dict)
    """Where a column comes from that the stage reads, if that is not obvious; said where it is missing."""


@dataclass(frozen=True)
class InputFile:
    """One file of input, with what identifies its content to the planner."""

    path: str
    name: str
    """The path relative to the folder that its pattern starts from; part of every document id."""
    size_bytes: int
    modified_ns: int


class OutputFiles(Protocol):
    """Where a sink or a reducer creates files. All of them appear together when the task commits, or none."""

    def create(self, name: str) -> AtomicFile:
        """Opens a new file for writing; ``name`` is relative to the run folder."""

    def final_path(self, name: str) -> Path:
        """Returns where the file will be after the commit."""


class Stage(BaseModel):
    """Common part of all stages. Fields are YAML keys; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    version: ClassVar[int] = 1
    """Raise it whenever the stage's output changes for the same input and configuration."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Installed distributions whose version decides the output; they are part of the fingerprint."""

    kernels: ClassVar[tuple[str, ...]] = ()
    """Modules of `dataeng.kernels` that it calls; they are compiled before workers start."""

    def needed_kernels(self) -> tuple[str, ...]:
        """Returns those of `kernels` that this stage, as configured, calls."""
        return self.kernels

    def columns(self) -> Columns:
        """Returns the columns that this stage, as configured, reads, adds and removes."""
        return Columns(reads=("text",))

    def remedy(self, column: str) -> str:
        """Returns how this stage would add a column if configured otherwise (``signals: all``), or nothing."""
        return ""

    def needs_artifacts(self) -> tuple[str, ...]:
        """Returns names of artifacts (e.g. ``"tokenizer"``) that an earlier stage must make."""
        return ()

    def model_files(self) -> tuple[Path, ...]:
        """Returns files besides the input whose content decides the output (models, word lists)."""
        return ()

    def planned(self, run_dir: Path) -> Self:
        """Returns the stage with what is known only when a run is planned, e.g. which segments an index has by now.

        Raises:
          PlanError: what it finds does not fit.
        """
        return self

    def side_inputs(self) -> Mapping[str, str]:
        """Returns what else decides the output, by name: something too large to be hashed with every plan, and which
        has a hash of its content already, as an index has."""
        return {}

    def check(self) -> None:
        """Raises a `DataengError` if a model file is missing or damaged. Called before anything runs."""

    def setup(self, artifacts: Mapping[str, Path]) -> None:
        """Loads models and tables, once per process, before the first batch. Keep them in private attributes."""


class Source(Stage):
    """Reads input files into batches. Rows that are not documents come with a ``reason`` already set."""

    domain: str = Field(default="web", pattern=DOMAIN_PATTERN, description="The mixture domain of the documents")

    @abstractmethod
    def files(self, base: Path) -> list[InputFile]:
        """Lists the input, sorted; relative patterns start at ``base``, the folder of the pipeline file."""

    @abstractmethod
    def read(self, file: InputFile) -> Iterator[pl.DataFrame]:
        """Yields batches in file order. A record that cannot be read is a row with an ``error:`` reason."""


class RowStage(Stage):
    """Looks at one document at a time; sees them a batch at a time."""

    @abstractmethod
    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Returns the same rows in the same order, with columns added or changed.

        To drop a row, set its ``reason`` (see `dataeng.document.drop_where`); never remove it. The result
        must not depend on which other rows are in the batch.
        """


class Slices(Protocol):
    """The rows that were sent to one partition, as a list of tables on disk, in order of the task that sent them.

    They can be gone through several times, one table in memory at a time, so that a partition, or a single key, may
    be larger than memory.
    """

    num_rows: int

    def __iter__(self) -> Iterator[pl.DataFrame]: ...

    def collect(self) -> pl.DataFrame | None:
        """Returns all rows at once; None if there are none."""


class ExchangeStage(Stage):
    """Looks at the whole corpus: rows are sent to partitions by key, and each partition is reduced alone.

    The engine calls, in this order: `emit` on every batch, `combine` on what one task emitted, then the steps, one
    after the other. A step is one of

    * a *reduce*: `reduce` (or `reduce_slices`, for partitions that may not fit memory) on every partition;
    * a *visit* (`visits`): rows went to parts instead of partitions, and `visit` sees them together with the part's
      documents, e.g. to fetch the texts of candidates;
    * a *repeated* reduce (`repeats`): it is run again on its own output until none of its rows says ``changed``.

    What the last step returns are verdicts: ``part``, what `apply` needs besides, and any evidence columns; they
    are kept as the run's `dedup` table. The next phase starts with `apply` on every batch. A reducer may create
    files instead and return no rows.

    As it stands, a verdict names a document by its place (``part`` and ``row``) and drops it with ``reason`` and
    ``detail``. A stage that does something else to documents has its own `apply` and `verdict_columns`; columns that
    `apply` adds are what its `columns()` says.
    """

    partitions: int | None = Field(
        default=None,
        ge=1,
        le=65_536,
        description="Into how many parts the corpus-wide table is split; null goes by the size of the input",
    )

    not_emitted: ClassVar[tuple[str, ...]] = ()
    """Options that `emit` does not look at: changing one does not run again what comes before the exchange."""

    @property
    def num_partitions(self) -> int:
        """How many partitions there are; the planner has filled in `partitions` by the time anything runs."""
        return self.partitions or 16

    @abstractmethod
    def steps(self) -> tuple[str, ...]:
        """Returns the names of the steps, e.g. ``("pairs", "clusters")``."""

    def step_partitions(self, step: int) -> int:
        """Returns how many partitions step number ``step`` reads, unless it is a visit."""
        return self.num_partitions

    def visits(self, step: int) -> bool:
        """Whether a step sees the documents of a part instead of the rows of a partition."""
        return False

    def repeats(self, step: int) -> bool:
        """Whether a step is run on its own output until nothing changes. Its rows have a Boolean ``changed``."""
        return False

    @abstractmethod
    def emit(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Returns rows for the first step. ``batch`` has ``part`` and ``row``; the result needs ``partition``."""

    def reads_rejects(self) -> tuple[str, ...]:
        """Returns reasons whose rejects `emit_rejects` wants to see."""
        return ()

    def emit_rejects(self, rejects: pl.DataFrame) -> pl.DataFrame:
        """Returns rows for the first step, with the columns of `emit`'s, about records that are no documents.

        Args:
          rejects: rows with a reason of `reads_rejects`, dropped on the way from the files, or from the exchange
            before, to this one. They have the columns of the documents, null where they were dropped before those were
            known, and no ``part`` and ``row``, because no verdict can be about them.
        """
        raise NotImplementedError(f"{type(self).__name__} has nothing to do with rejects")

    def combine(self, table: pl.DataFrame) -> pl.DataFrame:
        """Shrinks what one task has emitted so far, e.g. to a sample. May be called at any time, repeatedly."""
        return table

    def reduce(self, step: int, table: pl.DataFrame, outputs: OutputFiles) -> pl.DataFrame:
        """Reduces one partition. Not called if it is empty.

        Args:
          step: index into `steps`.
          table: all rows that were sent to this partition, in order of task.
          outputs: for steps that make an artifact.

        Returns:
          Rows with ``partition`` (a part's number where the next step is a visit) for the next step; from the last
          step, verdicts with `verdict_columns`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no reduce for step {step}")

    def reduce_slices(self, step: int, slices: Slices, outputs: OutputFiles) -> Iterator[pl.DataFrame]:
        """Reduces one partition that need not fit memory: as `reduce`, a piece at a time.

        The result must not depend on how rows are cut into slices. As it stands, it collects the rows and calls
        `reduce`.
        """
        table = slices.collect()
        if table is not None:
            yield self.reduce(step, table, outputs)

    def visit(self, step: int, batch: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame | Iterator[pl.DataFrame]:
        """Looks at documents of a part again.

        Args:
          batch: documents as they were emitted, with ``part`` and ``row``: `visit_columns` only, and only batches with
            a ``row`` that ``rows`` names, if it has that column.
          rows: rows that were sent to this part: all, or if they name a ``row`` at least all about this batch.

        Returns:
          As `reduce`; a piece at a time where documents send more rows than should be in memory.
        """
        raise NotImplementedError(f"{type(self).__name__} has no visit for step {step}")

    def visit_columns(self, step: int) -> tuple[str, ...]:
        """Returns the columns of documents that a visit needs."""
        return self.columns().reads

    def verdict_columns(self) -> Mapping[str, pl.DataType]:
        """Returns the columns that `apply` needs in verdicts. ``part`` must be one: it says where a verdict goes."""
        return {"part": pl.UInt32(), "row": pl.UInt32(), REASON: pl.String(), DETAIL: pl.String()}

    def apply(self, batch: pl.DataFrame, verdicts: pl.DataFrame) -> pl.DataFrame:
        """Applies verdicts to documents: as `RowStage.apply`, same rows in the same order.

        Args:
          batch: documents as they were emitted, with ``row``, their place in the part.
          verdicts: all verdicts about the part, in order of partition; without rows if there are none.
        """
        if verdicts.height == 0:
            return batch
        return batch.join(verdicts.select("row", REASON, DETAIL), on="row", how="left", maintain_order="left")

    def artifacts(self) -> Mapping[str, str]:
        """Returns artifact name → file, relative to the run folder, that the last step creates."""
        return {}

    def follower(self, name: str) -> ExchangeStage | None:
        """Returns a stage that is put right behind this one, where it sees what this one left.

        Args:
          name: what the pipeline calls this stage; the follower's outputs are kept apart by it.
        """
        return None

    def finish(self, run_dir: Path, files: Mapping[str, str]) -> list[Path]:
        """Called once, when all tasks of the last step have committed.

        Args:
          files: those that reducers created, name relative to the run folder → SHA-256, in order of step and task.

        Returns:
          The files that it wrote; the run notices when one of them goes missing or changes.
        """
        return []


class StartAgain(Exception):  # noqa: N818 - it is not an error
    """Raised by a stage in the middle of a task when what it did so far has to be done anew.

    The engine throws away what the task has written and runs it once more in the same process; the stage remembers why.
    """


class SinkWriter(Protocol):
    """Takes the batches of one task and writes them somewhere."""

    def write(self, batch: pl.DataFrame) -> None:
        """Takes one batch of kept documents."""

    def close(self) -> list[dict[str, Any]]:
        """Finishes the files. Returns one JSON-able description per shard, for `Sink.finish`."""


class Sink(Stage):
    """Writes the documents that are left, at the end of a pipeline."""

    @abstractmethod
    def open(self, part: int, outputs: OutputFiles) -> SinkWriter:
        """Starts the files of task number ``part``."""

    def finish(self, run_dir: Path, shards: list[dict[str, Any]]) -> list[Path]:
        """Called once, when all tasks have committed, with their shard descriptions in order of task.

        Returns the files that it wrote (manifests); the run notices when one of them goes missing or changes.
        """
        return []
