"""What a word is, and what is counted of it.

A *chunk* is a run of characters that are not white space (``str.split``). With ``words="whitespace"`` (Gopher paper,
Dolma) a chunk is a word. With ``words="split"`` chunks are cut further, by the rules of spaCy's tokenizer for English
(MIT, ``spacy/lang/punctuation.py``), which is what datatrove and FineWeb count with:

* punctuation, quotes, symbols and emoji are cut off both ends, one word each; a run of periods is one word;
* a final period stays with a single capital ("J.") and is cut off after anything else;
* ``'s`` is cut off the end; so are the English contractions ``n't 'm 're 've 'll 'd``; so are units, ``%``, ``+`` and
  currency signs after a digit;
* inside, a chunk is cut at ellipses, symbols, hyphens before a letter, commas and ``: < > = /`` between letters,
  operators between digits, and a period between a lower-case and an upper-case letter; web addresses are left whole.

Not reproduced: spaCy's list of special cases (abbreviations such as "e.g.", "gonna", "cannot", emoticons), and the
currency names of several letters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.characters import (
    ALPHA,
    BEFORE_PERIOD,
    CURRENCY,
    DIGIT,
    ICON,
    INFIX,
    LOWER,
    PREFIX,
    PUNCTUATION,
    QUOTE,
    SUFFIX,
    UPPER,
)
from dataeng.kernels.compiling import called, inlined
from dataeng.kernels.counters import ALPHA_WORDS, SYMBOL_FREE_CHARS, SYMBOL_FREE_WORDS
from dataeng.kernels.text import decode, hash_bytes, previous_character, signed

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


def hash_word(word: bytes) -> int:
    """`dataeng.kernels.text.hash_bytes` in plain Python, so that a table of stop words needs no compiling."""
    mask, state = (1 << 64) - 1, 0x243F6A8885A308D3 ^ len(word)
    blocks = [word[i : i + 8] for i in range(0, len(word), 8)] or [b""]
    for block in blocks:
        state = ((state ^ int.from_bytes(block, "little")) * 0x9E3779B97F4A7C15) & mask
        state ^= state >> 32
    state = (state * 0xD6E8FEB86659FD93) & mask
    return (state ^ (state >> 32)) | 1


@called
def note_stop_word(word: np.uint64, stop_hashes: NDArray[np.uint64], stop_seen: NDArray[np.uint64]) -> None:
    for i in range(stop_hashes.shape[0]):
        if stop_hashes[i] == word:
            stop_seen[0] |= np.uint64(1) << np.uint64(i)


@inlined
def add_word(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    num_chars: int,
    any_kind: int,
    all_kind: int,
    stop_filter: NDArray[np.uint8],
    stop_hashes: NDArray[np.uint64],
    stop_seen: NDArray[np.uint64],
    word_hash: NDArray[np.uint64],
    word_end: NDArray[np.int32],
    num_words: int,
    row: NDArray[np.int64],
) -> int:
    """Appends the word ``data[start:stop]`` and returns the new number of words.

    Args:
      any_kind: class bits that any of its characters has; ``all_kind``: those that all have.
      word_hash: [words], filled; ``word_end``: [words + 1], characters of all words so far, filled.
    """
    value = hash_bytes(data, start, stop)
    word_hash[num_words] = value
    word_end[num_words + 1] = word_end[num_words] + num_chars
    if not all_kind & PUNCTUATION:
        row[SYMBOL_FREE_WORDS] += 1
        row[SYMBOL_FREE_CHARS] += num_chars
    if any_kind & ALPHA:
        row[ALPHA_WORDS] += 1
    if stop_filter[(value >> np.uint64(8)) & np.uint64(255)]:
        note_stop_word(value, stop_hashes, stop_seen)
    return num_words + 1


@called
def add_piece(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    classes: NDArray[np.uint16],
    stop_filter: NDArray[np.uint8],
    stop_hashes: NDArray[np.uint64],
    stop_seen: NDArray[np.uint64],
    word_hash: NDArray[np.uint64],
    word_end: NDArray[np.int32],
    num_words: int,
    row: NDArray[np.int64],
) -> int:
    """As `add_word`, for a piece of a chunk whose characters have still to be looked at."""
    num_chars, any_kind, all_kind = 0, 0, 0xFFFF
    i = start
    while i < stop:
        code_point, size = signed(data[i]), 1
        if code_point >= 128:
            code_point, size = decode(data, i, stop)
        kind = signed(classes[code_point])
        any_kind |= kind
        all_kind &= kind
        num_chars += 1
        i += size
    return add_word(
        data, start, stop, num_chars, any_kind, all_kind, stop_filter, stop_hashes, stop_seen,
        word_hash, word_end, num_words, row,
    )  # fmt: skip


@inlined
def kind_at(data: NDArray[np.uint8], i: int, stop: int, classes: NDArray[np.uint16]) -> int:
    """Returns the class bits of the character that starts at byte ``i``."""
    if data[i] < 128:
        return signed(classes[data[i]])
    return signed(classes[decode(data, i, stop)[0]])


@inlined
def character_bytes(byte: int) -> int:
    """Returns how many bytes a character has that starts with this one."""
    if byte < 128:
        return 1
    if byte < 0xE0:
        return 2
    return 3 if byte < 0xF0 else 4


@inlined
def is_apostrophe(data: NDArray[np.uint8], i: int, stop: int) -> int:
    """Returns the bytes of ``'`` or ``’`` at ``i``, or 0."""
    if data[i] == 39:
        return 1
    if i + 3 <= stop and data[i] == 0xE2 and data[i + 1] == 0x80 and data[i + 2] == 0x99:
        return 3
    return 0


@inlined
def run_of(data: NDArray[np.uint8], i: int, stop: int, byte: int) -> int:
    """Returns where the run of ``byte`` that starts at ``i`` ends."""
    while i < stop and data[i] == byte:
        i += 1
    return i


_UNITS = (
    "km m dm cm mm ha nm yd in ft kg g mg t lb oz m/s km/h kmh mph hPa Pa mbar mb MB kb KB gb GB tb TB T G M K % "
    "km² km³ m² m³ dm² dm³ cm² cm³ mm² mm³ µm µg км м дм см мм нм кг г мг Па Кб КБ кб Мб МБ мб Гб ГБ гб Тб ТБ тб"
)
UNITS = np.array(
    sorted(int.from_bytes(unit.encode(), "little") for unit in _UNITS.split() if len(unit.encode()) <= 8), np.uint64
)


@called
def unit_start(data: NDArray[np.uint8], start: int, stop: int) -> int:
    """Returns where a unit of measure that ends the piece starts, if a digit stands right before it; else ``stop``."""
    i, packed = stop, np.uint64(0)
    while i > start and stop - i < 8 and not 48 <= data[i - 1] <= 57:
        i -= 1
        packed = (packed << np.uint64(8)) | np.uint64(data[i])
    if i == start or i == stop or not 48 <= data[i - 1] <= 57:
        return stop
    for k in range(UNITS.shape[0]):
        if UNITS[k] == packed:
            return i
    return stop


@called
def suffix_start(data: NDArray[np.uint8], start: int, stop: int, classes: NDArray[np.uint16]) -> int:
    """Returns where the last suffix of ``data[start:stop]`` starts, or ``stop`` if there is none."""
    at = previous_character(data, stop, start)
    kind = kind_at(data, at, stop, classes)
    if kind & SUFFIX:
        return at
    byte = data[at]
    if byte == 46:
        run = at
        while run > start and data[run - 1] == 46:
            run -= 1
        if at > run:  # "..": one ellipsis
            return run
        if at == start:
            return stop
        before = previous_character(data, at, start)
        kind = kind_at(data, before, at, classes)
        if kind & BEFORE_PERIOD:
            return at
        if kind & UPPER and before > start:
            before = previous_character(data, before, start)
            if kind_at(data, before, at, classes) & UPPER:
                return at
        return stop
    if (byte == 115 or byte == 83) and at > start:  # 's
        quote = previous_character(data, at, start)
        if is_apostrophe(data, quote, stop):
            return quote
    if at > start and data[at - 1] >= 48 and data[at - 1] <= 57 and (kind & CURRENCY or byte == 43):
        return at
    return unit_start(data, start, stop)


@called
def next_suffix_end(data: NDArray[np.uint8], i: int, stop: int, classes: NDArray[np.uint16]) -> int:
    """Returns where the suffix that starts at byte ``i`` ends, in a stretch that `suffix_start` found to be suffixes.

    Forwards, so that ten thousand exclamation marks cost ten thousand steps. A suffix of several characters is a run of
    periods, an apostrophe with its s, or a unit (the only one with characters that are no suffix by themselves).
    """
    if data[i] == 46:
        return run_of(data, i, stop, 46)
    quote = is_apostrophe(data, i, stop)
    if quote and i + quote < stop and data[i + quote] | 32 == 115:
        return i + quote + 1
    if kind_at(data, i, stop, classes) & SUFFIX:
        return i + character_bytes(data[i])
    while i < stop and data[i] != 46 and not kind_at(data, i, stop, classes) & SUFFIX:
        i += character_bytes(data[i])
    return min(i, stop)


@called
def contraction_start(data: NDArray[np.uint8], start: int, stop: int) -> int:
    """Returns where ``n't 'm 're 've 'll 'd`` at the end of an English word starts, or ``stop``."""
    size = stop - start
    if size < 3:
        return stop
    last, before = data[stop - 1] | 32, data[stop - 2] | 32
    i = stop
    if last == 116 or last == 109 or last == 100:  # t m d
        i = stop - 1
    elif (last == 101 and (before == 114 or before == 118)) or (last == 108 and before == 108):  # re ve ll
        i = stop - 2
    else:
        return stop
    quote = previous_character(data, i, start)
    if not is_apostrophe(data, quote, stop) or quote == start:
        return stop
    if last == 116:
        return quote - 1 if data[quote - 1] | 32 == 110 and quote - 1 > start else stop
    return quote


@called
def is_address(data: NDArray[np.uint8], start: int, stop: int, classes: NDArray[np.uint16]) -> bool:
    """Whether the piece looks like a web or mail address, by the gist of spaCy's ``URL_PATTERN``.

    Scheme and user are optional; then labels of letters, digits, ``-`` and ``_`` with periods between; the last label
    has two or more lower-case letters; then the end, a port or a path.
    """
    i = start
    for j in range(start, stop - 2):
        if data[j] == 58 and data[j + 1] == 47 and data[j + 2] == 47:
            i = j + 3
            break
    for j in range(i, stop):
        if data[j] == 47:
            break
        if data[j] == 64:
            i = j + 1
            break
    labels, label_start, lower_only = 0, i, True
    while i < stop:
        byte = data[i]
        if byte == 46:
            if i == label_start or data[i - 1] == 45 or data[i - 1] == 95:
                return False
            labels += 1
            label_start, lower_only = i + 1, True
            i += 1
            continue
        kind = kind_at(data, i, stop, classes)
        inner = byte == 45 or byte == 95
        if inner and i == label_start:
            return False
        if not inner and byte < 128 and not kind & (ALPHA | DIGIT):
            break
        lower_only = lower_only and kind & LOWER != 0
        i += character_bytes(byte)
    if labels == 0 or i - label_start < 2 or not lower_only:
        return False
    return i >= stop or data[i] == 58 or data[i] == 47 or data[i] == 63 or data[i] == 35


@called
def infix_end(data: NDArray[np.uint8], i: int, start: int, stop: int, before: int, classes: NDArray[np.uint16]) -> int:
    """Returns where an infix that starts at byte ``i`` ends, or ``i`` if none does.

    Args:
      start, stop: the piece between prefixes and suffixes.
      before: class bits of the character before ``i``, 0 at the start.
    """
    byte = data[i]
    size = character_bytes(byte)
    kind = kind_at(data, i, stop, classes)
    code_point = decode(data, i, stop)[0] if byte >= 128 else signed(byte)
    if kind & ICON or code_point == 0x2026:
        return i + size
    if byte == 46:
        end = run_of(data, i, stop, 46)
        if end - i >= 2:
            return end
    end = i + size
    if end >= stop:
        return i
    after = kind_at(data, end, stop, classes)
    if before & DIGIT and (after & DIGIT or data[end] == 45) and (byte == 43 or byte == 45 or byte == 42 or byte == 94):
        return end
    if byte == 46:
        return end if before & (LOWER | QUOTE) and after & (UPPER | QUOTE) else i
    if byte == 44:
        return end if before & ALPHA and after & ALPHA else i
    if not before & (ALPHA | DIGIT):
        return i
    if byte == 58 or byte == 60 or byte == 62 or byte == 61 or byte == 47:
        return end if after & ALPHA else i
    if byte == 45 or byte == 126 or code_point == 0x2013 or code_point == 0x2014:
        if byte == 45:  # "-", "--" or "---"
            end = run_of(data, i, min(stop, i + 3), 45)
        elif code_point == 0x2014 and not after & ALPHA and end + 3 <= stop and decode(data, end, stop)[0] == 0x2014:
            end += 3
        if end < stop and kind_at(data, end, stop, classes) & ALPHA:
            return end
    return i


@called
def split_chunk(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    classes: NDArray[np.uint16],
    stop_filter: NDArray[np.uint8],
    stop_hashes: NDArray[np.uint64],
    stop_seen: NDArray[np.uint64],
    word_hash: NDArray[np.uint64],
    word_end: NDArray[np.int32],
    num_words: int,
    row: NDArray[np.int64],
) -> int:
    """Cuts a chunk into words as the module's description says, adds them, and returns the new number of words."""
    # Prefixes, one word each.
    i = start
    while i < stop:
        kind = kind_at(data, i, stop, classes)
        end = i + character_bytes(data[i])
        if data[i] == 46:
            end = run_of(data, i, stop, 46)
            if end - i < 2:
                break
        elif not kind & PREFIX or (data[i] == 43 and end < stop and 48 <= data[end] <= 57):
            break
        num_words = add_piece(
            data, i, end, classes, stop_filter, stop_hashes, stop_seen, word_hash, word_end, num_words, row
        )
        i = end
    # Suffixes are found from the end; they are added after the middle, in the order of the text.
    middle_end = stop
    while middle_end > i:
        at = suffix_start(data, i, middle_end, classes)
        if at == middle_end:
            break
        middle_end = at
    if middle_end > i:
        num_words = split_middle(
            data, i, middle_end, classes, stop_filter, stop_hashes, stop_seen, word_hash, word_end, num_words, row
        )
    i = max(i, middle_end)
    while i < stop:
        end = next_suffix_end(data, i, stop, classes)
        num_words = add_piece(
            data, i, end, classes, stop_filter, stop_hashes, stop_seen, word_hash, word_end, num_words, row
        )
        i = end
    return num_words


@called
def split_middle(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    classes: NDArray[np.uint16],
    stop_filter: NDArray[np.uint8],
    stop_hashes: NDArray[np.uint64],
    stop_seen: NDArray[np.uint64],
    word_hash: NDArray[np.uint64],
    word_end: NDArray[np.int32],
    num_words: int,
    row: NDArray[np.int64],
) -> int:
    """Cuts what is left of a chunk between its prefixes and suffixes."""
    piece, before, i = start, 0, start
    looked_for_address = False
    while i < stop:
        kind = kind_at(data, i, stop, classes)
        size = character_bytes(data[i])
        if kind & INFIX:
            end = infix_end(data, i, start, stop, before, classes)
            if end > i and not looked_for_address:
                looked_for_address = True
                if is_address(data, start, stop, classes):
                    break
            if end > i:
                if i > piece:
                    num_words = add_piece(
                        data,
                        piece,
                        i,
                        classes,
                        stop_filter,
                        stop_hashes,
                        stop_seen,
                        word_hash,
                        word_end,
                        num_words,
                        row,
                    )
                num_words = add_piece(
                    data, i, end, classes, stop_filter, stop_hashes, stop_seen, word_hash, word_end, num_words, row
                )
                before = kind_at(data, previous_character(data, end, start), stop, classes)
                piece = i = end
                continue
        before = kind
        i += size
    if stop > piece:
        cut = contraction_start(data, piece, stop) if piece == start else stop
        num_words = add_piece(
            data, piece, cut, classes, stop_filter, stop_hashes, stop_seen, word_hash, word_end, num_words, row
        )
        if cut < stop:
            num_words = add_piece(
                data, cut, stop, classes, stop_filter, stop_hashes, stop_seen, word_hash, word_end, num_words, row
            )
    return num_words
