from __future__ import annotations

import itertools
import tracemalloc
from typing import Literal

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.kernels.folding import Unit
from dataeng.kernels.minhash import Signatures, band_keys, minhash, permutations
from dataeng.kernels.text import text_buffers
from tests.kernels.shingles_reference import TEXTS, shingles_of

BITS = st.sampled_from([32, 64])
UNITS = st.sampled_from(["words", "characters"])
NORMALIZATIONS = st.sampled_from(["simplified", "none", "code"])


def signed(
    texts: list[str], ngram: int = 2, count: int = 8, bits: Literal[32, 64] = 32, unit: Unit = "words",
    normalization: Literal["simplified", "none", "code"] = "simplified",
) -> Signatures:  # fmt: skip
    column = text_buffers(pl.Series(texts, dtype=pl.String))
    return minhash(column, permutations(count, bits=bits), ngram=ngram, unit=unit, normalization=normalization)


def reference_minima(shingles: list[int], count: int, bits: Literal[32, 64] = 32) -> list[int]:
    functions, mask = permutations(count, bits=bits), (1 << bits) - 1
    return [
        min(((int(m) * (s & mask) + int(z)) & mask for s in shingles), default=mask)
        for m, z in zip(functions.multipliers, functions.increments, strict=True)
    ]


@settings(max_examples=400, deadline=None)
@given(text=TEXTS, ngram=st.integers(1, 4), bits=BITS, unit=UNITS, normalization=NORMALIZATIONS)
@example(text="", ngram=1, bits=32, unit="words", normalization="simplified")
@example(text="3.14 1,234,567 1.2.3 1. 2 7.x", ngram=1, bits=32, unit="words", normalization="simplified")
@example(text="12", ngram=1, bits=32, unit="words", normalization="simplified")
@example(text="한국어를 각 각", ngram=2, bits=64, unit="words", normalization="simplified")
@example(text="a\x00b c", ngram=1, bits=64, unit="words", normalization="none")
def test_equals_the_plain_reference(
    text: str, ngram: int, bits: Literal[32, 64], unit: Unit, normalization: Literal["simplified", "none", "code"]
) -> None:
    # A long neighbour behind lets the kernel read whole blocks; a short one makes it stop before the buffer's end.
    for after in ("after", "after " * 20):
        found = signed(["before", text, after], ngram, 8, bits, unit, normalization)
        shingles = shingles_of(text, ngram, unit, normalization)
        assert found.num_shingles[1] == len(shingles)
        assert found.minima[1].tolist() == reference_minima(shingles, 8, bits)


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 130), gap=st.integers(1, 70), offset=st.integers(0, 66), end=st.sampled_from(["", "é", "7"])
)
def test_words_at_every_place_of_a_block(length: int, gap: int, offset: int, end: str) -> None:
    text = "." * offset + "w" * length + end + " " * gap + "next Word" + end + "-" * gap + "x" * length
    for after in ("", "after " * 20):
        found = signed([text, after], 1)
        assert found.minima[0].tolist() == reference_minima(shingles_of(text, 1), 8)


@pytest.mark.parametrize("ngram", [1, 5, 16, 300])
@pytest.mark.parametrize("words", [1023, 1024, 1025, 1030, 2047, 2048, 5000])
def test_texts_of_many_chunks(words: int, ngram: int) -> None:
    text = " ".join(f"word{'abcdefghij'[i % 10]}{'klmno'[i // 10 % 5]}é{'pqrst' * (i // 50 % 7)}" for i in range(words))
    text += " " + " ".join(itertools.chain.from_iterable(zip("abcdefghij" * 40, "zyxwv" * 80, strict=True)))
    shingles = shingles_of(text, ngram)
    found = signed([text], ngram)
    assert found.num_shingles[0] == len(shingles)
    assert found.minima[0].tolist() == reference_minima(shingles, 8)


def test_short_texts_are_flagged() -> None:
    for bits in (32, 64):
        found = signed(["one two three four", "one two three four five", "", "..."], ngram=5, bits=bits)
        assert found.num_shingles.tolist() == [0, 1, 0, 0]
        assert (found.minima[[0, 2, 3]] == 2**bits - 1).all()
        assert found.minima.dtype == f"uint{bits}"


def test_similarity_is_estimated_without_bias() -> None:
    """Sets with a known Jaccard similarity: the share of equal minima is within 4 standard errors."""
    count, words = 512, ["".join(letters) for letters in itertools.product("abcdefgh", repeat=3)]
    for shared, bits in itertools.product((60, 150, 240), (32, 64)):
        first, second = words[:300], words[:shared] + words[-(300 - shared) :]
        grams = [set(itertools.pairwise(text)) for text in (first, second)]
        jaccard = len(grams[0] & grams[1]) / len(grams[0] | grams[1])
        minima = signed([" ".join(first), " ".join(second)], 2, count, bits).minima
        estimate = float((minima[0] == minima[1]).mean())
        assert abs(estimate - jaccard) < 4 * (jaccard * (1 - jaccard) / count) ** 0.5


def test_permutations_are_fixed_for_good() -> None:
    functions = permutations(3, seed=1)
    # SplitMix64 with seed 1: 0x910A2DEC89025CC1, 0xBEEB8DA1658EEC67, 0xF893A2EEFB32555E, …
    assert functions.multipliers.tolist() == [0x910A2DEC | 1, 0xBEEB8DA1, 0xF893A2EE | 1]
    assert permutations(2, bits=64).multipliers.tolist() == [0x910A2DEC89025CC1, 0xBEEB8DA1658EEC67]
    assert not np.array_equal(permutations(3, seed=2).multipliers, functions.multipliers)
    with pytest.raises(ValueError, match="bits must be 32 or 64, got 16"):
        permutations(3, bits=16)  # type: ignore[arg-type]


def test_signatures_are_fixed_for_good() -> None:
    """Signatures are kept in indexes of earlier runs: these numbers may not change."""
    text = "The quick brown fox, it is said, jumps over 12 lazy dogs; straße über 日本語 — and incomprehensibilities."
    assert signed([text], 3, 4).minima[0].tolist() == [117657654, 378713941, 80587171, 30255237]
    assert signed([text], 3, 2, 64).minima[0].tolist() == [1178867919977311332, 891656889851749723]


def test_band_keys() -> None:
    texts = ["a b c d e f", "a b c d e f", "a b c d e x", "p q r s t u"]
    for bits in (32, 64):
        minima = signed(texts, 2, 12, bits).minima
        keys = band_keys(minima, bands=4, rows=3)
        assert keys.shape == (4, 4)
        assert keys.dtype == np.uint64
        same_band = (minima[0].reshape(4, 3) == minima[2].reshape(4, 3)).all(1)
        assert (keys[0] == keys[1]).all()
        assert (keys[0] == keys[2]).tolist() == same_band.tolist()
        assert len(np.unique(keys[0])) == 4  # equal minima in two bands are two keys
        assert np.array_equal(band_keys(minima, bands=3, rows=3), keys[:, :3])  # the rest is not looked at
        with pytest.raises(ValueError, match="4 bands of 4 rows need 16 permutations, got 12"):
            band_keys(minima, bands=4, rows=4)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="ngram must be 1 to 1000 words, got 0"):
        signed(["a"], ngram=0)
    with pytest.raises(ValueError, match="unknown unit 'letters'"):
        signed(["a"], unit="letters")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown normalization 'lower'"):
        signed(["a"], normalization="lower")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["some words of English, " * 400_000, "x" * 9_000_000, "語" * 3_000_000])
def test_scratch_does_not_grow_with_the_text(text: str) -> None:
    column = text_buffers(pl.Series([text]))
    minhash(column, permutations(8))
    tracemalloc.start()
    found = minhash(column, permutations(8))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
    words = {"s": 1_600_000, "x": 1, "語": 3_000_000}[text[0]]
    assert found.num_shingles.tolist() == [max(0, words - 4)]
