"""Counts of the Gopher, C4 and FineWeb rules for a column of texts, in one call.

One walk over the bytes finds words, lines and phrases; repetition is then counted on hashes of lines, paragraphs and
word n-grams. All counts are raw integers: ratios and thresholds are the rules' business (``dataeng/presets``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.characters import (
    ALPHA,
    BEFORE_PERIOD,
    DIGIT,
    INFIX,
    LETTER_J,
    PREFIX,
    PUNCTUATION,
    SPACE,
    SUFFIX,
    TERMINAL,
    class_table,
)
from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.counters import (
    BULLET_LINES,
    C4_CURLY,
    C4_JAVASCRIPT,
    C4_LINES,
    C4_LONG_WORD,
    C4_LOREM,
    C4_POLICY,
    C4_SENTENCES,
    C4_SHORT,
    C4_TERMINAL_SHIFT,
    CHARS,
    COUNTERS,
    ELLIPSES,
    ELLIPSIS_LINES,
    HASHES,
    LINES,
    NEWLINES,
    SHORT_LINES,
    STOP_WORDS,
    TERMINAL_LINES,
    TEXT_LINES,
    WORDS,
)
from dataeng.kernels.phrases import (
    CURLY,
    JAVASCRIPT,
    LONG_WORD,
    LOREM,
    POLICY,
    mentions_javascript,
    phrase_flag,
)
from dataeng.kernels.repetition import count_ngrams, count_repeated_lines, count_repeated_paragraphs
from dataeng.kernels.special_cases import MAX_SPECIAL_BYTES, special_case
from dataeng.kernels.stop_words import StopWords, stop_word_rows
from dataeng.kernels.text import TextBuffers, decode, hash_bytes, previous_character, signed, table_size
from dataeng.kernels.words import add_pieces, add_word, split_chunk

Words = Literal["split", "whitespace"]

SPECIAL = PREFIX | SUFFIX | INFIX  # characters at which a chunk may be cut


@inlined
def ends_with_ellipsis(data: NDArray[np.uint8], start: int, stop: int) -> bool:
    """Whether ``data[start:stop]`` ends with ``...`` or ``…``."""
    if stop - start < 3:
        return False
    a, b, c = data[stop - 3], data[stop - 2], data[stop - 1]
    return bool((a == 46 and b == 46 and c == 46) or (a == 0xE2 and b == 0x80 and c == 0xA6))


@called
def without_citations(data: NDArray[np.uint8], start: int, stop: int) -> int:
    """Returns where ``data[start:stop]`` ends without the ``[12]``, ``[edit]`` and ``[citation needed]`` at its end."""
    while stop > start and data[stop - 1] == 93:
        i = stop - 2
        while i >= start and 48 <= data[i] <= 57:
            i -= 1
        if i >= start and data[i] == 91:
            stop = i
        elif stop - 6 >= start and is_word(data, stop - 6, EDIT):
            stop -= 6
        elif stop - 17 >= start and is_word(data, stop - 17, CITATION_NEEDED):
            stop -= 17
        else:
            break
    return stop


EDIT = np.frombuffer(b"[edit]", np.uint8)
CITATION_NEEDED = np.frombuffer(b"[citation needed]", np.uint8)


@inlined
def is_word(data: NDArray[np.uint8], i: int, word: NDArray[np.uint8]) -> bool:
    for j in range(word.shape[0]):
        if data[i + j] != word[j]:
            return False
    return True


@called
def judge_line(
    data: NDArray[np.uint8], first: int, last: int, words: int, flags: int, sentences: int, row: NDArray[np.int64]
) -> None:
    """Counts a line of `str.splitlines` whose stripped text is ``data[first:last]``; ``first < 0`` for a blank line.

    ``sentences`` is how often a new sentence started after the line's first.
    """
    row[LINES] += 1
    if first < 0:
        row[C4_SHORT] += 1
        return
    byte = data[first]
    if byte == 45 or (byte == 0xE2 and last - first >= 3 and data[first + 1] == 0x80 and data[first + 2] == 0xA2):
        row[BULLET_LINES] += 1
    if ends_with_ellipsis(data, first, last):
        row[ELLIPSIS_LINES] += 1
    # C4's line rules, in datatrove's order.
    if flags & LONG_WORD:
        row[C4_LONG_WORD] += 1
        return
    if words < 3:
        row[C4_SHORT] += 1
        return
    end = without_citations(data, first, last)
    terminal = False
    if end > first:
        byte = data[end - 1]
        terminal = (byte == 46 or byte == 63 or byte == 33 or byte == 34 or byte == 39) and not (
            byte == 46 and end - first >= 3 and data[end - 2] == 46 and data[end - 3] == 46
        )
    if flags & LOREM:
        row[C4_LOREM] += 1
        if terminal:
            row[C4_LOREM + C4_TERMINAL_SHIFT] += 1
    elif flags & JAVASCRIPT:
        row[C4_JAVASCRIPT] += 1
    elif flags & CURLY:
        row[C4_CURLY] += 1
        if terminal:
            row[C4_CURLY + C4_TERMINAL_SHIFT] += 1
    elif flags & POLICY:
        row[C4_POLICY] += 1
    else:
        row[C4_LINES] += 1
        row[C4_SENTENCES] += sentences + 1
        if terminal:
            row[C4_LINES + C4_TERMINAL_SHIFT] += 1
            row[C4_SENTENCES + C4_TERMINAL_SHIFT] += sentences + 1


@inlined
def ends_sentence(data: NDArray[np.uint8], start: int, stop: int, classes: NDArray[np.uint16]) -> bool:
    """Whether a chunk ends a sentence: one terminal sign, then perhaps closing quotes and brackets.

    As spaCy's sentencizer, which looks for a token that is one terminal sign: not ``...``, and not a period that
    belongs to the word, as in initials ("J.").
    """
    i = stop
    while i > start:
        at = previous_character(data, i, start)
        byte = data[at]
        kind = classes[byte] if byte < 128 else classes[decode(data, at, stop)[0]]
        if kind & TERMINAL:
            if byte != 46:
                return True
            if at == start:
                return True
            before = data[at - 1]
            if before == 46:
                return False
            if 65 <= before <= 90:  # "U.S." goes on, "NATO." ends
                return at - 2 >= start and 65 <= data[at - 2] <= 90
            return True
        if not kind & SUFFIX:
            return False
        i = at
    return False


@called
def count_ellipses(data: NDArray[np.uint8], start: int, stop: int) -> int:
    """Counts ``...`` without overlap."""
    found, i = 0, start
    while i + 2 < stop:
        if data[i] == 46 and data[i + 1] == 46 and data[i + 2] == 46:
            found += 1
            i += 3
        else:
            i += 1
    return found


@called
def finish_break_line(
    data: NDArray[np.uint8], start: int, stop: int, num_chars: int, classes: NDArray[np.uint16], row: NDArray[np.int64]
) -> None:
    """Counts a line between two ``\\n`` that has more than white space, as FineWeb's rules do."""
    row[TEXT_LINES] += 1
    row[SHORT_LINES] += num_chars <= 30
    at = previous_character(data, stop, start)
    byte = data[at]
    kind = classes[byte] if byte < 128 else classes[decode(data, at, stop)[0]]
    row[TERMINAL_LINES] += (kind & TERMINAL) != 0


@inlined
def breaks_line(byte: int, code_point: int) -> bool:
    """Whether `str.splitlines` ends a line at this white space (other than ``\\n``)."""
    if byte < 128:
        return 11 <= byte <= 13 or 28 <= byte <= 30
    return code_point == 0x85 or code_point == 0x2028 or code_point == 0x2029


@called
def walk(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    classes: NDArray[np.uint16],
    split: bool,
    stop_filter: NDArray[np.uint8],
    stop_hashes: NDArray[np.uint64],
    stop_seen: NDArray[np.uint64],
    word_hash: NDArray[np.uint64],
    word_end: NDArray[np.int32],
    line_start: NDArray[np.int32],
    line_char: NDArray[np.int32],
    line_is_text: NDArray[np.uint8],
    cuts: NDArray[np.int32],
    suffixes: NDArray[np.int32],
    row: NDArray[np.int64],
) -> tuple[int, int, int, int, int, int]:
    """Walks once over a text: counts into ``row``, lists words and break lines.

    Returns:
      number of words, number of break lines, then byte and character position (in the text) of where the stripped
      text starts, then of where it ends.
    """
    num_words = 0
    num_lines = 0  # break lines
    chars = 0
    first_byte, first_char, last_byte, last_char = -1, 0, start, 0  # the stripped text
    # the current line of str.splitlines
    first, last, words, flags, sentences, ended = -1, start, 0, 0, 0, False
    line_open = False
    # the current break line
    break_start, break_char, break_text = start, 0, False
    last_size = 1
    line_start[0] = 0
    line_char[0] = 0
    word_end[0] = 0
    i = start
    while i < stop:
        byte = data[i]
        size = 1
        code_point = signed(byte)
        if byte >= 128:
            code_point, size = decode(data, i, stop)
        kind = classes[code_point]
        if kind & SPACE:
            chars += 1
            if byte == 10:
                if line_open or i == start or not (data[i - 1] == 13):
                    judge_line(data, first, last, words, flags, sentences, row)
                first, words, flags, sentences, ended, line_open = -1, 0, 0, 0, False, False
                if break_text:
                    finish_break_line(data, break_start, i, chars - 1 - break_char, classes, row)
                line_is_text[num_lines] = break_text
                num_lines += 1
                break_start, break_char, break_text = i + 1, chars, False
                line_start[num_lines] = i + 1 - start
                line_char[num_lines] = chars
            elif breaks_line(byte, code_point):
                judge_line(data, first, last, words, flags, sentences, row)
                first, words, flags, sentences, ended, line_open = -1, 0, 0, 0, False, False
            else:
                line_open = True
            i += size
            continue
        # A chunk: everything up to the next white space.
        chunk = i
        chunk_chars = 0
        any_kind, all_kind, last_kind = 0, 0xFFFF, 0
        prior_kind, prior_all = 0, 0xFFFF  # of the characters before the last one
        specials, dots = 0, 0
        while i < stop:
            byte = data[i]
            if byte < 128:
                kind = classes[byte]
                if kind & SPACE:
                    break
                size = 1
                if kind & PUNCTUATION:
                    if byte == 46:
                        dots += 1
                    elif byte == 35:
                        row[HASHES] += 1
                    elif byte == 123:
                        flags |= CURLY
                i += 1
            else:
                code_point, size = decode(data, i, stop)
                kind = classes[code_point]
                if kind & SPACE:
                    break
                if code_point == 0x2026:
                    row[ELLIPSES] += 1
                i += size
            prior_kind, prior_all, last_kind = last_kind, all_kind, signed(kind)
            last_size = size
            any_kind |= last_kind
            all_kind &= last_kind
            specials += (last_kind & SPECIAL) != 0
            chunk_chars += 1
        if first_byte < 0:
            first_byte, first_char = chunk, chars
        chars += chunk_chars
        last_byte, last_char = i, chars
        line_open, break_text = True, True
        if first < 0:
            first = chunk
        last = i
        words += 1
        if chunk_chars > 1000:
            flags |= LONG_WORD
        flags |= phrase_flag(data, chunk, start, stop)
        if any_kind & LETTER_J and mentions_javascript(data, chunk, i):
            flags |= JAVASCRIPT
        if dots >= 3:
            row[ELLIPSES] += count_ellipses(data, chunk, i)
        value = hash_bytes(data, chunk, i)
        if split:
            mixed = any_kind & DIGIT != 0 and any_kind & ALPHA != 0  # may end in a unit
            special = special_case(value) if i - chunk <= MAX_SPECIAL_BYTES else 0
            if chunk_chars > 1 and (specials or mixed or special):
                final_period = data[i - 1] == 46 and prior_kind & BEFORE_PERIOD
                if specials == 1 and not mixed and not special and (last_kind & SUFFIX or final_period):
                    # Nearly all chunks with punctuation are a word and a comma or period.
                    cut = i - last_size
                    value = hash_bytes(data, chunk, cut)
                    if cut - chunk > MAX_SPECIAL_BYTES or special_case(value) == 0:
                        if ended and not prior_all & PUNCTUATION:
                            sentences += 1
                            ended = False
                        if last_kind & TERMINAL or (chunk_chars == 2 and any_kind & TERMINAL):
                            ended = True
                        num_words = add_word(
                            value, chunk_chars - 1, any_kind, prior_all,
                            stop_filter, stop_hashes, stop_seen, word_hash, word_end, num_words, row,
                        )  # fmt: skip
                        num_words = add_word(
                            hash_bytes(data, cut, i), 1, last_kind, last_kind,
                            stop_filter, stop_hashes, stop_seen, word_hash, word_end, num_words, row,
                        )  # fmt: skip
                        continue
                num_pieces = split_chunk(data, chunk, i, classes, cuts, suffixes)
                num_words, sentences, ended = add_pieces(
                    data, chunk, cuts, num_pieces, sentences, ended, classes,
                    stop_filter, stop_hashes, stop_seen, word_hash, word_end, num_words, row,
                )  # fmt: skip
                continue
            ends = chunk_chars == 1 and any_kind & TERMINAL != 0
        else:
            ends = any_kind & TERMINAL != 0 and ends_sentence(data, chunk, i, classes)
        if ended and not all_kind & PUNCTUATION:
            sentences += 1
            ended = False
        ended = ended or ends
        num_words = add_word(
            value, chunk_chars, any_kind, all_kind, stop_filter, stop_hashes, stop_seen,
            word_hash, word_end, num_words, row,
        )  # fmt: skip
    if line_open:
        judge_line(data, first, last, words, flags, sentences, row)
    if break_text:
        finish_break_line(data, break_start, stop, chars - break_char, classes, row)
    line_is_text[num_lines] = break_text
    num_lines += 1
    line_start[num_lines] = stop - start + 1  # as if one more "\n" followed
    line_char[num_lines] = chars + 1
    row[CHARS] = chars
    row[WORDS] = num_words
    row[NEWLINES] = num_lines - 1
    if first_byte < 0:
        first_byte = stop
    return num_words, num_lines, first_byte - start, first_char, last_byte - start, last_char


@kernel
def measure(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    classes: NDArray[np.uint16],
    split: bool,
    stop_filter: NDArray[np.uint8],
    stop_hashes: NDArray[np.uint64],
    language: NDArray[np.int32],
    tables: NDArray[np.uint64],
    counters: NDArray[np.int64],
) -> None:
    """The kernel behind `count_signals`; ``tables`` is [`table_size` of the longest text's bytes + 2]."""
    longest = 0
    for text in range(offsets.shape[0] - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    # Words and lines are at most as many as bytes. Memory that is never written costs nothing.
    capacity = longest + 2
    word_hash = np.empty(capacity, np.uint64)
    word_end = np.empty(capacity + 1, np.int32)
    line_start = np.empty(capacity + 1, np.int32)
    line_char = np.empty(capacity + 1, np.int32)
    line_is_text = np.empty(capacity, np.uint8)
    gram_hash = np.empty(capacity, np.uint64)
    gram_slot = np.empty(capacity, np.int32)
    gram_mark = np.empty(capacity, np.int8)
    candidates = np.empty(capacity, np.int32)
    slot_count = np.empty(tables.shape[0], np.int32)
    slot_first = np.empty(tables.shape[0], np.int32)
    stop_seen = np.zeros(1, np.uint64)
    for text in range(offsets.shape[0] - 1):
        start, stop = offsets[text], offsets[text + 1]
        row = counters[text]
        row[:] = 0
        stop_seen[0] = 0
        num_words, num_lines, first_byte, first_char, last_byte, last_char = walk(
            data, start, stop, classes, split, stop_filter[language[text]], stop_hashes[language[text]], stop_seen,
            word_hash, word_end, line_start, line_char, line_is_text, gram_slot, candidates, row,
        )  # fmt: skip
        seen = stop_seen[0]
        while seen:
            row[STOP_WORDS] += 1
            seen &= seen - np.uint64(1)
        count_repeated_lines(data, start, line_start, line_char, line_is_text, num_lines, tables, row)
        count_repeated_paragraphs(
            data, start, line_start, line_char, num_lines, first_byte, first_char, last_byte, last_char, tables, row
        )
        count_ngrams(
            word_hash, word_end, num_words, gram_hash, gram_slot, gram_mark, candidates,
            tables, slot_count, slot_first, row,
        )  # fmt: skip


def count_signals(
    texts: TextBuffers,
    *,
    words: Words = "split",
    stop_words: StopWords | None = None,
    languages: Sequence[str | None] | None = None,
) -> NDArray[np.int64]:
    """Measures every text.

    Args:
      words: what a word is, see `dataeng.kernels.words`.
      stop_words: lists per language, from `dataeng.kernels.stop_words.stop_word_table`.
      languages: the language of each text; texts in one without a list get 0 stop words.

    Returns:
      int64 [texts, counters]; the columns are `dataeng.kernels.counters.COUNTERS`, in that order.
    """
    hashes, filters, language = stop_word_rows(texts.num_texts, stop_words, languages)
    counters = np.empty((texts.num_texts, len(COUNTERS)), np.int64)
    longest = int(np.diff(texts.offsets).max()) if texts.num_texts else 0
    tables = np.empty(table_size(longest + 2), np.uint64)
    measure(texts.data, texts.offsets, class_table(), words == "split", filters, hashes, language, tables, counters)
    return counters


def warm_up() -> None:
    """Compiles the kernel or loads it from the cache."""
    import polars as pl

    from dataeng.kernels.text import text_buffers

    count_signals(text_buffers(pl.Series(["One line.\nAnother line."], dtype=pl.String)))
