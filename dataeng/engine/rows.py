"""One task of a row phase: read a part, take it through the stages a batch at a time, write what each left.

input ─► stage ─► stage ─► … ─► documents ─► exchange table │ sink
           │        │
           ▼        ▼
         rejects  (with stage, reason, detail)       signals: a row for every document that came in
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from dataeng.config import Step
from dataeng.document import DETAIL, ERROR_PREFIX, IDENTITY, REASON, TEXT, row_bytes, with_reason_columns
from dataeng.engine.exchange import Buffers, PartitionedWriter, PartitionSlices, TableSlice
from dataeng.engine.ledger import StageCount, check_chain, too_many_errors
from dataeng.engine.outputs import TableWriter, TaskOutputs, now
from dataeng.engine.run_removal import STATION, drop_removed
from dataeng.errors import DataengError, LedgerError, TaskError
from dataeng.formats.removal_list import load_removals
from dataeng.plan import Phase, Task
from dataeng.predicate import parse_predicate
from dataeng.stage import ExchangeStage, RowStage, Sink, SinkWriter, Source, Stage

REJECT_COLUMNS: dict[str, pl.DataType] = {
    **IDENTITY,
    "language": pl.String(),
    "stage": pl.String(),
    REASON: pl.String(),
    DETAIL: pl.String(),
    "num_bytes": pl.Int64(),
    TEXT: pl.String(),
}


@dataclass(frozen=True)
class RowTaskInput:
    """What a row task reads, resolved by the driver from the records of the phases before."""

    documents: str | None = None
    verdicts: tuple[TableSlice, ...] = ()


class RowTask:
    """The state of one task while it runs."""

    def __init__(
        self, run_dir: Path, phase: Phase, task: Task, given: RowTaskInput, outputs: TaskOutputs,
        keep_rejected_text: bool, max_error_share: float, stages: dict[str, Stage], buffers: Buffers,
    ) -> None:  # fmt: skip
        self.run_dir, self.phase, self.task, self.given, self.outputs = run_dir, phase, task, given, outputs
        self.max_error_share, self.stages, self.buffers = max_error_share, stages, buffers
        self.counts: dict[str, StageCount] = {}
        self.last_error: dict[str, str] = {}
        self.rows_written = 0
        self.row_steps = tuple(step for step in phase.steps if isinstance(step.stage, RowStage))
        part = f"{task.index:05d}.parquet"
        rejects = dict(REJECT_COLUMNS)
        if not keep_rejected_text:
            del rejects[TEXT]
        self.documents = TableWriter(outputs, "documents", f"documents/{phase.name}/{part}", dict(phase.schema))
        self.rejects = TableWriter(outputs, "rejects", f"rejects/{phase.name}/{part}", rejects)
        self.signals = (
            TableWriter(outputs, "signals", f"signals/{phase.name}/{part}", {"id": pl.String(), **phase.signals})
            if phase.signals
            else None
        )
        self.emitted: list[pl.DataFrame] = []
        self.emitted_bytes = 0.0
        self.emitted_to: PartitionedWriter | None = None
        if phase.emits_to is not None:
            name = f"exchange/{phase.emits_to.name}/emit-{task.index:05d}.parquet"
            self.emitted_to = PartitionedWriter(outputs, "exchange", name, buffer_bytes=buffers.write_bytes)
        self.emit_count = StageCount()
        self.sinks: list[tuple[Step, SinkWriter]] = []
        self.removals = load_removals(run_dir) if phase.sinks else None

    def run(self) -> tuple[dict[str, StageCount], dict[str, list[dict[str, Any]]]]:
        """Runs the task to the point where its files can be committed. Returns counts and sink shards."""
        for step in self.phase.sinks:
            sink = self.stages[step.name]
            assert isinstance(sink, Sink)
            self.sinks.append((step, sink.open(self.task.index, self.outputs)))
        for name in self._chain():
            self.counts[name] = StageCount()
        for batch in self._read():
            for step in self.row_steps:
                if batch.height == 0:
                    break
                batch = self._take(step.name, batch, lambda frame, step=step: self._apply(step, frame))
            removals = self.removals
            if removals is not None and batch.height:
                batch = self._take(STATION, batch, lambda frame, removals=removals: drop_removed(frame, removals))
            self._write(batch)
        return self._close()

    def _chain(self) -> list[str]:
        """Names of the counted stations, in order."""
        first = self.task.source.name if self.task.source else None
        applied = self.phase.applies.name if self.phase.applies else None
        last = [STATION] if self.removals is not None else []
        return [name for name in (first, applied) if name] + [step.name for step in self.row_steps] + last

    # --- reading

    def _read(self) -> Iterator[pl.DataFrame]:
        if self.task.source is not None:
            yield from self._read_source(self.task.source)
        else:
            yield from self._read_documents()

    def _read_source(self, step: Step) -> Iterator[pl.DataFrame]:
        source, file = self.stages[step.name], self.task.file
        assert isinstance(source, Source) and file is not None
        columns = {**IDENTITY, **source.columns().adds, **source.columns().signals}
        batches = source.read(file)
        while True:
            start = now()
            batch = next(batches, None)
            if batch is None:
                return
            self.counts[step.name].seconds += now() - start
            batch = with_reason_columns(batch)
            conform(batch, columns, step)
            # The other sources' columns, so that every batch of the phase has the same ones.
            union = _source_schema(self.phase)
            missing = [pl.lit(None, dtype=dtype).alias(c) for c, dtype in union.items() if c not in batch.columns]
            yield self._take(step.name, batch.with_columns(missing), lambda frame: frame)

    def _read_documents(self) -> Iterator[pl.DataFrame]:
        assert self.given.documents is not None
        verdicts, last = self._read_verdicts()
        row = 0
        with pq.ParquetFile(self.run_dir / self.given.documents) as file:
            for group in range(file.num_row_groups):
                batch = pl.from_arrow(file.read_row_group(group))
                assert isinstance(batch, pl.DataFrame)
                first, row = row, row + batch.height
                if self.phase.applies is not None:
                    batch = self._take(
                        self._applied, batch, lambda frame, first=first: self._judge(frame, verdicts, first)
                    )  # fmt: skip
                yield batch
        if last >= row:
            raise TaskError(f"'{self._applied}' decided about a document that is not there.")

    def _read_verdicts(self) -> tuple[pl.DataFrame, int]:
        """Returns the verdicts about this part, and the last row that one of them drops (-1: none does)."""
        verdicts = PartitionSlices(self.run_dir, self.given.verdicts, self.buffers).collect()
        if self.phase.applies is None:
            return pl.DataFrame(), -1
        stage = self.stages[self._applied]
        assert isinstance(stage, ExchangeStage)
        columns = dict(stage.verdict_columns())
        if verdicts is None or verdicts.height == 0:
            return pl.DataFrame(schema=columns), -1
        if REASON not in columns:  # the stage's own way to edit
            return verdicts, -1
        if verdicts.get_column("row").is_duplicated().any():
            raise TaskError(f"'{self._applied}' decided about the same document twice.")
        return verdicts, int(verdicts.select(pl.max("row")).item())

    def _judge(self, batch: pl.DataFrame, verdicts: pl.DataFrame, first_row: int) -> pl.DataFrame:
        """Lets an exchange apply what it decided about this part."""
        step = self.phase.applies
        assert step is not None
        stage = self.stages[step.name]
        assert isinstance(stage, ExchangeStage)
        rows = (pl.int_range(pl.len(), dtype=pl.UInt32) + first_row).cast(pl.UInt32).alias("row")
        result = with_reason_columns(stage.apply(batch.with_columns(rows), verdicts).drop("row"))
        columns = stage.columns()
        expected = {**batch.schema, **columns.adds, **columns.signals, REASON: pl.String(), DETAIL: pl.String()}
        conform(result, expected, step, batch)
        return result.select(list(expected))

    @property
    def _applied(self) -> str:
        return self.phase.applies.name if self.phase.applies else ""

    # --- stages

    def _take(self, name: str, batch: pl.DataFrame, apply: Any) -> pl.DataFrame:
        """Runs one station on a batch, writes its rejects, counts, and returns the rows that stay."""
        start = now()
        sizes = row_bytes(batch)
        batch = with_reason_columns(apply(batch))
        reasons = batch.get_column(REASON)
        dropped = reasons.is_not_null()
        kept = batch
        if dropped.any():
            kept, rejected = batch.filter(~dropped), batch.filter(dropped)
            self.rejects.write(
                rejected.with_columns(pl.lit(name).alias("stage"), sizes.filter(dropped).alias("num_bytes"))
            )
            if self.signals is not None:
                self.signals.write(rejected)
            if self.phase.emits_to is not None:
                self._emit_rejects(self.phase.emits_to, rejected)
        kept = kept.drop(REASON, DETAIL)
        self.counts[name].record(sizes, reasons, int(row_bytes(kept).sum()), now() - start)
        return kept

    def _apply(self, step: Step, batch: pl.DataFrame) -> pl.DataFrame:
        """Applies a stage to the rows that its ``where`` matches."""
        if step.where is None:
            return self._guarded(step, batch)
        mask = batch.select(parse_predicate(step.where).expr.fill_null(False).alias("mask")).get_column("mask")
        chosen, others = batch.filter(mask), batch.filter(~mask)
        if others.height == 0:
            return self._guarded(step, batch)
        columns = step.stage.columns()
        added = {**columns.adds, **columns.signals}
        fill = [pl.lit(None, dtype=dtype).alias(c) for c, dtype in added.items() if c not in others.columns]
        others = with_reason_columns(others.with_columns(fill)).drop(columns.removes, strict=False)
        if chosen.height == 0:
            return others
        done = self._guarded(step, chosen)
        positions = pl.concat([mask.arg_true(), (~mask).arg_true()])
        return pl.concat([done, others.select(done.columns)])[positions.arg_sort()]

    def _guarded(self, step: Step, batch: pl.DataFrame) -> pl.DataFrame:
        """Applies a stage; a document that makes it raise becomes a reject, found by halving the batch."""
        stage = self.stages[step.name]
        assert isinstance(stage, RowStage)
        try:
            result = with_reason_columns(stage.apply(batch))
        except (DataengError, MemoryError):
            raise
        except Exception as error:
            if batch.height > 1:
                half = batch.height // 2
                parts = [self._guarded(step, batch[:half]), self._guarded(step, batch[half:])]
                return pl.concat([parts[0], parts[1].select(parts[0].columns)])
            message = " ".join(str(error).split())[:300]
            self.last_error[step.name] = f"{type(error).__name__}: {message}"
            return self._broken(step, batch, type(error).__name__, message)
        columns = step.stage.columns()
        expected = {c: dtype for c, dtype in batch.schema.items() if c not in columns.removes}
        expected = {**expected, **columns.adds, **columns.signals, REASON: pl.String(), DETAIL: pl.String()}
        conform(result, expected, step, batch)
        return result.select(list(expected))

    def _broken(self, step: Step, batch: pl.DataFrame, kind: str, message: str) -> pl.DataFrame:
        columns = step.stage.columns()
        added = {**columns.adds, **columns.signals}
        batch = batch.with_columns(
            [pl.lit(None, dtype=dtype).alias(c) for c, dtype in added.items() if c not in batch.columns]
        ).drop(columns.removes, strict=False)
        reason = pl.lit(f"{ERROR_PREFIX}{kind}", dtype=pl.String).alias(REASON)
        return batch.with_columns(reason, pl.lit(message, dtype=pl.String).alias(DETAIL))

    # --- writing

    def _write(self, batch: pl.DataFrame) -> None:
        if batch.height == 0:
            return
        self.documents.write(batch)
        if self.signals is not None:
            self.signals.write(batch)
        if self.phase.emits_to is not None:
            self._emit(self.phase.emits_to, batch)
        for step, writer in self.sinks:
            start, sizes = now(), row_bytes(batch)
            writer.write(batch)
            reasons = pl.Series([None], dtype=pl.String).new_from_index(0, batch.height)
            count = self.counts.setdefault(step.name, StageCount())
            count.record(sizes, reasons, int(sizes.sum()), now() - start)
        self.rows_written += batch.height

    def _emit(self, step: Step, batch: pl.DataFrame) -> None:
        stage = self.stages[step.name]
        assert isinstance(stage, ExchangeStage)
        start = now()
        placed = batch.with_columns(
            pl.lit(self.task.index, dtype=pl.UInt32).alias("part"),
            (pl.int_range(pl.len(), dtype=pl.UInt32) + self.rows_written).cast(pl.UInt32).alias("row"),
        )
        self._hold(stage, stage.emit(placed))
        self.emit_count.seconds += now() - start

    def _emit_rejects(self, step: Step, rejected: pl.DataFrame) -> None:
        """Shows the exchange those rejects that it asks for."""
        stage = self.stages[step.name]
        assert isinstance(stage, ExchangeStage)
        wanted = rejected.filter(pl.col(REASON).is_in(stage.reads_rejects()))
        if wanted.height == 0:
            return
        schema = self.phase.schema
        missing = [pl.lit(None, dtype=dtype).alias(c) for c, dtype in schema.items() if c not in wanted.columns]
        self._hold(stage, stage.emit_rejects(wanted.with_columns(missing)))

    def _hold(self, stage: ExchangeStage, table: pl.DataFrame) -> None:
        self.emitted.append(table)
        self.emitted_bytes += table.estimated_size()
        if self.emitted_bytes > self.buffers.write_bytes:
            self._combine(stage)

    def _combine(self, stage: ExchangeStage) -> None:
        """Lets the stage shrink what was emitted; what stays large is written."""
        table = stage.combine(pl.concat(self.emitted))
        self.emitted, self.emitted_bytes = [table], table.estimated_size()
        if self.emitted_bytes > self.buffers.write_bytes // 2:
            assert self.emitted_to is not None
            self.emitted_to.write(table)
            self.emitted, self.emitted_bytes = [], 0.0

    def _close(self) -> tuple[dict[str, StageCount], dict[str, list[dict[str, Any]]]]:
        written = self.documents.close()
        rejected = self.rejects.close()
        measured = self.signals.close() if self.signals is not None else None
        step = self.phase.emits_to
        if step is not None:
            stage = self.stages[step.name]
            assert isinstance(stage, ExchangeStage)
            start = now()
            assert self.emitted_to is not None
            if self.emitted:
                self.emitted_to.write(stage.combine(pl.concat(self.emitted)))
            self.emitted_to.close()
            self.emit_count.seconds += now() - start
            self.counts[f"emit:{step.name}"] = self.emit_count
        shards = {step.name: writer.close() for step, writer in self.sinks}
        where = f"{self.phase.name}, part {self.task.index}"
        check_chain(where, [(name, self.counts[name]) for name in self._chain()], written, rejected)
        if measured is not None and measured != written + rejected:
            raise LedgerError(f"{where}: {written + rejected} documents came in, {measured} signals were written.")
        self._check_errors()
        return self.counts, shards

    def _check_errors(self) -> None:
        """Fails the task when a stage broke on so many documents that the stage, not the documents, is at fault."""
        for step in self.row_steps:
            count = self.counts[step.name]
            if step.name in self.last_error and too_many_errors(count, self.max_error_share):
                raise TaskError(
                    f"'{step.name}' raised an error on {count.documents_broken} of {count.documents_in} documents "
                    f"(max_error_share is {self.max_error_share:g}); the last was {self.last_error[step.name]}"
                )


def conform(
    batch: pl.DataFrame, expected: dict[str, pl.DataType], step: Step, before: pl.DataFrame | None = None
) -> None:
    """Checks that a stage kept its contract; a breach is an error of the stage, never of a document."""
    for column, dtype in expected.items():
        if column not in batch.columns:
            raise TaskError(f"'{step.name}' should deliver the column '{column}' ({dtype}) and did not.")
        if batch.schema[column] != dtype:
            raise TaskError(f"'{step.name}' delivered '{column}' as {batch.schema[column]}, declared as {dtype}.")
    extra = [c for c in batch.columns if c not in expected and c not in (REASON, DETAIL)]
    if extra:
        raise TaskError(f"'{step.name}' added the column '{extra[0]}' without declaring it in columns().")
    if before is not None and not batch.get_column("id").equals(before.get_column("id")):
        raise TaskError(f"'{step.name}' changed the number or order of rows; to drop a row, set its reason.")


def _source_schema(phase: Phase) -> dict[str, pl.DataType]:
    schema = dict(IDENTITY)
    for step in phase.steps:
        if isinstance(step.stage, Source):
            schema.update({**step.stage.columns().adds, **step.stage.columns().signals})
    return schema


def stage_key(step: Step, artifacts: dict[str, Path]) -> str:
    """Returns a key under which a process keeps a stage that is set up."""
    used = {name: [str(artifacts[name]), artifacts[name].stat().st_mtime_ns] for name in step.stage.needs_artifacts()}
    side_inputs = dict(step.stage.side_inputs())
    return json.dumps([step.key, step.stage.model_dump_json(), used, side_inputs], sort_keys=True)
