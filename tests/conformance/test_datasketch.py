"""Signatures against datasketch itself: the same numbers, and stored ones load into its MinHash and its LSH."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from datasketch import LeanMinHash, MinHash, MinHashLSH
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.kernels.datasketch_signatures import SCHEMES, Scheme, datasketch_minhash, datasketch_permutations
from dataeng.kernels.folding import Normalization, Unit
from dataeng.kernels.lsh_parameters import datasketch_parameters
from dataeng.kernels.minhash import Signatures, band_keys
from dataeng.kernels.text import text_buffers
from tests.kernels.shingles_reference import TEXTS, characters_of, words_of


def shingles_of(text: str, ngram: int, unit: Unit, normalization: Normalization) -> list[str]:
    elements = words_of(text, normalization) if unit == "words" else characters_of(text, normalization)
    separator = " " if unit == "words" else ""
    return [separator.join(elements[i : i + ngram]) for i in range(len(elements) - ngram + 1)]


def theirs(shingles: list[str], num_perm: int, seed: int, scheme: Scheme) -> MinHash:
    minhash = MinHash(num_perm, seed=seed, scheme=scheme)
    minhash.update_batch([shingle.encode() for shingle in shingles])
    return minhash


def ours(
    texts: list[str], num_perm: int, seed: int, scheme: Scheme, ngram: int = 5, unit: Unit = "words",
    normalization: Normalization = "simplified",
) -> Signatures:  # fmt: skip
    functions = datasketch_permutations(num_perm, seed, scheme)
    column = text_buffers(pl.Series(texts, dtype=pl.String))
    return datasketch_minhash(column, functions, ngram=ngram, unit=unit, normalization=normalization)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_permutations(scheme: Scheme) -> None:
    for num_perm, seed in ((1, 1), (128, 1), (256, 42)):
        minhash = MinHash(num_perm, seed=seed, scheme=scheme)
        functions = datasketch_permutations(num_perm, seed, scheme)
        assert np.array_equal(functions.a, minhash.permutations[0])
        assert np.array_equal(functions.b, minhash.permutations[1])


@settings(max_examples=300, deadline=None)
@given(
    text=TEXTS,
    ngram=st.integers(1, 5),
    scheme=st.sampled_from(SCHEMES),
    unit=st.sampled_from(["words", "characters"]),
    normalization=st.sampled_from(["simplified", "none", "code"]),
)
@example(text="", ngram=1, scheme="legacy", unit="words", normalization="none")
@example(text="a b", ngram=3, scheme="affine64", unit="words", normalization="none")
@example(text="日本語 text", ngram=2, scheme="affine32", unit="characters", normalization="simplified")
def test_signatures(text: str, ngram: int, scheme: Scheme, unit: Unit, normalization: Normalization) -> None:
    found = ours(["before", text, "after"], 16, 3, scheme, ngram, unit, normalization)
    shingles = shingles_of(text, ngram, unit, normalization)
    assert found.num_shingles[1] == len(shingles)
    assert found.minima[1].tolist() == theirs(shingles, 16, 3, scheme).hashvalues.tolist()


@pytest.mark.parametrize("ngram", [1, 3])
def test_texts_of_many_chunks(ngram: int) -> None:
    text = " ".join(f"w{i * i % 1777}{'é' * (i % 70)}" for i in range(5000))
    for scheme in SCHEMES:
        found = ours(["a b c", text], 8, 1, scheme, ngram, "words", "none")
        expected = theirs(shingles_of(text, ngram, "words", "none"), 8, 1, scheme)
        assert found.minima[1].tolist() == expected.hashvalues.tolist()
        assert found.num_shingles[1] == 5000 - ngram + 1


def read(path: Path, count: int) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line, _ in zip(lines, range(count), strict=False)]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_real_texts_in_both_libraries(test_data: Path, scheme: Scheme) -> None:
    """The same signatures; stored ones give in datasketch's LSH the candidates that our band keys give."""
    texts = read(test_data / "dedup" / "documents.jsonl.gz", 60) + read(test_data / "domains" / "cc.jsonl.gz", 20)
    num_perm, threshold = 128, 0.5
    found = ours(texts, num_perm, 1, scheme)
    index = MinHashLSH(threshold, num_perm)
    loaded = []
    for row, text in enumerate(texts):
        shingles = shingles_of(text, 5, "words", "simplified")
        stored = MinHash(hashvalues=found.minima[row], seed=1, scheme=scheme)
        if row % 4 == 0:  # theirs takes its time
            assert stored.jaccard(theirs(shingles, num_perm, 1, scheme)) == 1.0
        assert LeanMinHash(stored).jaccard(stored) == 1.0
        loaded.append(stored)
        index.insert(row, stored)
    bands, rows = datasketch_parameters(threshold, num_perm)
    assert (bands, rows) == (index.b, index.r)
    keys = band_keys(found.minima, bands=bands, rows=rows)
    candidates = {(i, j) for i in range(len(texts)) for j in range(len(texts)) if i == j or (keys[i] == keys[j]).any()}
    assert candidates == {(i, j) for i in range(len(texts)) for j in index.query(loaded[i])}
    assert len(candidates) > len(texts)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="unknown scheme 'affine'; known: affine32, affine64, legacy"):
        datasketch_permutations(8, scheme="affine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_perm must be at least 1, got 0"):
        datasketch_permutations(0)
    with pytest.raises(ValueError, match="ngram must be 1 to 1000 words, got 0"):
        ours(["a"], 4, 1, "legacy", ngram=0)
