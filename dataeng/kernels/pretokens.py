"""Cutting texts into the pieces that a tokenizer never merges across, and counting the different ones.

The rules are the regular expressions of the published tokenizers, written as a scanner: one pass over the bytes, about
a hundred times as fast as the expressions themselves. Which expression each style is, and where it comes from, is in
`dataeng.stages.tokens.pretokenization`; the tests compare both on all of Unicode.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.text import CODE_POINT_LIMIT, U32, TextBuffers, decode, hash_bytes, load64, signed

#: Which family of expressions: GPT-2's, that of cl100k (GPT-4, Llama 3, Qwen), or BERT's words and punctuation.
GPT2, CL100K, BERT = 0, 1, 2

# Bits of a class table (uint8 [CODE_POINT_LIMIT]); every code point has exactly one of LETTER, NUMBER, SPACE and OTHER.
LETTER, NUMBER, SPACE, OTHER, NEWLINE, PUNCTUATION = 1, 2, 4, 8, 16, 32

BLANK, APOSTROPHE, NEWLINE_BYTE, RETURN_BYTE = 32, 39, 10, 13
MASK = np.uint64(0xFFFFFFFFFFFFFFFF)
EIGHT = np.uint64(8)
LOW = np.uint64(0xFFFFFFFF)

#: Columns of the table of pieces.
HASH, WORD, PIECE, COUNT = 0, 1, 2, 3
#: Pieces are looked up so many at a time.
BATCH = 256


class Pieces(NamedTuple):
    """Different pieces of texts, in order of first occurrence: piece ``i`` is ``data[offsets[i]:offsets[i + 1]]``."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def num_pieces(self) -> int:
        return len(self.counts)


@inlined
def class_at(data: NDArray[np.uint8], i: int, stop: int, classes: NDArray[np.uint8]) -> tuple[int, int]:
    """Returns the class bits of the character at byte ``i``, and its length in bytes."""
    if data[i] < 0x80:
        return signed(classes[data[i]]), 1
    code, size = decode(data, i, stop)
    return signed(classes[code]), size


@inlined
def run_end(data: NDArray[np.uint8], i: int, stop: int, classes: NDArray[np.uint8], wanted: int, most: int) -> int:
    """Returns where the run of at most ``most`` characters with a bit of ``wanted`` ends that starts at ``i``."""
    taken = 0
    while i < stop and taken < most:
        kind, size = class_at(data, i, stop, classes)
        if not kind & wanted:
            break
        i += size
        taken += 1
    return i


@inlined
def contraction_end(data: NDArray[np.uint8], i: int, stop: int, any_case: bool) -> int:
    """Returns where one of ``'s 't 're 've 'm 'll 'd`` ends that starts at the apostrophe ``i``, or ``i``."""
    if i + 1 >= stop:
        return i
    fold = 0x20 if any_case else 0
    first = signed(data[i + 1]) | fold
    if first == 0x73 or first == 0x74 or first == 0x6D or first == 0x64:  # s t m d
        return i + 2
    if i + 2 >= stop:
        return i
    if any_case and data[i + 1] == 0xC5 and data[i + 2] == 0xBF:  # U+017F, the long s, is an s in another case
        return i + 3
    second = signed(data[i + 2]) | fold
    if (first == 0x72 or first == 0x76) and second == 0x65:  # re ve
        return i + 3
    if first == 0x6C and second == 0x6C:  # ll
        return i + 3
    return i


@inlined
def newlines_end(data: NDArray[np.uint8], i: int, stop: int) -> int:
    while i < stop and (data[i] == NEWLINE_BYTE or data[i] == RETURN_BYTE):
        i += 1
    return i


@inlined
def space_end(data: NDArray[np.uint8], start: int, stop: int, classes: NDArray[np.uint8], cut_newlines: bool) -> int:
    r"""Returns the end of ``\s*[\r\n]+`` (if ``cut_newlines``), ``\s+(?!\S)`` or ``\s+``: the first that matches."""
    i, last, num, after_newline = start, start, 0, start
    while i < stop:
        kind, size = class_at(data, i, stop, classes)
        if not kind & SPACE:
            break
        last = i
        i += size
        num += 1
        if kind & NEWLINE:
            after_newline = i
    if cut_newlines and after_newline > start:
        return after_newline
    return i if i == stop or num == 1 else last  # the last blank belongs to the word behind it


@called
def piece_end(
    data: NDArray[np.uint8], start: int, stop: int, classes: NDArray[np.uint8], style: int, most_digits: int
) -> int:
    """Returns where the piece that starts at ``start`` ends, as GPT-2's or cl100k's expression has it.

    ``most_digits`` is 0 for ``' ?\\p{N}+'``, else how many digits one piece may have, without a blank before them.
    """
    kind, size = class_at(data, start, stop, classes)
    if kind & LETTER:
        return run_end(data, start + size, stop, classes, LETTER, stop)
    if data[start] == APOSTROPHE:
        end = contraction_end(data, start, stop, style != GPT2)
        if end > start:
            return end
    blank = data[start] == BLANK
    after = start + size
    next_kind = 0
    if after < stop:
        next_kind, _ = class_at(data, after, stop, classes)
    joins = blank if style == GPT2 else not kind & (NUMBER | NEWLINE)
    if joins and next_kind & LETTER:
        return run_end(data, after, stop, classes, LETTER, stop)
    if kind & NUMBER:
        return run_end(data, start, stop, classes, NUMBER, most_digits if most_digits else stop)
    if blank and most_digits == 0 and next_kind & NUMBER:
        return run_end(data, after, stop, classes, NUMBER, stop)
    if kind & OTHER or (blank and next_kind & OTHER):
        end = run_end(data, after, stop, classes, OTHER, stop)
        return end if style == GPT2 else newlines_end(data, end, stop)
    return space_end(data, start, stop, classes, style != GPT2)


@inlined
def bert_end(data: NDArray[np.uint8], start: int, stop: int, classes: NDArray[np.uint8]) -> int:
    """Returns where a sign of punctuation, or a run of what is neither punctuation nor white space, ends."""
    kind, size = class_at(data, start, stop, classes)
    return start + size if kind & PUNCTUATION else run_end(data, start, stop, classes, OTHER, stop)


@inlined
def same_bytes(left: NDArray[np.uint8], i: int, right: NDArray[np.uint8], j: int, num: int) -> bool:
    """Whether ``left[i:i + num]`` is ``right[j:j + num]``."""
    while num > 8:
        if load64(left, i) != load64(right, j):
            return False
        i, j, num = i + 8, j + 8, num - 8
    if i + 8 <= left.shape[0] and j + 8 <= right.shape[0]:
        return bool((load64(left, i) ^ load64(right, j)) & (MASK >> (EIGHT * np.uint64(8 - num))) == np.uint64(0))
    for k in range(num):
        if left[i + k] != right[j + k]:
            return False
    return True


@inlined
def first_bytes(data: NDArray[np.uint8], start: int, size: int) -> np.uint64:
    """Returns the first eight bytes of a piece as one number; what is missing of them is 0."""
    if start + 8 <= data.shape[0]:
        word = load64(data, start)
        return word if size >= 8 else word & (MASK >> (EIGHT * np.uint64(8 - size)))
    word = np.uint64(0)
    for k in range(min(size, 8)):
        word |= np.uint64(data[start + k]) << (EIGHT * np.uint64(k))
    return word


@called
def cut(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    classes: NDArray[np.uint8],
    style: int,
    most_digits: int,
    state: NDArray[np.int64],
    places: NDArray[np.int64],
    hashes: NDArray[np.uint64],
) -> int:
    """Cuts the next pieces, from ``state`` (text, next byte) on: ``places`` gets their bounds, [2, pieces]."""
    text, start = state[0], state[1]
    num = 0
    while text < offsets.shape[0] - 1:
        stop = offsets[text + 1]
        while start < stop and num < hashes.shape[0]:
            if style == BERT:
                kind, size = class_at(data, start, stop, classes)
                if kind & SPACE:
                    start += size
                    continue
                end = bert_end(data, start, stop, classes)
            else:
                end = piece_end(data, start, stop, classes, style, most_digits)
            places[0, num], places[1, num] = start, end
            hashes[num] = hash_bytes(data, start, end)
            num += 1
            start = end
        if start < stop:
            break
        text += 1
    state[0], state[1] = text, start
    return num


@called
def count_batch(
    data: NDArray[np.uint8],
    places: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    num: int,
    slots: NDArray[np.uint64],
    arena: NDArray[np.uint8],
    ends: NDArray[np.int64],
    num_pieces: int,
) -> int:
    """Counts pieces in a table that has room for all of them, and returns how many different ones there are now.

    A slot has a hash (0: empty), the first eight bytes, number and size of the piece, and its count: one cache line,
    and for most pieces nothing else is looked at.
    """
    mask = np.uint64(slots.shape[0] - 1)
    seen = np.uint64(0)
    for i in range(num):  # loads do not wait for each other here, as they would among the branches below
        seen ^= slots[hashes[i] & mask, HASH]
    for i in range(num):
        value, start, size = hashes[i], places[0, i], places[1, i] - places[0, i]
        word = first_bytes(data, start, size)
        slot = value & mask
        while slots[slot, HASH] != np.uint64(0):
            if slots[slot, HASH] == value and slots[slot, WORD] == word:
                known = slots[slot, PIECE]
                if signed(known & LOW) == size and (
                    size <= 8 or same_bytes(data, start, arena, ends[known >> U32], size)
                ):
                    break
            slot = (slot + np.uint64(1)) & mask
        else:
            used = ends[num_pieces]
            for k in range(size):
                arena[used + k] = data[start + k]
            ends[num_pieces + 1] = used + size
            slots[slot, HASH], slots[slot, WORD] = value, word
            slots[slot, PIECE] = (np.uint64(num_pieces) << U32) | np.uint64(size)
            num_pieces += 1
        slots[slot, COUNT] += np.uint64(1)
    hashes[0] = seen  # nobody reads it; without an effect, the first loop would be left out
    return num_pieces


@called
def move_slots(old: NDArray[np.uint64], slots: NDArray[np.uint64]) -> None:
    mask = np.uint64(slots.shape[0] - 1)
    for i in range(old.shape[0]):
        if old[i, HASH] != np.uint64(0):
            slot = old[i, HASH] & mask
            while slots[slot, HASH] != np.uint64(0):
                slot = (slot + np.uint64(1)) & mask
            for k in range(4):
                slots[slot, k] = old[i, k]


@kernel
def count_pieces_kernel(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], classes: NDArray[np.uint8], style: int, most_digits: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    slots = np.zeros((1 << 14, 4), np.uint64)
    arena = np.empty(1 << 20, np.uint8)
    ends = np.zeros(1 << 14, np.int64)
    places, hashes = np.empty((2, BATCH), np.int64), np.empty(BATCH, np.uint64)
    state = np.zeros(2, np.int64)
    state[1] = offsets[0]
    num_pieces = 0
    while True:
        num = cut(data, offsets, classes, style, most_digits, state, places, hashes)
        if num == 0:
            break
        room = places[1, num - 1] - places[0, 0]
        while ends[num_pieces] + room > arena.shape[0]:
            arena = np.concatenate((arena, np.empty(arena.shape[0], np.uint8)))
        if num_pieces + num >= ends.shape[0]:
            ends = np.concatenate((ends, np.zeros(ends.shape[0], np.int64)))
        if 2 * (num_pieces + num) > slots.shape[0]:
            old, slots = slots, np.zeros((2 * slots.shape[0], 4), np.uint64)
            move_slots(old, slots)
        num_pieces = count_batch(data, places, hashes, num, slots, arena, ends, num_pieces)
    counts = np.zeros(num_pieces, np.int64)
    for slot in range(slots.shape[0]):
        if slots[slot, HASH] != np.uint64(0):
            counts[signed(slots[slot, PIECE] >> U32)] = signed(slots[slot, COUNT])
    return arena[: ends[num_pieces]], ends[: num_pieces + 1], counts


def count_pieces(texts: TextBuffers, classes: NDArray[np.uint8], style: int, most_digits: int = 0) -> Pieces:
    """Cuts every text into pieces and returns the different ones with how often each is there.

    Args:
      classes: class bits of every code point, uint8 [`CODE_POINT_LIMIT`].
      style: `GPT2`, `CL100K` or `BERT`; the last leaves out white space.
      most_digits: 0 for GPT-2's own rule, else the largest number of digits in a piece.
    """
    if classes.shape != (CODE_POINT_LIMIT,) or classes.dtype != np.uint8:
        raise ValueError(f"expected uint8 [{CODE_POINT_LIMIT}] of class bits, got {classes.dtype} {classes.shape}")
    if style not in (GPT2, CL100K, BERT) or most_digits < 0 or (style == CL100K and most_digits == 0):
        raise ValueError(f"no rule for style {style} with {most_digits} digits")
    return Pieces(*count_pieces_kernel(texts.data, texts.offsets, classes, style, most_digits))


def warm_up() -> None:
    """Compiles the kernel or loads it from the cache."""
    import polars as pl

    from dataeng.kernels.text import text_buffers

    classes: NDArray[Any] = np.full(CODE_POINT_LIMIT, OTHER, np.uint8)
    count_pieces(text_buffers(pl.Series(["warm up"], dtype=pl.String)), classes, GPT2)
