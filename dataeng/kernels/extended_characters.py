"""What each Unicode character is to the second signal kernel, as a table indexed by code point."""

from __future__ import annotations

import functools
import unicodedata

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.extended_counters import SCRIPTS
from dataeng.kernels.text import CODE_POINT_LIMIT

# Bits of the class table (uint32); the lowest five are the script: 0 none, then as in SCRIPTS.
SCRIPT_MASK = 31
SPACE = 1 << 5
LETTER = 1 << 6
UPPER = 1 << 7
LOWER = 1 << 8  # str.islower or title case: a word with one is not in capitals
PUNCTUATION = 1 << 9
SYMBOL = 1 << 10
CONTROL = 1 << 11
UNASSIGNED = 1 << 12
PRIVATE = 1 << 13
DIGIT = 1 << 14
NUMERAL_SIGN = 1 << 15
MARK = 1 << 16
BULLET = 1 << 17
RARE = PUNCTUATION | SYMBOL | CONTROL | UNASSIGNED | PRIVATE

TEXT_CONTROLS = "\t\n\r"
NUMERAL_SIGNS = ".,:;%+-/()$"
BULLETS = "-*•●‣⁃◦▪"


@functools.cache
def extended_class_table() -> NDArray[np.uint32]:
    """Returns the class bits of every code point, uint32 [`CODE_POINT_LIMIT`], read-only."""
    table = np.zeros(CODE_POINT_LIMIT, np.uint32)
    bits = {"P": PUNCTUATION, "S": SYMBOL, "M": MARK}
    exact = {"Cc": CONTROL, "Cn": UNASSIGNED, "Co": PRIVATE}
    by_category: dict[str, int] = {}
    for i in range(0x110000):
        category = unicodedata.category(chr(i))
        if category not in by_category:
            by_category[category] = exact.get(category, bits.get(category[0], 0))
        table[i] = by_category[category]
    characters = np.arange(0x110000, dtype=np.uint32)
    characters[0xD800:0xE000] = 0  # surrogates are not characters
    strings = characters.view("U1")
    upper, lower = np.strings.isupper(strings), np.strings.islower(strings)
    known = table[:0x110000]
    known |= np.where(np.strings.isspace(strings), SPACE, 0).astype(np.uint32)
    known |= np.where(np.strings.isalpha(strings), LETTER, 0).astype(np.uint32)
    known |= np.where(upper, UPPER, 0).astype(np.uint32)
    titles = [i for i in range(0x3000) if unicodedata.category(chr(i)) == "Lt"]
    known |= np.where(lower, LOWER, 0).astype(np.uint32)
    table[titles] |= np.uint32(LOWER)
    for text, bit in [("0123456789", DIGIT), (NUMERAL_SIGNS, NUMERAL_SIGN), (BULLETS, BULLET)]:
        table[[ord(c) for c in text]] |= np.uint32(bit)
    table[[ord(c) for c in TEXT_CONTROLS]] &= np.uint32(~CONTROL & 0xFFFFFFFF)
    for script, ranges in enumerate(SCRIPTS.values(), start=1):
        for first, last in ranges:
            table[first : last + 1] |= np.uint32(script)
    table.flags.writeable = False
    return table
