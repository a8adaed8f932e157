"""Tokens around documents, against a list of lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.kernels.document_ends import NOTHING, put_ends

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
