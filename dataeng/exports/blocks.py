"""Reading packs piece by piece: at most a few million tokens in memory, however large a shard is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dataeng.exports.corpus import Domain
from dataeng.formats.pack import PackShard

BLOCK_TOKENS = 1 << 22


@dataclass(frozen=True)
class Rows:
    """Rows of one length: ``tokens`` [R, N] of the pack's type, ``mask`` uint8 [R, N] or None."""

    tokens: npt.NDArray[Any]
    mask: npt.NDArray[np.uint8] | None


def token_blocks(shard: PackShard, start: int = 0, stop: int | None = None) -> Iterator[npt.NDArray[Any]]:
    """Yields tokens ``start`` to ``stop`` of a shard in blocks."""
    stop = len(shard.tokens) if stop is None else stop
    for begin in range(start, stop, BLOCK_TOKENS):
        yield np.asarray(shard.tokens[begin : min(begin + BLOCK_TOKENS, stop)])


def mask_blocks(shard: PackShard, start: int = 0, stop: int | None = None) -> Iterator[npt.NDArray[np.uint8]]:
    """Yields the loss mask of tokens ``start`` to ``stop``; ones where the shard has none."""
    stop = len(shard.tokens) if stop is None else stop
    for begin in range(start, stop, BLOCK_TOKENS):
        yield mask_of(shard, begin, min(begin + BLOCK_TOKENS, stop))


def mask_of(shard: PackShard, start: int, stop: int) -> npt.NDArray[np.uint8]:
    """Returns the loss mask of tokens ``start`` to ``stop`` as uint8; ones where the shard has none."""
    if shard.mask is None:
        return np.ones(stop - start, np.uint8)
    return np.asarray(shard.mask[start:stop])


def document_ranges(offsets: npt.NDArray[np.int64], max_tokens: int) -> Iterator[tuple[int, int]]:
    """Yields ranges ``first, last`` of documents with up to ``max_tokens`` tokens; a longer document comes alone.

    ``offsets`` is int64[documents + 1] in tokens (or in whatever unit ``max_tokens`` counts).
    """
    first, num_documents = 0, len(offsets) - 1
    while first < num_documents:
        last = int(np.searchsorted(offsets, int(offsets[first]) + max_tokens, side="right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last


def row_blocks(domain: Domain, length: int, max_rows: int, masked: bool) -> Iterator[Rows]:
    """Yields the domain's tokens, one document after the other, in rows of ``length`` tokens, ``max_rows`` at a time.

    Rows go on from one shard to the next; the last ``num_tokens % length`` tokens, which fill no row, are left out.
    """
    wanted = max_rows * length
    tokens: list[npt.NDArray[Any]] = []
    masks: list[npt.NDArray[np.uint8]] = []
    held = 0
    for shard in domain.shards():
        start = 0
        while start < len(shard.tokens):
            stop = min(start + wanted - held, len(shard.tokens))
            tokens.append(np.asarray(shard.tokens[start:stop]))
            if masked:
                masks.append(mask_of(shard, start, stop))
            held, start = held + stop - start, stop
            if held == wanted:
                yield _rows(tokens, masks, length)
                tokens, masks, held = [], [], 0
    if held >= length:
        yield _rows(tokens, masks, length)


def _rows(tokens: list[npt.NDArray[Any]], masks: list[npt.NDArray[np.uint8]], length: int) -> Rows:
    flat, mask = np.concatenate(tokens), np.concatenate(masks) if masks else None
    used = len(flat) // length * length
    return Rows(flat[:used].reshape(-1, length), None if mask is None else mask[:used].reshape(-1, length))


class DocumentTable:
    """The rows of a Parquet file in order, so many at a time."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        self._batches = pq.ParquetFile(path).iter_batches(batch_size=8192, columns=columns)
        self._schema = pa.schema([field for field in pq.read_schema(path) if field.name in columns])
        self._left: list[pa.RecordBatch] = []

    def take(self, count: int) -> pa.Table:
        """Returns the next ``count`` rows. There are as many rows as documents (`corpus.documents_file`)."""
        taken: list[pa.RecordBatch] = []
        while count:
            batch = self._left.pop() if self._left else next(self._batches)
            if batch.num_rows > count:
                self._left.append(batch.slice(count))
                batch = batch.slice(0, count)
            taken.append(batch)
            count -= batch.num_rows
        return pa.Table.from_batches(taken, self._schema)
