"""Alphabets that cover a share of the text, and words as symbols, against going through them one by one."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.kernels.bpe_merges import Words
from dataeng.kernels.pretokens import Pieces
from dataeng.stages.tokens.covered_characters import (
    continued_words,
    covered_characters,
    covered_words,
    in_order,
    numbered,
)

PIECES = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6), st.integers(1, 9), min_size=1, max_size=8
)
FEW = st.dictionaries(st.text("aabé东🙂", min_size=1, max_size=6), st.integers(1, 9), min_size=1, max_size=8)


def pieces_of(words: dict[str, int]) -> Pieces:
    encoded = [word.encode() for word in words]
    offsets = np.cumsum([0, *map(len, encoded)]).astype(np.int64)
    return Pieces(np.frombuffer(b"".join(encoded), np.uint8), offsets, np.array(list(words.values()), np.int64))


def listed(words: Words) -> list[tuple[list[int], int]]:
    bounds = words.offsets.tolist()
    return [
        (words.symbols[start:stop].tolist(), int(times))
        for start, stop, times in zip(bounds[:-1], bounds[1:], words.counts, strict=True)
    ]


@settings(max_examples=200, deadline=None)
@given(st.one_of(PIECES, FEW), st.floats(0.01, 1))
def test_alphabet_and_words(words: dict[str, int], coverage: float) -> None:
    characters = numbered(pieces_of(words))
    alphabet = "".join(map(chr, covered_characters(characters, coverage)))
    counts = Counter[str]()
    for word, times in words.items():
        counts.update({character: times * number for character, number in Counter(word).items()})
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    assert list(alphabet) == sorted(ranked[: len(alphabet)])
    covered = sum(counts[character] for character in alphabet)
    assert covered >= coverage * counts.total() * (1 - 1e-12)
    assert covered - counts[ranked[len(alphabet) - 1]] <= coverage * counts.total()

    expected = []
    for word, times in words.items():
        parts: list[list[int]] = [[]]
        for character in word:
            if character in alphabet:
                parts[-1].append(7 + alphabet.index(character))
            else:
                parts.append([])
        expected += [(part, times) for part in parts if part]
    assert listed(covered_words(characters, covered_characters(characters, coverage), 7)) == expected


@settings(max_examples=200, deadline=None)
@given(FEW, st.floats(0.3, 1))
def test_words_with_continuations(words: dict[str, int], coverage: float) -> None:
    characters = numbered(pieces_of(words))
    codes = covered_characters(characters, coverage)
    alphabet = "".join(map(chr, codes))
    known = {word: times for word, times in words.items() if set(word) <= set(alphabet)}
    behind = sorted({character for word in known for character in word[1:]})
    first = len(alphabet)
    expected = [
        ([alphabet.index(word[0]) + 5, *(first + behind.index(character) + 5 for character in word[1:])], times)
        for word, times in known.items()
    ]
    found, continued = continued_words(characters, codes, 5)
    assert listed(found) == expected and list(map(chr, continued)) == behind


@settings(max_examples=100, deadline=None)
@given(PIECES)
def test_pieces_in_order_of_their_text(words: dict[str, int]) -> None:
    ordered = in_order(pieces_of(words))
    data, bounds = ordered.data.tobytes(), ordered.offsets.tolist()
    texts = [data[bounds[i] : bounds[i + 1]] for i in range(ordered.num_pieces)]
    assert texts == sorted(word.encode() for word in words)
    assert [words[text.decode()] for text in texts] == ordered.counts.tolist()
