"""Rows of tokens out of memory maps: one call a batch, whatever domains, shards and documents its rows come from.

All shards of all domains are one sequence of tokens. Where they lie is described by two tables of int64, one line a
shard and one a domain, that hold addresses: a kernel cannot take a list of arrays without looking at each of them in
every call. Whoever makes the tables keeps the arrays alive and has checked their bounds (`dataeng.packing.reading`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, kernel
from dataeng.kernels.text import signed

#: Columns of the table of shards: its first token; addresses of its tokens, its mask (0: none) and its documents'
#: offsets (int64, one more than documents); number of documents. One more line ends it.
SHARD_START, TOKENS, MASK, OFFSETS, NUM_DOCUMENTS = range(5)
SHARD_COLUMNS = 5
#: Columns of the table of domains: its first token and number of tokens, whether labels may be of another document than
#: their inputs, and addresses of its rows' offsets, pieces' starts and lengths (0: rows follow one another).
DOMAIN_START, NUM_TOKENS, JOINED, ROW_OFFSETS, PIECE_STARTS, PIECE_LENGTHS = range(6)
DOMAIN_COLUMNS = 6


def _pointer(typing_context: Any, address: Any) -> Any:
    """Turns an int64 into an untyped pointer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.voidptr(types.int64), generate


pointer: Callable[[int], Any] = intrinsic(_pointer)  # type: ignore[assignment]


@called
def shard_of(shards: NDArray[np.int64], token: int) -> int:
    """Returns the shard that holds a token, by bisection."""
    low, high = 0, len(shards) - 1
    while high - low > 1:
        middle = (low + high) >> 1
        if shards[middle, SHARD_START] <= token:
            low = middle
        else:
            high = middle
    return low


@called
def document_of(offsets: NDArray[np.int64], token: int) -> int:
    """Returns the document of a shard that holds its token number ``token``, by bisection."""
    low, high = 0, len(offsets) - 1
    while high - low > 1:
        middle = (low + high) >> 1
        if offsets[middle] <= token:
            low = middle
        else:
            high = middle
    return low


@kernel  # Numba makes arrays out of addresses only where it counts references
def copy_piece(
    shards: NDArray[np.int64],
    shard: int,
    start: int,
    count: int,
    itemsize: int,
    is_label: bool,
    row: int,
    filled: int,
    tokens: NDArray[np.int32],
    labels: NDArray[np.uint8],
) -> tuple[np.int32, np.int32]:
    """Copies tokens of one document into a row from slot ``filled`` on, and says which are labels of the one before.

    ``is_label`` is for the first of them. Returns the smallest and the largest token id.
    """
    local = start - shards[shard, SHARD_START]
    smallest, largest = np.int32(0), np.int32(0)
    if itemsize == 2:
        short = carray(pointer(shards[shard, TOKENS] + 2 * local), count, np.uint16)
        for i in range(count):
            token = np.int32(short[i])
            tokens[row, filled + i] = token
            largest = max(largest, token)
    else:
        wide = carray(pointer(shards[shard, TOKENS] + 4 * local), count, np.int32)
        for i in range(count):
            token = wide[i]
            tokens[row, filled + i] = token
            largest = max(largest, token)
            smallest = min(smallest, token)
    slot = filled - 1
    first = 0
    if not is_label:
        first = 1
        if slot >= 0:
            labels[row, slot] = 0
    if shards[shard, MASK] == 0:
        for i in range(first, count):
            labels[row, slot + i] = 1
    else:
        mask = carray(pointer(shards[shard, MASK] + local), count, np.uint8)
        for i in range(first, count):
            labels[row, slot + i] = mask[i] != 0
    return smallest, largest


@kernel
def read_rows(
    domains: NDArray[np.int64],
    rows: NDArray[np.int64],
    shards: NDArray[np.int64],
    tables: NDArray[np.int64],
    itemsize: int,
    vocab_size: int,
    padding_id: int,
    tokens: NDArray[np.int32],
    labels: NDArray[np.uint8],
    documents: NDArray[np.int32],
) -> int:
    """Fills ``tokens`` [B, L + 1], ``labels`` [B, L] and ``documents`` [B, L + 1] with rows of domains.

    ``labels`` is 1 where token t + 1 counts as the label of token t; ``documents`` numbers the documents of a row from
    0, what is padded having a number of its own. Returns the first row with a token id outside the vocabulary, or -1.
    """
    capacity = tokens.shape[1]
    for b in range(len(rows)):
        domain = domains[b]
        base, joined = tables[domain, DOMAIN_START], tables[domain, JOINED] != 0
        filled, document = 0, 0
        smallest, largest = np.int32(0), np.int32(0)
        if tables[domain, ROW_OFFSETS] != 0:
            ends = carray(pointer(tables[domain, ROW_OFFSETS] + 8 * rows[b]), 2, np.int64)
            num = ends[1] - ends[0]
            starts = carray(pointer(tables[domain, PIECE_STARTS] + 8 * ends[0]), num, np.int64)
            lengths = carray(pointer(tables[domain, PIECE_LENGTHS] + 4 * ends[0]), num, np.int32)
            for piece in range(num):
                start = base + starts[piece]
                count = signed(lengths[piece])
                shard = shard_of(shards, start)
                low, high = copy_piece(shards, shard, start, count, itemsize, joined, b, filled, tokens, labels)
                smallest, largest = min(smallest, low), max(largest, high)
                documents[b, filled : filled + count] = document
                filled += count
                document += 1
        else:
            local = rows[b] * (capacity - 1)
            start, left = base + local, min(capacity, tables[domain, NUM_TOKENS] - local)
            shard = shard_of(shards, start)
            while left > 0:
                first = start - shards[shard, SHARD_START]
                num = shards[shard, NUM_DOCUMENTS]
                offsets = carray(pointer(shards[shard, OFFSETS]), num + 1, np.int64)
                index = document_of(offsets, first)
                while left > 0 and index < num:
                    count = min(left, offsets[index + 1] - first)
                    index += 1
                    if count == 0:
                        continue
                    low, high = copy_piece(shards, shard, start, count, itemsize, joined, b, filled, tokens, labels)
                    smallest, largest = min(smallest, low), max(largest, high)
                    documents[b, filled : filled + count] = document
                    filled += count
                    document += 1
                    start += count
                    first += count
                    left -= count
                shard += 1
        if filled < capacity:
            tokens[b, filled:] = padding_id
            labels[b, max(filled - 1, 0) :] = 0
            documents[b, filled:] = document
        if smallest < 0 or largest >= vocab_size:
            return b
    return -1


@kernel
def count_labels(table: NDArray[np.int64], shards: NDArray[np.int64], num_pieces: int) -> int:
    """Returns how many labels one epoch of a domain has whose documents are not joined; ``table`` is its line."""
    starts = carray(pointer(table[PIECE_STARTS]), num_pieces, np.int64)
    lengths = carray(pointer(table[PIECE_LENGTHS]), num_pieces, np.int32)
    total = 0
    for piece in range(num_pieces):
        start, count = table[DOMAIN_START] + starts[piece], signed(lengths[piece])
        shard = shard_of(shards, start)
        if shards[shard, MASK] == 0:
            total += count - 1
        else:
            mask = carray(pointer(shards[shard, MASK] + start - shards[shard, SHARD_START]), count, np.uint8)
            for i in range(1, count):
                total += signed(mask[i] != 0)
    return total


def warm_up() -> None:
    """Compiles the kernels on a tiny example."""
    source, offsets = np.zeros(3, np.uint16), np.array([0, 3])
    shards = np.array([[0, source.ctypes.data, 0, offsets.ctypes.data, 1], [3, 0, 0, 0, 0]])
    starts, lengths = np.zeros(1, np.int64), np.full(1, 3, np.int32)
    table = np.array([0, 3, 0, 0, starts.ctypes.data, lengths.ctypes.data])
    out = (np.zeros((1, 3), np.int32), np.zeros((1, 2), np.uint8), np.zeros((1, 3), np.int32))
    zero = np.zeros(1, np.int64)
    read_rows(zero, zero, shards, np.array([[0, 3, 1, 0, 0, 0]]), 2, 1, 0, *out)
    count_labels(table, shards, 1)
