"""Tokens around documents, against a list of lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.kernels.document_ends import NOTHING, narrow_ids, put_ends

END = st.one_of(st.just(NOTHING), st.integers(0, 255))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 255), max_size=5), max_size=6), END, END)
def test_ends_are_put_around_every_document(dtype: Any, documents: list[list[int]], first: int, last: int) -> None:
    before, behind = ([] if token == NOTHING else [token] for token in (first, last))
    expected = [token for tokens in documents for token in before + tokens + behind]
    flat = np.array([token for tokens in documents for token in tokens], dtype)
    flat.flags.writeable = False
    # One more, to see that nothing is written behind the end.
    out = np.full(len(expected) + 1, 77, dtype)
    put_ends(flat, np.array([len(tokens) for tokens in documents], np.int32), first, last, out)
    assert out.tolist() == [*expected, 77]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 40), max_size=5), max_size=6),
    END,
    END,
    st.lists(st.booleans(), min_size=1, max_size=41),
)
def test_ids_are_narrowed_and_checked_on_the_way(
    dtype: Any, documents: list[list[int]], first: int, last: int, special: list[bool]
) -> None:
    before, behind = ([] if token == NOTHING else [token] for token in (first, last))
    expected = [token for tokens in documents for token in before + tokens + behind]
    flat = [token for tokens in documents for token in tokens]
    ids = np.array(flat, np.uint32)
    ids.flags.writeable = False
    out = np.full(len(expected) + 1, 77, dtype)
    lengths = np.array([len(tokens) for tokens in documents], np.int64)
    largest, found = narrow_ids(ids, lengths, np.array(special), first, last, out)
    assert largest == max(flat, default=-1) and out.tolist() == [*expected, 77]
    if largest < len(special):
        assert found == sum(special[token] for token in flat)


def test_ids_beyond_31_bits_are_the_largest() -> None:
    ids = np.array([3, 2**32 - 1, 5], np.uint32)
    ids.flags.writeable = False
    table = np.zeros(10, np.bool_)
    assert narrow_ids(ids, np.array([3]), table, NOTHING, NOTHING, np.zeros(3, np.int32))[0] == 2**32 - 1
