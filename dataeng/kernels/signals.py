"""Counts of the Gopher, C4 and FineWeb rules for a column of texts, in one call.

One walk over the bytes finds words, lines and phrases; repetition is then counted on hashes of lines, paragraphs and
word n-grams. All counts are raw integers: ratios and thresholds are the rules' business (``dataeng/presets``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.bitmaps import bitmap_words
from dataeng.kernels.characters import class_table
from dataeng.kernels.compiling import kernel
from dataeng.kernels.counters import COUNTERS, STOP_WORDS, WORDS
from dataeng.kernels.long_repetition import count_ngrams_of_long_text, long_table_size
from dataeng.kernels.repetition import count_ngrams, count_repeated_lines, count_repeated_paragraphs
from dataeng.kernels.signal_walk import walk
from dataeng.kernels.stop_words import StopWords, stop_word_rows
from dataeng.kernels.text import LONG_BYTES, TextBuffers

Words = Literal["split", "whitespace"]


@kernel
def measure(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    classes: NDArray[np.uint16],
    split: bool,
    long_bytes: int,
    stop_filter: NDArray[np.uint8],
    stop_hashes: NDArray[np.uint64],
    language: NDArray[np.int32],
    counters: NDArray[np.int64],
) -> None:
    """The kernel behind `count_signals`."""
    longest, longest_short = 0, 0
    for text in range(offsets.shape[0] - 1):
        size = offsets[text + 1] - offsets[text]
        longest = max(longest, size)
        if size <= long_bytes:
            longest_short = max(longest_short, size)
    # Words are at most as many as bytes. Memory that is never written costs nothing.
    capacity = longest_short + 2
    word_hash = np.empty(capacity, np.uint64)
    word_end = np.empty(capacity + 1, np.int32)
    gram_hash = np.empty(capacity, np.uint64)
    gram_mark = np.empty(capacity, np.int8)
    slots = 8
    while slots < 2 * capacity:
        slots *= 2
    table = np.empty(slots, np.uint64)
    slot_count = np.empty(slots, np.int32)
    slot_first = np.empty(slots, np.int32)
    # These also hold the cuts of a chunk, which may be all of a long text.
    gram_slot = np.empty(longest + 2, np.int32)
    candidates = np.empty(longest + 2, np.int32)
    no_boundaries = np.empty(0, np.uint64)
    stop_seen = np.zeros(1, np.uint64)
    for text in range(offsets.shape[0] - 1):
        start, stop = offsets[text], offsets[text + 1]
        row = counters[text]
        row[:] = 0
        stop_seen[0] = 0
        is_long = stop - start > long_bytes
        boundaries = np.zeros(bitmap_words(stop - start), np.uint64) if is_long else no_boundaries
        first, last = walk(
            data, start, stop, classes, split, stop_filter[language[text]], stop_hashes[language[text]], stop_seen,
            word_hash, word_end, boundaries, gram_slot, candidates, row,
        )  # fmt: skip
        seen = stop_seen[0]
        while seen:
            row[STOP_WORDS] += 1
            seen &= seen - np.uint64(1)
        if is_long:
            long_table = np.empty(long_table_size(stop - start), np.uint64)
            count_repeated_lines(data, start, stop, classes, long_table, row)
            count_repeated_paragraphs(data, first, last, long_table, row)
            count_ngrams_of_long_text(data, start, stop, classes, boundaries, long_table, row)
        else:
            count_repeated_lines(data, start, stop, classes, table, row)
            count_repeated_paragraphs(data, first, last, table, row)
            count_ngrams(
                word_hash, word_end, row[WORDS], gram_hash, gram_slot, gram_mark, candidates,
                table, slot_count, slot_first, row,
            )  # fmt: skip


def count_signals(
    texts: TextBuffers,
    *,
    words: Words = "split",
    stop_words: StopWords | None = None,
    languages: Sequence[str | None] | None = None,
    long_bytes: int = LONG_BYTES,
) -> NDArray[np.int64]:
    """Measures every text.

    Args:
      words: what a word is, see `dataeng.kernels.words`.
      stop_words: lists per language, from `dataeng.kernels.stop_words.stop_word_table`.
      languages: the language of each text; texts in one without a list get 0 stop words.
      long_bytes: longer texts are measured in little memory, see `dataeng.kernels.long_repetition`.

    Returns:
      int64 [texts, counters]; the columns are `dataeng.kernels.counters.COUNTERS`, in that order.
    """
    hashes, filters, language = stop_word_rows(texts.num_texts, stop_words, languages)
    counters = np.empty((texts.num_texts, len(COUNTERS)), np.int64)
    classes = class_table()
    measure(texts.data, texts.offsets, classes, words == "split", long_bytes, filters, hashes, language, counters)
    return counters


def warm_up() -> None:
    """Compiles the kernel or loads it from the cache."""
    import polars as pl

    from dataeng.kernels.text import text_buffers

    count_signals(text_buffers(pl.Series(["One line.\nAnother line."], dtype=pl.String)))
