from __future__ import annotations

import tracemalloc
from typing import Literal

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.kernels.folding import Normalization, Unit
from dataeng.kernels.shingle_sets import (
    MAX_INSERTION,
    ShingleSets,
    containment,
    heap_sort,
    jaccard,
    overlaps,
    shingle_sets,
)  # fmt: skip
from dataeng.kernels.text import text_buffers
from tests.kernels.shingles_reference import TEXTS, shingles_of

HASHES = st.sets(st.one_of(st.integers(0, 30), st.integers(0, 2**32 - 1)), max_size=40)


def sets_of(
    texts: list[str], ngram: int = 2, unit: Unit = "words", normalization: Normalization = "simplified",
    bits: Literal[32, 64] = 64,
) -> ShingleSets:  # fmt: skip
    column = text_buffers(pl.Series(texts, dtype=pl.String))
    return shingle_sets(column, ngram=ngram, unit=unit, normalization=normalization, bits=bits)


def listed(sets: ShingleSets) -> list[list[int]]:
    return [sets.values[i:j].tolist() for i, j in zip(sets.offsets[:-1], sets.offsets[1:], strict=True)]


def made(hashes: list[set[int]], dtype: type = np.uint64) -> ShingleSets:
    offsets = np.cumsum([0, *map(len, hashes)])
    return ShingleSets(np.array([h for one in hashes for h in sorted(one)], dtype), offsets)


@settings(max_examples=200, deadline=None)
@given(
    texts=st.lists(TEXTS, max_size=5),
    ngram=st.integers(1, 4),
    unit=st.sampled_from(["words", "characters"]),
    normalization=st.sampled_from(["simplified", "none", "code"]),
    bits=st.sampled_from([32, 64]),
)
@example(texts=[], ngram=1, unit="words", normalization="simplified", bits=64)
@example(texts=["a a a a", "", "b a"], ngram=1, unit="words", normalization="simplified", bits=32)
def test_equal_the_plain_reference(
    texts: list[str], ngram: int, unit: Unit, normalization: Normalization, bits: Literal[32, 64]
) -> None:
    mask = (1 << bits) - 1
    expected = [sorted({h & mask for h in shingles_of(text, ngram, unit, normalization)}) for text in texts]
    found = sets_of(texts, ngram, unit, normalization, bits)
    assert listed(found) == expected
    assert found.values.dtype == f"uint{bits}"


@pytest.mark.parametrize("ngram", [1, 7, 40])
def test_room_grows_in_the_middle_of_texts(ngram: int) -> None:
    """One letter a word needs three times what room is made for at first; repeated texts need almost none."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    many = " ".join(letters[i * i % 26] + letters[i // 26 % 26] * (i % 3) for i in range(5000))
    texts = ["short one", many, "", many[:3000], "a b " * 4000, many[5:]]
    assert listed(sets_of(texts, ngram)) == [sorted(set(shingles_of(text, ngram))) for text in texts]


def test_many_shingles_of_one_bucket_are_sorted() -> None:
    """Repeated shingles share their bucket, more than are sorted by insertion."""
    text = "a b c d e f g " * (3 * MAX_INSERTION)
    assert listed(sets_of([text], 3)) == [sorted(set(shingles_of(text, 3)))]


@settings(max_examples=100, deadline=None)
@given(values=st.lists(st.integers(0, 2**64 - 1)), before=st.integers(0, 3))
def test_heap_sort(values: list[int], before: int) -> None:
    array = np.array([7] * before + values + [5], np.uint64)
    heap_sort(array, before, before + len(values))
    assert array.tolist() == [7] * before + sorted(values) + [5]


@settings(max_examples=200, deadline=None)
@given(pairs=st.lists(st.tuples(HASHES, HASHES), max_size=6), dtype=st.sampled_from([np.uint64, np.uint32]))
def test_similarities_equal_those_of_python_sets(pairs: list[tuple[set[int], set[int]]], dtype: type) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    a, b = made(first, dtype), made(second, dtype)
    assert overlaps(a, b).tolist() == [len(x & y) for x, y in pairs]
    assert jaccard(a, b).tolist() == [len(x & y) / len(x | y) if x | y else 0.0 for x, y in pairs]
    assert containment(a, b).tolist() == [len(x & y) / len(x) if x else 0.0 for x, y in pairs]
    rows = [(i, j) for i in range(len(pairs)) for j in range(len(pairs))]
    rows_a, rows_b = np.array([i for i, _ in rows], np.uint32), np.array([j for _, j in rows], np.uint32)
    assert overlaps(a, b, rows_a, rows_b).tolist() == [len(first[i] & second[j]) for i, j in rows]


def test_columns_of_lists_and_back() -> None:
    texts = ["a b c d", "", "x y z", "one"]
    for bits in (64, 32):
        sets = sets_of(texts, bits=bits)
        column = sets.to_series("sets")
        assert column.dtype == pl.List(pl.UInt64 if bits == 64 else pl.UInt32)
        assert column.to_list() == listed(sets)
        assert listed(ShingleSets.from_series(column)) == listed(sets)
        assert listed(ShingleSets.from_series(column[1:3])) == listed(sets)[1:3]
        several = pl.concat([column, column], rechunk=False)
        assert listed(ShingleSets.from_series(several)) == listed(sets) * 2
        with_null = pl.Series([[1, 2], None, []], dtype=column.dtype)
        assert listed(ShingleSets.from_series(with_null)) == [[1, 2], [], []]
        assert jaccard(ShingleSets.from_series(column), sets).tolist() == [1.0, 0.0, 1.0, 0.0]
    with pytest.raises(TypeError, match="expected a column of lists of UInt64 or UInt32, got List"):
        ShingleSets.from_series(pl.Series([[1]]))


def test_arguments_are_checked() -> None:
    sets = made([{1}, {2}])
    with pytest.raises(ValueError, match="as many sets on both sides, got 2 and 1"):
        jaccard(sets, made([{1}]))
    with pytest.raises(IndexError, match="rows must be 0 to 1, got -1 to 1"):
        jaccard(sets, sets, np.array([-1, 1]), np.array([0, 0]))
    with pytest.raises(IndexError, match="rows must be 0 to 1, got 0 to 2"):
        containment(sets, sets, np.array([0, 1]), np.array([0, 2]))
    with pytest.raises(TypeError, match="sets of uint64 cannot be compared with sets of uint32"):
        overlaps(sets, made([{1}, {2}], np.uint32))
    with pytest.raises(ValueError, match="bits must be 32 or 64, got 16"):
        sets_of(["a"], bits=16)  # type: ignore[arg-type]


def test_memory_of_a_long_text() -> None:
    """What is allocated for one text of 6 MB, all of whose shingles differ, is the set thrice at the most."""
    text = " ".join(f"{i:x}".translate(str.maketrans("0123456789", "ghijklmnop")) for i in range(900_000))
    column = text_buffers(pl.Series([text]))
    shingle_sets(text_buffers(pl.Series(["a b"])))
    tracemalloc.start()
    sets = shingle_sets(column)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(sets.values) == 900_000 - 4
    assert peak < 3 * sets.values.nbytes
