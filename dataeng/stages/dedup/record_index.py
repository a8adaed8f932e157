"""Adds the documents that a deduplicating stage left to a dedup index, as a segment of its own.

    documents ─► id, url, keys, shingles ─┐ by place
                                          ▼
                       documents: a file of them, numbered ─┐ by range of keys
                                                            ▼
                                    keys: a file of them, sorted ─► copied into the index when all are there

Nobody writes this stage into a pipeline: the planner puts it behind one whose `dedup_index` says `add: true`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, SerializeAsAny

from dataeng.document import row_bytes
from dataeng.formats.dedup_index import Index, NewFile, Origin, content_digest, publish
from dataeng.stage import Columns, ExchangeStage, OutputFiles, Slices
from dataeng.stages.dedup.buckets import key_partition, place_of
from dataeng.stages.dedup.connected import node_partition
from dataeng.stages.dedup.index_option import DedupIndex

DOCUMENTS, KEYS = range(2)
BLOCK_ROWS = 1 << 16
"""So many neighbours of a part go into the same file."""
GROUP_DOCUMENTS = 512
"""Documents of a row group, some 3 MB of shingles: whoever looks for one reads them all."""
GROUP_KEYS = 1 << 16
INFORMATION = ("id", "url", "date", "domain")
"""What is known of old documents besides what they are compared by."""


class Indexed(Protocol):
    """A deduplicating stage with an index."""

    dedup_index: DedupIndex | None

    def index_method(self) -> str:
        """Returns the name of the method that makes the keys."""

    def index_parameters(self) -> Mapping[str, object]:
        """Returns what keys and shingles depend on."""

    def index_rows(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Returns a row per document: ``keys`` (List(UInt64)) and what they are compared by."""


class RecordIndex(ExchangeStage):
    """Adds the documents that are left to a dedup index."""

    of: SerializeAsAny[ExchangeStage] = Field(description="The stage that left them")
    folder: str = Field(description="Where in the run folder files are made")

    def _indexed(self) -> Indexed:
        return self.of  # type: ignore[return-value]

    @property
    def _index(self) -> DedupIndex:
        index = self._indexed().dedup_index
        assert index is not None
        return index

    def needed_kernels(self) -> tuple[str, ...]:
        return self.of.needed_kernels()

    def columns(self) -> Columns:
        return Columns(reads=(*INFORMATION, "text"))

    def steps(self) -> tuple[str, ...]:
        return ("documents", "keys")

    def emit(self, batch: pl.DataFrame) -> pl.DataFrame:
        known = batch.select(place_of().alias("place"), *INFORMATION, row_bytes(batch).alias("num_bytes"))
        rows = known.hstack(self._indexed().index_rows(batch)).filter(pl.col("keys").list.len() > 0)
        partition = node_partition(pl.col("place") // BLOCK_ROWS, self.num_partitions)
        return rows.with_columns(partition.alias("partition"))

    def reduce_slices(self, step: int, slices: Slices, outputs: OutputFiles) -> Iterator[pl.DataFrame]:
        if step == DOCUMENTS:
            yield from self._write_documents(slices, outputs)
        else:
            self._write_keys(slices, outputs)

    def _write_documents(self, slices: Slices, outputs: OutputFiles) -> Iterator[pl.DataFrame]:
        """Writes the documents of a partition; yields their keys with their numbers."""
        writer: pq.ParquetWriter | None = None
        row = number = 0
        for table in slices:
            if writer is None:
                number = int(table.get_column("partition")[0])
                schema = table.clear().drop("partition", "place", "keys").to_arrow().schema
                writer = segment_writer(outputs.create(self._file("documents", number)), schema)
            kept = table.drop("partition", "place", "keys")
            writer.write_table(kept.to_arrow(), row_group_size=GROUP_DOCUMENTS)
            numbered = table.select("keys").with_columns(
                (pl.int_range(pl.len(), dtype=pl.UInt64) + (number * (1 << 32) + row)).alias("number")
            )
            keys = numbered.explode("keys").select(pl.col("keys").alias("key"), "number")
            yield keys.with_columns(key_partition(pl.col("key"), self.num_partitions).alias("partition"))
            row += table.height
        if writer is not None:
            writer.close()

    def _write_keys(self, slices: Slices, outputs: OutputFiles) -> None:
        table = slices.collect()
        assert table is not None
        number = int(table.get_column("partition")[0])
        rows = table.select("key", "number").sort("key", "number")
        writer = segment_writer(outputs.create(self._file("keys", number)), rows.to_arrow().schema)
        writer.write_table(rows.to_arrow(), row_group_size=GROUP_KEYS)
        writer.close()

    def _file(self, kind: str, number: int) -> str:
        return f"{self.folder}/{kind}-{number:05d}.parquet"

    def finish(self, run_dir: Path, files: Mapping[str, str]) -> list[Path]:
        """Copies the segment into the index and names it in the manifest."""
        new = [described(run_dir / name, sha256) for name, sha256 in files.items()]
        method, option = self._indexed(), self._index
        index = Index(method=method.index_method(), parameters=dict(method.index_parameters()))
        assert option.segment is not None
        origin = Origin(
            name=option.segment,
            digest=content_digest(new, index.parameters),
            documents=sum(file.rows for file in new if file.kind == "documents"),
            text_bytes=sum(_text_bytes(file.path) for file in new if file.kind == "documents"),
            run=option.run,
        )
        return [publish(option.path, index, option.segment, [origin], new)]


def described(path: Path, sha256: str, origin: int = 0) -> NewFile:
    """Returns what an index's manifest says of a file; its name says what kind it is."""
    kind: Literal["documents", "keys"] = "documents" if path.name.startswith("documents-") else "keys"
    number = int(path.stem.partition("-")[2])
    name = "id" if kind == "documents" else "key"
    with pq.ParquetFile(path) as file:
        rows, groups = file.metadata.num_rows, file.num_row_groups
        first = file.read_row_group(0, columns=[name])[name][0].as_py()
        last = file.read_row_group(groups - 1, columns=[name])[name][-1].as_py()
    if kind == "keys":
        first, last = f"{first:016x}", f"{last:016x}"
    return NewFile(path, kind, number, rows, sha256, first, last, origin)


def _text_bytes(path: Path) -> int:
    return int(pl.read_parquet(path, columns=["num_bytes"]).get_column("num_bytes").sum())


def segment_writer(file: Any, schema: pa.Schema) -> pq.ParquetWriter:
    """Opens a Parquet file whose pages carry checksums; hashes, which are sorted, are kept as differences."""
    differences = {
        path: "DELTA_BINARY_PACKED"
        for path in ("key", "number", "shingles.list.element")
        if path.partition(".")[0] in schema.names
    }
    return pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        use_dictionary=["domain"],
        column_encoding=differences,
        write_page_checksum=True,
    )
