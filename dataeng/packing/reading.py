"""Reading rows of several domains out of packs, a batch at a time, through one compiled loop over the memory maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataeng.errors import FormatError
from dataeng.formats.pack import PackShard
from dataeng.packing.rows import RowTable, allocate

Ints = npt.NDArray[np.int64]

#: Tokens that are unpacked at a time.
UNPACKED_TOKENS = 4_000_000


@dataclass(frozen=True)
class RowBatch:
    """B rows of L + 1 tokens.

    ``tokens`` is int32 [B, L + 1]: inputs are [:, :-1], labels [:, 1:]. ``labels`` is uint8 [B, L], 1 where a label
    counts: not in padding, not where the pack's mask or the packing says no. ``documents`` is int32 [B, L + 1], the
    number of a token's document within its row; padding has a number of its own. ``domains`` is int64 [B].
    """

    tokens: npt.NDArray[np.int32]
    labels: npt.NDArray[np.uint8]
    documents: npt.NDArray[np.int32]
    domains: Ints


@dataclass(frozen=True)
class RowSource:
    """Where a part of a row is from: tokens [start, stop) of a document, which is row ``document`` of docs.parquet."""

    pack: Path
    shard: str
    document: int
    start: int
    stop: int


class RowReader:
    """The rows of K domains, each with its shards and its table of rows; see `dataeng.packing.rows`."""

    def __init__(
        self,
        domains: Sequence[Sequence[PackShard]],
        tables: Sequence[RowTable],
        sequence_length: int,
        vocab_size: int,
        padding_id: int,
    ) -> None:
        from dataeng.kernels import row_reading

        self.sequence_length, self.vocab_size, self.padding_id = sequence_length, vocab_size, padding_id
        self.tables = list(tables)
        self.shards = [shard for shards in domains for shard in shards if len(shard.tokens)]
        found = sorted({shard.tokens.dtype.newbyteorder("=").name for shard in self.shards})
        if len(found) > 1:
            raise FormatError(f"packs of one mixture need one token type; these have {' and '.join(found)}.")
        token_type = found[0] if found else "int32"
        self._itemsize = np.dtype(token_type).itemsize
        self._kept: list[npt.NDArray[Any]] = []  # what the tables of addresses point into
        self._masks = [None if shard.mask is None else _whole(shard.mask, np.uint8) for shard in self.shards]
        self._shards = np.zeros((len(self.shards) + 1, row_reading.SHARD_COLUMNS), np.int64)
        start = 0
        for i, (shard, known) in enumerate(zip(self.shards, self._masks, strict=True)):
            mask = 0 if known is None else self._address(known, np.uint8)
            tokens, offsets = self._address(shard.tokens, token_type), self._address(shard.offsets, np.int64)
            self._shards[i] = start, tokens, mask, offsets, len(shard.lengths)
            start += len(shard.tokens)
        self._shards[-1, row_reading.SHARD_START] = start
        self._domains = np.zeros((len(self.tables), row_reading.DOMAIN_COLUMNS), np.int64)
        start = 0
        for i, (shards, table) in enumerate(zip(domains, self.tables, strict=True)):
            num_tokens = sum(len(shard.tokens) for shard in shards)
            joined = table.waste.method == "concatenate"
            self._domains[i, :3] = start, num_tokens, joined
            if table.row_offsets is not None and table.piece_starts is not None and table.piece_lengths is not None:
                self._domains[i, 3] = self._address(table.row_offsets, np.int64)
                self._domains[i, 4] = self._address(table.piece_starts, np.int64)
                self._domains[i, 5] = self._address(table.piece_lengths, np.int32)
            start += num_tokens

    def _address(self, array: Any, dtype: npt.DTypeLike) -> int:
        """Returns where an array's items lie, one after the other, for as long as this reader lives."""
        whole = _whole(array, dtype)
        self._kept.append(whole)
        return int(whole.ctypes.data)

    def num_labels(self) -> list[int]:
        """Returns, by domain, how many labels one epoch has: what the packs' masks leave of `Waste.num_labels`."""
        from dataeng.kernels import row_reading

        counts = []
        for i, table in enumerate(self.tables):
            start, stop = self._domains[i, 0], self._domains[i, 0] + self._domains[i, 1]
            first, last = np.searchsorted(self._shards[:, 0], [start, stop]).tolist()
            masks = self._masks[first:last]
            if all(mask is None for mask in masks):
                counts.append(table.waste.num_labels)
            elif table.waste.method != "concatenate":
                counts.append(int(row_reading.count_labels(self._domains[i], self._shards, table.waste.num_pieces)))
            else:
                counted = [
                    len(shard.tokens) if mask is None else int(np.count_nonzero(mask))
                    for shard, mask in zip(self.shards[first:last], masks, strict=True)
                ]
                counts.append(sum(counted) - self._is_label(i, self._first_token(i)))
        return counts

    def _first_token(self, domain: int) -> int:
        """The token that the domain's first row begins with, which is no label."""
        starts = self.tables[domain].piece_starts
        return int(self._domains[domain, 0]) + (0 if starts is None else int(starts[0]))

    def _is_label(self, domain: int, token: int) -> int:
        index = int(np.searchsorted(self._shards[:, 0], token, side="right")) - 1
        mask = self._masks[index]
        return 1 if mask is None else int(mask[token - self._shards[index, 0]] != 0)

    def read(
        self,
        domains: Ints,
        rows: Ints,
        out: tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8], npt.NDArray[np.int32]] | None = None,
    ) -> RowBatch:
        """Returns the rows for pairs of domain and row number; ``out`` gives the arrays to be filled.

        Raises `FormatError` naming the file when a token id is outside the vocabulary.
        """
        from dataeng.kernels.row_reading import read_rows

        if out is None:
            shape, length = len(rows), self.sequence_length
            out = (
                np.empty((shape, length + 1), np.int32),
                np.empty((shape, length), np.uint8),
                np.empty((shape, length + 1), np.int32),
            )
        wrong = read_rows(
            domains, rows, self._shards, self._domains, self._itemsize, self.vocab_size, self.padding_id, *out
        )
        if wrong >= 0:
            self._refuse(int(domains[wrong]), int(rows[wrong]), out[0][wrong])
        return RowBatch(*out, domains)

    def _refuse(self, domain: int, row: int, tokens: npt.NDArray[np.int32]) -> None:
        position = int(np.argmax((tokens < 0) | (tokens >= self.vocab_size)))
        filled = 0
        for source in self.sources(domain, row):
            filled += source.stop - source.start
            if filled > position:
                break
        shard = next(s for s in self.shards if (s.folder, s.name) == (source.pack, source.shard))
        raise FormatError(
            f"{shard.path}: token id {int(tokens[position])} in document {source.document}, "
            f"vocabulary {self.vocab_size}; the pack is damaged. Restore or rebuild it."
        )

    def sources(self, domain: int, row: int) -> list[RowSource]:
        """Returns the documents of a row, in their order in it."""
        table, base = self.tables[domain], int(self._domains[domain, 0])
        if table.row_offsets is None or table.piece_starts is None or table.piece_lengths is None:
            start = row * self.sequence_length
            spans = [(start, min(start + self.sequence_length + 1, int(self._domains[domain, 1])))]
        else:
            pieces = slice(*table.row_offsets[row : row + 2].tolist())
            starts, lengths = table.piece_starts[pieces], table.piece_lengths[pieces]
            spans = [(start, start + size) for start, size in zip(starts.tolist(), lengths.tolist(), strict=True)]
        found = []
        for start, stop in spans:
            token, end = base + start, base + stop
            while token < end:
                index = int(np.searchsorted(self._shards[:, 0], token, side="right")) - 1
                shard, local = self.shards[index], token - int(self._shards[index, 0])
                document = int(np.searchsorted(shard.offsets, local, side="right")) - 1
                first, last = shard.offsets[document : document + 2].tolist()
                count = min(end - token, last - local)
                found.append(RowSource(shard.folder, shard.name, document, local - first, local - first + count))
                token += count
        return found


def _whole(values: Any, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Returns values as one array. What yields parts of one (Parquet) is unpacked, to disk when it is large."""
    if isinstance(values, np.ndarray):
        return np.ascontiguousarray(values, dtype)
    whole = allocate(len(values), dtype)
    for first in range(0, len(values), UNPACKED_TOKENS):
        part = values[first : first + UNPACKED_TOKENS]
        whole[first : first + len(part)] = part
    return whole
