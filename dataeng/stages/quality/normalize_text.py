"""Stage `normalize_text`: Unicode form, white space, invisible characters, and mojibake."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import ClassVar, Literal

import polars as pl
from pydantic import Field

from dataeng.document import TEXT, drop_where
from dataeng.stage import Columns, RowStage

CHANGED = "normalize_changed"
MOJIBAKE_LINES = "normalize_mojibake_lines"
CHARS_REMOVED = "normalize_chars_removed"

Form = Literal["NFC", "NFKC", "NFD", "NFKD"]

_SEPARATORS = r"\r\n|[\r\x{0B}\x{0C}\x{1C}-\x{1E}\x{85}\x{2028}\x{2029}]"
_CONTROLS = r"[\x{00}-\x{08}\x{0B}\x{0C}\x{0E}-\x{1F}\x{7F}-\x{9F}]"
#: Zero-width space, word joiner, byte order mark, soft hyphen. Joiners (U+200C, U+200D) mean something and stay.
_INVISIBLE = r"[\x{200B}\x{2060}\x{FEFF}\x{AD}]"
_TRAILING = r"(?m)[^\S\n]+$"


class NormalizeText(RowStage):
    """Repairs broken characters, and evens out Unicode, line ends and white space, in this order:

    1. `mojibake`: UTF-8 that was once read in another encoding (`schÃ¶n`), repaired line by line by
       [ftfy](https://ftfy.readthedocs.io) where its test for bad sequences finds some
    2. `line_separators`: CR LF, CR, form feed, NEL, U+2028 and their like become a line feed
    3. `control_characters`: those of C0 and C1 go, but for tabs and line feeds
    4. `invisible`: zero-width space, word joiner, byte order mark and soft hyphen go; joiners stay
    5. `form`: the Unicode normalization form
    6. `trailing_spaces` go; `collapse_spaces` makes runs of white space within a line one space (not for code)
    7. `max_blank_lines`: more blank lines in a row become so many; RefinedWeb leaves 1. Line feeds at the beginning
       and white space at the end of the text go, unless this is null

    A text of which nothing is left is dropped as `empty_text`. Signals: whether the text changed, in how many lines
    mojibake was repaired, and by how many characters the text became shorter.
    """

    libraries: ClassVar[tuple[str, ...]] = ("ftfy", "polars")

    mojibake: bool = True
    line_separators: bool = True
    control_characters: bool = True
    invisible: bool = True
    form: Form | None = "NFC"
    trailing_spaces: bool = True
    collapse_spaces: bool = False
    max_blank_lines: int | None = Field(default=2, ge=0)

    def columns(self) -> Columns:
        signals = {CHANGED: pl.Boolean(), MOJIBAKE_LINES: pl.Int32(), CHARS_REMOVED: pl.Int64()}
        return Columns(reads=(TEXT,), signals=signals)

    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        before = batch.get_column(TEXT)
        text, repaired = _repair(before) if self.mojibake else (before, {})
        lines = pl.Series(MOJIBAKE_LINES, [0], dtype=pl.Int32).new_from_index(0, batch.height)
        lines = lines.scatter(list(repaired), pl.Series(list(repaired.values()), dtype=pl.Int32))
        text = pl.DataFrame({TEXT: text}).select(self._without_characters()).to_series()
        if self.form is not None:
            text = _in_form(text, self.form)
        after = pl.DataFrame({TEXT: text}).select(self._without_spaces()).to_series()
        shorter = before.str.len_chars().cast(pl.Int64) - after.str.len_chars().cast(pl.Int64)
        batch = batch.with_columns(
            after.alias(TEXT),
            (before != after).alias(CHANGED),
            lines.alias(MOJIBAKE_LINES),
            shorter.alias(CHARS_REMOVED),
        )
        return drop_where(batch, pl.col(TEXT) == "", "empty_text")

    # All patterns are matched in linear time (Rust's regular expressions).

    def _without_characters(self) -> pl.Expr:
        text = pl.col(TEXT)
        if self.line_separators:
            text = text.str.replace_all(_SEPARATORS, "\n")
        if self.control_characters:
            text = text.str.replace_all(_CONTROLS, "")
        if self.invisible:
            text = text.str.replace_all(_INVISIBLE, "")
        return text

    def _without_spaces(self) -> pl.Expr:
        text = pl.col(TEXT)
        if self.trailing_spaces:
            text = text.str.replace_all(_TRAILING, "")
        if self.collapse_spaces:
            text = text.str.replace_all(r"[^\S\n]+", " ")
        if self.max_blank_lines is not None:
            most = self.max_blank_lines + 1
            text = text.str.replace_all(rf"\n{{{most},}}", "\n" * most)
            text = text.str.strip_chars_start("\n").str.strip_chars_end()
        return text


def _in_form(texts: pl.Series, form: Form) -> pl.Series:
    """Normalizes the texts that may need it: the others are told by a search that is twenty times as fast."""
    rows = texts.str.contains(_may_change(form)).fill_null(False).arg_true()
    return texts.clone().scatter(rows, texts.gather(rows).str.normalize(form)) if len(rows) else texts


@lru_cache
def _may_change(form: Form) -> str:
    """Returns a pattern for characters that change alone, or may combine with the one before (marks, Hangul)."""
    ranges: list[tuple[int, int]] = []
    for code_point in range(0x80, 0x30000):
        if not 0xD800 <= code_point < 0xE000 and not unicodedata.is_normalized(form, chr(code_point)):
            if ranges and ranges[-1][1] == code_point - 1:
                ranges[-1] = (ranges[-1][0], code_point)
            else:
                ranges.append((code_point, code_point))
    listed = "".join(rf"\x{{{first:X}}}-\x{{{last:X}}}" for first, last in ranges)
    return rf"[\p{{M}}\x{{1100}}-\x{{11FF}}{listed}]"


def _repair(texts: pl.Series) -> tuple[pl.Series, dict[int, int]]:
    """Repairs mojibake; returns the texts, and for rows that changed, in how many lines."""
    # Python sees only rows, and of these only lines, in which ftfy's own pattern found something.
    suspects = texts.str.contains(_suspect_pattern()).fill_null(False).arg_true()
    if suspects.is_empty():
        return texts, {}
    repaired, texts_out = {}, []
    for row in suspects:
        text, changed = _repair_lines(texts[row])
        texts_out.append(text)
        if changed:
            repaired[row] = changed
    return texts.clone().scatter(suspects, texts_out), repaired  # scatter works in place


def _repair_lines(text: str) -> tuple[str, int]:
    from ftfy import fix_encoding
    from ftfy.badness import is_bad

    lines, changed = text.split("\n"), 0
    for number, line in enumerate(lines):
        if not line.isascii() and is_bad(line):
            fixed = fix_encoding(line)
            changed += fixed != line
            lines[number] = fixed
    return "\n".join(lines), changed


@lru_cache
def _suspect_pattern() -> str:
    """Returns ftfy's pattern of bad sequences (``ftfy.badness``) as Rust reads it.

    Rust's verbose mode skips white space in brackets, too, and its ``^`` is the text's beginning, not a line's.
    """
    from ftfy.badness import BADNESS_RE

    out, inside, comment = [], False, False
    characters = iter(BADNESS_RE.pattern)
    for character in characters:
        if comment:
            comment = character != "\n"
        elif character == "\\":
            escaped = next(characters)
            out.append(rf"\x{next(characters)}{next(characters)}" if escaped == "x" else character + escaped)
        elif inside:
            inside = character != "]"
            out.append(character if character in "]-^" else f"\\x{{{ord(character):X}}}")
        elif character == "[":
            inside = True
            out.append(character)
        elif character == "#":
            comment = True
        elif not re.match(r"\s", character, re.ASCII):
            out.append(character)
    return "(?m)" + "".join(out)
