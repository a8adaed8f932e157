"""Text from a crawl, made safe to print: what would command a terminal or hide other text is spelled out."""

from __future__ import annotations

import unicodedata

JOINERS = "\u200c\u200d"  # Persian, Hindi and emoji need them, and they cannot hide anything


def visible(text: str) -> str:
    """Returns ``text`` with control, bidirectional and unassigned characters written as ``\\x1b`` or ``\\u202e``.

    Line breaks and tabs stay.
    """
    return "".join(c if c.isprintable() or c in "\n\t" or _is_harmless(c) else _spelled(c) for c in text)


def _is_harmless(character: str) -> bool:
    return character in JOINERS or unicodedata.category(character) == "Zs"


def _spelled(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"
