"""The phrases that C4 looks for in a line: 'javascript', 'lorem ipsum', and those of cookie banners and policies.

Letters match in any ASCII case, as ``phrase in line.lower()`` does. (Python also lower-cases two characters outside
ASCII to ASCII letters, U+212A KELVIN SIGN and U+0130; a phrase spelled with those is not found here.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, inlined
from dataeng.kernels.text import load64

# What a line was seen to hold.
CURLY, LOREM, JAVASCRIPT, POLICY, LONG_WORD = 1, 2, 4, 8, 16

_TEXTS = (
    b"javascript",
    b"lorem ipsum",
    b"terms of use",
    b"privacy policy",
    b"cookie policy",
    b"uses cookies",
    b"use of cookies",
    b"use cookies",
)
PHRASE_JAVASCRIPT, PHRASE_LOREM_IPSUM, PHRASE_TERMS_OF_USE, PHRASE_PRIVACY_POLICY = 0, 1, 2, 3
PHRASE_COOKIE_POLICY, PHRASE_USES_COOKIES, PHRASE_USE_OF_COOKIES, PHRASE_USE_COOKIES = 4, 5, 6, 7

PHRASES = np.zeros((len(_TEXTS), 16), np.uint8)
for _i, _text in enumerate(_TEXTS):
    PHRASES[_i, : len(_text)] = np.frombuffer(_text, np.uint8)
PHRASE_BYTES = np.array([len(text) for text in _TEXTS], np.int64)


def _packed(text: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(text, "little"))


# A phrase is looked for where its last word starts, which is where a chunk starts: the byte before is a space.
LOWER_CASE_BITS = _packed(b"        ")
START_USE, MASK_USE = _packed(b"use"), _packed(b"\xff" * 3)
START_POLICY, MASK_POLICY = _packed(b"policy"), _packed(b"\xff" * 6)
START_COOKIES, MASK_COOKIES = _packed(b"cookies"), _packed(b"\xff" * 7)
START_IPSUM, MASK_IPSUM = _packed(b"ipsum"), _packed(b"\xff" * 5)


@inlined
def matches(data: NDArray[np.uint8], i: int, start: int, stop: int, phrase: int) -> bool:
    """Whether the phrase stands at byte ``i`` in any ASCII case, inside ``[start, stop)``."""
    size = PHRASE_BYTES[phrase]
    if i < start or i + size > stop:
        return False
    for j in range(size):
        byte = data[i + j]
        if byte >= 65 and byte <= 90:
            byte |= np.uint8(32)
        if byte != PHRASES[phrase, j]:
            return False
    return True


@called
def phrase_ending_at(data: NDArray[np.uint8], i: int, start: int, stop: int) -> int:
    """Returns the line flag of a phrase whose last word starts at byte ``i``, or 0."""
    if matches(data, i - 9, start, stop, PHRASE_TERMS_OF_USE):
        return POLICY
    if matches(data, i - 8, start, stop, PHRASE_PRIVACY_POLICY) or matches(
        data, i - 7, start, stop, PHRASE_COOKIE_POLICY
    ):
        return POLICY
    if matches(data, i - 5, start, stop, PHRASE_USES_COOKIES) or matches(data, i - 4, start, stop, PHRASE_USE_COOKIES):
        return POLICY
    if matches(data, i - 7, start, stop, PHRASE_USE_OF_COOKIES):
        return POLICY
    if matches(data, i - 6, start, stop, PHRASE_LOREM_IPSUM):
        return LOREM
    return 0


@inlined
def phrase_flag(data: NDArray[np.uint8], i: int, start: int, stop: int) -> int:
    """As `phrase_ending_at`, at the cost of one load for nearly all words."""
    if i + 8 <= data.shape[0]:
        word = load64(data, i) | LOWER_CASE_BITS
    else:
        word = np.uint64(0)
        for j in range(data.shape[0] - i):
            word |= np.uint64(data[i + j]) << np.uint64(8 * j)
        word |= LOWER_CASE_BITS
    if (
        word & MASK_USE == START_USE
        or word & MASK_POLICY == START_POLICY
        or word & MASK_COOKIES == START_COOKIES
        or word & MASK_IPSUM == START_IPSUM
    ):
        return phrase_ending_at(data, i, start, stop)
    return 0


@called
def mentions_javascript(data: NDArray[np.uint8], start: int, stop: int) -> bool:
    """Whether 'javascript' stands anywhere in ``data[start:stop]``."""
    for i in range(start, stop - 9):
        if data[i] | 32 == 106 and matches(data, i, start, stop, PHRASE_JAVASCRIPT):
            return True
    return False
