"""Training a Unigram vocabulary (Kudo 2018, arXiv:1804.10959), as SentencePiece and ``tokenizers`` do it.

Seeds are the frequent substrings. Expectation maximization gives each a probability; those whose loss would hurt the
likelihood least are dropped, a quarter at a time, until the vocabulary has its size. Two things differ from the
libraries: substrings are counted as often as their words are there, and sums are made in one order, so that the same
words always give the same bytes. Words are cut into parts of `PART` symbols, which keeps plain probabilities in the
range of a double.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.bpe_merges import Words
from dataeng.kernels.bpe_pairs import pair_key, pair_slot
from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.substring_counts import LONGEST, Trie, frequent_substrings
from dataeng.kernels.text import signed

PART = 24
MAX_SEEDS = 1_000_000
SHRINKING = 0.75
SUB_ITERATIONS = 2
RARE = 0.5  # expected number of times below which a piece is dropped


@inlined
def child(keys: NDArray[np.uint64], children: NDArray[np.int32], node: int, symbol: int) -> int:
    """Returns the node that is ``node`` with one more symbol, or -1."""
    key = pair_key(node, symbol)
    slot = pair_slot(keys, key)
    return signed(children[slot]) if keys[slot] == key else -1


@called
def edges_of(
    symbols: NDArray[np.int32],
    start: int,
    stop: int,
    keys: NDArray[np.uint64],
    children: NDArray[np.int32],
    pieces: NDArray[np.int32],
    edges: NDArray[np.int32],
) -> int:
    """Finds every piece in a word: (first symbol, one past the last, piece), by first symbol; returns how many."""
    num = 0
    for i in range(start, stop):
        node = signed(symbols[i])
        j = i + 1
        while node >= 0:
            if pieces[node] >= 0:
                edges[num, 0], edges[num, 1], edges[num, 2] = i - start, j - start, pieces[node]
                num += 1
            if j == stop:
                break
            node = child(keys, children, node, signed(symbols[j]))
            j += 1
    return num


@kernel
def expect_kernel(
    symbols: NDArray[np.int32],
    offsets: NDArray[np.int64],
    counts: NDArray[np.int64],
    keys: NDArray[np.uint64],
    children: NDArray[np.int32],
    pieces: NDArray[np.int32],
    probabilities: NDArray[np.float64],
    expected: NDArray[np.float64],
) -> None:
    """Adds to ``expected`` how often each piece is there, over all ways to cut the words, by their probability."""
    forward, backward = np.zeros(PART + 1), np.zeros(PART + 1)
    edges = np.empty((PART * LONGEST, 3), np.int32)
    for word in range(counts.shape[0]):
        length = offsets[word + 1] - offsets[word]
        num = edges_of(symbols, offsets[word], offsets[word + 1], keys, children, pieces, edges)
        forward[: length + 1] = 0.0
        backward[: length + 1] = 0.0
        forward[0], backward[length] = 1.0, 1.0
        for edge in range(num):
            forward[edges[edge, 1]] += forward[edges[edge, 0]] * probabilities[edges[edge, 2]]
        for back in range(num):
            edge = num - 1 - back
            backward[edges[edge, 0]] += backward[edges[edge, 1]] * probabilities[edges[edge, 2]]
        weight = counts[word] / forward[length]
        for edge in range(num):
            start, stop, piece = edges[edge, 0], edges[edge, 1], edges[edge, 2]
            expected[piece] += weight * forward[start] * probabilities[piece] * backward[stop]


@called
def best_cut(
    num: int,
    edges: NDArray[np.int32],
    length: int,
    scores: NDArray[np.float64],
    without: int,
    best: NDArray[np.float64],
    last: NDArray[np.int32],
) -> None:
    """Finds the most probable way to cut a word, without one piece; ``last`` has the edge that leads to each place."""
    for i in range(length + 1):
        best[i], last[i] = -np.inf, -1
    best[0] = 0.0
    for edge in range(num):
        if edges[edge, 2] != without:
            score = best[edges[edge, 0]] + scores[edges[edge, 2]]
            if score > best[edges[edge, 1]]:
                best[edges[edge, 1]], last[edges[edge, 1]] = score, edge


@kernel
def viterbi_kernel(
    symbols: NDArray[np.int32],
    offsets: NDArray[np.int64],
    counts: NDArray[np.int64],
    keys: NDArray[np.uint64],
    children: NDArray[np.int32],
    pieces: NDArray[np.int32],
    scores: NDArray[np.float64],
    times: NDArray[np.float64],
) -> None:
    """Adds to ``times`` how often each piece is in the most probable cut of every word."""
    best, last = np.zeros(PART + 1), np.zeros(PART + 1, np.int32)
    edges = np.empty((PART * LONGEST, 3), np.int32)
    for word in range(counts.shape[0]):
        length = offsets[word + 1] - offsets[word]
        num = edges_of(symbols, offsets[word], offsets[word + 1], keys, children, pieces, edges)
        best_cut(num, edges, length, scores, -1, best, last)
        while length > 0:
            times[edges[last[length], 2]] += counts[word]
            length = edges[last[length], 0]


@kernel
def losses_kernel(
    symbols: NDArray[np.int32],
    offsets: NDArray[np.int64],
    keys: NDArray[np.uint64],
    children: NDArray[np.int32],
    pieces: NDArray[np.int32],
    scores: NDArray[np.float64],
    times: NDArray[np.float64],
    losses: NDArray[np.float64],
) -> None:
    """Estimates how much likelihood is lost with each piece (``symbols`` are theirs) if its best cut takes its place.

    The formula is SentencePiece's: the alternative's pieces become as much more frequent as the piece was.
    """
    best, last = np.zeros(PART + 1), np.zeros(PART + 1, np.int32)
    edges = np.empty((PART * LONGEST, 3), np.int32)
    total = times.sum()
    for piece in range(offsets.shape[0] - 1):
        length = offsets[piece + 1] - offsets[piece]
        if times[piece] == 0.0 or length == 1:
            continue
        num = edges_of(symbols, offsets[piece], offsets[piece + 1], keys, children, pieces, edges)
        best_cut(num, edges, length, scores, piece, best, last)
        log_times = 0.0
        num_parts = 0
        while length > 0:
            part = edges[last[length], 2]
            log_times += np.log(times[part] + times[piece])
            num_parts += 1
            length = edges[last[length], 0]
        log_total = np.log(total + times[piece] * (num_parts - 1))
        losses[piece] = times[piece] * (np.log(times[piece] / total) - log_times + num_parts * log_total)


def train_unigram(
    words: Words, num_symbols: int, num_pieces: int
) -> tuple[list[NDArray[np.int32]], NDArray[np.float64]]:
    """Returns at most ``num_pieces`` pieces, all symbols among them, as symbols, and their log probabilities.

    The most probable come first.

    Args:
      words: not empty ones; symbols are below ``num_symbols``.
      num_pieces: at least ``num_symbols``.
    """
    if num_pieces < num_symbols:
        raise ValueError(f"{num_symbols} symbols do not fit a vocabulary of {num_pieces}")
    parts = cut_long_words(words)
    trie = frequent_substrings(*parts, num_symbols)
    vocabulary = _Vocabulary(trie, num_symbols, _seeds(trie, num_symbols, max(MAX_SEEDS, 4 * num_pieces)))
    wanted = max(num_symbols, int(num_pieces * 1.1))
    while True:
        for _ in range(SUB_ITERATIONS):
            vocabulary.maximize(parts)
        if len(vocabulary.nodes) <= wanted:
            break
        vocabulary.prune(parts, max(wanted, int(len(vocabulary.nodes) * SHRINKING)))
    return vocabulary.most_probable(num_pieces)


def cut_long_words(words: Words) -> Words:
    """Returns words of at most `PART` symbols."""
    lengths = np.diff(words.offsets)
    num_parts = -(-lengths // PART)
    word = np.repeat(np.arange(len(lengths)), num_parts)
    part = np.arange(len(word)) - np.repeat(np.cumsum(num_parts) - num_parts, num_parts)
    starts = words.offsets[word] + part * PART
    return Words(words.symbols, np.append(starts, words.offsets[-1]).astype(np.int64), words.counts[word])


def _seeds(trie: Trie, num_symbols: int, limit: int) -> NDArray[np.int64]:
    """Returns the nodes to begin with: all symbols, and the substrings with the most text (times · length).

    A substring that always has the same symbol behind it is not one: the longer one says as much.
    """
    longest = np.zeros(len(trie.counts), np.int64)
    np.maximum.at(longest, trie.parents[num_symbols:], trie.counts[num_symbols:])
    several = np.flatnonzero(longest[num_symbols:] < trie.counts[num_symbols:]) + num_symbols
    text = trie.counts[several] * trie.lengths[several]
    chosen = several[np.lexsort((several, -text))[: max(0, limit - num_symbols)]]
    return np.concatenate([np.arange(num_symbols), np.sort(chosen)])


class _Vocabulary:
    """The pieces that are left, as nodes of the trie in ascending order, with their probabilities."""

    def __init__(self, trie: Trie, num_symbols: int, nodes: NDArray[np.int64]) -> None:
        self.trie, self.num_symbols, self.nodes = trie, num_symbols, nodes
        text = np.maximum(trie.counts[nodes], 1) * trie.lengths[nodes]
        self.scores = np.log(text / text.sum())
        self._index()

    def _index(self) -> None:
        """Makes the table of those nodes that lead to a piece: (node, symbol) → node."""
        self.pieces = np.full(len(self.trie.counts), -1, np.int32)
        self.pieces[self.nodes] = np.arange(len(self.nodes))
        wanted = np.zeros(len(self.trie.counts), bool)
        ahead = self.nodes
        while len(ahead):
            wanted[ahead] = True
            above = self.trie.parents[ahead[ahead >= self.num_symbols]]
            ahead = np.unique(above[~wanted[above]])
        inner = np.flatnonzero(wanted[self.num_symbols :]) + self.num_symbols
        self.keys, self.children = trie_table_kernel(self.trie.parents, self.trie.symbols, inner)

    def _keep(self, kept: NDArray[np.bool_], scores: NDArray[np.float64]) -> None:
        self.nodes, self.scores = self.nodes[kept], scores[kept]
        self._index()

    def maximize(self, parts: Words) -> None:
        """One round of expectation maximization; pieces that are hardly ever there go. Symbols stay."""
        expected = np.zeros(len(self.nodes))
        expect_kernel(*parts, self.keys, self.children, self.pieces, np.exp(self.scores), expected)
        symbols = self.nodes < self.num_symbols
        kept = symbols | (expected >= RARE)
        expected = np.maximum(expected, RARE)
        # Not the plain logarithm: a sparse prior (Liang and Klein, ACL 2007 tutorial), as SentencePiece has it.
        self._keep(kept, digamma(expected) - digamma(expected[kept].sum(keepdims=True)))

    def prune(self, parts: Words, num_left: int) -> None:
        """Drops the pieces that are missed least until ``num_left`` are left."""
        times = np.zeros(len(self.nodes))
        viterbi_kernel(*parts, self.keys, self.children, self.pieces, self.scores, times)
        symbols, offsets = self.texts()
        losses = np.full(len(self.nodes), -np.inf)
        losses_kernel(symbols, offsets, self.keys, self.children, self.pieces, self.scores, times, losses)
        losses[self.nodes < self.num_symbols] = np.inf
        order = np.lexsort((self.nodes, -losses))[:num_left]
        kept = np.zeros(len(self.nodes), bool)
        kept[order] = True
        self._keep(kept & (losses > -np.inf), self.scores)

    def texts(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Returns the symbols of all pieces, back to back, and where each begins."""
        lengths = self.trie.lengths[self.nodes].astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        symbols = np.empty(offsets[-1], np.int32)
        nodes, places = self.nodes, offsets[1:] - 1
        while len(nodes):
            symbols[places] = self.trie.symbols[nodes]
            longer = nodes >= self.num_symbols
            nodes, places = self.trie.parents[nodes[longer]].astype(np.int64), places[longer] - 1
        return symbols, offsets

    def most_probable(self, num: int) -> tuple[list[NDArray[np.int32]], NDArray[np.float64]]:
        """Returns symbols and scores of all single symbols and the best other pieces, the best first."""
        best = np.lexsort((self.nodes, -self.scores, self.nodes >= self.num_symbols))[:num]
        best = best[np.lexsort((self.nodes[best], -self.scores[best]))]
        symbols, offsets = self.texts()
        return [symbols[offsets[i] : offsets[i + 1]] for i in best], self.scores[best]


@kernel
def trie_table_kernel(
    parents: NDArray[np.int32], symbols: NDArray[np.int32], nodes: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Returns a table (parent, symbol) → node of some nodes of a trie."""
    size = 16
    while size < 2 * nodes.shape[0]:
        size *= 2
    keys, children = np.zeros(size, np.uint64), np.zeros(size, np.int32)
    for i in range(nodes.shape[0]):
        node = nodes[i]
        key = pair_key(signed(parents[node]), signed(symbols[node]))
        slot = pair_slot(keys, key)
        keys[slot] = key
        children[slot] = node
    return keys, children


def digamma(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the derivative of the logarithm of the gamma function of positive values, to about 1e-10."""
    x, result = values.copy(), np.zeros_like(values)
    while (small := x < 8).any():
        result[small] -= 1 / x[small]
        x[small] += 1
    inverse = 1 / (x * x)
    series = inverse * (1 / 12 - inverse * (1 / 120 - inverse * (1 / 252 - inverse * (1 / 240 - inverse / 132))))
    return np.asarray(result + np.log(x) - 0.5 / x - series)


def warm_up() -> None:
    """Compiles the kernels or loads them from the cache."""
    symbols = np.array([0, 1, 0, 1, 1], np.int32)
    train_unigram(Words(symbols, np.array([0, 2, 5], np.int64), np.array([2, 3], np.int64)), 2, 2)
