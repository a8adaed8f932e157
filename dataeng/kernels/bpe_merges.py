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

from dataeng.kernels.compiling import inlined, kernel
from dataeng.kernels.text import MULTIPLIER, U32, hash_bytes, signed


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
def pair_slot(keys: NDArray[np.uint64], key: np.uint64) -> int:
    """Returns where in the table a pair is, or would be. A key is never 0, which marks an empty slot."""
    mask = np.uint64(keys.shape[0] - 1)
    value = key * MULTIPLIER
    slot = (value ^ (value >> U32)) & mask
    while keys[slot] != key and keys[slot] != np.uint64(0):
        slot = (slot + np.uint64(1)) & mask
    return signed(slot)


@inlined
def pair_key(left: int, right: int) -> np.uint64:
    """Packs a pair so that keys have the order of pairs, and none is 0."""
    return (np.uint64(left + 1) << U32) | np.uint64(right)


@inlined
def comes_first(count: int, key: np.uint64, other_count: int, other_key: np.uint64) -> bool:
    return count > other_count or (count == other_count and key < other_key)


@inlined
def sift_up(heap_counts: NDArray[np.int64], heap_keys: NDArray[np.uint64], heap: NDArray[np.int32], at: int) -> None:
    """Moves the last item of a heap with four children a node to its place."""
    count, key, item = heap_counts[at], heap_keys[at], heap[at]
    while at > 0:
        parent = (at - 1) >> 2
        if not comes_first(count, key, heap_counts[parent], heap_keys[parent]):
            break
        heap_counts[at], heap_keys[at], heap[at] = heap_counts[parent], heap_keys[parent], heap[parent]
        at = parent
    heap_counts[at], heap_keys[at], heap[at] = count, key, item


@inlined
def sift_down(
    heap_counts: NDArray[np.int64], heap_keys: NDArray[np.uint64], heap: NDArray[np.int32], size: int
) -> None:
    """Moves the first item of a heap to its place."""
    count, key, item = heap_counts[0], heap_keys[0], heap[0]
    at = 0
    while True:
        child = 4 * at + 1
        if child >= size:
            break
        best = child
        for other in range(child + 1, min(child + 4, size)):
            if comes_first(heap_counts[other], heap_keys[other], heap_counts[best], heap_keys[best]):
                best = other
        if not comes_first(heap_counts[best], heap_keys[best], count, key):
            break
        heap_counts[at], heap_keys[at], heap[at] = heap_counts[best], heap_keys[best], heap[best]
        at = best
    heap_counts[at], heap_keys[at], heap[at] = count, key, item


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


@inlined
def rehash(
    keys: NDArray[np.uint64], pairs: NDArray[np.int32], old_keys: NDArray[np.uint64], old: NDArray[np.int32]
) -> None:
    for slot in range(old_keys.shape[0]):
        if old_keys[slot] != np.uint64(0):
            place = pair_slot(keys, old_keys[slot])
            keys[place] = old_keys[slot]
            pairs[place] = old[slot]


@kernel
def first_pairs_kernel(
    symbols: NDArray[np.int32], offsets: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[
    NDArray[np.uint64], NDArray[np.int32], NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]
]:
    """Returns the table of pairs (keys, pair numbers); per pair its key, count and first place; the words of each."""
    keys, pairs = np.zeros(1 << 16, np.uint64), np.zeros(1 << 16, np.int32)
    pair_keys = np.zeros(1 << 15, np.uint64)
    pair_counts, num_words = np.zeros(1 << 15, np.int64), np.zeros(1 << 15, np.int64)
    last_word = np.full(1 << 15, -1, np.int64)
    num_pairs = 0
    of_window = np.empty(symbols.shape[0], np.int32)  # the pair that starts at each symbol, -1 where it is there again
    for word in range(counts.shape[0]):
        for i in range(offsets[word], offsets[word + 1] - 1):
            key = pair_key(symbols[i], symbols[i + 1])
            slot = pair_slot(keys, key)
            if keys[slot] == np.uint64(0):
                if num_pairs == pair_keys.shape[0]:
                    pair_keys = np.concatenate((pair_keys, np.zeros(num_pairs, np.uint64)))
                    pair_counts = np.concatenate((pair_counts, np.zeros(num_pairs, np.int64)))
                    num_words = np.concatenate((num_words, np.zeros(num_pairs, np.int64)))
                    last_word = np.concatenate((last_word, np.full(num_pairs, -1, np.int64)))
                    old_keys, old_pairs = keys, pairs
                    keys, pairs = np.zeros(2 * keys.shape[0], np.uint64), np.zeros(2 * keys.shape[0], np.int32)
                    rehash(keys, pairs, old_keys, old_pairs)
                    slot = pair_slot(keys, key)
                keys[slot] = key
                pairs[slot] = num_pairs
                pair_keys[num_pairs] = key
                num_pairs += 1
            pair = pairs[slot]
            pair_counts[pair] += counts[word]
            of_window[i] = -1
            if last_word[pair] != word:
                last_word[pair] = word
                num_words[pair] += 1
                of_window[i] = pair
    firsts = np.zeros(num_pairs + 1, np.int64)
    for pair in range(num_pairs):
        firsts[pair + 1] = firsts[pair] + num_words[pair]
    places = firsts[:num_pairs].copy()
    words = np.empty(firsts[num_pairs], np.int32)
    for word in range(counts.shape[0]):
        for i in range(offsets[word], offsets[word + 1] - 1):
            pair = of_window[i]
            if pair >= 0:
                words[places[pair]] = word
                places[pair] += 1
    return keys, pairs, pair_keys[:num_pairs], pair_counts[:num_pairs], firsts, words


@kernel
def merge_kernel(
    symbols: NDArray[np.int32],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    first_pairs: tuple[
        NDArray[np.uint64],
        NDArray[np.int32],
        NDArray[np.uint64],
        NDArray[np.int64],
        NDArray[np.int64],
        NDArray[np.int32],
    ],
    token_data: NDArray[np.uint8],
    token_offsets: NDArray[np.int64],
    prefixes: NDArray[np.uint8],
    num_reserved: int,
    vocab_size: int,
    min_frequency: int,
) -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.int64]]:
    keys, pairs, pair_keys, pair_counts, firsts, words = first_pairs
    num_pairs = pair_keys.shape[0]
    num_positions = words.shape[0]
    symbols = symbols.copy()
    lengths = starts[1:] - starts[:-1]

    # Tokens, and a table of their texts: what two merges make is one token.
    num_tokens = token_offsets.shape[0] - 1
    offsets = np.zeros(vocab_size + 2, np.int64)
    offsets[: num_tokens + 1] = token_offsets
    prefix = np.zeros(vocab_size + 1, np.uint8)
    prefix[:num_tokens] = prefixes
    data = np.empty(token_data.shape[0] + 16 * vocab_size + 64, np.uint8)
    data[: token_data.shape[0]] = token_data
    table_size = 8
    while table_size < 4 * vocab_size:
        table_size *= 2
    table = np.full(table_size, -1, np.int32)
    for token in range(num_tokens):
        table[token_slot(table, data, offsets, offsets[token], offsets[token + 1])] = token

    # The queue: an entry is a pair, its count at the time, and a range of `words`; a pair may have several entries.
    capacity = max(1024, 2 * num_pairs)
    heap_counts, heap_keys = np.empty(capacity, np.int64), np.empty(capacity, np.uint64)
    heap = np.empty(capacity, np.int32)
    entry_pairs, entry_starts = np.empty(capacity, np.int32), np.empty(capacity, np.int64)
    entry_stops = np.empty(capacity, np.int64)
    size = 0
    num_entries = 0
    for pair in range(num_pairs):
        if pair_counts[pair] > 0:
            entry_pairs[num_entries], entry_starts[num_entries] = pair, firsts[pair]
            entry_stops[num_entries] = firsts[pair + 1]
            heap_counts[size], heap_keys[size], heap[size] = pair_counts[pair], pair_keys[pair], num_entries
            sift_up(heap_counts, heap_keys, heap, size)
            num_entries += 1
            size += 1

    # What a merge changes: for a symbol x before it (row 0) or behind it (row 1), how often, and in which words.
    changes = np.zeros((2, vocab_size + 1), np.int64)
    last_words = np.full((2, vocab_size + 1), -1, np.int64)
    num_events = np.zeros((2, vocab_size + 1), np.int64)
    touched = np.empty((2, vocab_size + 1), np.int32)
    event_sides = np.empty(1 << 16, np.uint8)
    event_symbols, event_words = np.empty(1 << 16, np.int32), np.empty(1 << 16, np.int32)

    merges = np.empty(vocab_size, np.uint64)
    num_merges = 0
    while num_tokens < vocab_size and size > 0:
        key, entry = heap_keys[0], heap[0]
        pair = entry_pairs[entry]
        now = pair_counts[pair]
        if heap_counts[0] != now:
            heap_counts[0] = now
            sift_down(heap_counts, heap_keys, heap, size)
            continue
        if now < max(1, min_frequency):
            break
        size -= 1
        heap_counts[0], heap_keys[0], heap[0] = heap_counts[size], heap_keys[size], heap[size]
        sift_down(heap_counts, heap_keys, heap, size)
        left = signed(key >> U32) - 1
        right = signed(key & np.uint64(0xFFFFFFFF))

        # The new token's text, written behind the last token's; it stays there if nobody has it yet.
        begin = offsets[num_tokens]
        skip = signed(prefix[right])
        end = begin + offsets[left + 1] - offsets[left] + offsets[right + 1] - offsets[right] - skip
        while end + 8 > data.shape[0]:
            data = np.concatenate((data, np.empty(data.shape[0], np.uint8)))
        at = begin
        for k in range(offsets[left], offsets[left + 1]):
            data[at] = data[k]
            at += 1
        for k in range(offsets[right] + skip, offsets[right + 1]):
            data[at] = data[k]
            at += 1
        slot = token_slot(table, data, offsets, begin, end)
        if table[slot] >= 0:
            new = signed(table[slot])
            if new < num_reserved:
                continue  # text that reads like a special token must not become one
        else:
            new = num_tokens
            table[slot] = new
            num_tokens += 1
            offsets[num_tokens] = end
            prefix[new] = prefix[left]
        if num_merges == merges.shape[0]:
            merges = np.concatenate((merges, np.empty(num_merges, np.uint64)))
        merges[num_merges] = key
        num_merges += 1

        events = 0
        num_before, num_behind = 0, 0
        for place in range(entry_starts[entry], entry_stops[entry]):
            word = words[place]
            start = starts[word]
            stop = start + lengths[word]
            i = start
            while i + 1 < stop and not (symbols[i] == left and symbols[i + 1] == right):
                i += 1
            if i + 1 >= stop:
                continue
            if events + 2 * (stop - start) > event_words.shape[0]:
                more = max(event_words.shape[0], 2 * (stop - start))
                event_sides = np.concatenate((event_sides, np.empty(more, np.uint8)))
                event_symbols = np.concatenate((event_symbols, np.empty(more, np.int32)))
                event_words = np.concatenate((event_words, np.empty(more, np.int32)))
            count = counts[word]
            write = i
            while i < stop:
                if i + 1 < stop and symbols[i] == left and symbols[i + 1] == right:
                    if write > start:
                        x = symbols[write - 1]
                        if changes[0, x] == 0:
                            touched[0, num_before] = x
                            num_before += 1
                        changes[0, x] += count
                        if last_words[0, x] != word:
                            last_words[0, x] = word
                            num_events[0, x] += 1
                            event_sides[events], event_symbols[events], event_words[events] = 0, x, word
                            events += 1
                    if i + 2 < stop:
                        x = symbols[i + 2]
                        if changes[1, x] == 0:
                            touched[1, num_behind] = x
                            num_behind += 1
                        changes[1, x] += count
                        side = 0 if x == new else 1  # (new, new) is one pair, whichever of the two came second
                        if last_words[side, x] != word:
                            last_words[side, x] = word
                            num_events[side, x] += 1
                            event_sides[events], event_symbols[events], event_words[events] = side, x, word
                            events += 1
                    symbols[write] = new
                    i += 2
                else:
                    symbols[write] = symbols[i]
                    i += 1
                write += 1
            lengths[word] = write - start

        if num_events[0, new] > 0 and changes[0, new] == 0:
            touched[0, num_before] = new
            num_before += 1
        # First all counts, then the entries, which need them.
        for side in range(2):
            for t in range(num_before if side == 0 else num_behind):
                x = touched[side, t]
                change = changes[side, x]
                old_key = pair_key(x, left) if side == 0 else pair_key(right, x)
                new_key = pair_key(x, new) if side == 0 else pair_key(new, x)
                for number in range(2):
                    wanted = old_key if number == 0 else new_key
                    slot = pair_slot(keys, wanted)
                    if keys[slot] == np.uint64(0):
                        if num_pairs == pair_counts.shape[0]:
                            pair_counts = np.concatenate((pair_counts, np.zeros(num_pairs + 1024, np.int64)))
                        if 2 * num_pairs > keys.shape[0]:
                            old_keys, old_pairs = keys, pairs
                            keys = np.zeros(2 * old_keys.shape[0], np.uint64)
                            pairs = np.zeros(2 * old_keys.shape[0], np.int32)
                            rehash(keys, pairs, old_keys, old_pairs)
                            slot = pair_slot(keys, wanted)
                        keys[slot] = wanted
                        pairs[slot] = num_pairs
                        pair_counts[num_pairs] = 0
                        num_pairs += 1
                    pair_counts[pairs[slot]] += -change if number == 0 else change
        while num_positions + events > words.shape[0]:
            words = np.concatenate((words, np.empty(words.shape[0] + 1024, np.int32)))
        for side in range(2):
            for t in range(num_before if side == 0 else num_behind):
                x = touched[side, t]
                num = num_events[side, x]
                changes[side, x] = 0
                last_words[side, x] = -1
                if num == 0:
                    continue
                num_events[side, x] = num_positions  # from here on: where its next word goes
                if num_entries == entry_pairs.shape[0]:
                    more = num_entries
                    heap_counts = np.concatenate((heap_counts, np.empty(more, np.int64)))
                    heap_keys = np.concatenate((heap_keys, np.empty(more, np.uint64)))
                    heap = np.concatenate((heap, np.empty(more, np.int32)))
                    entry_pairs = np.concatenate((entry_pairs, np.empty(more, np.int32)))
                    entry_starts = np.concatenate((entry_starts, np.empty(more, np.int64)))
                    entry_stops = np.concatenate((entry_stops, np.empty(more, np.int64)))
                new_key = pair_key(x, new) if side == 0 else pair_key(new, x)
                pair = pairs[pair_slot(keys, new_key)]
                if pair_counts[pair] > 0:
                    entry_pairs[num_entries], entry_starts[num_entries] = pair, num_positions
                    entry_stops[num_entries] = num_positions + num
                    heap_counts[size], heap_keys[size], heap[size] = pair_counts[pair], new_key, num_entries
                    sift_up(heap_counts, heap_keys, heap, size)
                    num_entries += 1
                    size += 1
                num_positions += num
        for event in range(events):
            side, x = event_sides[event], event_symbols[event]
            words[num_events[side, x]] = event_words[event]
            num_events[side, x] += 1
        for event in range(events):
            num_events[event_sides[event], event_symbols[event]] = 0
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
        symbols, offsets, counts, first, tokens.data, tokens.offsets, prefixes, num_reserved, vocab_size, min_frequency
    )
    pairs = np.stack([(keys >> U32).astype(np.int64) - 1, (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)], axis=1)
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
