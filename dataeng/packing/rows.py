"""Which documents, or pieces of them, make up each row of a domain, and what that costs.

A row has L + 1 token slots: L inputs, and the L labels that are the tokens after them.

- ``concatenate``: all documents end to end, cut into rows that overlap by one token. Every token but the very first
  is a label once. Documents are cut wherever a row ends; only the last row is padded.
- ``best-fit``: a document of up to L + 1 tokens is never cut. Longer ones are cut into rows, which overlap by one
  token; what is left of them, and all shorter ones, go largest first into the fullest row that has room (Ding et al.,
  arXiv 2404.10830). What stays free is padded. Every token but the first of each document is a label once.
- ``aligned``: whole documents in their order; where the next one does not fit, the row is padded and a new one begins.
  Every row starts at a document's start. Of a document of more than L + 1 tokens only the first L + 1 are taken.

In the last two, no token is the label of another document's token. The tables are a pure function of the documents'
lengths (and order), made in windows of documents, so that memory does not grow with them: a table beyond `SPILL_BYTES`
is a temporary file, mapped.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from dataeng.errors import ConfigError, nearest

Ints = npt.NDArray[np.int64]
Method = Literal["concatenate", "best-fit", "aligned"]
METHODS: tuple[Method, ...] = get_args(Method)

#: Documents that best-fit looks at together. A curriculum's rows stay near their place with the smaller one.
WINDOW_DOCUMENTS = 1 << 17
ORDERED_WINDOW_DOCUMENTS = 1 << 12
#: Larger arrays of a table go to a temporary file.
SPILL_BYTES = 256_000_000


@dataclass(frozen=True, kw_only=True)
class Waste:
    """What a packing costs in one epoch: num_rows · (L + 1) = num_tokens - left_out + repeated + padding."""

    method: Method
    sequence_length: int
    num_documents: int
    num_tokens: int
    num_rows: int
    num_pieces: int  # documents or parts of one, over all rows
    num_labels: int  # masks in the packs not counted
    padding: int  # token slots
    repeated: int  # tokens that end one row and begin another
    left_out: int  # tokens in no row
    documents_cut: int  # not whole in any row

    @property
    def num_slots(self) -> int:
        """Token slots of all rows."""
        return self.num_rows * (self.sequence_length + 1)

    @property
    def padding_share(self) -> float:
        """Share of token slots that hold nothing."""
        return self.padding / self.num_slots if self.num_rows else 0.0

    @property
    def label_share(self) -> float:
        """Share of predictions that count: what is left of the computing."""
        return self.num_labels / (self.num_rows * self.sequence_length) if self.num_rows else 0.0

    @property
    def cut_share(self) -> float:
        """Share of documents that are not whole in any row."""
        return self.documents_cut / self.num_documents if self.num_documents else 0.0

    @property
    def left_out_share(self) -> float:
        """Share of tokens that are in no row."""
        return self.left_out / self.num_tokens if self.num_tokens else 0.0

    @property
    def documents_per_row(self) -> float:
        """Documents, whole or in part, in the mean row."""
        return self.num_pieces / self.num_rows if self.num_rows else 0.0


@dataclass(frozen=True)
class RowTable:
    """The rows of one domain. Row r has pieces ``row_offsets[r]`` to ``row_offsets[r + 1]``.

    A piece is ``piece_lengths`` (int32) tokens of one document, from ``piece_starts`` (int64, counted over all shards)
    on. All three are None where row r simply is tokens [r·L, r·L + L + 1).
    """

    waste: Waste
    row_offsets: Ints | None = None  # [rows + 1]
    piece_starts: Ints | None = None  # [pieces]
    piece_lengths: npt.NDArray[np.int32] | None = None  # [pieces]

    @property
    def num_rows(self) -> int:
        """Rows of an epoch."""
        return self.waste.num_rows


def pack_rows(
    method: str,
    lengths: Sequence[npt.NDArray[np.int32]],
    sequence_length: int,
    order: Ints | None = None,
    window_documents: int | None = None,
) -> RowTable:
    """Returns the rows of a domain whose shards hold documents of these ``lengths`` (in tokens).

    ``order`` is a curriculum: the documents' numbers, counted over all shards, as they are to come. Rows then come in
    that order, too; with ``best-fit``, to within a window of documents. Raises `ConfigError` for an unknown method or a
    sequence length below 1.
    """
    chosen = checked_method(method)
    if sequence_length < 1:
        raise ConfigError(f"the sequence length is {sequence_length}; expected at least 1.")
    if chosen == "concatenate" and order is None:
        return RowTable(_joined_waste(lengths, sequence_length))
    from dataeng.kernels import packing

    kernels: dict[Method, Any] = {
        "concatenate": packing.concatenated,
        "best-fit": packing.best_fit,
        "aligned": packing.aligned,
    }
    capacity = sequence_length + 1
    most = _most_pieces(chosen, lengths, sequence_length)
    piece_starts, piece_lengths = allocate(most, np.int64), allocate(most, np.int32)
    row_offsets = allocate(most + 1, np.int64)
    row_offsets[0] = 0
    state = np.zeros(packing.STATE_SIZE, np.int64)
    state[packing.LAST] = -1
    if window_documents is None:
        window_documents = WINDOW_DOCUMENTS if order is None else ORDERED_WINDOW_DOCUMENTS
    for starts, sizes in _windows(lengths, order, window_documents):
        kernels[chosen](starts, sizes, capacity, state, piece_starts, piece_lengths, row_offsets)
    num_pieces, num_rows = int(state[packing.PIECES]), int(state[packing.ROWS])
    num_tokens, left_out = _total(lengths), int(state[packing.LEFT_OUT])
    placed = sum(int(part.sum(dtype=np.int64)) for part in _parts(piece_lengths[:num_pieces]))
    waste = Waste(
        method=chosen,
        sequence_length=sequence_length,
        num_documents=sum(len(part) for part in lengths),
        num_tokens=num_tokens,
        num_rows=num_rows,
        num_pieces=num_pieces,
        num_labels=max(0, num_tokens - 1) if chosen == "concatenate" else placed - num_pieces,
        padding=num_rows * capacity - placed,
        repeated=placed - (num_tokens - left_out),
        left_out=left_out,
        documents_cut=int(state[packing.CUT]),
    )
    return RowTable(waste, row_offsets[: num_rows + 1], piece_starts[:num_pieces], piece_lengths[:num_pieces])


def checked_method(method: str) -> Method:
    """Returns ``method`` if it is one; raises `ConfigError` with the nearest name otherwise."""
    for known in METHODS:
        if method == known:
            return known
    raise ConfigError(f"packing '{method}' is unknown{nearest(method, METHODS)}")


def _total(lengths: Sequence[npt.NDArray[np.int32]]) -> int:
    return sum(int(part.sum(dtype=np.int64)) for part in lengths)


def _parts(values: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yields an array in parts of a few MB: a mapped one is not to be read into memory at once."""
    for first in range(0, len(values), WINDOW_DOCUMENTS):
        yield values[first : first + WINDOW_DOCUMENTS]


def _most_pieces(method: Method, lengths: Sequence[npt.NDArray[np.int32]], sequence_length: int) -> int:
    """Returns how many pieces there are, at most."""
    num_documents = sum(len(part) for part in lengths)
    if method == "aligned":
        return num_documents
    if method == "concatenate":  # a piece begins with a document or with a row
        return num_documents + -(-_total(lengths) // sequence_length)
    further = (np.maximum(part - 2, 0) // sequence_length for whole in lengths for part in _parts(whole))
    return num_documents + sum(int(part.sum(dtype=np.int64)) for part in further)


def allocate(count: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Returns an array to be written: in memory, or on disk when it is large."""
    if count * np.dtype(dtype).itemsize <= SPILL_BYTES:
        return np.empty(count, dtype)
    with tempfile.TemporaryFile(prefix="dataeng-rows-") as file:  # it is gone once nobody maps it any more
        return np.asarray(np.memmap(file, dtype, "w+", shape=(count,)))


def _windows(
    lengths: Sequence[npt.NDArray[np.int32]], order: Ints | None, window_documents: int
) -> Iterator[tuple[Ints, Ints]]:
    """Yields (first tokens, numbers of tokens) of so many documents at a time, across shards or in ``order``."""
    if order is not None:
        sizes = np.concatenate([np.asarray(part, np.int64) for part in lengths])
        starts = np.cumsum(sizes) - sizes
        for first in range(0, len(order), window_documents):
            chosen = order[first : first + window_documents]
            yield starts[chosen], sizes[chosen]
        return
    taken = 0
    waiting: list[npt.NDArray[np.int32]] = []
    num_waiting = 0

    def window() -> tuple[Ints, Ints]:
        sizes = np.concatenate(waiting).astype(np.int64)
        return taken + np.cumsum(sizes) - sizes, sizes

    for whole in lengths:
        first = 0
        while first < len(whole):
            part = whole[first : first + window_documents - num_waiting]
            waiting.append(part)
            first += len(part)
            num_waiting += len(part)
            if num_waiting == window_documents:
                starts, sizes = window()
                yield starts, sizes
                taken += int(sizes.sum())
                waiting, num_waiting = [], 0
    if waiting:
        yield window()


def _joined_waste(lengths: Sequence[npt.NDArray[np.int32]], sequence_length: int) -> Waste:
    """What concatenation costs, counted without making a table."""
    num_tokens = _total(lengths)
    num_rows = -(-(num_tokens - 1) // sequence_length) if num_tokens > 1 else num_tokens
    pieces = cut = 0
    for starts, sizes in _windows(lengths, None, WINDOW_DOCUMENTS):
        first, last = starts[sizes > 0], (starts + sizes - 1)[sizes > 0]
        first_row = np.maximum(-(-first // sequence_length) - 1, 0)  # a token at a row's border is in both rows
        last_row = np.minimum(last // sequence_length, num_rows - 1)
        pieces += int((last_row - first_row + 1).sum())
        cut += int((last > first // sequence_length * sequence_length + sequence_length).sum())
    return Waste(
        method="concatenate",
        sequence_length=sequence_length,
        num_documents=sum(len(part) for part in lengths),
        num_tokens=num_tokens,
        num_rows=num_rows,
        num_pieces=pieces,
        num_labels=max(0, num_tokens - 1),
        padding=num_rows * (sequence_length + 1) - num_tokens - max(0, num_rows - 1),
        repeated=max(0, num_rows - 1),
        left_out=0,
        documents_cut=cut,
    )
