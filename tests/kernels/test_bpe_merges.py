"""Merges: those of the library, and those of a reference that counts everything anew after each."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from dataeng.kernels.bpe_merges import Tokens, Words, train_merges

WORDS = st.dictionaries(st.text("aab-é", min_size=1, max_size=12), st.integers(1, 9), max_size=12)


def tokens_of(texts: list[str]) -> Tokens:
    encoded = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)]).astype(np.int64)
    return Tokens(np.frombuffer(b"".join(encoded), np.uint8).copy(), offsets)


def texts_of(tokens: Tokens) -> list[str]:
    data, offsets = tokens.data.tobytes(), tokens.offsets.tolist()
    return [data[start:stop].decode() for start, stop in itertools.pairwise(offsets)]


def words_of(words: dict[str, int], ids: dict[str, int]) -> Words:
    symbols = [ids[character] for word in words for character in word]
    offsets = np.cumsum([0, *map(len, words)]).astype(np.int64)
    return Words(np.array(symbols, np.int32), offsets, np.array(list(words.values()), np.int64))


def ours(
    words: dict[str, int], specials: list[str], vocab_size: int, min_frequency: int
) -> tuple[list[str], list[Any]]:
    first = [*specials, *sorted({character for word in words for character in word})]
    ids = {text: i for i, text in enumerate(first)}
    pairs, tokens = train_merges(
        words_of(words, ids), tokens_of(first), max(vocab_size, len(first)), min_frequency, len(specials)
    )
    vocabulary = texts_of(tokens)
    return vocabulary, [(vocabulary[left], vocabulary[right]) for left, right in pairs.tolist()]


def library(words: dict[str, int], vocab_size: int, min_frequency: int) -> tuple[list[str], list[Any]]:
    """The library trains on texts: every word as often as it counts, cut at blanks."""
    import json

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=min_frequency, show_progress=False)
    tokenizer.train_from_iterator([" ".join([word] * count) for word, count in words.items()], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return vocabulary, [tuple(pair) for pair in model["merges"]]


@settings(max_examples=400, deadline=None)
@given(WORDS, st.integers(1, 40), st.integers(1, 4))
@example({"aaaa": 3, "aaa": 2, "aaaaaaa": 5, "baaab": 4, "aabaab": 2}, 40, 1)
@example({"----------": 3, "---": 8, "-----": 7, "a--": 2}, 30, 1)
def test_merges_and_vocabulary_are_those_of_the_library(words: dict[str, int], size: int, min_frequency: int) -> None:
    assert ours(words, [], size, min_frequency) == library(words, size, min_frequency)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text("abcdefgh", min_size=2, max_size=9), st.integers(1, 50), max_size=60), st.integers(1, 3))
def test_merges_are_those_of_the_library_where_there_are_many(words: dict[str, int], min_frequency: int) -> None:
    assert ours(words, [], 400, min_frequency) == library(words, 400, min_frequency)


def recounted(words: dict[str, int], prefix: str, vocab_size: int) -> list[str]:
    """Counts all pairs anew before each merge: slow, obvious, and WordPiece-ready. Words without repeated letters."""
    alphabet = sorted({character for word in words for character in word})
    behind = sorted({character for word in words for character in word[1:]})
    vocabulary = alphabet + ([prefix + character for character in behind] if prefix else [])
    cut = {word: [prefix * (i > 0) + character for i, character in enumerate(word)] for word in words}
    while len(vocabulary) < vocab_size:
        counts: Counter[tuple[str, str]] = Counter()
        for word, parts in cut.items():
            for pair in itertools.pairwise(parts):
                counts[pair] += words[word]
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], vocabulary.index(pair[0]), vocabulary.index(pair[1])))
        merged = best[0] + best[1].removeprefix(prefix)
        if merged not in vocabulary:
            vocabulary.append(merged)
        for parts in cut.values():
            i = 0
            while i + 1 < len(parts):
                if (parts[i], parts[i + 1]) == best:
                    parts[i : i + 2] = [merged]
                i += 1
    return vocabulary


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.lists(st.sampled_from("abcdeé东"), min_size=1, max_size=7, unique=True).map("".join),
        st.integers(1, 9),
        min_size=1,
        max_size=9,
    )
)
def test_a_prefix_stays_at_the_beginning_of_continuing_tokens(words: dict[str, int]) -> None:
    alphabet = sorted({character for word in words for character in word})
    behind = sorted({character for word in words for character in word[1:]})
    first = alphabet + ["##" + character for character in behind]
    ids = {text: i for i, text in enumerate(first)}
    symbols = [ids["##" * (i > 0) + character] for word in words for i, character in enumerate(word)]
    cut = words_of(words, {character: 0 for character in alphabet})._replace(symbols=np.array(symbols, np.int32))
    prefixes = np.array([0] * len(alphabet) + [2] * len(behind), np.uint8)
    _, tokens = train_merges(cut, tokens_of(first), 60, 1, prefixes=prefixes)
    assert texts_of(tokens) == recounted(words, "##", 60)


def test_nothing_is_merged_into_a_reserved_token() -> None:
    words = {"<pad>": 100, "pad": 3}
    vocabulary, merges = ours(words, ["<pad>", "pad"], 40, 1)
    assert vocabulary.count("<pad>") == vocabulary.count("pad") == 1
    assert not {left + right for left, right in merges} & {"<pad>", "pad"}
    assert len(merges) > 2


def test_counts_beyond_32_bits_are_exact() -> None:
    words = {"ab": 2**33, "bc": 2**33 + 1, "cd": 5}
    assert ours(words, [], 6, 1)[1] == [("b", "c"), ("a", "b")]


@pytest.mark.parametrize(("reserved", "size"), [(0, 1), (3, 5)])
def test_vocabularies_without_room_are_refused(reserved: int, size: int) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        train_merges(words_of({"ab": 1}, {"a": 0, "b": 1}), tokens_of(["a", "b"]), size, num_reserved=reserved)


def test_no_words_give_no_merges() -> None:
    assert ours({}, ["<pad>"], 10, 1) == (["<pad>"], [])
    assert ours({"a": 5, "b": 1}, [], 10, 1) == (["a", "b"], [])
