"""Unigram: expectations, best cuts and losses against trying every way to cut a word; and vocabularies as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.kernels.bpe_merges import Words
from dataeng.kernels.substring_counts import frequent_substrings
from dataeng.kernels.unigram import PART, _seeds, _Vocabulary, cut_long_words, digamma, train_unigram, viterbi_kernel

WORDS = st.lists(
    st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=7), st.integers(1, 5)), min_size=1, max_size=6
)


def words_of(words: list[tuple[list[int], int]]) -> Words:
    symbols = np.array([symbol for word, _ in words for symbol in word], np.int32)
    offsets = np.cumsum([0, *(len(word) for word, _ in words)]).astype(np.int64)
    return Words(symbols, offsets, np.array([times for _, times in words], np.int64))


def cuts(word: tuple[int, ...], pieces: set[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Yields every way to cut a word into pieces."""
    if not word:
        yield []
    for stop in range(1, len(word) + 1):
        if word[:stop] in pieces:
            for rest in cuts(word[stop:], pieces):
                yield [word[:stop], *rest]


def vocabulary_of(words: Words) -> _Vocabulary:
    trie = frequent_substrings(*words, 3)
    return _Vocabulary(trie, 3, _seeds(trie, 3, 1000))


def scores_of(vocabulary: _Vocabulary) -> dict[tuple[int, ...], float]:
    symbols, offsets = vocabulary.texts()
    texts = [tuple(symbols[offsets[i] : offsets[i + 1]].tolist()) for i in range(len(offsets) - 1)]
    assert len(set(texts)) == len(texts)
    return dict(zip(texts, vocabulary.scores.tolist(), strict=True))


@settings(max_examples=150, deadline=None)
@given(WORDS)
def test_one_round_is_the_expectation_over_all_cuts(words: list[tuple[list[int], int]]) -> None:
    parts = words_of(words)
    vocabulary = vocabulary_of(parts)
    scores = scores_of(vocabulary)
    expected = dict.fromkeys(scores, 0.0)
    for word, times in words:
        weighted = [(math.exp(sum(scores[part] for part in cut)), cut) for cut in cuts(tuple(word), set(scores))]
        total = sum(weight for weight, _ in weighted)
        for weight, cut in weighted:
            for part in cut:
                expected[part] += times * weight / total
    kept = {text: max(number, 0.5) for text, number in expected.items() if number >= 0.5 - 1e-9 or len(text) == 1}
    vocabulary.maximize(parts)
    found = scores_of(vocabulary)
    borderline = {text for text, number in expected.items() if abs(number - 0.5) < 1e-9}
    assert set(found) - borderline == set(kept) - borderline
    if not borderline:
        total = digamma(np.array([sum(kept.values())]))[0]
        for text, number in kept.items():
            assert found[text] == pytest.approx(digamma(np.array([number]))[0] - total, rel=1e-9)


@settings(max_examples=150, deadline=None)
@given(WORDS)
def test_best_cuts_and_pruning_are_those_of_trying_all(words: list[tuple[list[int], int]]) -> None:
    parts = words_of(words)
    vocabulary = vocabulary_of(parts)
    scores = scores_of(vocabulary)
    pieces = list(scores)
    times = np.zeros(len(pieces))
    viterbi_kernel(*parts, vocabulary.keys, vocabulary.children, vocabulary.pieces, vocabulary.scores, times)
    likelihood = sum(float(scores[piece]) * number for piece, number in zip(pieces, times, strict=True))
    best = sum(
        number * max(sum(scores[part] for part in cut) for cut in cuts(tuple(word), set(pieces)))
        for word, number in words
    )
    assert likelihood == pytest.approx(best, rel=1e-9)

    losses = {}
    total = times.sum()
    for piece, number in zip(pieces, times, strict=True):
        if len(piece) > 1 and number > 0:
            others = set(pieces) - {piece}
            alternatives = list(cuts(piece, others))
            top = max(sum(scores[part] for part in cut) for cut in alternatives)
            ties = [cut for cut in alternatives if sum(scores[part] for part in cut) > top - 1e-9]
            if len(ties) > 1:
                return  # which of two equal cuts is taken is the kernel's business
            after = math.log(total + number * (len(ties[0]) - 1))
            logs = sum(math.log(times[pieces.index(part)] + number) - after for part in ties[0])
            losses[piece] = number * (math.log(number / total) - logs)
    ranked = sorted(losses, key=lambda piece: -losses[piece])
    num_left = 3 + len(losses) // 2
    vocabulary.prune(parts, num_left)
    left = {piece for piece in scores_of(vocabulary) if len(piece) > 1}
    threshold = losses[ranked[num_left - 4]] if num_left > 3 else math.inf
    assert len(left) == len(losses) // 2
    assert all(losses[piece] >= threshold - 1e-9 for piece in left)


def test_frequent_words_become_pieces() -> None:
    words = words_of([([0, 1, 2, 0], 100), ([1, 1], 3), ([2, 0, 1], 4)])
    pieces, scores = train_unigram(words, 3, 5)
    assert len(pieces) == 5 and (np.diff(scores) <= 0).all()
    assert pieces[0].tolist() == [0, 1, 2, 0]
    assert {(0,), (1,), (2,)} <= {tuple(piece.tolist()) for piece in pieces}


def test_the_vocabulary_has_the_size_that_was_asked_for() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 70, 800)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    words = Words(generator.integers(0, 9, offsets[-1], np.int32), offsets, generator.integers(1, 9, 800))
    pieces, scores = train_unigram(words, 9, 300)
    assert len({tuple(piece.tolist()) for piece in pieces}) == len(pieces) == len(scores) == 300
    again = train_unigram(words, 9, 300)
    assert again[1].tobytes() == scores.tobytes()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 5 * PART), max_size=9))
def test_long_words_are_cut_and_nothing_is_lost(lengths: list[int]) -> None:
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    parts = cut_long_words(Words(np.zeros(offsets[-1], np.int32), offsets, np.arange(len(lengths))))
    sizes = np.diff(parts.offsets)
    assert (sizes <= PART).all() and (sizes > 0).all()
    assert np.bincount(parts.counts, weights=sizes, minlength=len(lengths)).tolist() == lengths


def test_digamma_is_the_known_function() -> None:
    values = digamma(np.array([0.5, 1.0, 10.0, 1e6]))
    known = [-1.9635100260214235, -0.5772156649015329, 2.251752589066721, 13.815510057964191]
    assert values.tolist() == pytest.approx(known, abs=1e-10)


def test_a_vocabulary_smaller_than_the_alphabet_is_refused() -> None:
    with pytest.raises(ValueError, match="3 symbols do not fit"):
        train_unigram(words_of([([0, 1, 2], 1)]), 3, 2)
