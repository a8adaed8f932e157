from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.kernels.normalization import (
    CCNET_PUNCTUATION,
    FORMS,
    LARGEST_GROWTH,
    Form,
    count_characters,
    normalize_units,
)
from dataeng.kernels.text import text_buffers


def lowered(text: str) -> str:
    """Lower case without context: ``ς`` only ever as ``σ``."""
    return "".join(character.lower() for character in text).replace("ς", "σ")


def without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")


def ccnet_code(text: str) -> str:
    """cc_net/text_normalizer.py, normalize_for_dedup (MIT, Facebook): its three steps."""
    controls = "".join(map(chr, [*range(32), *range(127, 160)]))
    text = lowered(text.strip())
    text = re.sub(r"\d", "0", text)
    return re.sub(f"[{CCNET_PUNCTUATION}{controls}]", "", text)


def ccnet_paper(text: str) -> str:
    text = re.sub(r"\d", "0", lowered(text))
    text = "".join(c for c in text if unicodedata.category(c)[0] != "P")
    text = "".join(c for c in text if unicodedata.category(c) != "Cc" or c.isspace())
    return " ".join(without_accents(text).split())


def datatrove(text: str) -> str:
    from datatrove.utils.text import simplify_text

    # It takes accents out after it has made runs of white space one; here what accents have parted is joined, too.
    return " ".join(simplify_text(lowered(text)).split())


REFERENCES: dict[Form, Callable[[str], str]] = {
    "none": str, "lower": lowered, "ccnet@code": ccnet_code, "ccnet@paper": ccnet_paper, "datatrove": datatrove,
}  # fmt: skip


def normalized(texts: list[str], form: Form) -> list[str]:
    buffers = text_buffers(pl.Series(texts, dtype=pl.String))
    found = normalize_units(buffers, buffers.offsets[:-1], buffers.offsets[1:], form)
    return [bytes(found.data[a:b]).decode() for a, b in zip(found.offsets, found.offsets[1:], strict=False)]


PIECES = ["Straße", "İ", "ΣΑΣ", "é", "e\u0301", "한", "각", "12", "3.5", "1,2,3", "4.", "١٢٫٥", "１", "—", "“", "-",
          "_", " ", "  ", "\u3000", "\x85", "\x00", "\x1f", "中", "。", "\U0001d7d8", "\ufe0f", "#"]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join)).map(str.strip), max_size=5))
@example(["", "x", "1.2.3", "1..2", "9", "0.", "a 1 , 2", "\u0345ǰ", "1\u0301.5"])
@pytest.mark.parametrize("form", FORMS)
def test_equals_the_reference(form: Form, texts: list[str]) -> None:
    if form == "datatrove":
        pytest.importorskip("datatrove")
    assert normalized(texts, form) == [REFERENCES[form](text) for text in texts]


@pytest.mark.parametrize("form", FORMS)
def test_every_character(form: Form) -> None:
    if form == "datatrove":
        pytest.importorskip("datatrove")
    # datatrove's digits are those of the `regex` package, which may know a newer Unicode than this Python.
    unknown = {"Cs", "Cn"} if form == "datatrove" else {"Cs"}
    characters = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in unknown and not c.isspace()]
    chosen = [*characters[:0x3000], *characters[0x3000::5]]
    wrapped = [f"a{character}b" for character in chosen]
    expected_of = map(REFERENCES[form], wrapped)
    for character, found, expected in zip(chosen, normalized(wrapped, form), expected_of, strict=True):
        assert found == expected, hex(ord(character))
        assert len(found.encode()) - 2 <= LARGEST_GROWTH * len(character.encode())


def test_ccnet_punctuation_is_ccnets() -> None:
    # The length of UNICODE_PUNCT in cc_net/text_normalizer.py; none of it is ASCII.
    assert len(set(CCNET_PUNCTUATION)) == 34 and not any(c.isascii() for c in CCNET_PUNCTUATION)


@given(st.lists(st.text(), max_size=5))
def test_characters_are_counted(texts: list[str]) -> None:
    buffers = text_buffers(pl.Series(texts, dtype=pl.String))
    assert count_characters(buffers).tolist() == [len(text) for text in texts]
    some = normalize_units(buffers, buffers.offsets[:-1], buffers.offsets[1:], "none")
    assert np.array_equal(count_characters(some), count_characters(buffers))
