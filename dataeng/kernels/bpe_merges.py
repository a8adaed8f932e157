"""Byte-pair encoding: which pairs of symbols to merge, in which order (Sennrich et al. 2016, arXiv:1508.07909).

The result is that of the trainer in Hugging Face ``tokenizers`` (Apache-2.0), merge for merge: of the pairs that are
there most often, the one with the smallest ids comes first, and a token that two different merges make is one token.
What makes it fast: words are kept once with their counts, a pair knows the words that it is in, and the changes that a
merge causes are added up per neighbouring symbol before any table is looked at.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.bpe_pairs import LAST_WORD, NUM_WORDS, TIMES, first_pairs_kernel, pair_key, pair_slot, rehash
from dataeng.kernels.bpe_queue import next_pair, push_entries, sift_up
from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.text import U32, hash_bytes, signed

#: Columns of where the symbols of a word are, and how often it is there.
START, LENGTH, COUNT = 0, 1, 2
LOW = np.uint64(0xFFFFFFFF)


class Tokens(NamedTuple):
    """Tokens by id: the vocabulary entry of token ``i`` is the UTF-8 text ``data[offsets[i]:offsets[i + 1]]``."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]


class Words(NamedTuple):
    """Words as symbols: word ``i`` is ``symbols[offsets[i]:offsets[i + 1]]`` (int32) and there ``counts[i]`` times."""

    symbols: NDArray[np.int32]
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]


@inlined
def token_slot(
    table: NDArray[np.int32], data: NDArray[np.uint8], offsets: NDArray[np.int64], start: int, stop: int
) -> int:
    """Returns where in the table of tokens (-1 is empty) the token ``data[start:stop]`` is, or would be."""
    mask = np.uint64(table.shape[0] - 1)
    slot = hash_bytes(data, start, stop) & mask
    while table[slot] >= 0:
        token = table[slot]
        first = offsets[token]
        if offsets[token + 1] - first == stop - start:
            same = True
            for k in range(stop - start):
                if data[first + k] != data[start + k]:
                    same = False
                    break
            if same:
                break
        slot = (slot + np.uint64(1)) & mask
    return signed(slot)


@called
def num_symbols(words: NDArray[np.int32], symbols: NDArray[np.int32], spans: NDArray[np.int64]) -> tuple[int, int]:
    """Returns how many symbols the words have together, which no merge in them causes more events than.

    Nobody needs the second number. These loads do not wait for each other, as those of `merge_words` would, which then
    finds everything in the cache.
    """
    total, seen = 0, 0
    for place in range(words.shape[0]):
        word = words[place]
        total += spans[word, LENGTH]
        seen ^= symbols[spans[word, START]]
    return total, seen


@called
def merge_words(
    pair: tuple[int, int, int],
    words: NDArray[np.int32],
    symbols: NDArray[np.int32],
    spans: NDArray[np.int64],
    neighbours: NDArray[np.int64],
    touched: NDArray[np.int32],
    num_touched: NDArray[np.int64],
    events: NDArray[np.int32],
) -> int:
    """Merges a pair (left, right, new) in ``words``; returns how many events it caused.

    What changes is added up per symbol x before it (row 0) or behind it (row 1): ``neighbours[row, x]`` has how often,
    the last word, and the number of words. An event (row, x, word) says that a word now has the pair of x and new.
    """
    left, right, new = pair
    num_events = 0
    for place in range(words.shape[0]):
        word = words[place]
        start = spans[word, START]
        stop = start + spans[word, LENGTH]
        i = start
        while i + 1 < stop and not (symbols[i] == left and symbols[i + 1] == right):
            i += 1
        if i + 1 >= stop:
            continue
        count = spans[word, COUNT]
        write = i
        while i < stop:
            if i + 1 < stop and symbols[i] == left and symbols[i + 1] == right:
                for side in range(2):
                    if side == 0:
                        if write == start:
                            continue
                        x = symbols[write - 1]
                    else:
                        if i + 2 >= stop:
                            continue
                        x = symbols[i + 2]
                    if neighbours[side, x, TIMES] == 0:
                        touched[side, num_touched[side]] = x
                        num_touched[side] += 1
                    neighbours[side, x, TIMES] += count
                    row = 0 if x == new else side  # (new, new) is one pair, whichever of the two came second
                    if neighbours[row, x, LAST_WORD] != word + 1:
                        neighbours[row, x, LAST_WORD] = word + 1
                        neighbours[row, x, NUM_WORDS] += 1
                        events[num_events, 0], events[num_events, 1], events[num_events, 2] = row, x, word
                        num_events += 1
                symbols[write] = new
                i += 2
            else:
                symbols[write] = symbols[i]
                i += 1
            write += 1
        spans[word, LENGTH] = write - start
    if neighbours[0, new, NUM_WORDS] > 0 and neighbours[0, new, TIMES] == 0:
        touched[0, num_touched[0]] = new
        num_touched[0] += 1
    return num_events


@called
def change_counts(
    pair: tuple[int, int, int],
    neighbours: NDArray[np.int64],
    touched: NDArray[np.int32],
    num_touched: NDArray[np.int64],
    keys: NDArray[np.uint64],
    pairs: NDArray[np.int32],
    pair_counts: NDArray[np.int64],
    num_pairs: int,
) -> int:
    """Takes what a merge changed into the counts of pairs; returns how many pairs there are now."""
    left, right, new = pair
    for side in range(2):
        for t in range(num_touched[side]):
            x = signed(touched[side, t])
            change = neighbours[side, x, TIMES]
            for number in range(2):
                if side == 0:
                    key = pair_key(x, new if number else left)
                else:
                    key = pair_key(new if number else right, x)
                slot = pair_slot(keys, key)
                if keys[slot] == np.uint64(0):
                    keys[slot] = key
                    pairs[slot] = num_pairs
                    pair_counts[num_pairs] = 0
                    num_pairs += 1
                pair_counts[pairs[slot]] += change if number else -change
    return num_pairs


@called
def place_words(
    num_events: int,
    events: NDArray[np.int32],
    words: NDArray[np.int32],
    neighbours: NDArray[np.int64],
    touched: NDArray[np.int32],
    num_touched: NDArray[np.int64],
) -> None:
    """Sorts the words of all events to the places that `push_entries` has given out."""
    for event in range(num_events):
        row, x = events[event, 0], events[event, 1]
        words[neighbours[row, x, NUM_WORDS]] = events[event, 2]
        neighbours[row, x, NUM_WORDS] += 1
    for side in range(2):
        for t in range(num_touched[side]):
            neighbours[side, touched[side, t], NUM_WORDS] = 0
        num_touched[side] = 0


@called
def write_token(
    left: int, right: int, num_tokens: int, data: NDArray[np.uint8], offsets: NDArray[np.int64], skip: int
) -> int:
    """Writes the text of two tokens, the second without its first ``skip`` bytes, behind the last; returns its end."""
    at = signed(offsets[num_tokens])
    for k in range(offsets[left], offsets[left + 1]):
        data[at] = data[k]
        at += 1
    for k in range(offsets[right] + skip, offsets[right + 1]):
        data[at] = data[k]
        at += 1
    return at


@kernel
def merge_kernel(
    words_of: tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]],
    first_pairs: tuple[
        NDArray[np.uint64],
        NDArray[np.int32],
        NDArray[np.uint64],
        NDArray[np.int64],
        NDArray[np.int64],
        NDArray[np.int32],
    ],
    tokens: tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8]],
    num_reserved: int,
    vocab_size: int,
    min_frequency: int,
) -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.int64]]:
    symbols = words_of[0].copy()
    spans = np.empty((words_of[2].shape[0], 3), np.int64)
    spans[:, START], spans[:, COUNT] = words_of[1][:-1], words_of[2]
    spans[:, LENGTH] = words_of[1][1:] - words_of[1][:-1]
    keys, pairs, pair_keys, pair_counts, firsts, words = first_pairs
    num_pairs, num_positions = pair_keys.shape[0], words.shape[0]

    # Tokens, and a table of their texts: what two merges make is one token.
    num_tokens = tokens[1].shape[0] - 1
    offsets, prefixes = np.zeros(vocab_size + 2, np.int64), np.zeros(vocab_size + 1, np.uint8)
    offsets[: num_tokens + 1] = tokens[1]
    prefixes[:num_tokens] = tokens[2]
    data = np.empty(tokens[0].shape[0] + 16 * vocab_size + 64, np.uint8)
    data[: tokens[0].shape[0]] = tokens[0]
    table_size = 8
    while table_size < 4 * vocab_size:
        table_size *= 2
    table = np.full(table_size, -1, np.int32)
    for token in range(num_tokens):
        table[token_slot(table, data, offsets, offsets[token], offsets[token + 1])] = token

    # The queue. An entry is a pair and a range of `words`; a pair may have several, each with words of its own.
    capacity = max(1024, 2 * num_pairs)
    heap_counts, heap_keys = np.empty(capacity, np.int64), np.empty(capacity, np.uint64)
    heap, entries = np.empty(capacity, np.int32), np.empty((capacity, 3), np.int64)
    sizes = np.zeros(2, np.int64)  # of the heap, of the entries
    for pair in range(num_pairs):
        entries[pair, 0], entries[pair, 1], entries[pair, 2] = pair, firsts[pair], firsts[pair + 1]
        heap_counts[pair], heap_keys[pair], heap[pair] = pair_counts[pair], pair_keys[pair], pair
        sift_up(heap_counts, heap_keys, heap, pair)
    sizes[:] = num_pairs

    neighbours = np.zeros((2, vocab_size + 1, 3), np.int64)
    touched, num_touched = np.empty((2, vocab_size + 1), np.int32), np.zeros(2, np.int64)
    events = np.empty((1 << 16, 3), np.int32)
    merges = np.empty(vocab_size, np.uint64)
    num_merges = 0
    while num_tokens < vocab_size:
        entry = next_pair(heap_counts, heap_keys, heap, entries, pair_counts, sizes, min_frequency)
        if entry < 0:
            break
        key = heap_keys[sizes[0]]
        left, right = signed(key >> U32) - 1, signed(key & LOW)
        while offsets[num_tokens] + offsets[left + 1] - offsets[left] + offsets[right + 1] - offsets[right] + 8 > len(
            data
        ):
            data = np.concatenate((data, np.empty(data.shape[0], np.uint8)))
        end = write_token(left, right, num_tokens, data, offsets, signed(prefixes[right]))
        slot = token_slot(table, data, offsets, offsets[num_tokens], end)
        new = signed(table[slot])
        if 0 <= new < num_reserved:
            continue  # text that reads like a special token must not become one
        if new < 0:
            new = num_tokens
            table[slot] = new
            prefixes[new] = prefixes[left]
            num_tokens += 1
            offsets[num_tokens] = end
        if num_merges == merges.shape[0]:
            merges = np.concatenate((merges, np.empty(num_merges, np.uint64)))
        merges[num_merges] = key
        num_merges += 1

        start, stop = entries[entry, 1], entries[entry, 2]
        bound, seen = num_symbols(words[start:stop], symbols, spans)
        if bound > events.shape[0]:
            events = np.empty((2 * bound, 3), np.int32)
        events[0, 0] = seen
        triple = (left, right, new)
        num_events = merge_words(triple, words[start:stop], symbols, spans, neighbours, touched, num_touched, events)
        more = num_touched[0] + num_touched[1]
        if num_pairs + 2 * more > pair_counts.shape[0]:
            pair_counts = np.concatenate((pair_counts, np.zeros(num_pairs + 2 * more, np.int64)))
        while 2 * (num_pairs + 2 * more) > keys.shape[0]:
            old_keys, old_pairs = keys, pairs
            keys, pairs = np.zeros(2 * len(old_keys), np.uint64), np.zeros(2 * len(old_keys), np.int32)
            rehash(keys, pairs, old_keys, old_pairs)
        num_pairs = change_counts(triple, neighbours, touched, num_touched, keys, pairs, pair_counts, num_pairs)
        if sizes[1] + more > heap.shape[0]:
            grown = heap.shape[0] + more
            heap_counts = np.concatenate((heap_counts, np.empty(grown, np.int64)))
            heap_keys = np.concatenate((heap_keys, np.empty(grown, np.uint64)))
            heap = np.concatenate((heap, np.empty(grown, np.int32)))
            entries = np.concatenate((entries, np.empty((grown, 3), np.int64)))
        if num_positions + num_events > words.shape[0]:
            words = np.concatenate((words, np.empty(words.shape[0] + num_events, np.int32)))
        num_positions = push_entries(
            new,
            num_positions,
            neighbours,
            touched,
            num_touched,
            keys,
            pairs,
            pair_counts,
            heap_counts,
            heap_keys,
            heap,
            entries,
            sizes,
        )
        place_words(num_events, events, words, neighbours, touched, num_touched)
    return merges[:num_merges], data[: offsets[num_tokens]], offsets[: num_tokens + 1]


def train_merges(
    words: Words,
    tokens: Tokens,
    vocab_size: int,
    min_frequency: int = 2,
    num_reserved: int = 0,
    prefixes: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.int32], Tokens]:
    """Merges pairs of symbols until there are ``vocab_size`` tokens, or no pair is there ``min_frequency`` times.

    Args:
      words: symbols are ids of ``tokens``; a word need not occur once only.
      tokens: the vocabulary before the first merge. No two tokens may have the same text.
      vocab_size: at least as large as ``tokens``.
      num_reserved: so many tokens at the beginning are special: nothing is merged into their text.
      prefixes: per token, the bytes of a continuation prefix (WordPiece's ``##``) that it begins with, uint8; a token
        that is appended to another loses them. None: no token has one.

    Returns:
      The pairs in the order in which an encoder has to apply them, int32 [merges, 2], and all tokens. Pair ``i`` does
      not always make the next token: two pairs may make the same one.
    """
    num_tokens = len(tokens.offsets) - 1
    if not num_reserved <= num_tokens <= vocab_size < 2**31 - 2:
        raise ValueError(f"{num_reserved} reserved of {num_tokens} tokens do not fit a vocabulary of {vocab_size}")
    if len(words.counts) >= 2**31:
        raise ValueError(f"{len(words.counts)} different words are too many")
    if prefixes is None:
        prefixes = np.zeros(num_tokens, np.uint8)
    symbols, offsets, counts = several_symbols(words)
    first = first_pairs_kernel(symbols, offsets, counts)
    keys, data, token_offsets = merge_kernel(
        (symbols, offsets, counts), first, (*tokens, prefixes), num_reserved, vocab_size, min_frequency
    )
    pairs = np.stack([(keys >> U32).astype(np.int64) - 1, (keys & LOW).astype(np.int64)], axis=1)
    # Of a pair that was merged twice, the encoder knows the later merge only, as the vocabulary file has it.
    _, last = np.unique(keys[::-1], return_index=True)
    kept = np.sort(len(keys) - 1 - last)
    return pairs[kept].astype(np.int32), Tokens(data, token_offsets)


def several_symbols(words: Words) -> Words:
    """Returns the words of two symbols and more: others have nothing to merge."""
    lengths = np.diff(words.offsets)
    keep = lengths > 1
    symbols = words.symbols[np.repeat(keep, lengths)]
    return Words(symbols, np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths[keep]))), words.counts[keep])


def warm_up() -> None:
    """Compiles the kernels or loads them from the cache."""
    words = Words(np.array([0, 1, 0, 1], np.int32), np.array([0, 4], np.int64), np.array([2], np.int64))
    tokens = Tokens(np.frombuffer(b"ab", np.uint8).copy(), np.array([0, 1, 2], np.int64))
    train_merges(words, tokens, 4)
