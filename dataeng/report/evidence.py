"""The evidence of deduplication in one file, ``dedup/clusters.parquet``: who was removed, for whom, how alike they are.

The engine keeps what each stage decided in ``dedup/<stage>/``, one file per task; this puts the verdicts that name two
documents into one table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from dataeng.engine.outputs import COMPRESSION
from dataeng.engine.records import TaskRecord
from dataeng.formats.atomic import AtomicFile, commit_all

CLUSTERS_FILE = "dedup/clusters.parquet"
CLUSTERS: dict[str, pl.DataType] = {
    "stage": pl.String(),
    "id": pl.String(),
    "kept_id": pl.String(),
    "matched_id": pl.String(),
    "similarity": pl.Float64(),
    "method": pl.String(),
    "cluster_size": pl.UInt32(),
    "index_segment": pl.String(),
}


def write_clusters(run_dir: Path, records: Mapping[str, list[TaskRecord]]) -> None:
    """Writes the table of removed documents; without any, an empty one."""
    file = AtomicFile(run_dir / CLUSTERS_FILE)
    writer = pq.ParquetWriter(file, pl.DataFrame(schema=CLUSTERS).to_arrow().schema, **COMPRESSION)
    for table in _verdicts(run_dir, records):
        writer.write_table(table.to_arrow())
    writer.close()
    commit_all([file])


def _verdicts(run_dir: Path, records: Mapping[str, list[TaskRecord]]) -> Iterator[pl.DataFrame]:
    """Yields the verdicts that name a removed and a kept document, in order of phase and partition."""
    files = [file for group in records.values() for record in group for file in record.files]
    for file in files:
        if file.kind != "exchange" or not file.name.startswith("dedup/") or file.num_rows == 0:
            continue
        with pq.ParquetFile(run_dir / file.name) as parquet:
            found = [name for name in CLUSTERS if name in parquet.schema_arrow.names]
            if not {"id", "kept_id"} <= set(found):
                continue
            for group in range(parquet.num_row_groups):
                table = pl.from_arrow(parquet.read_row_group(group, columns=found))
                assert isinstance(table, pl.DataFrame)
                table = table.with_columns(pl.lit(Path(file.name).parent.name).alias("stage"))
                missing = [
                    pl.lit(None, dtype=t).alias(name) for name, t in CLUSTERS.items() if name not in table.columns
                ]
                yield table.with_columns(missing).select(list(CLUSTERS)).cast(CLUSTERS)  # type: ignore[arg-type]
