"""Merging dedup indexes: the segments of several in one, as they are or rewritten as one segment.

A rewritten segment keeps apart what each run added (its origins, in order): evidence names them, and a run that is
repeated still leaves out its own. Memory is that of one range of keys.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from dataeng.errors import ConfigError
from dataeng.formats.atomic import AtomicFile, commit_all
from dataeng.formats.dedup_index import (
    SEGMENTS,
    Index,
    IndexFile,
    NewFile,
    Origin,
    Segment,
    check_method,
    has_index,
    load_index,
    publish,
)
from dataeng.stages.dedup.index_reading import ROW_BITS, open_file, read_group
from dataeng.stages.dedup.record_index import GROUP_DOCUMENTS, GROUP_KEYS, described, segment_writer

FILE_DOCUMENTS = 1 << 20
"""Documents of a rewritten file, at most (but for a file that was larger already)."""
RANGE_KEYS = 1 << 22
"""Keys of a rewritten file, on average."""

Source = tuple[Path, Segment]


def merge_indexes(paths: Sequence[Path], output: Path, compact: str | None = None) -> Index:
    """Makes one index of several (or of one); the old ones stay as they are.

    Args:
      compact: rewrite all as one segment of this name.

    Raises:
      ConfigError: there is an index at ``output``, or two runs that are not the same added segments of one name.
      PlanError: the indexes are of different methods or parameters.
      FormatError: a file is damaged.
    """
    if has_index(output):
        raise ConfigError(f"there is a dedup index at {output} already; merge into a new folder.")
    indexes = [load_index(path) for path in paths]
    for path, index in zip(paths, indexes, strict=True):
        check_method(index, path, indexes[0].method, indexes[0].parameters)
    empty = indexes[0].model_copy(update={"segments": ()})
    sources = list(_distinct(paths, indexes))
    if compact is None:
        for path, segment in sources:
            name = segment.folder.rpartition("-")[0]
            publish(output, empty, name, segment.origins, [_as_it_is(path, segment, file) for file in segment.files])
        return load_index(output)
    building = output / SEGMENTS / f".{compact}.building"
    try:
        files = [*_documents(sources, building), *_keys(sources, building)]
        origins = [origin for _, segment in sources for origin in segment.origins]
        publish(output, empty, compact, origins, files)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return load_index(output)


def _distinct(paths: Sequence[Path], indexes: Sequence[Index]) -> Iterator[Source]:
    """Yields the segments of all indexes; one that several of them have, once."""
    seen: dict[str, tuple[Path, Origin]] = {}
    for path, index in zip(paths, indexes, strict=True):
        for segment in index.segments:
            known = [origin for origin in segment.origins if origin.name in seen]
            other = next((o for o in known if seen[o.name][1].digest != o.digest), None)
            if other is not None or 0 < len(known) < len(segment.origins):
                name = (other or known[0]).name
                raise ConfigError(
                    f"{seen[name][0]} and {path} both have a segment '{name}', and not the same documents in it (or "
                    "merged with others in one of them); such segments cannot be merged."
                )
            if not known:
                seen |= {origin.name: (path, origin) for origin in segment.origins}
                yield path, segment


def _as_it_is(path: Path, segment: Segment, file: IndexFile) -> NewFile:
    place = path / SEGMENTS / segment.folder / file.name
    return NewFile(place, file.kind, file.number, file.rows, file.sha256, file.first, file.last, file.origin)


def _numbering(sources: Sequence[Source]) -> dict[tuple[int, int], tuple[int, int, int]]:
    """Returns (segment, its file of documents) → (origin, new file, first row there), files in order of origin.

    Small files of one origin are put together.
    """
    numbering: dict[tuple[int, int], tuple[int, int, int]] = {}
    number, origins = -1, 0
    for at, (_, segment) in enumerate(sources):
        for origin in range(len(segment.origins)):
            rows = FILE_DOCUMENTS
            for file in segment.of_kind("documents"):
                if file.origin != origin:
                    continue
                if rows + file.rows > FILE_DOCUMENTS:
                    number, rows = number + 1, 0
                numbering[at, file.number] = (origins + origin, number, rows)
                rows += file.rows
        origins += len(segment.origins)
    return numbering


def _documents(sources: Sequence[Source], folder: Path) -> Iterator[NewFile]:
    """Writes all documents; yields the files."""
    numbering = _numbering(sources)
    groups: dict[tuple[int, int], list[tuple[Source, IndexFile]]] = {}
    for at, source in enumerate(sources):
        files = {file.number: file for file in source[1].of_kind("documents")}
        for (segment, old), (origin, number, _) in numbering.items():
            if segment == at:
                groups.setdefault((origin, number), []).append((source, files[old]))
    for (origin, number), members in sorted(groups.items()):
        tables = (table for (path, segment), file in members for table in _tables(path, segment, file))
        yield _written(folder / f"documents-{number:05d}.parquet", tables, GROUP_DOCUMENTS, origin)


def _tables(path: Path, segment: Segment, file: IndexFile) -> Iterator[pl.DataFrame]:
    with open_file(path, segment, file) as opened:
        for group in range(opened.num_row_groups):
            yield read_group(path, segment, file, opened, group)


def _keys(sources: Sequence[Source], folder: Path) -> Iterator[NewFile]:
    """Writes all keys, range by range, with the documents' new numbers; yields the files."""
    numbering = _numbering(sources)
    total = sum(file.rows for _, segment in sources for file in segment.of_kind("keys"))
    ranges = max(1, -(-total // RANGE_KEYS))
    bounds = [(1 << 64) * number // ranges for number in range(ranges + 1)]
    for number, (low, high) in enumerate(itertools.pairwise(bounds)):
        found = [
            rows
            for at, source in enumerate(sources)
            for rows in _keys_between(*source, low, high - 1, {o: n for (s, o), n in numbering.items() if s == at})
        ]
        table = pl.concat(found).sort("key", "number") if found else pl.DataFrame()
        if table.height:
            yield _written(folder / f"keys-{number:05d}.parquet", iter([table]), GROUP_KEYS)


def _keys_between(
    path: Path, segment: Segment, low: int, high: int, numbering: dict[int, tuple[int, int, int]]
) -> Iterator[pl.DataFrame]:
    """Yields ``key, number`` of a range of keys, with new numbers."""
    moved = pl.DataFrame(
        {
            "file": list(numbering),
            "start": [(new << ROW_BITS) + row for _, new, row in numbering.values()],
        },
        schema={"file": pl.UInt64(), "start": pl.UInt64()},
    )
    for file in segment.of_kind("keys"):
        if int(file.last, 16) < low or int(file.first, 16) > high:
            continue
        for table in _tables(path, segment, file):
            here = table.filter(pl.col("key").is_between(pl.lit(low, pl.UInt64), pl.lit(high, pl.UInt64)))
            numbered = here.with_columns((pl.col("number") // (1 << ROW_BITS)).alias("file"))
            placed = numbered.join(moved, on="file", how="inner")
            yield placed.select("key", (pl.col("start") + pl.col("number") % (1 << ROW_BITS)).alias("number"))


def _written(path: Path, tables: Iterator[pl.DataFrame], group_rows: int, origin: int = 0) -> NewFile:
    first = next(tables)
    file = AtomicFile(path)
    try:
        writer = segment_writer(file, first.to_arrow().schema)
        writer.write_table(first.to_arrow(), row_group_size=group_rows)
        for table in tables:
            writer.write_table(table.to_arrow(), row_group_size=group_rows)
        writer.close()
        commit_all([file])
    except BaseException:
        file.discard()
        raise
    return described(path, file.sha256, origin)
