"""What texts are reduced to before they are compared: folded characters, words, and normalised texts.

Three normalisations, each a table by code point:

- ``simplified``: as datatrove's ``simplify_text`` does: lower case, numbers become 0, punctuation becomes a space,
  diacritics are dropped. Characters of scripts that put no spaces between words (Chinese, Japanese, Thai, Lao, Khmer,
  Burmese) are a word each. Differences from datatrove: its words are those of a spaCy tokenizer; ``ς`` and ``σ`` are
  one letter here.
- ``none``: nothing changes; words are those of ``str.split()``.
- ``code``: words are runs of ``[A-Za-z0-9_]``, as BigCode splits programs; case is kept. (BigCode also counts the empty
  words between two separators; those do not count here.)
"""

from __future__ import annotations

import functools
import unicodedata
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.characters import DATATROVE_PUNCTUATION
from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.stored_tables import stored_table
from dataeng.kernels.text import CODE_POINT_LIMIT, TextBuffers, decode, signed

Normalization = Literal["simplified", "none", "code"]
Unit = Literal["words", "characters"]

# Values of the fold table besides code points.
BREAK = 0xFFFFFFFE  # ends a word
DROPPED = 0xFFFFFFFF  # combining marks
EXPANDED = 0x80000000  # several characters: the rest is a position in the expansion table
SYLLABLE = EXPANDED  # position 0: a Hangul syllable, taken apart by arithmetic
SINGLE = 0x40000000  # a word of its own
NUMBER = 0x20000000 | ord("0")  # a digit: with those around it, it becomes one 0
CODE_POINT_BITS = 0x1FFFFF

#: What may stand between the two halves of one number, datatrove's ``NUMBERS_PATTERN``.
NUMBER_SEPARATORS = np.array([ord(c) for c in ".,،٫⎖⎗⎘"], np.int64)

#: Scripts without spaces: first and last code point of their letters.
UNSPACED_RANGES = (
    (0x0E00, 0x0E7F),  # Thai
    (0x0E80, 0x0EFF),  # Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3041, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Chinese characters
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)

#: Everything that lower case or decomposition may change, but for Hangul syllables.
CHANGING_RANGES = (
    (0, 0x3400),
    (0xA000, 0xAC00),
    (0xD7A4, 0xD800),
    (0xF900, 0x20000),
    (0x2F800, 0x2FA20),
    (0xE0100, 0xE01F0),
)

#: No character above has a property of interest but the tags, which `CHANGING_RANGES` names.
_LAST_PLANE = 0x40000


class FoldTable(NamedTuple):
    """What each code point becomes when text is normalised."""

    folded: NDArray[np.uint32]  # [CODE_POINT_LIMIT]: a code point with flags, BREAK, DROPPED, or EXPANDED | position
    expansions: NDArray[np.uint32]  # runs of code points, each ended by 0
    simple_ascii: bool  # of ASCII characters, letters are lowered, digits are numbers, and all others end a word


@functools.cache
def fold_table(normalization: Normalization = "simplified") -> FoldTable:
    """Returns a normalisation's table, in some milliseconds if it was built on this machine before."""
    if normalization == "simplified":
        stored = stored_table("fold-simplified", _build_simplified)
        return FoldTable(stored["folded"], stored["expansions"], simple_ascii=True)
    if normalization == "none":
        folded = _identity()
        folded[:_LAST_PLANE][np.strings.isspace(_first_planes())] = BREAK
    elif normalization == "code":
        folded = np.full(CODE_POINT_LIMIT, BREAK, np.uint32)
        kept = [code_point for code_point in range(128) if chr(code_point).isalnum() or code_point == ord("_")]
        folded[kept] = kept
    else:
        raise ValueError(f"unknown normalization {normalization!r}; known: simplified, none, code")
    folded.flags.writeable = False
    expansions = np.zeros(1, np.uint32)
    expansions.flags.writeable = False
    return FoldTable(folded, expansions, simple_ascii=False)


def _identity() -> NDArray[np.uint32]:
    folded = np.arange(CODE_POINT_LIMIT, dtype=np.uint32)
    folded[0x110000:] = BREAK
    return folded


def _first_planes() -> NDArray[np.str_]:
    return np.arange(_LAST_PLANE, dtype=np.uint32).view("U1")


def _build_simplified() -> dict[str, NDArray[np.uint32]]:
    """Builds the table from the running Python's Unicode data, in about 0.1 s."""
    folded = _identity()
    expansions: list[int] = [0]
    changing = [code_point for first, end in CHANGING_RANGES for code_point in range(first, end)]
    # One call for all, which is fast; a separator keeps the characters apart and each one without context.
    lowered = "\x01".join(map(chr, changing)).lower()
    decomposed = unicodedata.normalize("NFD", lowered).split("\x01")
    # The separator itself gives two empty pieces instead of one character.
    pieces = iter(decomposed)
    for code_point in changing:
        piece = next(pieces)
        if code_point == 1:
            next(pieces)
            continue
        if len(piece) == 1 and ord(piece) == code_point and unicodedata.category(piece) != "Mn":
            continue
        kept = [ord(c) for c in piece if unicodedata.category(c) != "Mn"]
        if not kept:
            folded[code_point] = DROPPED
        elif len(kept) == 1:
            folded[code_point] = kept[0]
        else:
            folded[code_point] = EXPANDED | len(expansions)
            expansions += [*kept, 0]
    folded[ord("ς")] = ord("σ")
    folded[0xAC00:0xD7A4] = SYLLABLE
    folded[:_LAST_PLANE][np.strings.isspace(_first_planes())] = BREAK
    folded[:_LAST_PLANE][np.strings.isdecimal(_first_planes())] = NUMBER
    folded[[ord(c) for c in DATATROVE_PUNCTUATION]] = BREAK
    for first, last in UNSPACED_RANGES:
        block = folded[first : last + 1]
        block[(block != NUMBER) & (block < EXPANDED)] |= SINGLE
    return {"folded": folded, "expansions": np.array(expansions, np.uint32)}


@inlined
def next_folded(data: NDArray[np.uint8], i: int, stop: int, folded: NDArray[np.uint32]) -> tuple[int, int, int]:
    """Folds the character, or the number, that begins at ``i``: where the next one begins, its value, the character."""
    code_point, width = signed(data[i]), 1
    if code_point >= 128:
        code_point, width = decode(data, i, stop)
    value = signed(folded[code_point])
    i += width
    if value == NUMBER:
        i = end_of_number(data, i, stop, folded)
    return i, value, code_point


@called
def end_of_number(data: NDArray[np.uint8], i: int, stop: int, folded: NDArray[np.uint32]) -> int:
    """Returns where a number ends whose first digit ends at ``i``: digits, then perhaps one separator and digits."""
    separator = 0
    while i < stop:
        code_point, size = signed(data[i]), 1
        if code_point >= 128:
            code_point, size = decode(data, i, stop)
        if folded[code_point] == NUMBER:
            i += size
            if separator == 1:
                separator = 2
            continue
        if separator == 0 and i + size < stop:
            for k in range(NUMBER_SEPARATORS.shape[0]):
                if NUMBER_SEPARATORS[k] == code_point:
                    following = signed(data[i + size])
                    if following >= 128:
                        following = decode(data, i + size, stop)[0]
                    if folded[following] == NUMBER:
                        separator = 1
            if separator == 1:
                i += size
                continue
        return i
    return i


@inlined
def syllable_letter(code_point: int, place: int) -> int:
    """Returns a Hangul syllable's first, second or third letter (Unicode 3.12); 0: it has no third."""
    syllable = code_point - 0xAC00
    if place == 0:
        return 0x1100 + syllable // 588
    if place == 1:
        return 0x1161 + syllable % 588 // 28
    return 0x11A7 + syllable % 28 if syllable % 28 else 0


@inlined
def expanded_letter(code_point: int, value: int, place: int, expansions: NDArray[np.uint32]) -> int:
    """Returns one of the characters that an `EXPANDED` one becomes; 0: there are no more."""
    if value == SYLLABLE:
        return 0 if place > 2 else syllable_letter(code_point, place)
    return signed(expansions[(value & CODE_POINT_BITS) + place])


@inlined
def put(out: NDArray[np.uint8], at: int, code_point: int, writing: bool) -> int:
    """Writes a character as UTF-8 and returns where it ends; only counts unless ``writing``."""
    if code_point < 0x80:
        if writing:
            out[at] = code_point
        return at + 1
    width = 2 if code_point < 0x800 else 3 if code_point < 0x10000 else 4
    if writing:
        for k in range(1, width):
            out[at + k] = 0x80 | (code_point >> (6 * (width - 1 - k))) & 0x3F
        out[at] = ((0xF00 >> width) & 0xF0) | code_point >> (6 * (width - 1))
    return at + width


@called
def fold_text(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    folded: NDArray[np.uint32],
    expansions: NDArray[np.uint32],
    splits: bool,
    out: NDArray[np.uint8],
    at: int,
    writing: bool,
) -> int:
    """Writes a normalised text from ``at`` and returns where it ends.

    Args:
      splits: a character of an unspaced script is a word of its own.
      writing: if not, only the size is counted.
    """
    begin = at
    open_word = False
    i = start
    while i < stop:
        i, value, code_point = next_folded(data, i, stop, folded)
        if value == BREAK:
            open_word = False
            continue
        if value == DROPPED:
            continue
        single = splits and value < EXPANDED and (value & SINGLE) != 0
        if (single or not open_word) and at > begin:
            at = put(out, at, 32, writing)
        open_word = not single
        if value >= EXPANDED:
            place = signed(0)  # not a literal, for whose type callees would be compiled once more
            while True:
                letter = expanded_letter(code_point, value, place, expansions)
                if letter == 0:
                    break
                at = put(out, at, letter, writing)
                place += 1
        else:
            at = put(out, at, value & CODE_POINT_BITS, writing)
    return at


@kernel
def fold_texts(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    folded: NDArray[np.uint32],
    expansions: NDArray[np.uint32],
    splits: bool,
    folded_data: NDArray[np.uint8],
    folded_offsets: NDArray[np.int64],
    writing: bool,
) -> None:
    at = signed(0)
    folded_offsets[0] = 0
    for text in range(offsets.shape[0] - 1):
        at = fold_text(
            data, offsets[text], offsets[text + 1], folded, expansions, splits, folded_data, at, writing
        )  # fmt: skip
        folded_offsets[text + 1] = at


def normalise(
    texts: TextBuffers, normalization: Normalization = "simplified", unit: Unit = "words"
) -> TextBuffers:  # fmt: skip
    """Returns the normalised texts: words joined by single spaces, without any at the ends.

    A shingle of words is a slice of these bytes. With ``unit="characters"``, scripts without spaces stay without, and
    ``none`` is the text as it is.
    """
    table = fold_table(normalization)
    if normalization == "none" and unit == "characters":
        return texts
    offsets = np.empty(texts.num_texts + 1, np.int64)
    splits = unit == "words"
    arguments = (texts.data, texts.offsets, table.folded, table.expansions, splits)
    fold_texts(*arguments, np.empty(0, np.uint8), offsets, False)
    data = np.empty(int(offsets[-1]), np.uint8)
    fold_texts(*arguments, data, offsets, True)
    data.flags.writeable = False
    offsets.flags.writeable = False
    return TextBuffers(data, offsets)
