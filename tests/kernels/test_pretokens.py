"""Cutting texts: the scanner against the regular expressions themselves, on all of Unicode."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from dataeng.kernels import pretokens
from dataeng.kernels.text import CODE_POINT_LIMIT, text_buffers
from dataeng.stages.tokens import pretokenization

#: What the rules look at, in short texts: contractions in all cases, blanks, newlines, digits, marks, four bytes.
TRICKY = st.text(
    "'sStTrReEvVmMlLdDſ  \t\n\r\u00a0\u3000\u200b0٣Ⅷ²é东ﬆ́!_-<|>🙂\U00020000\U00011f04\x00\x1c\x85", max_size=14
)
TEXTS = st.lists(st.one_of(TRICKY, st.text(st.characters(exclude_categories=["Cs"]), max_size=20)), max_size=4)
CASES = [(preset, digits) for preset in pretokenization.PRESETS for digits in (None, "individual", "groups_of_three")]


def counted(texts: list[str], preset: str, digits: Any) -> dict[str, int]:
    pieces = pretokenization.count(pl.Series(texts, dtype=pl.String), preset, digits)
    data, offsets = pieces.data.tobytes(), pieces.offsets.tolist()
    cut = [data[start:stop].decode() for start, stop in itertools.pairwise(offsets)]
    assert len(set(cut)) == len(cut) == pieces.num_pieces
    return dict(zip(cut, pieces.counts.tolist(), strict=True))


def expected(texts: list[str], cutter: Any) -> dict[str, int]:
    return dict(Counter(piece for text in texts for piece, _ in cutter.pre_tokenize_str(text)))


@pytest.mark.parametrize(("preset", "digits"), CASES)
@settings(max_examples=150, deadline=None)
@given(texts=TEXTS)
@example(texts=["I'll we'RE '' 's'S  x\n\n  y \t\r\n", "", "1234567 １２３ \n", "a\u00a0b  ", "'ſ 'l 'r"])
def test_pieces_are_those_of_the_expression(preset: str, digits: Any, texts: list[str]) -> None:
    split = pre_tokenizers.Split(Regex(pretokenization.expression(preset, digits)), "isolated")
    found = counted(texts, preset, digits)
    assert found == expected(texts, split)
    assert sum(len(piece) * times for piece, times in found.items()) == sum(map(len, texts))  # nothing is lost


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_words_and_punctuation_are_those_of_bert(texts: list[str]) -> None:
    assert counted(texts, "bert", None) == expected(texts, pre_tokenizers.BertPreTokenizer())


def test_the_table_of_pieces_grows() -> None:
    """More different pieces than the first table and arena have room for, some longer than eight bytes."""
    words = [
        f"{'a' * (number % 13)}{chr(0x4E00 + number % 5000)}{chr(0x61 + number // 5000)}" for number in range(60_000)
    ]
    texts = [" ".join(words[start : start + 700]) for start in range(0, 60_000, 350)] + ["z" * 3_000_000]
    found = counted(texts, "gpt2", None)
    assert found == dict(
        Counter(expected(texts[:-1], pre_tokenizers.Split(Regex(pretokenization.expression("gpt2")), "isolated")))
        | {"z" * 3_000_000: 1}
    )


def test_slices_of_a_column_start_anywhere() -> None:
    texts = pl.Series(["one two", "three three", "four"])[1:2]
    assert counted(texts.to_list(), "gpt2", None) == {"three": 1, " three": 1}
    pieces = pretokenization.count(texts, "gpt2")
    assert pieces.data.tobytes() == b"three three"


@pytest.mark.parametrize(("style", "digits"), [(pretokens.CL100K, 0), (3, 1), (pretokens.GPT2, -1)])
def test_rules_that_do_not_exist_are_refused(style: int, digits: int) -> None:
    buffers = text_buffers(pl.Series(["a"]))
    with pytest.raises(ValueError, match="no rule"):
        pretokens.count_pieces(buffers, np.full(CODE_POINT_LIMIT, pretokens.OTHER, np.uint8), style, digits)
    with pytest.raises(ValueError, match="class bits"):
        pretokens.count_pieces(buffers, np.zeros(10, np.uint8), pretokens.GPT2)
