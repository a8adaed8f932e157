"""Rendered conversations as text that says which special tokens the template put there, and what is trained on.

Noncharacters, which no text may contain (Unicode 23.7), mark both::

    ⟦<|im_start|>⟧assistant\\n⟪Four.⟦<|im_end|>⟧⟫\\n

``⟦ ⟧`` (U+FDD0, U+FDD1) enclose a special token; the same string without them is text of a user, and stays text.
``⟪ ⟫`` (U+FDD2, U+FDD3) enclose what is trained on. A text with noncharacters of its own is refused, so nobody can
write a mark.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

SPECIAL_START, SPECIAL_STOP, TRAINED_START, TRAINED_STOP = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3"
RESERVED = re.compile("[\ufdd0-\ufddf]")
#: The same in JSON.
ESCAPED_RESERVED = re.compile(r"\\u[fF][dD][dD][0-9a-fA-F]")
_TRAINED = re.compile(f"([{TRAINED_START}{TRAINED_STOP}])")


class Spans(NamedTuple):
    """A text without the marks of training, and where in it, ``(start, stop)`` in characters, is trained on."""

    text: str
    trained: list[tuple[int, int]]


def mark_special(name: str) -> str:
    """Returns a special token as it stands in a marked text."""
    return f"{SPECIAL_START}{name}{SPECIAL_STOP}"


def special_pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    """Returns a pattern for any of these tokens, the longest where several fit; None if there are none."""
    longest_first = sorted(filter(None, set(names)), key=lambda name: (-len(name), name))
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def without_marks(marked: str) -> str:
    """Returns the text as Hugging Face renders it."""
    return RESERVED.sub("", marked)


def training_spans(marked: str) -> Spans:
    """Takes the marks of training out of a text; a span within another one adds nothing."""
    pieces, trained, size, depth, start = [], [], 0, 0, 0
    for piece in _TRAINED.split(marked):
        if piece == TRAINED_START:
            start = size if depth == 0 else start
            depth += 1
        elif piece == TRAINED_STOP:
            depth -= 1
            if depth == 0:
                trained.append((start, size))
        else:
            pieces.append(piece)
            size += len(piece)
    return Spans("".join(pieces), trained)
