from __future__ import annotations

import re
import unicodedata

import numpy as np
import polars as pl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.kernels.characters import (
    DATATROVE_PUNCTUATION,
    DATATROVE_TERMINAL,
    SPACY_CURRENCY,
    SPACY_OTHER_PREFIXES,
    SPACY_PUNCTUATION,
    SPACY_QUOTES,
)
from dataeng.kernels.special_cases import CUT, SEPARATOR, WHOLE
from dataeng.kernels.text import text_buffers
from dataeng.kernels.units import KINDS, UnitKind, list_units, without_units

PIECES = [
    "a",
    "Bb",
    "é",
    "文",
    " ",
    "\n",
    "\n\n",
    "\r",
    "\u3000",
    ".",
    "...",
    "?",
    "。",
    "！",
    "”",
    "“",
    ")",
    "A.",
    ". ",
]
TEXTS = st.lists(
    st.one_of(st.text(max_size=20), st.lists(st.sampled_from(PIECES), max_size=30).map("".join)), max_size=5
)

PUNCTUATION = set(DATATROVE_PUNCTUATION + DATATROVE_TERMINAL)
#: Of what spaCy takes off the end of a word, the characters that are no symbols; those are category So.
CLOSING = set(SPACY_PUNCTUATION + SPACY_QUOTES + "—–")
OPENING = set(SPACY_PUNCTUATION + SPACY_QUOTES + SPACY_CURRENCY + SPACY_OTHER_PREFIXES)
SPECIAL = {entry.replace(SEPARATOR, "") for entry in (*CUT.split(), *WHOLE.split())}
WIDE, WIDE_CLOSING = set("。！？｡"), set("”’）」』》】")


def is_icon(character: str) -> bool:
    return unicodedata.category(character) == "So" and ord(character) < 0x20000


def ends_sentence(chunk: str) -> bool:
    """One terminal sign, then perhaps closing signs; not "..." and not the period of an initial."""
    while chunk:
        *before, last = chunk
        if last in DATATROVE_TERMINAL:
            if last != "." or not before:
                return True
            if before[-1] == ".":
                return False
            if "A" <= before[-1] <= "Z":
                return len(before) > 1 and "A" <= before[-2] <= "Z"
            return True
        if last not in CLOSING and not is_icon(last):
            return False
        chunk = chunk[:-1]
    return False


def is_abbreviation(chunk: str) -> bool:
    """One of spaCy's special cases, perhaps in brackets or quotes and before signs that end nothing."""
    while chunk and (chunk[0] in OPENING or is_icon(chunk[0])):
        chunk = chunk[1:]
    while chunk and chunk[-1] != ".":
        if chunk[-1] in DATATROVE_TERMINAL:
            return False
        chunk = chunk[:-1]
    return chunk in SPECIAL


def chunks_of(line: str) -> list[tuple[int, int]]:
    """Runs of characters that are not white space, cut after the terminal signs of Chinese and Japanese."""
    found, i = [], 0
    while i < len(line):
        if line[i].isspace():
            i += 1
            continue
        start, marked = i, False
        while i < len(line) and not line[i].isspace():
            goes_on = line[i] in WIDE or line[i] in WIDE_CLOSING
            if marked and not goes_on:
                break
            marked = line[i] in WIDE or (marked and goes_on)
            i += 1
        found.append((start, i))
    return found


def sentences_of(line: str) -> list[str]:
    chunks = chunks_of(line)
    sentences, begin, ended = [], chunks[0][0], False
    for number, (start, stop) in enumerate(chunks):
        if ended and not set(line[start:stop]) <= PUNCTUATION:
            sentences.append(line[begin : chunks[number - 1][1]])
            begin, ended = start, False
        if ends_sentence(line[start:stop]):
            ended = not is_abbreviation(line[start:stop])
    return [*sentences, line[begin : chunks[-1][1]]]


def expected(text: str, kind: UnitKind) -> list[str]:
    lines = [line.strip() for line in text.split("\n")]
    if kind == "line":
        return [line for line in lines if line]
    if kind == "sentence":
        return [sentence for line in lines if line for sentence in sentences_of(line)]
    paragraphs: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line.strip():
            paragraphs[-1].append(line)
        else:
            paragraphs.append([])
    return ["\n".join(lines).strip() for lines in paragraphs if lines]


def listed(texts: list[str], kind: UnitKind) -> list[list[str]]:
    buffers = text_buffers(pl.Series(texts, dtype=pl.String))
    found: list[list[str]] = [[] for _ in texts]
    for text, start, stop in zip(*list_units(buffers, kind), strict=True):
        found[text].append(bytes(buffers.data[start:stop]).decode())
    return found


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example(
    [
        "",
        "x",
        "\n",
        "One. Two! (Three.) J. Smith… said: “No.” Yes",
        "\u2028a\x85b",
        "a\n b\n\n\n c",
        "你好。他说：“是！”对。",
    ]
)
def test_units_equal_the_reference(texts: list[str]) -> None:
    for kind in KINDS:
        assert listed(texts, kind) == [expected(text, kind) for text in texts]


def test_sentences_by_hand() -> None:
    text = "He came. Mr. X left (early.) Why? J. R. Smith said so... and went.\nA heading\n他来了。“真的吗？”他说。"
    assert listed([text], "sentence")[0] == [
        "He came.", "Mr. X left (early.)", "Why?", "J. R. Smith said so... and went.", "A heading", "他来了。",
        "“真的吗？”", "他说。",
    ]  # fmt: skip


def edited(text: str, kind: UnitKind, removed: list[bool]) -> str:
    """Keeps, of the two gaps around what goes, the one with more line feeds, and the latter if they are equal."""
    units, at = [], 0
    for unit in expected(text, kind):
        at = text.index(unit, at)
        units.append((at, at + len(unit)))
        at += len(unit)
    if not any(removed):
        return text
    result, end, gone = "", 0, False
    left = ""  # the gap before what was removed last
    kept = 0
    for (start, stop), goes in zip(units, removed, strict=True):
        gap = text[end:start]
        if goes:
            left, gone = (left if gone else gap), True
        else:
            if not gone:
                result += gap
            elif kept:
                result += left if left.count("\n") > gap.count("\n") else gap
            result += text[start:stop]
            kept, gone = kept + 1, False
        end = stop
    return result if gone else result + text[end:]


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.integers(0, 2**30))
@example(["a\n\nb\nc", "a. b. c.", " x ", "\n\na\n b\n"], 0b0101010101)
def test_removal_equals_the_reference(texts: list[str], bits: int) -> None:
    buffers = text_buffers(pl.Series(texts, dtype=pl.String))
    for kind in KINDS:
        units = list_units(buffers, kind)
        removed = np.array([bits >> (i % 30) & 1 for i in range(len(units.text))], np.bool_)
        left = without_units(buffers, units, removed).to_list()
        for number, text in enumerate(texts):
            assert left[number] == edited(text, kind, removed[units.text == number].tolist()), (kind, text)


def test_gaps_by_hand() -> None:
    texts = ["One. Two. Three.\n\nFour.", "a\n\nb\n    c", "\n  x\ny\n"]
    buffers = text_buffers(pl.Series(texts))

    def without(kind: UnitKind, *gone: str) -> list[str]:
        units = list_units(buffers, kind)
        named = [bytes(buffers.data[a:b]).decode() in gone for a, b in zip(units.start, units.stop, strict=True)]
        return without_units(buffers, units, np.array(named)).to_list()

    assert without("sentence", "Three.")[0] == "One. Two.\n\nFour."
    assert without("sentence", "Four.")[0] == "One. Two. Three."
    assert without("sentence", "One.", "Two.")[0] == "Three.\n\nFour."
    assert without("line", "b")[1] == "a\n\nc"
    assert without("line", "x")[2] == "y\n"
    assert without("line", "a", "b", "c", "x", "y")[1:] == ["", ""]


def test_removing_nothing_changes_nothing_and_white_space_is_no_unit() -> None:
    texts = ["", "   \n\t", " a \n\n b ", "x"]
    buffers = text_buffers(pl.Series(texts))
    for kind in KINDS:
        units = list_units(buffers, kind)
        assert without_units(buffers, units, np.zeros(len(units.text), np.bool_)).to_list() == texts
        assert not np.isin(units.text, [0, 1]).any()


def test_more_units_than_guessed() -> None:
    text = "a\n" * 5000
    assert len(listed([text], "line")[0]) == 5000
    assert re.sub(r"\s", "", "".join(listed([text], "sentence")[0])) == "a" * 5000
