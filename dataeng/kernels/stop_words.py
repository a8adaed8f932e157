"""Lists of stop words as the signal kernels take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.text import hash_word

#: A language has at most as many stop words as a uint64 has bits, one to remember each.
MAX_STOP_WORDS = 64


class StopWords(NamedTuple):
    """Stop words of several languages, ready for the kernel; a language is a row."""

    languages: tuple[str, ...]
    hashes: NDArray[np.uint64]  # [languages, MAX_STOP_WORDS], 0 = none
    filter: NDArray[np.uint8]  # [languages, 256]: whether any stop word's hash has this low byte


def stop_word_table(words: Mapping[str, Sequence[str]]) -> StopWords:
    """Hashes the stop words of each language.

    Raises:
      ValueError: a language has more than `MAX_STOP_WORDS` words.
    """
    hashes = np.zeros((max(1, len(words)), MAX_STOP_WORDS), np.uint64)
    low_bytes = np.zeros((max(1, len(words)), 256), np.uint8)
    for row, (language, listed) in enumerate(words.items()):
        if len(set(listed)) > MAX_STOP_WORDS:
            raise ValueError(f"{len(set(listed))} stop words for {language!r}, at most {MAX_STOP_WORDS} are possible")
        for column, word in enumerate(sorted(set(listed))):
            value = hash_word(word.encode())
            hashes[row, column] = value
            low_bytes[row, (int(value) >> 8) & 255] = 1
    return StopWords(tuple(words), hashes, low_bytes)


def stop_word_rows(
    num_texts: int, stop_words: StopWords | None, languages: Sequence[str | None] | None
) -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.int32]]:
    """Returns the stop words' hashes and filters with a row more for none, and each text's row."""
    table = stop_words or stop_word_table({})
    rows = {name: row for row, name in enumerate(table.languages)}
    nothing = len(table.hashes)
    hashes = np.vstack([table.hashes, np.zeros((1, table.hashes.shape[1]), np.uint64)])
    filters = np.vstack([table.filter, np.zeros((1, 256), np.uint8)])
    language = np.full(num_texts, nothing, np.int32)
    if languages is not None:
        if len(languages) != num_texts:
            raise ValueError(f"{len(languages)} languages for {num_texts} texts")
        language[:] = [rows.get(name, nothing) if name is not None else nothing for name in languages]
    return hashes, filters, language
