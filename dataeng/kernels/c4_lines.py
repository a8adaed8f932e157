"""Line removal of C4: what to keep of every text, copied into a new column.

Sources, whose order of steps is kept: ``tensorflow_datasets/text/c4_utils.py`` (``clean_page``) and datatrove 0.10.1,
``C4QualityFilter``. Lines are those of ``str.splitlines``, words those of ``str.split``. Sentences are those of spaCy's
sentencizer, which datatrove runs, on spaCy's words (`dataeng.kernels.words`): one ends with a word that is one terminal
sign, and the next begins with a word that is more than signs, or with extra white space, which is a word to spaCy.
TensorFlow Datasets runs NLTK's Punkt instead.

Letters of phrases match in any ASCII case; see `dataeng.kernels.phrases` for the two characters this leaves out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.characters import LETTER_J, SPACE, TERMINAL, class_table
from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.judged_lines import CITATION_NEEDED, EDIT
from dataeng.kernels.lines import (
    DECIMAL,
    SIGN,
    WHITE,
    Edited,
    character_table,
    class_at,
    series_of,
    skip_white,
    skip_white_back,
)
from dataeng.kernels.phrases import CURLY, JAVASCRIPT, LONG_WORD, LOREM, POLICY, mentions_javascript, phrase_flag
from dataeng.kernels.text import TextBuffers, decode, signed
from dataeng.kernels.words import split_chunk

BRACKET = 32  # flag of a line besides those of `phrases`: it has a "["

#: What is counted per text.
COUNTS = (
    "lines", "removed", "removed_long_word", "removed_unterminated", "removed_short", "removed_javascript",
    "removed_policy", "sentences",
)  # fmt: skip

#: Why a page goes, by code; 0 stays.
REASONS = ("", "lorem_ipsum", "curly_bracket", "too_few_sentences")


class C4Limits(NamedTuple):
    """Thresholds of the C4 rules; a negative number is off."""

    max_word_chars: int
    citations: bool
    """Whether ``[12]``, ``[edit]`` and ``[citation needed]`` are cut out of lines."""
    end_marks: NDArray[np.uint8]
    """[128], 1 for characters that may end a line; all 0 is off."""
    min_line_words: int
    words_after_citations: bool
    lorem_ipsum: bool
    javascript: bool
    curly_bracket: bool
    policy: bool
    min_sentences: int


@inlined
def line_break(data: NDArray[np.uint8], i: int, stop: int) -> tuple[int, int]:
    """Returns where the line of `str.splitlines` that holds byte ``i`` ends, and where the next one starts."""
    while i < stop:
        byte = data[i]
        if byte <= 30:
            if byte == 13 and i + 1 < stop and data[i + 1] == 10:
                return i, i + 2
            if 10 <= byte <= 13 or byte >= 28:
                return i, i + 1
        elif byte == 0xC2:
            if i + 1 < stop and data[i + 1] == 0x85:
                return i, i + 2
        elif byte == 0xE2:
            if i + 2 < stop and data[i + 1] == 0x80 and (data[i + 2] == 0xA8 or data[i + 2] == 0xA9):
                return i, i + 3
        i += 1
    return stop, stop


@called
def sentences_in_pieces(
    data: NDArray[np.uint8],
    start: int,
    cuts: NDArray[np.int32],
    num_pieces: int,
    ended: bool,
    classes: NDArray[np.uint16],
    white: NDArray[np.uint8],
) -> tuple[int, bool]:
    """Returns how many sentences start in a chunk, given where its words end, and whether the last one has ended."""
    sentences, i = 0, start
    for k in range(num_pieces):
        stop = start + cuts[k]
        chars, terminal, only_signs = 0, False, True
        while i < stop:
            code_point, size = signed(data[i]), 1
            if code_point >= 128:
                code_point, size = decode(data, i, stop)
            terminal = classes[code_point] & TERMINAL != 0
            only_signs = only_signs and white[code_point] & SIGN != 0
            chars += 1
            i += size
        if chars == 1 and terminal:
            ended = True
        elif ended and not only_signs:
            sentences += 1
            ended = False
    return sentences, ended


@called
def scan_line(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    classes: NDArray[np.uint16],
    white: NDArray[np.uint8],
    max_word_chars: int,
    cuts: NDArray[np.int32],
    suffixes: NDArray[np.int32],
) -> tuple[int, int, int]:
    """Returns words (``str.split``), flags and sentences of a line, which has no white space around it."""
    words, flags, sentences = 0, 0, 1
    ended = False
    i = start
    while i < stop:
        gap = i
        while i < stop:
            kind, size = class_at(data, i, stop, white)
            if not kind & WHITE:
                break
            i += size
        if ended and (i - gap > 1 or data[gap] != 32):
            sentences += 1
            ended = False
        chunk, chars, any_kind, only_signs = i, 0, 0, True
        while i < stop:
            byte = data[i]
            code_point, size = signed(byte), 1
            if byte < 128:
                if byte == 123:
                    flags |= CURLY
                elif byte == 91:
                    flags |= BRACKET
            else:
                code_point, size = decode(data, i, stop)
            kind = signed(classes[code_point])
            if kind & SPACE:
                break
            only_signs = only_signs and white[code_point] & SIGN != 0
            any_kind |= kind
            chars += 1
            i += size
        words += 1
        if 0 <= max_word_chars < chars:
            flags |= LONG_WORD
        if any_kind & TERMINAL:
            num_pieces = 1
            if chars == 1:
                cuts[0] = i - chunk
            else:
                num_pieces = split_chunk(data, chunk, i, classes, cuts, suffixes)
            started, ended = sentences_in_pieces(data, chunk, cuts, num_pieces, ended, classes, white)
            sentences += started
        elif ended and not only_signs:
            sentences += 1
            ended = False
        flags |= phrase_flag(data, chunk, start, stop)
        if any_kind & LETTER_J and mentions_javascript(data, chunk, i):
            flags |= JAVASCRIPT
    return words, flags, sentences


@inlined
def stands_at(data: NDArray[np.uint8], i: int, stop: int, word: NDArray[np.uint8]) -> bool:
    if i + word.shape[0] > stop:
        return False
    for j in range(word.shape[0]):
        if data[i + j] != word[j]:
            return False
    return True


@called
def cut_citations(data: NDArray[np.uint8], start: int, stop: int, white: NDArray[np.uint8]) -> int:
    r"""Removes ``\[\d*]|\[edit]|\[citation needed]`` from ``data[start:stop]`` in place; returns the new end."""
    i, o = start, start
    while i < stop:
        if data[i] == 91:
            end = i + 1
            while end < stop:
                kind, size = class_at(data, end, stop, white)
                if not kind & DECIMAL:
                    break
                end += size
            if end < stop and data[end] == 93:
                i = end + 1
                continue
            if stands_at(data, i, stop, EDIT):
                i += 6
                continue
            if stands_at(data, i, stop, CITATION_NEEDED):
                i += 17
                continue
        data[o] = data[i]
        i += 1
        o += 1
    return o


@inlined
def is_terminated(data: NDArray[np.uint8], start: int, stop: int, end_marks: NDArray[np.uint8]) -> bool:
    """Whether a line ends with one of the marks, and not with ``...``."""
    if stop == start or data[stop - 1] >= 128 or not end_marks[data[stop - 1]]:
        return False
    return not (stop - start >= 3 and data[stop - 1] == 46 and data[stop - 2] == 46 and data[stop - 3] == 46)


@kernel
def remove_c4_kernel(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    classes: NDArray[np.uint16],
    white: NDArray[np.uint8],
    max_word_chars: int,
    citations: bool,
    needs_end: bool,
    end_marks: NDArray[np.uint8],
    min_line_words: int,
    words_after_citations: bool,
    drops: int,
    page_drops: int,
    min_sentences: int,
    out: NDArray[np.uint8],
    out_offsets: NDArray[np.int64],
    counts: NDArray[np.int64],
    reasons: NDArray[np.uint8],
) -> None:
    longest = 1
    for text in range(offsets.shape[0] - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    cuts, suffixes = np.empty(longest, np.int32), np.empty(longest, np.int32)
    o = 0
    out_offsets[0] = 0
    for text in range(offsets.shape[0] - 1):
        stop, begin = offsets[text + 1], o
        row = counts[text]
        row[:] = 0
        reason, kept = 0, 0
        i = offsets[text]
        while i < stop:
            end, following = line_break(data, i, stop)
            first = skip_white(data, i, end, white)
            last = skip_white_back(data, first, end, white)
            i = following
            row[0] += 1
            # The line is copied to where it will stay if it is kept; that is never ahead of where it came from.
            at = o + 1 if kept else o
            for j in range(last - first):
                out[at + j] = data[first + j]
            stop_at = at + last - first
            words, flags, sentences = scan_line(out, at, stop_at, classes, white, max_word_chars, cuts, suffixes)
            if flags & LONG_WORD:
                row[2] += 1
                continue
            if citations and flags & BRACKET:
                cut = cut_citations(out, at, stop_at, white)
                if cut < stop_at:
                    stop_at = cut
                    words_left, flags, sentences = scan_line(out, at, stop_at, classes, white, -1, cuts, suffixes)
                    if words_after_citations:
                        words = words_left
            if needs_end and not is_terminated(out, at, stop_at, end_marks):
                row[3] += 1
                continue
            if words < min_line_words:
                row[4] += 1
                continue
            if flags & page_drops & LOREM:
                if reason == 0:
                    reason = 1
                continue
            if flags & drops & JAVASCRIPT:
                row[5] += 1
                continue
            if flags & page_drops & CURLY:
                if reason == 0:
                    reason = 2
                continue
            if flags & drops & POLICY:
                row[6] += 1
                continue
            row[7] += sentences
            if kept:
                out[o] = 10
            kept += 1
            o = stop_at
        row[1] = row[2] + row[3] + row[4] + row[5] + row[6]
        if reason == 0 and row[7] < min_sentences:
            reason = 3
        reasons[text] = reason
        if reason:
            o = begin
        else:
            o = stripped_end(out, begin, o, white)
        out_offsets[text + 1] = o


@called
def stripped_end(out: NDArray[np.uint8], begin: int, end: int, white: NDArray[np.uint8]) -> int:
    """Strips ``out[begin:end]`` in place and returns its new end."""
    first = skip_white(out, begin, end, white)
    end = skip_white_back(out, first, end, white)
    if first > begin:
        for j in range(end - first):
            out[begin + j] = out[first + j]
    return begin + end - first


def remove_c4_lines(texts: TextBuffers, limits: C4Limits) -> Edited:
    """Removes lines as C4 does."""
    counts = np.empty((texts.num_texts, len(COUNTS)), np.int64)
    reasons = np.empty(texts.num_texts, np.uint8)
    out = np.empty(int(texts.offsets[-1] - texts.offsets[0]) + 1, np.uint8)
    offsets = np.empty(texts.num_texts + 1, np.int64)
    drops = limits.javascript * JAVASCRIPT | limits.policy * POLICY
    page_drops = limits.lorem_ipsum * LOREM | limits.curly_bracket * CURLY
    remove_c4_kernel(
        texts.data, texts.offsets, class_table(), character_table(), limits.max_word_chars, limits.citations,
        bool(limits.end_marks.any()), limits.end_marks, limits.min_line_words, limits.words_after_citations,
        drops, page_drops, limits.min_sentences, out, offsets, counts, reasons,
    )  # fmt: skip
    return Edited(series_of(out, offsets), counts, reasons)


def warm_up() -> None:
    """Compiles the kernel or loads it from the cache."""
    import polars as pl

    from dataeng.kernels.text import text_buffers

    texts = text_buffers(pl.Series(["One line.\nAnother line."]))
    remove_c4_lines(texts, C4Limits(1000, True, np.zeros(128, np.uint8), 3, False, True, True, True, True, 5))
