"""The list of a text's words, and what is counted of each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.bitmaps import set_bit
from dataeng.kernels.characters import ALPHA, PUNCTUATION, TERMINAL
from dataeng.kernels.compiling import called, inlined
from dataeng.kernels.counters import ALPHA_WORDS, SYMBOL_FREE_CHARS, SYMBOL_FREE_WORDS
from dataeng.kernels.text import decode, hash_bytes, signed


@called
def note_stop_word(word: np.uint64, stop_hashes: NDArray[np.uint64], stop_seen: NDArray[np.uint64]) -> None:
    for i in range(stop_hashes.shape[0]):
        if stop_hashes[i] == word:
            stop_seen[0] |= np.uint64(1) << np.uint64(i)


@inlined
def add_word(
    value: np.uint64,
    first: int,
    stop: int,
    num_chars: int,
    any_kind: int,
    all_kind: int,
    stop_filter: NDArray[np.uint8],
    stop_hashes: NDArray[np.uint64],
    stop_seen: NDArray[np.uint64],
    word_hash: NDArray[np.uint64],
    word_end: NDArray[np.int32],
    boundaries: NDArray[np.uint64],
    num_words: int,
    row: NDArray[np.int64],
) -> int:
    """Appends the word of which ``value`` is the hash and returns the new number of words.

    Args:
      first, stop: where it starts and ends, from the text's start.
      any_kind: class bits that any of its characters has; ``all_kind``: those that all have.
      word_hash: [words], filled; ``word_end``: [words + 1], characters of all words so far, filled.
      boundaries: a bitmap that is filled instead for a long text, see `dataeng.kernels.long_repetition`; else empty.
    """
    if boundaries.shape[0] == 0:
        word_hash[num_words] = value
        word_end[num_words + 1] = word_end[num_words] + num_chars
    else:
        set_bit(boundaries, first)
        set_bit(boundaries, stop)
    if not all_kind & PUNCTUATION:
        row[SYMBOL_FREE_WORDS] += 1
        row[SYMBOL_FREE_CHARS] += num_chars
    if any_kind & ALPHA:
        row[ALPHA_WORDS] += 1
    if stop_filter[(value >> np.uint64(8)) & np.uint64(255)]:
        note_stop_word(value, stop_hashes, stop_seen)
    return num_words + 1


@called
def add_pieces(
    data: NDArray[np.uint8],
    text: int,
    start: int,
    cuts: NDArray[np.int32],
    num_pieces: int,
    sentences: int,
    ended: bool,
    classes: NDArray[np.uint16],
    stop_filter: NDArray[np.uint8],
    stop_hashes: NDArray[np.uint64],
    stop_seen: NDArray[np.uint64],
    word_hash: NDArray[np.uint64],
    word_end: NDArray[np.int32],
    boundaries: NDArray[np.uint64],
    num_words: int,
    row: NDArray[np.int64],
) -> tuple[int, int, bool]:
    """Adds the words that a chunk was cut into, see `split_chunk`.

    Args:
      text: first byte of the text; ``start``: where the chunk starts; ``cuts``: where each word ends, from there.
      sentences, ended: how often a sentence started in this line, and whether the last one has ended.

    Returns:
      the new number of words, ``sentences`` and ``ended``.
    """
    i = start
    for k in range(num_pieces):
        first, stop = i, start + cuts[k]
        num_chars, any_kind, all_kind = 0, 0, 0xFFFF
        while i < stop:
            code_point, size = signed(data[i]), 1
            if code_point >= 128:
                code_point, size = decode(data, i, stop)
            kind = signed(classes[code_point])
            any_kind |= kind
            all_kind &= kind
            num_chars += 1
            i += size
        if num_chars == 1 and any_kind & TERMINAL:
            ended = True
        elif ended and not all_kind & PUNCTUATION:
            sentences += 1
            ended = False
        num_words = add_word(
            hash_bytes(data, first, stop), first - text, stop - text, num_chars, any_kind, all_kind,
            stop_filter, stop_hashes, stop_seen, word_hash, word_end, boundaries, num_words, row,
        )  # fmt: skip
    return num_words, sentences, ended
