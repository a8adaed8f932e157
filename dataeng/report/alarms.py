"""Alarms of deduplication: one cluster, one input file or one domain lost more than it should have.

A template that a whole site shares, or a hash that went wrong, can make thousands of different pages one cluster. The
counts are there anyway; this holds them against the pipeline's ``alarm_cluster_share`` and ``alarm_source_share``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from dataeng.config import Pipeline
from dataeng.document import REASON
from dataeng.engine.records import TaskRecord
from dataeng.engine.runner import phase_counts
from dataeng.formats.atomic import AtomicFile, commit_all
from dataeng.report.evidence import CLUSTERS_FILE
from dataeng.stage import ExchangeStage

ALARMS_FILE = "stats/alarms.parquet"
MIN_DOCUMENTS = 20
"""Fewer documents than this alarm nobody."""
ALARMS: dict[str, pl.DataType] = {
    "stage": pl.String(),
    "kind": pl.String(),
    "name": pl.String(),
    "removed": pl.Int64(),
    "documents": pl.Int64(),
    "share": pl.Float64(),
    "limit": pl.Float64(),
}
"""``kind`` is cluster (``name``: the kept document's id), file or domain; ``share`` is removed of documents."""


def write_alarms(pipeline: Pipeline, run_dir: Path, records: Mapping[str, list[TaskRecord]]) -> pl.DataFrame:
    """Writes and returns `alarms`."""
    found = alarms(pipeline, run_dir, records)
    file = AtomicFile(run_dir / ALARMS_FILE)
    pq.write_table(found.to_arrow(), file)
    commit_all([file])
    return found


def read_alarms(run_dir: Path) -> pl.DataFrame:
    """Returns what `write_alarms` wrote."""
    return pl.read_parquet(run_dir / ALARMS_FILE)


def alarms(pipeline: Pipeline, run_dir: Path, records: Mapping[str, list[TaskRecord]]) -> pl.DataFrame:
    """Returns what lost more than its limit, largest share first. Reads ``dedup/clusters.parquet``."""
    rows = [row for step in _deduplications(pipeline) for row in _rows(pipeline, run_dir, records, step)]
    return pl.DataFrame(rows, schema=ALARMS, orient="row").sort(
        "share", "stage", "name", descending=[True, False, False]
    )


def _deduplications(pipeline: Pipeline) -> Iterator[str]:
    for step in pipeline.steps:
        if isinstance(step.stage, ExchangeStage) and REASON in step.stage.verdict_columns():
            yield step.name


def _rows(
    pipeline: Pipeline, run_dir: Path, records: Mapping[str, list[TaskRecord]], step: str
) -> Iterator[tuple[Any, ...]]:
    group = records[f"{step}.apply"]
    total = phase_counts(group)[step].documents_in
    clusters = (
        pl.scan_parquet(run_dir / CLUSTERS_FILE)
        .filter(pl.col("stage") == step)
        .group_by("kept_id")
        .agg(pl.len().cast(pl.Int64))
        .collect()
    )
    lost = [("cluster", name, removed, total, pipeline.alarm_cluster_share) for name, removed in clusters.iter_rows()]
    inputs = [record.input for record in next(iter(records.values()))]
    for record in group:
        count = record.counts[step]
        share = pipeline.alarm_source_share
        lost.append(("file", inputs[record.index], count.documents_dropped, count.documents_in, share))
    lost += [("domain", *row, pipeline.alarm_source_share) for row in _by_domain(run_dir, group, step)]
    for kind, name, removed, documents, limit in lost:
        if documents >= MIN_DOCUMENTS and removed > limit * documents:
            yield step, kind, name, removed, documents, removed / documents, limit


def _by_domain(run_dir: Path, group: list[TaskRecord], step: str) -> list[tuple[str, int, int]]:
    """Returns (domain, removed, documents that came in) of one step."""
    counts = []
    for kind in ("documents", "rejects"):
        files = [
            run_dir / file.name for record in group for file in record.files if file.kind == kind and file.num_rows
        ]
        for file in files:
            table = pl.scan_parquet(file)
            mine = pl.col("stage") == step if kind == "rejects" else pl.lit(False)
            # What later stages of the same phase dropped came through this one.
            counts.append(
                table.select("domain", mine.alias("mine")).group_by("domain").agg(pl.len(), pl.sum("mine")).collect()
            )
    if not counts:
        return []
    total = (
        pl.concat(counts)
        .group_by("domain")
        .agg(pl.sum("mine").cast(pl.Int64), pl.sum("len").cast(pl.Int64))
        .sort("domain")
    )
    return [(domain or "", removed, documents) for domain, removed, documents in total.iter_rows()]
