"""From tokens back to documents: which document a token of a pack belongs to, and which row of ``docs.parquet`` it is.

Memory is bounded by a batch of rows and by the shard's index, however many documents there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dataeng.errors import FormatError
from dataeng.formats.pack import Pack, PackShard
from dataeng.formats.parquet_tokens import open_parquet

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 1 << 16
TOKEN_COLUMNS = ("tokens", "mask")


@dataclass(frozen=True)
class PackedDocument:
    """One document of a pack: where its tokens are, and what is known about it."""

    shard: str
    index: int
    """In the shard: row of ``docs.parquet``."""
    start: int
    """Its first token, counted from the beginning of the pack."""
    num_tokens: int
    row: dict[str, Any]
    """Columns of ``docs.parquet``: id, url, host, source, source_offset, language …; empty without such a file."""


def document_at(pack: Pack, offset: int) -> PackedDocument:
    """Returns the document that token number ``offset`` of a pack belongs to.

    Raises:
      FormatError: there is no such token, or the file with the rows is damaged.
    """
    return documents_between(pack, offset, offset + 1)[0]


def documents_between(pack: Pack, start: int, stop: int) -> list[PackedDocument]:
    """Returns the documents that tokens [start, stop) of a pack belong to, in order: what a training row is made of."""
    if not 0 <= start < stop <= int(pack.starts[-1]):
        raise FormatError(
            f"tokens {start:,} to {stop:,} are not in {pack.folder}, which has {int(pack.starts[-1]):,} tokens."
        )
    found: list[PackedDocument] = []
    for number, shard in enumerate(pack.shards):
        begin = int(pack.starts[number])
        first, last = max(start - begin, 0), min(stop - begin, len(shard.tokens))
        if first >= last:
            continue
        low = int(np.searchsorted(shard.offsets, first, side="right")) - 1
        high = int(np.searchsorted(shard.offsets, last, side="left"))
        indexes = [index for index in range(low, high) if shard.lengths[index]]
        rows = document_rows(shard, indexes)
        found += [
            PackedDocument(shard.name, index, begin + int(shard.offsets[index]), int(shard.lengths[index]), row)
            for index, row in zip(indexes, rows, strict=True)
        ]
    return found


def find_document(pack: Pack, wanted: str) -> list[PackedDocument]:
    """Returns the documents of a pack with an id (or with an id that begins so, or with a URL)."""
    import pyarrow.compute as pc

    found = []
    for number, shard in enumerate(pack.shards):
        indexes = []
        for first, table in _batches(shard, ("id", "url")):
            hits = pc.starts_with(table.column("id"), wanted)
            if "url" in table.column_names:
                hits = pc.or_(hits, pc.fill_null(pc.equal(table.column("url"), wanted), fill_value=False))
            indexes += [first + int(i) for i in np.flatnonzero(hits.to_numpy(zero_copy_only=False))]
        rows = document_rows(shard, indexes)
        begin = int(pack.starts[number])
        found += [
            PackedDocument(shard.name, index, begin + int(shard.offsets[index]), int(shard.lengths[index]), row)
            for index, row in zip(indexes, rows, strict=True)
        ]
    return found


def document_rows(shard: PackShard, indexes: Sequence[int]) -> list[dict[str, Any]]:
    """Returns rows of a shard's documents by their numbers; empty ones where the shard has no file with them."""
    wanted = sorted(set(indexes))
    rows: dict[int, dict[str, Any]] = {}
    path = documents_file(shard)
    if path is None:
        return [{} for _ in indexes]
    file = open_parquet(path)
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    if wanted and not 0 <= wanted[0] <= wanted[-1] < int(starts[-1]):
        raise FormatError(f"{path} has {int(starts[-1])} rows; it lacks document {wanted[-1]}. Restore the file.")
    groups = np.searchsorted(starts, np.array(wanted, np.int64), side="right") - 1
    for group in np.unique(groups):
        of_group = {wanted[i] for i in np.flatnonzero(groups == group)}
        for first, batch in _batches(shard, None, int(group)):
            first += int(starts[group])
            for index in [i for i in of_group if first <= i < first + batch.num_rows]:
                rows[index] = batch.slice(index - first, 1).to_pylist()[0]
                of_group.discard(index)
            if not of_group:
                break
    return [rows[index] for index in indexes]


def documents_file(shard: PackShard) -> Path | None:
    """Returns the file that has a row per document: ``docs.parquet``, or the pack's own Parquet file."""
    kind = next((kind for kind in ("docs", "parquet") if kind in shard.shard.files), None)
    return shard.folder / shard.shard.files[kind].name if kind else None


def _batches(
    shard: PackShard, columns: Sequence[str] | None, group: int | None = None
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yields batches of rows, of all row groups or one, with the number of each one's first row."""
    import pyarrow as pa

    path = documents_file(shard)
    if path is None:
        raise FormatError(f"{shard.folder / shard.name} has no docs.parquet: its documents have no names.")
    file = open_parquet(path)
    names = [
        name
        for name in file.schema_arrow.names
        if name not in TOKEN_COLUMNS and (columns is None or name in columns)
    ]  # fmt: skip
    first = 0
    try:
        groups = None if group is None else [group]
        for batch in file.iter_batches(BATCH_ROWS, columns=names, row_groups=groups):
            yield first, batch
            first += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise FormatError(f"cannot read {path}: {' '.join(str(error).split())[:200]}") from error
