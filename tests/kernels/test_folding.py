from __future__ import annotations

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.kernels.folding import Normalization, Unit, normalise
from dataeng.kernels.text import text_buffers
from tests.kernels.shingles_reference import TEXTS, characters_of, simplified_words, words_of


def normalised(texts: list[str], normalization: Normalization = "simplified", unit: Unit = "words") -> list[str]:
    found = normalise(text_buffers(pl.Series(texts, dtype=pl.String)), normalization, unit)
    data = found.data.tobytes()
    return [data[i:j].decode() for i, j in zip(found.offsets[:-1], found.offsets[1:], strict=True)]


@settings(max_examples=300, deadline=None)
@given(
    text=TEXTS,
    normalization=st.sampled_from(["simplified", "none", "code"]),
    unit=st.sampled_from(["words", "characters"]),
)
@example(text="", normalization="simplified", unit="words")
@example(text="a\u0301 \u0301 b", normalization="simplified", unit="words")
@example(text="한국어를 각 日本語です", normalization="simplified", unit="characters")
@example(text="a\x00b\x1c c\u2003d_1 é", normalization="none", unit="words")
@example(text="a  b\n", normalization="none", unit="characters")
def test_equals_the_plain_reference(text: str, normalization: Normalization, unit: Unit) -> None:
    expected = (
        " ".join(words_of(text, normalization)) if unit == "words" else "".join(characters_of(text, normalization))
    )
    assert normalised(["before it", text, "after it"], normalization, unit) == [
        *normalised(["before it"]), expected, *normalised(["after it"]),
    ]  # fmt: skip


def test_no_texts() -> None:
    assert normalised([]) == []


def test_simplified_is_datatroves() -> None:
    text_module = pytest.importorskip("datatrove.utils.text")
    texts = [
        "Hello, World! It costs 3.50 €, or 1,234,567.",
        "Ünïcödé: naïve café – déjà-vu; ÄÖÜ ß",
        "line one\n\n  line two\ttabbed",
        "Привет, Мир! ёж й",
        "한국어 텍스트, 각각",
        "“quotes” «guillemets» (brackets) [12]",
    ]
    for text in texts:
        assert simplified_words(text) == text_module.simplify_text(text).split()
        assert normalised([text]) == [" ".join(text_module.simplify_text(text).split())]
