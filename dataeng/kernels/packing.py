"""Documents into rows of ``capacity`` token slots: best-fit decreasing, document-aligned, and joined end to end.

All three take documents as (first token, number of tokens) and append *pieces* (first token, number of tokens) to a
table: row r consists of pieces ``row_offsets[r]`` to ``row_offsets[r + 1]``. They are called with one window of
documents after the other; ``state`` (see `STATE_SIZE`) carries what is between them. Tables are allocated by the
caller, who knows how many pieces there can be.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.bitmaps import next_bit, write_bit
from dataeng.kernels.compiling import called, inlined, kernel

#: Columns of ``state``: pieces and rows so far, free slots of the row at hand, the last token placed (-1: none), tokens
#: taken in so far, documents cut, tokens left out.
PIECES, ROWS, SPACE, LAST, TAKEN, CUT, LEFT_OUT = range(7)
STATE_SIZE = 7


@inlined
def num_full_pieces(length: int, capacity: int) -> int:
    """How many whole rows a document fills before its last piece. Pieces of one document overlap by one token."""
    return (length - 2) // (capacity - 1) if length > capacity else 0


@called
def add_piece(
    state: NDArray[np.int64],
    piece_starts: NDArray[np.int64],
    piece_lengths: NDArray[np.int32],
    row_offsets: NDArray[np.int64],
    start: int,
    length: int,
) -> None:
    """Appends a piece to the row at hand, which is the last one."""
    piece = state[PIECES]
    piece_starts[piece], piece_lengths[piece] = start, length
    state[PIECES] = piece + 1
    row_offsets[state[ROWS]] = piece + 1


@called
def first_with_space(spaces: NDArray[np.uint64], groups: NDArray[np.uint64], length: int, capacity: int) -> int:
    """Returns the smallest free space of at least ``length`` that some bin has, or capacity + 1.

    ``spaces`` has a bit for every amount of free space; ``groups`` a bit for every word of ``spaces`` that is not 0.
    """
    group_end = min(capacity + 1, ((length >> 6) + 1) << 6)
    found = next_bit(spaces, length, group_end)
    if found < group_end:
        return found
    num_groups = (capacity >> 6) + 1
    group = next_bit(groups, (length >> 6) + 1, num_groups)
    return next_bit(spaces, group << 6, capacity + 1) if group < num_groups else capacity + 1


@called
def set_space(spaces: NDArray[np.uint64], groups: NDArray[np.uint64], space: int, value: bool) -> None:
    write_bit(spaces, space, value)
    write_bit(groups, space >> 6, spaces[space >> 6] != np.uint64(0))


@called
def fill_bins(
    order: NDArray[np.int64],
    rests: NDArray[np.int64],
    capacity: int,
    newest: NDArray[np.int64],
    older: NDArray[np.int64],
    spaces: NDArray[np.uint64],
    groups: NDArray[np.uint64],
    bins: NDArray[np.int64],
) -> None:
    """Puts documents, largest first, each into the fullest bin that has room; ``bins`` gets the bin of each.

    Bins with the same free space are a stack: ``newest`` has its top, ``older`` what lies below each bin.
    """
    num_bins = 0
    for k in range(len(order)):
        document = order[k]
        length = rests[document]
        space = first_with_space(spaces, groups, length, capacity)
        if space > capacity:
            chosen, space = num_bins, capacity
            num_bins += 1
        else:
            chosen = newest[space]
            newest[space] = older[chosen]
            if newest[space] < 0:
                set_space(spaces, groups, space, False)
        bins[document] = chosen
        left = space - length
        if left > 0:
            older[chosen] = newest[left]
            newest[left] = chosen
            set_space(spaces, groups, left, True)


@kernel
def best_fit(
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    capacity: int,
    state: NDArray[np.int64],
    piece_starts: NDArray[np.int64],
    piece_lengths: NDArray[np.int32],
    row_offsets: NDArray[np.int64],
) -> None:
    """Best-fit decreasing over one window (Ding et al., arXiv 2404.10830, whose search tree is a bitmap here).

    A document longer than a row is cut into rows first; its last piece is packed like a short document. Rows come in
    the order of their first document, pieces within a row in the order of documents. O(documents) besides the search
    for a bin, which looks at one or two words of the bitmap.
    """
    num = len(lengths)
    rests = np.empty(num, np.int64)
    sizes = np.zeros(capacity + 2, np.int64)  # by how much shorter than a row, for a counting sort
    for i in range(num):
        full = num_full_pieces(lengths[i], capacity)
        rests[i] = lengths[i] - full * (capacity - 1)
        sizes[capacity - rests[i] + 1] += 1
        if full > 0:
            state[CUT] += 1
    num_filled = num - sizes[capacity + 1]  # documents without tokens come last and are left out
    for k in range(1, capacity + 2):
        sizes[k] += sizes[k - 1]
    order = np.empty(num, np.int64)
    for i in range(num):
        key = capacity - rests[i]
        order[sizes[key]] = i
        sizes[key] += 1
    bins = np.full(num, -1, np.int64)
    num_words = (capacity >> 6) + 2
    fill_bins(
        order[:num_filled],
        rests,
        capacity,
        np.full(capacity + 1, -1, np.int64),
        np.empty(num, np.int64),
        np.zeros(num_words, np.uint64),
        np.zeros((num_words >> 6) + 2, np.uint64),
        bins,
    )
    first_row, first_piece = state[ROWS], state[PIECES]
    row_of = np.full(num, -1, np.int64)  # bin → row
    num_rows = first_row
    for i in range(num):  # pieces of every row, in the place of its end
        for _ in range(num_full_pieces(lengths[i], capacity)):
            num_rows += 1
            row_offsets[num_rows] = 1
        if bins[i] >= 0:
            if row_of[bins[i]] < 0:
                row_of[bins[i]] = num_rows
                num_rows += 1
                row_offsets[num_rows] = 0
            row_offsets[row_of[bins[i]] + 1] += 1
    num_pieces = first_piece
    cursors = np.empty(num_rows - first_row, np.int64)
    for row in range(first_row, num_rows):
        cursors[row - first_row] = num_pieces
        num_pieces += row_offsets[row + 1]
        row_offsets[row + 1] = num_pieces
    row = first_row
    for i in range(num):
        start = starts[i]
        for _ in range(num_full_pieces(lengths[i], capacity)):
            piece_starts[cursors[row - first_row]], piece_lengths[cursors[row - first_row]] = start, capacity
            start += capacity - 1
            row += 1
        if bins[i] >= 0:
            own = row_of[bins[i]]
            piece = cursors[own - first_row]
            piece_starts[piece], piece_lengths[piece] = start, rests[i]
            cursors[own - first_row] = piece + 1
            if own == row:
                row += 1
    state[PIECES], state[ROWS] = num_pieces, num_rows


@kernel
def aligned(
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    capacity: int,
    state: NDArray[np.int64],
    piece_starts: NDArray[np.int64],
    piece_lengths: NDArray[np.int32],
    row_offsets: NDArray[np.int64],
) -> None:
    """Whole documents in their order, a new row where the next one does not fit; a longer one loses its end."""
    for i in range(len(lengths)):
        length = min(lengths[i], capacity)
        if length == 0:
            continue
        if lengths[i] > capacity:
            state[CUT] += 1
            state[LEFT_OUT] += lengths[i] - capacity
        if length > state[SPACE]:
            state[ROWS] += 1
            state[SPACE] = capacity
        add_piece(state, piece_starts, piece_lengths, row_offsets, starts[i], length)
        state[SPACE] -= length


@kernel
def concatenated(
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    capacity: int,
    state: NDArray[np.int64],
    piece_starts: NDArray[np.int64],
    piece_lengths: NDArray[np.int32],
    row_offsets: NDArray[np.int64],
) -> None:
    """Documents end to end, cut where a row is full. Every row but the first begins with the last token before it."""
    stride = capacity - 1
    for i in range(len(lengths)):
        position, stop = starts[i], starts[i] + lengths[i]
        begin = position
        while position < stop:
            if state[SPACE] == 0:
                state[ROWS] += 1
                state[SPACE] = capacity
                if state[LAST] >= 0:
                    state[SPACE] -= 1
                    if position > starts[i]:
                        begin = position - 1
                    else:
                        add_piece(state, piece_starts, piece_lengths, row_offsets, state[LAST], 1)
            taken = min(stop - position, state[SPACE])
            position += taken
            state[SPACE] -= taken
            add_piece(state, piece_starts, piece_lengths, row_offsets, begin, position - begin)
            begin = position
            state[LAST] = position - 1
        # Whole if the row that holds its first token as an input holds its last one, too.
        if state[TAKEN] + lengths[i] - 1 > state[TAKEN] // stride * stride + stride:
            state[CUT] += 1
        state[TAKEN] += lengths[i]


def warm_up() -> None:
    """Compiles the kernels on a tiny example."""
    for method in (best_fit, aligned, concatenated):
        table = (np.zeros(4, np.int64), np.zeros(4, np.int32), np.zeros(5, np.int64))
        state = np.zeros(STATE_SIZE, np.int64)
        state[LAST] = -1
        method(np.array([0, 2]), np.array([2, 3]), 4, state, *table)
