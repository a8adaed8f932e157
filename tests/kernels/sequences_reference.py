"""Units of a text in plain Python."""

from __future__ import annotations

import unicodedata

from dataeng.kernels.folding import UNSPACED_RANGES


def units_of(text: str, by_bytes: bool) -> list[bytes]:
    """Cuts a text into bytes, or into words: characters of scripts without spaces are words of their own."""
    if by_bytes:
        return [bytes([byte]) for byte in text.encode()]
    words: list[str] = []
    open_word, single = False, False
    for character in text:
        mark = character == "\u200d" or unicodedata.category(character).startswith("M")
        unspaced = not mark and any(first <= ord(character) <= last for first, last in UNSPACED_RANGES)
        if character.isspace():
            open_word = False
        elif not open_word or unspaced or (single and not mark):
            words.append(character)
            open_word, single = True, unspaced
        else:
            words[-1] += character
    return [word.encode() for word in words]
