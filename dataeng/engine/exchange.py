"""Partitioned side tables: how rows get from the tasks that emit them to the tasks that reduce them.

A task writes one Parquet file in which every partition is a row group; its record says which. A reducer reads its
row group from every task's file, in order of task, so the result does not depend on who ran what when.
Number of files = number of tasks, whatever the number of partitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from dataeng.engine.outputs import COMPRESSION, TaskOutputs

PARTITION = "partition"

TableSlice = tuple[str, int]
"""File relative to the run folder, row group."""


def write_partitioned(outputs: TaskOutputs, kind: str, name: str, table: pl.DataFrame, key: str = PARTITION) -> None:
    """Writes ``table`` with one row group per value of ``key``; the order of rows within each is kept."""
    groups: dict[str, int] = {}
    writer = pq.ParquetWriter(outputs.create_kind(kind, name), table.to_arrow().schema, **COMPRESSION)
    parts = table.partition_by(key, maintain_order=True, as_dict=True) if table.height else {}
    for (value,), rows in sorted(parts.items(), key=lambda item: item[0]):
        groups[str(value)] = len(groups)
        writer.write_table(rows.to_arrow(), row_group_size=rows.height)
    writer.close()
    outputs.describe(name, table.height, groups)


def read_slices(run_dir: Path, slices: Sequence[TableSlice]) -> pl.DataFrame | None:
    """Reads row groups and puts them one after another; None if there are none."""
    frames = list(iter_slices(run_dir, slices))
    return pl.concat(frames) if frames else None


def iter_slices(run_dir: Path, slices: Sequence[TableSlice]) -> Iterator[pl.DataFrame]:
    """Yields row groups one after the other."""
    for name, group in slices:
        with pq.ParquetFile(run_dir / name) as file:
            frame = pl.from_arrow(file.read_row_group(group))
            assert isinstance(frame, pl.DataFrame)
            yield frame
