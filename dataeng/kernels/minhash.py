"""MinHash signatures of a column of texts, and their LSH band keys.

Broder (1997), *On the resemblance and containment of documents*. A text is normalised as datatrove's ``simplify_text``
does (lower case, numbers become 0, punctuation becomes a space, diacritics are dropped), cut into words at white space,
and every run of ``ngram`` words is a *shingle*. Characters of scripts that put no spaces between words (Chinese, Japanese,
Thai, Lao, Khmer, Burmese) are a word each.

Shingles are hashed to 32 bits, permuted by ``multiplier * shingle + increment`` modulo 2^32, and the minimum of each
permutation is kept.

Differences from datatrove: words are not those of a spaCy tokenizer; ``ς`` and ``σ`` are one letter everywhere.
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.characters import DATATROVE_PUNCTUATION
from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.text import CODE_POINT_LIMIT, FINAL_MULTIPLIER, MULTIPLIER, TextBuffers, decode, mix

# Values of the fold table besides code points.
BREAK = 0  # ends a word
DROPPED = 0xFFFFFFFF  # combining marks
EXPANDED = 0x80000000  # several characters: the rest is a position in the expansion table
SINGLE = 0x40000000  # a word of its own
CODE_POINT_BITS = 0x1FFFFF
ZERO = 48

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

MAX_NGRAM = 16
NO_SHINGLE = np.uint32(0xFFFFFFFF)


class Permutations(NamedTuple):
    """The hash functions of a signature; both uint32 [permutations], multipliers odd."""

    multipliers: NDArray[np.uint32]
    increments: NDArray[np.uint32]


def permutations(count: int, seed: int = 1) -> Permutations:
    """Draws hash functions by SplitMix64 (Steele et al. 2014), the same on every machine and with every library version."""
    numbers = np.array(list(itertools.islice(_splitmix64(seed), 2 * count)), np.uint64).astype(np.uint32)
    return Permutations(numbers[:count] | np.uint32(1), numbers[count:])


def _splitmix64(seed: int) -> itertools.starmap[int]:
    def step(i: int) -> int:
        mask = (1 << 64) - 1
        z = (seed + (i + 1) * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return (z ^ (z >> 31)) >> 32

    return itertools.starmap(step, ((i,) for i in itertools.count()))


class FoldTable(NamedTuple):
    """What each code point becomes when text is normalised."""

    folded: NDArray[np.uint32]  # [CODE_POINT_LIMIT]: a code point, BREAK, DROPPED, or EXPANDED | position
    expansions: NDArray[np.uint32]  # runs of code points, each ended by 0


@functools.cache
def fold_table() -> FoldTable:
    """Builds the table from the running Python's Unicode data, in about 0.1 s."""
    folded = np.arange(CODE_POINT_LIMIT, dtype=np.uint32)
    folded[0x110000:] = BREAK
    expansions: list[int] = [0]
    # Everything that may change. Hangul syllables are taken apart by arithmetic in the kernel's `next_folded`.
    changing = [
        *range(0x3400), *range(0xA000, 0xAC00), *range(0xD7A4, 0xD800), *range(0xF900, 0x20000), *range(0x2F800, 0x2FA20),
        *range(0xE0100, 0xE01F0),
    ]  # fmt: skip
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
    characters = np.arange(0x40000, dtype=np.uint32).view("U1")
    folded[:0x40000][np.strings.isspace(characters)] = BREAK
    folded[:0x40000][np.strings.isdecimal(characters)] = ZERO
    folded[[ord(c) for c in DATATROVE_PUNCTUATION]] = BREAK
    for first, last in UNSPACED_RANGES:
        block = folded[first : last + 1]
        block[(block != BREAK) & (block != ZERO) & (block < EXPANDED)] |= SINGLE
    table = FoldTable(folded, np.array(expansions, np.uint32))
    for array in table:
        array.flags.writeable = False
    return table
