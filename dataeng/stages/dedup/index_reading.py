"""Reading a dedup index: the old documents of a range of keys, and what is kept of documents.

Keys are sorted, so that looking some up touches only row groups that may hold them; documents are found by their
number. Nothing is ever read whole. An old document's place is a number like that of a new one (`buckets.place_of`),
with the uppermost bit set; then follow the number of its origin (15 bits), of its file (16 bits) and its row (32 bits):
places sort as documents were added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataeng.errors import FormatError
from dataeng.formats.dedup_index import SEGMENTS, Index, IndexFile, Origin, Segment, load_index
from dataeng.stages.dedup.buckets import FIRST_OLD_PLACE

NUMBER_BITS = 48
ROW_BITS = 32
OLD_PER_KEY = 8
"""With how many old documents of its bucket a new one is compared. They were told apart when they were added, so what a
bucket of several has in common is an accident of their templates."""


class IndexReader:
    """Some of an index's documents: those of the origins that a plan names."""

    def __init__(self, path: Path, origins: Sequence[Origin]) -> None:
        self.path, self.origins = path, tuple(origins)
        index: Index = load_index(path)
        numbers = {(origin.name, origin.digest): number for number, origin in enumerate(origins)}
        found = {(origin.name, origin.digest) for origin in index.origins}
        missing = next((name for name, digest in numbers if (name, digest) not in found), None)
        if missing is not None:
            raise FormatError(
                f"segment '{missing}' of the dedup index at {path} was replaced after this run was planned; run again."
            )
        self._segments: list[tuple[Segment, dict[int, int]]] = []
        for segment in index.segments:
            # File number → number of the origin, for files that the plan names.
            wanted = [numbers.get((origin.name, origin.digest)) for origin in segment.origins]
            files = {f.number: number for f in segment.of_kind("documents") if (number := wanted[f.origin]) is not None}
            if files:
                self._segments.append((segment, files))

    def lookup(self, keys: pl.Series) -> pl.DataFrame:
        """Returns ``key, old``: the places of old documents with these keys, of each key the `OLD_PER_KEY` oldest.

        Args:
          keys: UInt64, sorted, without repetitions.
        """
        found = pl.DataFrame(schema={"key": pl.UInt64(), "old": pl.UInt64()})
        if keys.len() == 0:
            return found
        wanted = keys.to_numpy()
        for segment, origins in self._segments:
            for file in segment.of_kind("keys"):
                if int(file.last, 16) < wanted[0] or int(file.first, 16) > wanted[-1]:
                    continue
                for rows in self._rows_with(segment, file, wanted):
                    both = pl.concat([found, _placed(rows, origins)]).sort("key", "old")
                    found = both.group_by("key", maintain_order=True).head(OLD_PER_KEY)
        return found

    def _rows_with(self, segment: Segment, file: IndexFile, wanted: NDArray[np.uint64]) -> Iterator[pl.DataFrame]:
        """Yields ``key, number`` of those of sorted keys that a file holds, from row groups that may hold them."""
        with open_file(self.path, segment, file) as opened:
            column = opened.metadata.schema.names.index("key")
            for group in range(opened.num_row_groups):
                statistics = opened.metadata.row_group(group).column(column).statistics
                start = int(np.searchsorted(wanted, np.uint64(statistics.min), "left"))
                stop = int(np.searchsorted(wanted, np.uint64(statistics.max), "right"))
                if start < stop:
                    rows = read_group(self.path, segment, file, opened, group, ["key", "number"])
                    asked = pl.DataFrame({"key": wanted[start:stop]})
                    yield rows.join(asked, on="key", how="semi", maintain_order="left")

    def documents(self, places: pl.Series, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Yields ``place, segment`` and some columns of old documents.

        Args:
          places: UInt64, as `lookup` returns them.
        """
        wanted = _unpacked(places)
        for segment, origins in self._segments:
            for file in segment.of_kind("documents"):
                if file.number not in origins:
                    continue
                here = wanted.filter((pl.col("origin") == origins[file.number]) & (pl.col("file") == file.number))
                if here.height:
                    name = self.origins[origins[file.number]].name
                    for rows in self._documents_of(segment, file, here.select("place", "at"), columns):
                        yield rows.with_columns(pl.lit(name).alias("segment"))

    def _documents_of(
        self, segment: Segment, file: IndexFile, wanted: pl.DataFrame, columns: Sequence[str]
    ) -> Iterator[pl.DataFrame]:
        """Yields ``place`` and columns of the documents at the rows ``at`` of a file."""
        with open_file(self.path, segment, file) as opened:
            start = 0
            for group in range(opened.num_row_groups):
                stop = start + opened.metadata.row_group(group).num_rows
                here = wanted.filter(pl.col("at").is_between(start, stop, closed="left"))
                if here.height:
                    rows = read_group(self.path, segment, file, opened, group, list(columns))
                    yield rows[here.get_column("at") - start].with_columns(here.get_column("place"))
                start = stop


def open_file(path: Path, segment: Segment, file: IndexFile) -> pq.ParquetFile:
    """Opens a file of the index at ``path``, whose pages are checked as they are read.

    Raises:
      FormatError: it is damaged; names the segment.
    """
    place = path / SEGMENTS / segment.folder / file.name
    try:
        opened = pq.ParquetFile(place, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, segment, file, str(error)) from error
    if opened.metadata.num_rows != file.rows:
        raise _damaged(path, segment, file, f"{opened.metadata.num_rows} rows, expected {file.rows}")
    return opened


def read_group(
    path: Path, segment: Segment, file: IndexFile, opened: pq.ParquetFile, group: int, columns: list[str] | None = None
) -> pl.DataFrame:
    """Reads a row group of a file that `open_file` opened; errors as there."""
    try:
        table = pl.from_arrow(opened.read_row_group(group, columns=columns, use_threads=False))
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, segment, file, str(error)) from error
    assert isinstance(table, pl.DataFrame)
    return table


def _damaged(path: Path, segment: Segment, file: IndexFile, problem: str) -> FormatError:
    return FormatError(
        f"segment '{', '.join(segment.names)}' of the dedup index at {path} is damaged: {file.name} of "
        f"{SEGMENTS}/{segment.folder} cannot be read ({' '.join(problem.split())[:200]}). Run the pipeline that added "
        "the segment again: it restores it."
    )


def _placed(rows: pl.DataFrame, origins: dict[int, int]) -> pl.DataFrame:
    """Returns ``key, old`` of rows ``key, number`` whose file's number stands in ``origins``."""
    known = pl.DataFrame(
        {"file": list(origins), "origin": list(origins.values())}, schema={"file": pl.UInt64(), "origin": pl.UInt64()}
    )
    found = rows.with_columns((pl.col("number") // (1 << ROW_BITS)).alias("file")).join(known, on="file", how="inner")
    old = pl.lit(FIRST_OLD_PLACE, dtype=pl.UInt64) + pl.col("origin") * (1 << NUMBER_BITS) + pl.col("number")
    return found.select("key", old.alias("old"))


def _unpacked(places: pl.Series) -> pl.DataFrame:
    """Returns ``place, origin, file, at`` of old places."""
    number = (pl.col("place") - pl.lit(FIRST_OLD_PLACE, dtype=pl.UInt64)) % (1 << NUMBER_BITS)
    return pl.DataFrame({"place": places.unique().sort()}).with_columns(
        ((pl.col("place") - pl.lit(FIRST_OLD_PLACE, dtype=pl.UInt64)) // (1 << NUMBER_BITS)).alias("origin"),
        (number // (1 << ROW_BITS)).alias("file"),
        (number % (1 << ROW_BITS)).cast(pl.Int64).alias("at"),
    )
