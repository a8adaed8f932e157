"""Bad words per language, and patterns that find them; see ``NOTICE.md`` for source and licence."""

from __future__ import annotations

import functools
import re
from pathlib import Path

_FOLDER = Path(__file__).parent

#: Languages whose words are not between spaces: a listed word counts wherever it stands, as in datatrove.
UNSPACED = frozenset({"ja", "th", "zh"})


@functools.cache
def bad_words(language: str) -> tuple[str, ...]:
    """Returns the list of a language, sorted; empty if there is none."""
    if language not in bad_word_languages():
        return ()
    text = (_FOLDER / f"{language}.txt").read_text(encoding="utf-8")
    return tuple(sorted({line.strip().lower() for line in text.splitlines() if line.strip()}))


@functools.cache
def bad_word_languages() -> tuple[str, ...]:
    """Returns the languages that have a list."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.txt")))


@functools.cache
def bad_word_pattern(language: str, ascii_only: bool = False) -> str:
    """Returns a regular expression (Rust syntax) for lower-cased text.

    It matches a listed word with no word character on either side, as datatrove's ``C4BadWordsFilter``; the neighbours
    are not part of the match, so that each of several words in a row counts.

    Args:
      ascii_only: only ASCII characters count as word characters. This matches wherever the other does, and is
        twenty times as fast to look for.
    """
    # The longest first: of two words that start alike, the longer is found.
    words = "|".join(re.escape(word) for word in sorted(bad_words(language), key=len, reverse=True))
    if language in UNSPACED:
        return f"(?:{words})"
    if ascii_only:
        return rf"(?-u:\b{{start-half}})(?:{words})(?-u:\b{{end-half}})"
    return rf"\b{{start-half}}(?:{words})\b{{end-half}}"
