"""Frequent substrings of words, against counting every substring."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.kernels.substring_counts import frequent_substrings


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=14), st.integers(1, 3)), min_size=1, max_size=8
    ),
    st.integers(1, 6),
    st.integers(1, 4),
)
def test_all_substrings_that_are_frequent(words: list[tuple[list[int], int]], longest: int, least: int) -> None:
    symbols = np.array([symbol for word, _ in words for symbol in word], np.int32)
    offsets = np.cumsum([0, *(len(word) for word, _ in words)]).astype(np.int64)
    before = symbols.copy()
    trie = frequent_substrings(symbols, offsets, np.array([times for _, times in words], np.int64), 5, longest, least)
    assert (symbols == before).all()

    expected: Counter[tuple[int, ...]] = Counter()
    for word, times in words:
        for start in range(len(word)):
            for stop in range(start + 1, min(len(word), start + longest) + 1):
                expected[tuple(word[start:stop])] += times
    wanted = {text: times for text, times in expected.items() if times >= least or len(text) == 1}
    wanted |= {(symbol,): 0 for symbol in range(5) if (symbol,) not in wanted}

    found = {}
    for node, times in enumerate(trie.counts.tolist()):
        text: list[int] = []
        while node >= 0:
            text.insert(0, int(trie.symbols[node]))
            node = int(trie.parents[node])
        found[tuple(text)] = times
        assert trie.lengths[len(found) - 1] == len(text)
    assert found == wanted
