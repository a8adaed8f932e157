"""The files of one task: created under temporary names, committed together, described for the record."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from dataeng.document import TEXT
from dataeng.engine.records import OutputFile
from dataeng.formats.atomic import AtomicFile, commit_all

GROUP_ROWS = 1000
GROUP_BYTES = 8 << 20
COMPRESSION = {"compression": "zstd", "compression_level": 1, "use_dictionary": False}


class TaskOutputs:
    """Implements `dataeng.stage.OutputFiles` for one attempt at a task."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._files: list[tuple[str, str, AtomicFile]] = []
        self._details: dict[str, tuple[int, dict[str, list[int]]]] = {}

    def create(self, name: str) -> AtomicFile:
        return self.create_kind("sink", name)

    def create_kind(self, kind: str, name: str) -> AtomicFile:
        """Opens a new file; ``kind`` is what the record calls it."""
        file = AtomicFile(self.run_dir / name)
        self._files.append((kind, name, file))
        return file

    def final_path(self, name: str) -> Path:
        return self.run_dir / name

    def describe(self, name: str, num_rows: int, row_groups: dict[str, list[int]] | None = None) -> None:
        """Notes how many rows a file has, and where its partitions are."""
        self._details[name] = (num_rows, row_groups or {})

    def commit(self) -> list[OutputFile]:
        """Makes all files durable and visible."""
        commit_all(file for _, _, file in self._files)
        committed = []
        for kind, name, file in self._files:
            rows, groups = self._details.get(name, (0, {}))
            modified = file.target.stat().st_mtime_ns
            committed.append(OutputFile(name, kind, file.size_bytes, file.sha256, modified, rows, groups))
        return committed

    def discard(self) -> None:
        """Removes what was written, after a failure. What cannot be removed now is pruned by a later run."""
        for _, _, file in self._files:
            with suppress(OSError):
                file.discard()


class TableWriter:
    """Writes frames of one schema to a Parquet file, in row groups of about a thousand rows or 8 MB of text."""

    def __init__(self, outputs: TaskOutputs, kind: str, name: str, schema: dict[str, pl.DataType]) -> None:
        self.outputs, self.name, self.schema = outputs, name, schema
        self._arrow = pl.DataFrame(schema=schema).to_arrow().schema
        self._writer = pq.ParquetWriter(outputs.create_kind(kind, name), self._arrow, **COMPRESSION)
        self._buffer: list[pl.DataFrame] = []
        self._rows = self._bytes = 0
        self.num_rows = 0

    def write(self, frame: pl.DataFrame) -> None:
        """Takes rows; columns are put in the schema's order, missing ones are null."""
        if frame.height == 0:
            return
        missing = [pl.lit(None, dtype=dtype).alias(c) for c, dtype in self.schema.items() if c not in frame.columns]
        frame = frame.with_columns(missing).select(list(self.schema))
        self._buffer.append(frame)
        self._rows += frame.height
        self.num_rows += frame.height
        if TEXT in self.schema:
            self._bytes += int(frame.select(pl.col(TEXT).str.len_bytes().sum()).item() or 0)
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._buffer:
            table = pl.concat(self._buffer).to_arrow().cast(self._arrow)
            self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._buffer, self._rows, self._bytes = [], 0, 0

    def close(self) -> int:
        """Finishes the file and returns its number of rows."""
        self._flush()
        self._writer.close()
        self.outputs.describe(self.name, self.num_rows)
        return self.num_rows


def now() -> float:
    """A clock for durations."""
    return time.perf_counter()
