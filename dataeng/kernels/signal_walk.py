"""The one walk over the bytes of a text that finds words, lines and phrases."""

from __future__ import annotations

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
)
from dataeng.kernels.compiling import called, inlined
from dataeng.kernels.counters import CHARS, ELLIPSES, HASHES, NEWLINES, WORDS
from dataeng.kernels.judged_lines import breaks_line, finish_break_line, judge_line
from dataeng.kernels.phrases import CURLY, JAVASCRIPT, LONG_WORD, mentions_javascript, phrase_flag
from dataeng.kernels.special_cases import MAX_SPECIAL_BYTES, special_case
from dataeng.kernels.text import decode, hash_bytes, previous_character, signed
from dataeng.kernels.word_list import add_pieces, add_word
from dataeng.kernels.words import split_chunk

SPECIAL = PREFIX | SUFFIX | INFIX  # characters at which a chunk may be cut


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
    boundaries: NDArray[np.uint64],
    cuts: NDArray[np.int32],
    suffixes: NDArray[np.int32],
    row: NDArray[np.int64],
) -> tuple[int, int]:
    """Walks once over a text: counts into ``row`` and lists its words.

    Args:
      split: cut chunks into words as `dataeng.kernels.words` says.
      stop_filter, stop_hashes: the stop words; ``stop_seen``: [1], a bit for each that occurs.
      word_hash, word_end, boundaries: see `add_word`; ``cuts``, ``suffixes``: scratch, see `split_chunk`.

    Returns:
      the first byte of the text that is not white space, and the end of the last one.
    """
    num_words = 0
    num_newlines = 0
    chars = 0
    first_byte, last_byte = -1, start  # the stripped text
    # the current line of str.splitlines
    first, last, words, flags, sentences, ended = -1, start, 0, 0, 0, False
    line_open = False
    # the current break line
    break_start, break_char, break_text = start, 0, False
    last_size = 1
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
                num_newlines += 1
                break_start, break_char, break_text = i + 1, chars, False
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
            first_byte = chunk
        chars += chunk_chars
        last_byte = i
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
                            value, chunk - start, cut - start, chunk_chars - 1, any_kind, prior_all,
                            stop_filter, stop_hashes, stop_seen, word_hash, word_end, boundaries, num_words, row,
                        )  # fmt: skip
                        num_words = add_word(
                            hash_bytes(data, cut, i), cut - start, i - start, 1, last_kind, last_kind,
                            stop_filter, stop_hashes, stop_seen, word_hash, word_end, boundaries, num_words, row,
                        )  # fmt: skip
                        continue
                num_pieces = split_chunk(data, chunk, i, classes, cuts, suffixes)
                num_words, sentences, ended = add_pieces(
                    data, start, chunk, cuts, num_pieces, sentences, ended, classes,
                    stop_filter, stop_hashes, stop_seen, word_hash, word_end, boundaries, num_words, row,
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
            value, chunk - start, i - start, chunk_chars, any_kind, all_kind,
            stop_filter, stop_hashes, stop_seen, word_hash, word_end, boundaries, num_words, row,
        )  # fmt: skip
    if line_open:
        judge_line(data, first, last, words, flags, sentences, row)
    if break_text:
        finish_break_line(data, break_start, stop, chars - break_char, classes, row)
    row[CHARS] = chars
    row[WORDS] = num_words
    row[NEWLINES] = num_newlines
    return (stop if first_byte < 0 else first_byte), last_byte
