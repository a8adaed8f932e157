"""Counts of `dataeng.kernels.extended_counters` for a column of texts, in one walk over the bytes of each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.distinct_words import count_listed_words, count_words_of_long_text
from dataeng.kernels.extended_characters import (
    BULLET,
    CONTROL,
    DIGIT,
    LETTER,
    LOWER,
    MARK,
    NUMERAL_SIGN,
    PUNCTUATION,
    RARE,
    SCRIPT_MASK,
    SPACE,
    SYMBOL,
    UNASSIGNED,
    extended_class_table,
)
from dataeng.kernels.extended_counters import EXTENDED_COUNTERS, EXTENDED_MEASURES, LETTERS_PER_WORD, SCRIPTS
from dataeng.kernels.phrases import JAVASCRIPT, LOREM, POLICY, mentions_javascript, phrase_flag
from dataeng.kernels.stop_words import StopWords, stop_word_rows
from dataeng.kernels.text import LONG_BYTES, TextBuffers, decode, hash_bytes, signed

_INDEX = {name: i for i, name in enumerate(EXTENDED_COUNTERS)}
BYTES, LETTERS, UPPERCASE, DIGITS, WHITESPACE = (
    _INDEX[name] for name in ("bytes", "letters", "uppercase_chars", "digits", "whitespace_chars")
)
PUNCTUATION_CHARS, SYMBOL_CHARS, NON_ASCII = (
    _INDEX[name] for name in ("punctuation_chars", "symbol_chars", "non_ascii_chars")
)
CONTROL_CHARS, UNASSIGNED_CHARS, PRIVATE_CHARS, REPLACEMENT = (
    _INDEX[name] for name in ("control_chars", "unassigned_chars", "private_use_chars", "replacement_chars")
)
PARENTHESES, SQUARE, CURLY = (_INDEX[name] for name in ("parentheses", "square_brackets", "curly_brackets"))
FIRST_SCRIPT = _INDEX["latin_letters"]
LATIN = 1
HAN = 1 + list(SCRIPTS).index("han")
KANA = 1 + list(SCRIPTS).index("kana")
SOUTHEAST_ASIAN = 1 + list(SCRIPTS).index("southeast_asian")
WORDS, WORD_CHARS, LONGEST_WORD, UPPERCASE_WORDS, NON_ALPHA_WORDS, NUMERAL_WORDS, UNIQUE_WORDS = (
    _INDEX[name]
    for name in (
        "raw_words", "raw_word_chars", "longest_word_chars", "uppercase_words", "non_alpha_words", "numeral_words",
        "unique_words",
    )
)  # fmt: skip
STOP_WORDS, URL_WORDS, EMAIL_WORDS, SEGMENTED_WORDS = (
    _INDEX[name] for name in ("stop_word_occurrences", "url_words", "email_words", "segmented_words")
)
UPPERCASE_LINES, DIGIT_LINES, ONE_WORD_LINES, TERMINAL_LINES, BULLET_LINES = (
    _INDEX[name]
    for name in ("uppercase_lines", "digit_lines", "one_word_lines", "ascii_terminal_lines", "bullet_point_lines")
)
JAVASCRIPT_LINES, LOREM_LINES, POLICY_LINES, LONGEST_LINE = (
    _INDEX[name] for name in ("javascript_lines", "lorem_ipsum_lines", "policy_lines", "longest_line_chars")
)
LONGEST_STOP_WORD = 32  # bytes


@called
def count_rare(kind: int, row: NDArray[np.int64]) -> None:
    if kind & PUNCTUATION:
        row[PUNCTUATION_CHARS] += 1
    elif kind & SYMBOL:
        row[SYMBOL_CHARS] += 1
    elif kind & CONTROL:
        row[CONTROL_CHARS] += 1
    elif kind & UNASSIGNED:
        row[UNASSIGNED_CHARS] += 1
    else:
        row[PRIVATE_CHARS] += 1


@called
def address_kind(data: NDArray[np.uint8], start: int, stop: int) -> int:
    """Returns 1 if the word looks like a web address, plus 2 if it looks like a mail address."""
    found, at = 0, -1
    if stop - start >= 4 and data[start] == 119 and data[start + 1] == 119 and data[start + 2] == 119:
        found |= data[start + 3] == 46
    for i in range(start, stop):
        byte = data[i]
        if byte == 58 and i + 2 < stop and data[i + 1] == 47 and data[i + 2] == 47:
            found |= 1
        elif byte == 64:
            if at < 0 and i > start:
                at = i
        elif byte == 46 and at >= 0:
            if i > at + 1:
                found |= 2
            else:
                at = stop  # "me@.net" is none, whatever follows
    return found


@called
def hash_lowered(data: NDArray[np.uint8], start: int, stop: int, lowered: NDArray[np.uint8]) -> np.uint64:
    """Returns the hash of the word in ASCII lower case; ``lowered`` is scratch."""
    for i in range(stop - start):
        byte = data[start + i]
        lowered[i] = byte | 32 if 65 <= byte <= 90 else byte
    return hash_bytes(lowered, 0, stop - start)


@inlined
def is_stop_word(value: np.uint64, stop_filter: NDArray[np.uint8], stop_hashes: NDArray[np.uint64]) -> bool:
    if not stop_filter[(value >> np.uint64(8)) & np.uint64(255)]:
        return False
    for i in range(stop_hashes.shape[0]):
        if stop_hashes[i] == value:
            return True
    return False


@called
def finish_line(
    data: NDArray[np.uint8],
    first: int,
    last: int,
    chars: int,
    uppercase: int,
    digits_only: bool,
    words: int,
    flags: int,
    classes: NDArray[np.uint32],
    row: NDArray[np.int64],
) -> None:
    """Counts a line whose stripped text is ``data[first:last]`` and that has ``chars`` characters in all."""
    row[UPPERCASE_LINES] += 2 * uppercase > chars
    row[DIGIT_LINES] += digits_only
    row[ONE_WORD_LINES] += words == 1
    row[LONGEST_LINE] = max(row[LONGEST_LINE], chars)
    byte = data[last - 1]
    row[TERMINAL_LINES] += byte == 46 or byte == 63 or byte == 33 or byte == 34
    opening = signed(data[first]) if data[first] < 128 else decode(data, first, last)[0]
    row[BULLET_LINES] += (classes[opening] & BULLET) != 0
    row[JAVASCRIPT_LINES] += (flags & JAVASCRIPT) != 0
    row[LOREM_LINES] += (flags & LOREM) != 0
    row[POLICY_LINES] += (flags & POLICY) != 0


@called
def count_segments(data: NDArray[np.uint8], start: int, stop: int, classes: NDArray[np.uint32]) -> int:
    """Returns the words of a chunk that has characters of a script without spaces; see ``segmented_words``."""
    words, other, letters = 0, False, 0
    i = start
    while i < stop:
        code_point, size = signed(data[i]), 1
        if code_point >= 128:
            code_point, size = decode(data, i, stop)
        kind = signed(classes[code_point])
        script = kind & SCRIPT_MASK
        if script == SOUTHEAST_ASIAN:
            letters += not kind & (MARK | PUNCTUATION)
            words += other
            other = False
        else:
            words += (letters + LETTERS_PER_WORD - 1) // LETTERS_PER_WORD
            letters = 0
            if (script == HAN or script == KANA) and kind & LETTER:
                words += 1 + other
                other = False
            elif not kind & (PUNCTUATION | MARK):
                other = True
        i += size
    return words + other + (letters + LETTERS_PER_WORD - 1) // LETTERS_PER_WORD


@called
def walk(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    classes: NDArray[np.uint32],
    stop_filter: NDArray[np.uint8],
    stop_hashes: NDArray[np.uint64],
    lowered: NDArray[np.uint8],
    word_hash: NDArray[np.uint64],
    row: NDArray[np.int64],
) -> None:
    """Walks once over a text: counts into ``row``, and lists the hashes of the words if there is room."""
    num_words, chars = 0, 0
    first, last, line_chars, uppercase, digits_only, line_words, flags = -1, start, 0, 0, True, 0, 0
    i = start
    while i <= stop:
        byte = data[i] if i < stop else np.uint8(10)
        if i == stop or byte == 10:
            if first >= 0:
                finish_line(data, first, last, line_chars, uppercase, digits_only, line_words, flags, classes, row)
            first, line_chars, uppercase, digits_only, line_words, flags = -1, 0, 0, True, 0, 0
            if i < stop:
                row[WHITESPACE] += 1
                chars += 1
            i += 1
            continue
        code_point, size = signed(byte), 1
        if byte >= 128:
            code_point, size = decode(data, i, stop)
        if classes[code_point] & SPACE:
            row[WHITESPACE] += 1
            row[NON_ASCII] += byte >= 128
            if classes[code_point] & RARE:
                count_rare(signed(classes[code_point]), row)
            line_chars += 1
            chars += 1
            # Inner white space is no digit; that at the end of a line is stripped.
            i += size
            continue
        word = i
        word_chars, any_kind, letters, not_latin, capitals, digits, unspaced = 0, 0, 0, 0, 0, 0, False
        while i < stop:
            byte = data[i]
            if byte < 128:
                kind = signed(classes[byte])
                if kind & SPACE:
                    break
                if kind & PUNCTUATION:
                    if byte == 40 or byte == 41:
                        row[PARENTHESES] += 1
                    elif byte == 91 or byte == 93:
                        row[SQUARE] += 1
                    elif byte == 123 or byte == 125:
                        row[CURLY] += 1
                i += 1
            else:
                code_point, size = decode(data, i, stop)
                kind = signed(classes[code_point])
                if kind & SPACE:
                    break
                row[NON_ASCII] += 1
                row[REPLACEMENT] += code_point == 0xFFFD
                script = kind & SCRIPT_MASK
                if kind & LETTER and script != LATIN:
                    not_latin += 1
                    if script:
                        row[FIRST_SCRIPT - 1 + script] += 1
                unspaced = unspaced or script == HAN or script == KANA or script == SOUTHEAST_ASIAN
                i += size
            if kind & RARE:
                count_rare(kind, row)
            any_kind |= kind
            letters += (kind >> 6) & 1
            capitals += (kind >> 7) & 1
            digits += (kind >> 14) & 1
            word_chars += 1
        if first < 0:
            first = word
        elif digits_only:
            digits_only = False  # white space between two words
        last = i
        numeric = any_kind & DIGIT != 0 and digits + count_signs(data, word, i, any_kind, classes) == word_chars
        digits_only = digits_only and digits == word_chars
        line_words += 1
        line_chars += word_chars
        chars += word_chars
        uppercase += capitals
        row[LETTERS] += letters
        row[FIRST_SCRIPT] += letters - not_latin
        row[UPPERCASE] += capitals
        row[DIGITS] += digits
        row[WORD_CHARS] += word_chars
        row[LONGEST_WORD] = max(row[LONGEST_WORD], word_chars)
        row[UPPERCASE_WORDS] += capitals > 0 and not any_kind & LOWER
        row[NON_ALPHA_WORDS] += not any_kind & LETTER
        row[NUMERAL_WORDS] += numeric
        if any_kind & PUNCTUATION and i - word >= 3:
            kind = address_kind(data, word, i)
            row[URL_WORDS] += kind & 1
            row[EMAIL_WORDS] += kind >> 1
        row[SEGMENTED_WORDS] += count_segments(data, word, i, classes) if unspaced else 1
        flags |= phrase_flag(data, word, start, stop)
        if i - word >= 10 and mentions_javascript(data, word, i):
            flags |= JAVASCRIPT
        value = hash_bytes(data, word, i)
        if word_hash.shape[0] != 0:
            word_hash[num_words] = value
        if capitals and i - word <= LONGEST_STOP_WORD:
            value = hash_lowered(data, word, i, lowered)
        row[STOP_WORDS] += is_stop_word(value, stop_filter, stop_hashes)
        num_words += 1
    row[WORDS] = num_words


@inlined
def count_signs(data: NDArray[np.uint8], start: int, stop: int, any_kind: int, classes: NDArray[np.uint32]) -> int:
    """Returns how many signs of numerals a word has; only looks where it has digits and no letters."""
    if any_kind & LETTER or not any_kind & NUMERAL_SIGN:
        return 0
    signs = 0
    for i in range(start, stop):
        signs += data[i] < 128 and classes[data[i]] & NUMERAL_SIGN != 0
    return signs


@kernel
def measure_extended(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    classes: NDArray[np.uint32],
    stop_filter: NDArray[np.uint8],
    stop_hashes: NDArray[np.uint64],
    language: NDArray[np.int32],
    long_bytes: int,
    counters: NDArray[np.int64],
    measures: NDArray[np.float64],
) -> None:
    """The kernel behind `count_extended_signals`."""
    longest, longest_short = 0, 0
    for text in range(offsets.shape[0] - 1):
        size = offsets[text + 1] - offsets[text]
        longest = max(longest, size)
        if size <= long_bytes:
            longest_short = max(longest_short, size)
    # A word and the white space after it are two bytes at least. A long text gets a smaller table, and no list.
    word_hash, no_list = np.empty(longest_short // 2 + 2, np.uint64), np.empty(0, np.uint64)
    slots = 1024
    while slots < 2 * word_hash.shape[0]:
        slots *= 2
    slots = max(slots, longest // 20)
    table, counts = np.empty(slots, np.uint64), np.empty(slots, np.int32)
    lowered = np.zeros(LONGEST_STOP_WORD + 8, np.uint8)
    for text in range(offsets.shape[0] - 1):
        start, stop = offsets[text], offsets[text + 1]
        row = counters[text]
        row[:] = 0
        row[BYTES] = stop - start
        is_long = stop - start > long_bytes
        walk(
            data, start, stop, classes, stop_filter[language[text]], stop_hashes[language[text]], lowered,
            no_list if is_long else word_hash, row,
        )  # fmt: skip
        num_words = row[WORDS]
        if is_long:
            unique, total = count_words_of_long_text(data, start, stop, classes, table, counts)
        else:
            unique, total = count_listed_words(word_hash, num_words, table, counts)
        row[UNIQUE_WORDS] = unique
        measures[text, 0] = max(0.0, math.log(num_words) - total / num_words) if num_words else 0.0


def count_extended_signals(
    texts: TextBuffers,
    *,
    stop_words: StopWords | None = None,
    languages: Sequence[str | None] | None = None,
    long_bytes: int = LONG_BYTES,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Measures every text; arguments as for `dataeng.kernels.signals.count_signals`.

    Returns:
      int64 [texts, counters] in the order of `EXTENDED_COUNTERS`, and float64 [texts, measures] in that of
      `EXTENDED_MEASURES`.
    """
    hashes, filters, language = stop_word_rows(texts.num_texts, stop_words, languages)
    counters = np.empty((texts.num_texts, len(EXTENDED_COUNTERS)), np.int64)
    measures = np.zeros((texts.num_texts, len(EXTENDED_MEASURES)), np.float64)
    classes = extended_class_table()
    measure_extended(texts.data, texts.offsets, classes, filters, hashes, language, long_bytes, counters, measures)
    return counters, measures


def warm_up() -> None:
    """Compiles the kernel or loads it from the cache."""
    import polars as pl

    from dataeng.kernels.text import text_buffers

    count_extended_signals(text_buffers(pl.Series(["One line.\nAnother line."], dtype=pl.String)))
