"""The normalised form of texts, against Python's own Unicode functions."""

from __future__ import annotations

import unicodedata

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.kernels.normalized_text import UNCHANGED, is_left_out, is_separator, normalized_texts
from dataeng.kernels.text import text_buffers


def forms(texts: list[str]) -> list[str]:
    found = normalized_texts(text_buffers(pl.Series(texts, dtype=pl.String)))
    data = found.data.tobytes()
    return [data[a:b].decode() for a, b in zip(found.offsets[:-1], found.offsets[1:], strict=True)]


def nfkd(text: str) -> str:
    return unicodedata.normalize("NFKD", text)


def reference(text: str) -> str:
    characters = [c for c in text if not is_left_out(ord(c))]
    folded = [nfkd(nfkd(unicodedata.normalize("NFD", c).casefold()).casefold()) for c in characters]
    kept = [c for c in "".join(folded) if not is_left_out(ord(c))]
    ordered = nfkd("".join(" " if is_separator(c) else c for c in kept))  # puts marks in canonical order
    return (
        " ".join(ordered.split(" ")).strip(" ") if "  " not in ordered else " ".join(filter(None, ordered.split(" ")))
    )


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("", ""),
        ("  ", ""),
        ("...", ""),
        ("Hello,\n  WORLD!", "hello world"),
        ("a\u0301 \u00e1", "a\u0301 a\u0301"),
        ("Straße STRASSE", "strasse strasse"),
        ("ﬁne Ⅷ x² ﾊﾞ", "fine viii x2 ハ\u3099"),
        ("soft\u00adhyphen \u200bzero\u200d \ufeffbom", "softhyphen zero bom"),
        ("ΟΔΟΣ οδος οδοσ", "οδοσ οδοσ οδοσ"),
        ("«c++» $5=五", "c++ $5=五"),
        ("…Don’t—stop", "don t stop"),
        ("한국어", nfkd("한국어")),
        ("a\u0327\u0301 a\u0301\u0327", "a\u0327\u0301 a\u0327\u0301"),
        ("\u0301", "\u0301"),
        ("\u00b4x", "\u0301x"),
        ("tab\tnull\x00end", "tab null end"),
        ("❤\ufe0f❤", "❤❤"),
        ("10 000", "10 000"),
    ],
)
def test_examples(text: str, form: str) -> None:
    assert forms(["Before", text, "After"]) == ["before", form, "after"]
    assert reference(text) == form


PIECES = st.sampled_from(
    [
        *"aZ1 .,-ßİıςΣﬁé각ㄱﷺ½",
        *"\u0301\u0327\u0345\u0313\u1100\u1161\u11a8\u00ad\u034f\u2028\U0001d15e\U0002f800\u3099\u00a0\x85\x1c",
        "\u0f71\u0f72",
        "\u05b7\u05b1",
        "ﾊﾞ",
        "\u1e9b\u0323",
    ]
)


@settings(max_examples=600, deadline=None)
@given(st.lists(st.one_of(st.lists(PIECES, max_size=30).map("".join), st.text(max_size=30)), max_size=4))
@example(["ﷺ" * 60, "각" * 200, "\u0301" * 40 + "\u0327" * 40])
def test_equals_the_plain_reference(texts: list[str]) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    assert forms(texts) == [reference(text) for text in texts]


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.lists(PIECES, max_size=30).map("".join), st.text(max_size=30)))
def test_unicode_equivalent_texts_have_one_form(text: str) -> None:
    text = text.encode("utf-8", "replace").decode().replace("\u0345", "")  # see the next test
    spellings = [unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    assert len(set(forms([text, *spellings]))) == 1
    assert forms([text.casefold()]) == forms([text])


def test_every_character_alone() -> None:
    """All of Unicode, so that no range is wrongly believed to be without changes."""
    every = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    assert forms(every) == [reference(c) for c in every]
    assert all(first < end for first, end in UNCHANGED)


def test_texts_are_independent_of_their_column() -> None:
    texts = ["A", None, "ß", "", "ﷺ"]
    column = pl.Series(texts * 3)[2:9]
    found = normalized_texts(text_buffers(column))
    assert found.num_texts == 7
    assert found.data.tobytes().decode() == "".join(forms([text or "" for text in column]))
