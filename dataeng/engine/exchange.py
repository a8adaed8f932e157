"""Partitioned side tables: how rows get from the tasks that emit them to the tasks that reduce them.

A task writes one Parquet file whose row groups belong to one partition each; its record says which. A reducer reads
its row groups from every task's file, in order of task, so the result does not depend on who ran what when.
Number of files = number of tasks, whatever the number of partitions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from dataeng.engine.outputs import COMPRESSION, TaskOutputs
from dataeng.errors import TaskError

PARTITION = "partition"
TABLE_COMPRESSION = {**COMPRESSION, "compression": "lz4", "compression_level": None}
"""Side tables are mostly hashes, which hardly shrink, and live for the length of a run."""


@dataclass(frozen=True)
class Buffers:
    """How much of side tables a task holds at a time; what a stage makes of it comes on top."""

    write_bytes: int = 64 << 20
    """Rows that wait to be written as row groups, one per partition."""
    read_bytes: int = 32 << 20
    """Small tables are read together up to this size."""
    kept_bytes: int = 128 << 20
    """A partition that is not larger is read from disk once, however often its rows are gone through."""

    @classmethod
    def of_worker(cls, memory_mb: int) -> Buffers:
        """Returns shares of what a worker may use: a sixteenth, a thirty-second, an eighth."""
        memory = memory_mb << 20
        return cls(memory // 16, memory // 32, memory // 8)


@dataclass(frozen=True)
class TableSlice:
    """One partition's rows in one task's file."""

    file: str
    """Relative to the run folder."""
    row_groups: tuple[int, ...]


class PartitionedWriter:
    """Writes rows to a file of row groups by partition; the order of rows within a partition is kept.

    The file is opened with the first rows' schema; without any rows, it has the partition's column alone.
    """

    def __init__(
        self, outputs: TaskOutputs, kind: str, name: str, key: str = PARTITION, buffer_bytes: int = Buffers.write_bytes
    ) -> None:
        self._outputs, self._kind, self._name, self._key = outputs, kind, name, key
        self._buffer_bytes = buffer_bytes
        self._writer: pq.ParquetWriter | None = None
        self._schema: pl.Schema | None = None
        self._buffer: list[pl.DataFrame] = []
        self._buffered = 0.0
        self._groups: dict[str, list[int]] = {}
        self._num_groups = self._num_rows = 0

    def write(self, table: pl.DataFrame) -> None:
        """Takes rows of any partitions."""
        if table.height == 0:
            return
        if self._schema is None:
            self._schema = table.schema
        elif table.schema != self._schema:
            raise TaskError(f"{self._name}: a table of {dict(table.schema)} follows one of {dict(self._schema)}.")
        self._buffer.append(table)
        self._buffered += table.estimated_size()
        if self._buffered > self._buffer_bytes:
            self._flush()

    def _open(self, empty: pl.DataFrame) -> pq.ParquetWriter:
        if self._writer is None:
            file = self._outputs.create_kind(self._kind, self._name)
            self._writer = pq.ParquetWriter(file, empty.to_arrow().schema, **TABLE_COMPRESSION)
        return self._writer

    def _flush(self) -> None:
        if not self._buffer:
            return
        table = pl.concat(self._buffer)
        self._buffer, self._buffered = [], 0.0
        writer = self._open(table.clear())
        parts = table.partition_by(self._key, maintain_order=True, as_dict=True)
        del table
        for (value,), rows in sorted(parts.items(), key=lambda item: item[0]):
            self._groups.setdefault(str(value), []).append(self._num_groups)
            writer.write_table(rows.to_arrow(), row_group_size=rows.height)
            self._num_groups += 1
            self._num_rows += rows.height

    def close(self) -> int:
        """Finishes the file and returns its number of rows."""
        self._flush()
        self._open(pl.DataFrame(schema={self._key: pl.UInt32()})).close()
        self._outputs.describe(self._name, self._num_rows, self._groups)
        return self._num_rows


class PartitionSlices:
    """Implements `dataeng.stage.Slices` for files of a run folder."""

    def __init__(self, run_dir: Path, slices: Sequence[TableSlice], buffers: Buffers = Buffers()) -> None:
        self._run_dir, self._slices, self._buffers = run_dir, slices, buffers
        self._kept: list[pl.DataFrame] | None = None
        self.num_rows = 0
        for piece in slices:
            with pq.ParquetFile(run_dir / piece.file) as file:
                self.num_rows += sum(file.metadata.row_group(group).num_rows for group in piece.row_groups)

    def __iter__(self) -> Iterator[pl.DataFrame]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[pl.DataFrame] = []
        size = 0.0
        for table in self._read():
            size += table.estimated_size()
            if size <= self._buffers.kept_bytes:
                kept.append(table)
            else:
                kept.clear()
            yield table
        if size <= self._buffers.kept_bytes:
            self._kept = kept

    def _read(self) -> Iterator[pl.DataFrame]:
        held: list[pl.DataFrame] = []
        size = 0.0
        for piece in self._slices:
            with pq.ParquetFile(self._run_dir / piece.file) as file:
                for group in piece.row_groups:
                    frame = pl.from_arrow(file.read_row_group(group))
                    assert isinstance(frame, pl.DataFrame)
                    held.append(frame)
                    size += frame.estimated_size()
                    if size > self._buffers.read_bytes:
                        yield pl.concat(held)
                        held, size = [], 0.0
        if held:
            yield pl.concat(held)

    def collect(self) -> pl.DataFrame | None:
        frames = list(self)
        return pl.concat(frames) if frames else None


class RowsAbout:
    """The rows that were sent to a part, for a visit that goes through its documents in order.

    Rows that name a document (``row``) are read for a range of documents at a time, so that at most about
    `Buffers.kept_bytes` of them are held.
    """

    def __init__(self, slices: PartitionSlices, buffers: Buffers, num_documents: int) -> None:
        self._slices = slices
        first = next(iter(slices))
        size = first.estimated_size() * slices.num_rows / first.height
        self._by_document = "row" in first.columns
        ranges = max(1, math.ceil(size / buffers.kept_bytes)) if self._by_document else 1
        self._step = max(1, math.ceil(num_documents / ranges))
        self._rows, self._start, self._stop = first.clear(), 0, 0
        self._named: pl.Series | None = None

    def documents(self, start: int, stop: int) -> pl.DataFrame | None:
        """Returns at least the rows about documents ``start`` up to ``stop``; None if there are none."""
        if not self._start <= start < stop <= self._stop:
            self._start = start
            self._stop = max(stop, start + self._step) if self._by_document else 1 << 32
            inside = pl.col("row").is_between(self._start, self._stop, closed="left")
            self._rows = self._rows.clear()
            self._rows = pl.concat([table.filter(inside) if self._by_document else table for table in self._slices])
            self._named = self._rows.get_column("row").unique().sort() if self._by_document else None
        if self._named is not None and not self._named.is_between(start, stop, closed="left").any():
            return None
        return self._rows
