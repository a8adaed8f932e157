"""Presets: what they cut, and that a trained tokenizer cuts like the training did."""

from __future__ import annotations

import sys
import unicodedata

import numpy as np
import pytest
from tokenizers import Regex, pre_tokenizers

from dataeng.kernels.pretokens import LETTER, NEWLINE, NUMBER, OTHER, PUNCTUATION, SPACE
from dataeng.stages.tokens import pretokenization

TEXT = "I'll pay 12345 kr.\n\n  Então?"


@pytest.mark.parametrize(
    ("preset", "digits", "pieces"),
    [
        ("gpt2", None, ["I", "'ll", " pay", " 12345", " kr", ".", "\n\n ", " Então", "?"]),
        ("gpt2", "individual", ["I", "'ll", " pay", " ", "1", "2", "3", "4", "5", " kr", ".", "\n\n ", " Então", "?"]),
        ("gpt2", "groups_of_three", ["I", "'ll", " pay", " ", "123", "45", " kr", ".", "\n\n ", " Então", "?"]),
        ("gpt4", None, ["I", "'ll", " pay", " ", "123", "45", " kr", ".\n\n", " ", " Então", "?"]),
        ("llama3", None, ["I", "'ll", " pay", " ", "123", "45", " kr", ".\n\n", " ", " Então", "?"]),
        ("qwen", None, ["I", "'ll", " pay", " ", "1", "2", "3", "4", "5", " kr", ".\n\n", " ", " Então", "?"]),
        ("bert", None, ["I", "'", "ll", "pay", "12345", "kr", ".", "Então", "?"]),
    ],
)
def test_presets_cut_as_their_sources(preset: str, digits: pretokenization.Digits | None, pieces: list[str]) -> None:
    cutter = pretokenization.pre_tokenizer(preset, digits, byte_level=False)
    assert [piece for piece, _ in cutter.pre_tokenize_str(TEXT)] == pieces


@pytest.mark.parametrize("digits", [None, "individual", "groups_of_three"])
@pytest.mark.parametrize("preset", sorted(pretokenization.PRESETS))
def test_byte_level_cuts_at_the_same_places(preset: str, digits: pretokenization.Digits | None) -> None:
    plain, byte_level = (pretokenization.pre_tokenizer(preset, digits, flag) for flag in (False, True))
    assert [place for _, place in plain.pre_tokenize_str(TEXT)] == [
        place for _, place in byte_level.pre_tokenize_str(TEXT)
    ]


def test_classes_are_those_of_unicode() -> None:
    """Letters, numbers and spaces that this Python knows are such for the tokenizers' library, which may be newer."""
    table = pretokenization.character_classes()
    for code in range(sys.maxunicode + 1):
        category = unicodedata.category(chr(code))
        if category[0] == "L":
            assert table[code] == LETTER, hex(code)
        elif category[0] == "N":
            assert table[code] == NUMBER, hex(code)
        elif category[0] == "Z":
            assert table[code] == SPACE, hex(code)
        elif category not in ("Cn", "Cc"):
            assert table[code] == OTHER, hex(code)
    assert table[ord("\n")] == table[ord("\r")] == SPACE | NEWLINE
    assert [code for code in range(32) if table[code] & SPACE] == [9, 10, 11, 12, 13]
    # Above what is asked about, the library has no letters, numbers or spaces either.
    above = "".join(chr(code) for code in range(0x40000, 0x110000, 7)) + chr(0xE0041) + chr(0xE01EF)
    assert pre_tokenizers.Split(Regex(r"[\p{L}\p{N}\s]"), "removed").pre_tokenize_str(above)[0][0] == above


def test_classes_of_bert_are_those_of_unicode() -> None:
    """BERT's rule knows an older Unicode than the expressions, so: what was punctuation in 2002 and still is."""
    table = pretokenization.bert_classes()
    assert np.isin(table, [SPACE, PUNCTUATION, OTHER]).all()
    for code in range(0x40000):
        category = unicodedata.category(chr(code))
        if category[0] == unicodedata.ucd_3_2_0.category(chr(code))[0] == "P":
            assert table[code] == PUNCTUATION, hex(code)
        elif category[0] == "L":
            assert table[code] == OTHER, hex(code)
    assert table[ord("$")] == table[ord("~")] == PUNCTUATION and table[ord("\u3000")] == SPACE
