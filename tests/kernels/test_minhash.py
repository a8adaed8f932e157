from __future__ import annotations

import itertools
import re
import unicodedata

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.kernels.characters import DATATROVE_PUNCTUATION
from dataeng.kernels.minhash import NO_SHINGLE, UNSPACED_RANGES, Signatures, band_keys, minhash, permutations
from dataeng.kernels.text import text_buffers

MASK = (1 << 64) - 1
NUMBER = re.compile(r"\d+([.,،٫⎖⎗⎘]\d+)?")


def reference_words(text: str) -> list[str]:
    """datatrove's ``simplify_text``, then words: at white space, and each character of unspaced scripts."""
    text = NUMBER.sub("0", text.lower().replace("ς", "σ"))
    words, word = [], ""
    for c in text + " ":
        kept = "".join(d for d in unicodedata.normalize("NFD", c) if unicodedata.category(d) != "Mn")
        if c in DATATROVE_PUNCTUATION or c.isspace():
            words, word = [*words, word], ""
        elif len(kept) == 1 and c != "0" and any(first <= ord(c) <= last for first, last in UNSPACED_RANGES):
            words, word = [*words, word, kept], ""
        else:
            word += kept
    return [word for word in words if word]


def mix(state: int, word: int) -> int:
    state = ((state ^ word) * 0x9E3779B97F4A7C15) & MASK
    return state ^ (state >> 32)


def word_hash(word: str) -> int:
    code = b"".join(
        bytes([ord(c)]) if ord(c) < 256 else bytes([0x80 | ord(c) >> 16, ord(c) >> 8 & 255, ord(c) & 255]) for c in word
    )
    state = 0
    whole = len(code) // 8 * 8
    for i in range(0, whole, 8):
        state = mix(state, int.from_bytes(code[i : i + 8], "big"))
    state = mix(mix(state, int.from_bytes(code[whole:], "big")), len(code))
    state = (state * 0xD6E8FEB86659FD93) & MASK
    return state ^ (state >> 32)


def reference_signature(text: str, ngram: int, count: int) -> tuple[list[int], int]:
    hashes = [word_hash(word) for word in reference_words(text)]
    shingles = []
    for i in range(len(hashes) - ngram + 1):
        rolling = 0
        for value in hashes[i : i + ngram]:
            rolling = (rolling * 0x9E3779B97F4A7C15 + value) & MASK
        value = ((rolling ^ (rolling >> 29)) * 0xBF58476D1CE4E5B9) & MASK
        shingles.append((value ^ (value >> 32)) & 0xFFFFFFFF)
    functions = permutations(count)
    minima = [
        min(((int(m) * s + int(z)) & 0xFFFFFFFF for s in shingles), default=int(NO_SHINGLE))
        for m, z in zip(functions.multipliers, functions.increments, strict=True)
    ]
    return minima, len(shingles)


def signed(texts: list[str], ngram: int = 2, count: int = 8) -> Signatures:
    return minhash(text_buffers(pl.Series(texts, dtype=pl.String)), permutations(count), ngram=ngram)


PIECES = st.sampled_from(
    [
        *"Aa1२ 3.,،\n",
        "ΟΔΟΣ",
        "οδος",
        "İstanbul",
        "straße",
        "한국어",
        "각",
        "ㅎ",
        "日本",
        "カ゛ガ",
        "ไทย",
        "é",
        "e\u0301",
        "≠",
        "ﬁ",
        "Ǆ",
    ]
)


@settings(max_examples=400, deadline=None)
@given(text=st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=30).map("".join)), ngram=st.integers(1, 4))
@example(text="", ngram=1)
@example(text="3.14 1,234,567 1.2.3 1. 2 7.x", ngram=1)
@example(text="12", ngram=1)
@example(text="한국어를 각 각", ngram=2)
def test_equals_the_plain_reference(text: str, ngram: int) -> None:
    found = signed(["before", text, "after"], ngram)
    minima, shingles = reference_signature(text, ngram, 8)
    assert found.num_shingles[1] == shingles
    assert found.minima[1].tolist() == minima


def test_normalisation_is_datatroves() -> None:
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
        assert reference_words(text) == text_module.simplify_text(text).split()


def test_short_texts_are_flagged() -> None:
    found = signed(["one two three four", "one two three four five", "", "..."], ngram=5)
    assert found.num_shingles.tolist() == [0, 1, 0, 0]
    assert (found.minima[[0, 2, 3]] == NO_SHINGLE).all()


def test_similarity_is_estimated_without_bias() -> None:
    """Sets with a known Jaccard similarity: the share of equal minima is within 4 standard errors."""
    count, words = 512, ["".join(letters) for letters in itertools.product("abcdefgh", repeat=3)]
    for shared in (60, 150, 240):
        first, second = words[:300], words[:shared] + words[-(300 - shared) :]
        grams = [set(itertools.pairwise(text)) for text in (first, second)]
        jaccard = len(grams[0] & grams[1]) / len(grams[0] | grams[1])
        minima = signed([" ".join(first), " ".join(second)], 2, count).minima
        estimate = float((minima[0] == minima[1]).mean())
        assert abs(estimate - jaccard) < 4 * (jaccard * (1 - jaccard) / count) ** 0.5


def test_permutations_are_fixed_for_good() -> None:
    functions = permutations(3, seed=1)
    # SplitMix64 with seed 1: 0x910A2DEC89025CC1, 0xBEEB8DA1658EEC67, 0xF893A2EEFB32555E, …
    assert functions.multipliers.tolist() == [0x910A2DEC | 1, 0xBEEB8DA1, 0xF893A2EE | 1]
    assert not np.array_equal(permutations(3, seed=2).multipliers, functions.multipliers)


def test_band_keys() -> None:
    texts = ["a b c d e f", "a b c d e f", "a b c d e x", "p q r s t u"]
    minima = signed(texts, 2, 12).minima
    keys = band_keys(minima, bands=4, rows=3)
    assert keys.shape == (4, 4)
    assert keys.dtype == np.uint64
    same_band = (minima[0].reshape(4, 3) == minima[2].reshape(4, 3)).all(1)
    assert (keys[0] == keys[1]).all()
    assert (keys[0] == keys[2]).tolist() == same_band.tolist()
    assert len(np.unique(keys[0])) == 4  # equal minima in two bands are two keys
    with pytest.raises(ValueError, match="4 bands of 4 rows need 16 permutations, got 12"):
        band_keys(minima, bands=4, rows=4)


def test_ngram_is_checked() -> None:
    with pytest.raises(ValueError, match="ngram must be 1 to 16 words, got 0"):
        signed(["a"], ngram=0)
