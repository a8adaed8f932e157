"""Which texts are written without spaces between words."""

from __future__ import annotations

import re

#: Thai, Lao, Tibetan, Myanmar, Khmer; kana, bopomofo and Han.
LETTERS = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3100-\u312f\u3400-\u9fff\U00020000-\U0003ffff]"
)


def share_without_spaces(text: str) -> float:
    """Returns the share of the letters of ``text`` that are of a script without spaces."""
    letters = sum(character.isalpha() for character in text)
    return len(LETTERS.findall(text)) / letters if letters else 0.0
