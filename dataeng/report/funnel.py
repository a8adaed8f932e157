"""The funnel: documents and bytes into every stage, kept, and dropped by reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from dataeng.engine.ledger import StageCount
from dataeng.engine.records import TaskRecord
from dataeng.engine.runner import phase_counts
from dataeng.formats.atomic import AtomicFile, commit_all

STAGES_SCHEMA: dict[str, pl.DataType] = {
    "phase": pl.String(),
    "stage": pl.String(),
    "position": pl.Int32(),
    "part": pl.Int32(),
    "input": pl.String(),
    "documents_in": pl.Int64(),
    "bytes_in": pl.Int64(),
    "documents_kept": pl.Int64(),
    "bytes_kept": pl.Int64(),
    "seconds": pl.Float64(),
}
DROPS_SCHEMA: dict[str, pl.DataType] = {
    "phase": pl.String(),
    "stage": pl.String(),
    "position": pl.Int32(),
    "part": pl.Int32(),
    "reason": pl.String(),
    "documents": pl.Int64(),
    "bytes": pl.Int64(),
}


@dataclass(frozen=True)
class FunnelRow:
    """One counted station of a run."""

    phase: str
    stage: str
    count: StageCount


def funnel(records: Mapping[str, list[TaskRecord]]) -> list[FunnelRow]:
    """Returns one row per counted station, in order, summed over tasks."""
    return [
        FunnelRow(phase, stage, count)
        for phase, group in records.items()
        for stage, count in phase_counts(group).items()
    ]


def stats_tables(records: Mapping[str, list[TaskRecord]]) -> dict[str, pl.DataFrame]:
    """Returns the tables ``stages`` and ``drops``: one row per station (and reason) and part."""
    return {
        "stages": pl.DataFrame(list(_stage_rows(records)), schema=STAGES_SCHEMA, orient="row"),
        "drops": pl.DataFrame(list(_drop_rows(records)), schema=DROPS_SCHEMA, orient="row"),
    }


def write_stats(run_dir: Path, records: Mapping[str, list[TaskRecord]]) -> None:
    """Writes `stats_tables` as ``stats/stages.parquet`` and ``stats/drops.parquet``, for tools other than ours."""
    files = []
    for name, frame in stats_tables(records).items():
        file = AtomicFile(run_dir / "stats" / f"{name}.parquet")
        pq.write_table(frame.to_arrow(), file)  # an error of the disk stays an `OSError`; Polars would hide it
        files.append(file)
    commit_all(files)


def has_stats(run_dir: Path) -> bool:
    """Whether the tables that `write_stats` writes are there."""
    return all((run_dir / "stats" / f"{name}.parquet").exists() for name in ("stages", "drops"))


def _stations(records: Mapping[str, list[TaskRecord]]) -> Iterator[tuple[int, str, str]]:
    """Yields (position, phase, stage) in the order of the pipeline."""
    position = 0
    for phase, group in records.items():
        for stage in phase_counts(group):
            yield position, phase, stage
            position += 1


def _stage_rows(records: Mapping[str, list[TaskRecord]]) -> Iterator[tuple[Any, ...]]:
    for position, phase, stage in _stations(records):
        for record in records[phase]:
            if stage in record.counts:
                c = record.counts[stage]
                sizes = (c.documents_in, c.bytes_in, c.documents_kept, c.bytes_kept, c.seconds)
                yield (phase, stage, position, record.index, record.input, *sizes)


def _drop_rows(records: Mapping[str, list[TaskRecord]]) -> Iterator[tuple[Any, ...]]:
    for position, phase, stage in _stations(records):
        for record in records[phase]:
            if stage in record.counts:
                for reason, (documents, size) in record.counts[stage].dropped.items():
                    yield (phase, stage, position, record.index, reason, documents, size)
