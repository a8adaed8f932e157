from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.kernels.hashing import hash_texts
from dataeng.kernels.lines import (
    ALPHANUMERIC,
    DECIMAL,
    NUMERAL,
    UPPERCASE,
    WHITE,
    character_table,
    hash_lines,
    list_lines,
    without_lines,
)
from dataeng.kernels.text import text_buffers

PIECES = ["a", "bb", "é", "文", " ", "\n", "\n\n", "\r", "\u3000", "\t"]
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.lists(st.sampled_from(PIECES), max_size=30).map("".join),
    ),
    max_size=5,
)  # fmt: skip


def test_character_classes_are_pythons() -> None:
    table = character_table()
    tests = {WHITE: str.isspace, UPPERCASE: str.isupper, NUMERAL: str.isdigit, DECIMAL: str.isdecimal,
             ALPHANUMERIC: str.isalnum}  # fmt: skip
    for code_point in (*range(0x3000), *range(0xFF00, 0x11000), *range(0x1D400, 0x1D800), 0x20000, 0x10FFFF):
        for bit, test in tests.items():
            assert bool(table[code_point] & bit) == test(chr(code_point)), (hex(code_point), bit)


def reference(text: str, edge: int | None) -> list[str]:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return lines if edge is None or len(lines) <= 2 * edge else lines[:edge] + lines[-edge:]


@settings(max_examples=300, deadline=None)
@given(texts=TEXTS, edge=st.sampled_from([None, 1, 2, 3]))
@example(texts=["\n" * 200, "a\n" * 100, ""], edge=None)
def test_lines_and_their_hashes(texts: list[str], edge: int | None) -> None:
    column = text_buffers(pl.Series(["before", *texts], dtype=pl.String).slice(1))
    lines = list_lines(column, edge)
    found: list[list[str]] = [[] for _ in texts]
    for text, start, stop in zip(lines.text, lines.start, lines.stop, strict=True):
        found[text].append(bytes(column.data[start:stop]).decode())
    assert found == [reference(text, edge) for text in texts]
    flat = [line for listed in found for line in listed]
    assert hash_lines(column, lines).tolist() == hash_texts(text_buffers(pl.Series(flat, dtype=pl.String)))[0].tolist()


@settings(max_examples=300, deadline=None)
@given(texts=TEXTS, seed=st.integers(0, 1000))
@example(texts=["\n\na\n\n"], seed=0)
def test_texts_without_lines(texts: list[str], seed: int) -> None:
    column = text_buffers(pl.Series(texts, dtype=pl.String))
    lines = list_lines(column)
    removed = np.random.default_rng(seed).random(len(lines.text)) < 0.5
    expected, number = [], 0
    for text in texts:
        kept, edited = [], False
        for line in text.split("\n"):
            if line.strip():
                number += 1
                if removed[number - 1]:
                    edited = True
                    continue
            kept.append(line)
        expected.append("\n".join(kept).strip("\n") if edited else text)
    assert without_lines(column, lines.text[removed], lines.start[removed]).to_list() == expected
