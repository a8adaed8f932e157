"""fastText classifiers (Joulin et al. 2016): reads ``.bin`` and ``.ftz`` models and predicts a whole column.

Follows facebookresearch/fastText (MIT): ``dictionary.cc`` (tokens, subwords, word n-grams, pruning),
``productquantizer.cc``, ``loss.cc`` (hierarchical softmax, softmax, one-vs-all, negative sampling). Labels are the same
and probabilities agree to about 1e-6; quantized matrices are unpacked once, when the model is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.fasttext_format import HIERARCHICAL_SOFTMAX, NEGATIVE_SAMPLING, ONE_VS_ALL, ModelFile, read_model
from dataeng.kernels.text import TextBuffers, hash_bytes, hash_word, table_size

FNV_START = np.uint32(2166136261)
FNV_PRIME = np.uint32(16777619)
SHIFT_17 = np.uint64(17)
ONE = np.uint64(1)
LABEL_PREFIX = np.frombuffer(b"__label__", np.uint8)
END_MARK = np.frombuffer(b"</s>", np.uint8)


@dataclass(frozen=True, repr=False)
class Classifier:
    """A fastText model ready to predict.

    Attributes:
      labels: without the prefix ``__label__``; predictions are positions in it.
    """

    labels: tuple[str, ...]
    rows: NDArray[np.float32]  # input matrix [words + buckets kept, dim]
    output: NDArray[np.float32]  # [labels, dim]; for the hierarchical softmax [labels - 1 nodes …, dim]
    word_keys: NDArray[np.uint64]  # hash table of words; 0 = free
    word_rows: NDArray[np.int32]
    bucket_rows: NDArray[np.int32]  # [buckets] row of each, -1 = pruned away
    bucket_kept: NDArray[np.uint64]  # [buckets / 64] a bit each: 1 = not pruned; fits in the processor's cache
    end_of_text: int  # row of "</s>", -1 = none
    min_ngram: int  # characters of the shortest subword
    max_ngram: int
    word_ngrams: int
    loss: int
    tree: NDArray[np.int32]  # [2, 2 * labels - 1] left and right child of each node, -1 = leaf


def load_classifier(path: Path) -> Classifier:
    """Reads a supervised fastText model.

    Raises:
      InputError: the file is missing.
      FormatError: it is not a fastText classifier, or is damaged.
    """
    return build_classifier(read_model(path))


def build_classifier(model: ModelFile) -> Classifier:
    num_words = len(model.words)
    size = table_size(2 * max(num_words, 4))
    keys, rows = np.zeros(size, np.uint64), np.zeros(size, np.int32)
    for row, word in enumerate(model.words):
        value = hash_word(word)
        slot = (value >> 17) & (size - 1)
        while keys[slot]:
            slot = (slot + 1) & (size - 1)
        keys[slot], rows[slot] = value, row
    if model.pruned is None:
        bucket_rows = np.arange(num_words, num_words + model.buckets, dtype=np.int32)
    else:
        bucket_rows = np.full(model.buckets, -1, np.int32)
        bucket_rows[model.pruned[:, 0]] = model.pruned[:, 1] + num_words
    return Classifier(
        labels=tuple(label.removeprefix("__label__") for label in model.labels),
        rows=model.input,
        output=model.output,
        word_keys=keys,
        word_rows=rows,
        bucket_rows=bucket_rows,
        bucket_kept=_bits(bucket_rows >= 0),
        end_of_text=model.words.index(b"</s>") if b"</s>" in model.words else -1,
        min_ngram=model.min_ngram,
        max_ngram=model.max_ngram,
        word_ngrams=model.word_ngrams,
        loss=model.loss,
        tree=huffman_tree(model.label_counts),
    )


def _bits(flags: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Packs flags into words of 64, the first in the lowest bit."""
    padded = np.zeros(-(-len(flags) // 64) * 64, np.bool_)
    padded[: len(flags)] = flags
    return np.packbits(padded, bitorder="little").view("<u8").astype(np.uint64)


def huffman_tree(counts: NDArray[np.int64]) -> NDArray[np.int32]:
    """Builds the tree of ``HierarchicalSoftmaxLoss::buildTree``: [2, nodes] left and right children.

    Labels are the first nodes, in the file's order (descending counts); the root is the last.
    """
    leaves = len(counts)
    nodes = 2 * leaves - 1
    weight = np.full(nodes, 10**15, np.int64)
    weight[:leaves] = counts
    children = np.full((2, nodes), -1, np.int32)
    leaf, node = leaves - 1, leaves
    for parent in range(leaves, nodes):
        for side in range(2):
            if leaf >= 0 and weight[leaf] < weight[node]:
                children[side, parent] = leaf
                leaf -= 1
            else:
                children[side, parent] = node
                node += 1
        weight[parent] = weight[children[0, parent]] + weight[children[1, parent]]
    return children


@inlined
def is_separator(byte: int) -> bool:
    """What ``Dictionary::readWord`` ends a token at."""
    return byte == 32 or (byte >= 9 and byte <= 13) or byte == 0


@inlined
def add_row(hidden: NDArray[np.float32], rows: NDArray[np.float32], row: int) -> None:
    for k in range(hidden.shape[0]):
        hidden[k] += rows[row, k]


@inlined
def fnv_step(value: np.uint32, byte: int) -> np.uint32:
    """One byte of fastText's FNV-1a, which takes bytes as signed numbers."""
    return np.uint32((value ^ np.uint32(np.int32(np.int8(byte)))) * FNV_PRIME)


@called
def add_subwords(
    word: NDArray[np.uint8],
    size: int,
    min_ngram: int,
    max_ngram: int,
    bucket_rows: NDArray[np.int32],
    bucket_kept: NDArray[np.uint64],
    rows: NDArray[np.float32],
    hidden: NDArray[np.float32],
) -> int:
    """Adds the vectors of the character n-grams of ``word[:size]`` (with ``<`` and ``>``) and returns how many."""
    added = 0
    buckets = np.uint32(bucket_rows.shape[0])
    for start in range(size):
        if word[start] & 0xC0 == 0x80:
            continue
        value = FNV_START
        i, length = start, 1
        while i < size and length <= max_ngram:
            value = fnv_step(value, word[i])
            i += 1
            while i < size and word[i] & 0xC0 == 0x80:
                value = fnv_step(value, word[i])
                i += 1
            if length >= min_ngram and not (length == 1 and (start == 0 or i == size)):
                bucket = np.uint64(value % buckets)
                if (bucket_kept[bucket >> np.uint64(6)] >> (bucket & np.uint64(63))) & ONE:
                    add_row(hidden, rows, bucket_rows[bucket])
                    added += 1
            length += 1
    return added


@called
def add_word_ngrams(
    word_hashes: NDArray[np.int32],
    num_words: int,
    word_ngrams: int,
    bucket_rows: NDArray[np.int32],
    rows: NDArray[np.float32],
    hidden: NDArray[np.float32],
) -> int:
    """Adds the vectors of runs of 2 … ``word_ngrams`` tokens and returns how many."""
    added = 0
    buckets = np.uint64(bucket_rows.shape[0])
    for i in range(num_words):
        value = np.uint64(np.int64(word_hashes[i]))
        for j in range(i + 1, min(num_words, i + word_ngrams)):
            value = value * np.uint64(116049371) + np.uint64(np.int64(word_hashes[j]))
            row = bucket_rows[value % buckets]
            if row >= 0:
                add_row(hidden, rows, row)
                added += 1
    return added


@called
def starts_with(data: NDArray[np.uint8], start: int, stop: int, prefix: NDArray[np.uint8]) -> bool:
    if stop - start < prefix.shape[0]:
        return False
    for j in range(prefix.shape[0]):
        if data[start + j] != prefix[j]:
            return False
    return True


@called
def embed(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    rows: NDArray[np.float32],
    word_keys: NDArray[np.uint64],
    word_rows: NDArray[np.int32],
    bucket_rows: NDArray[np.int32],
    bucket_kept: NDArray[np.uint64],
    end_of_text: int,
    min_ngram: int,
    max_ngram: int,
    word_ngrams: int,
    word: NDArray[np.uint8],
    word_hashes: NDArray[np.int32],
    hidden: NDArray[np.float32],
) -> int:
    """Averages the vectors of a text's words, subwords and word n-grams into ``hidden``; returns how many they are."""
    mask = np.uint64(word_keys.shape[0] - 1)
    hidden[:] = 0
    added, num_words = 0, 0
    i = start
    while True:
        while i < stop and is_separator(data[i]):
            i += 1
        if i >= stop:
            break
        token = i
        value = FNV_START
        while i < stop and not is_separator(data[i]):
            value = fnv_step(value, data[i])
            i += 1
        if starts_with(data, token, i, LABEL_PREFIX):  # fastText takes it for the line's label
            continue
        if i - token == END_MARK.shape[0] and starts_with(data, token, i, END_MARK):  # and this for its end
            break
        key = hash_bytes(data, token, i)
        slot = (key >> SHIFT_17) & mask
        row = -1
        while word_keys[slot] != 0:
            if word_keys[slot] == key:
                row = word_rows[slot]
                break
            slot = (slot + ONE) & mask
        if row >= 0:
            add_row(hidden, rows, row)
            added += 1
        if word_ngrams > 1:
            word_hashes[num_words] = np.int32(value)
            num_words += 1
        if max_ngram > 0 and bucket_rows.shape[0] > 0:
            size = i - token
            word[0] = 60
            for k in range(size):
                word[k + 1] = data[token + k]
            word[size + 1] = 62
            added += add_subwords(word, size + 2, min_ngram, max_ngram, bucket_rows, bucket_kept, rows, hidden)
    if end_of_text >= 0:
        add_row(hidden, rows, end_of_text)
        added += 1
    if word_ngrams > 1 and bucket_rows.shape[0] > 0:
        value = FNV_START
        for k in range(4):
            value = fnv_step(value, END_MARK[k])
        word_hashes[num_words] = np.int32(value)
        added += add_word_ngrams(word_hashes, num_words + 1, word_ngrams, bucket_rows, rows, hidden)
    if added:
        for k in range(hidden.shape[0]):
            hidden[k] /= np.float32(added)
    return added


@inlined
def dot(matrix: NDArray[np.float32], row: int, vector: NDArray[np.float32]) -> np.float32:
    total = np.float32(0)
    for k in range(vector.shape[0]):
        total += matrix[row, k] * vector[k]
    return total


@called
def score_tree(
    output: NDArray[np.float32], tree: NDArray[np.int32], hidden: NDArray[np.float32], scores: NDArray[np.float32]
) -> None:
    """Writes the log-probability of every node; the labels are the first ones."""
    nodes = tree.shape[1]
    labels = (nodes + 1) // 2
    scores[nodes - 1] = 0
    for node in range(nodes - 1, labels - 1, -1):
        right = np.float32(1 / (1 + np.exp(-dot(output, node - labels, hidden))))
        scores[tree[0, node]] = scores[node] + np.float32(np.log(np.float32(1) - right + 1e-5))
        scores[tree[1, node]] = scores[node] + np.float32(np.log(right + 1e-5))


@called
def score_labels(
    output: NDArray[np.float32], loss: int, hidden: NDArray[np.float32], scores: NDArray[np.float32]
) -> None:
    """Writes the log-probability of every label for the losses without a tree."""
    labels = output.shape[0]
    if loss == ONE_VS_ALL or loss == NEGATIVE_SAMPLING:
        for label in range(labels):
            # fastText looks the sigmoid up in a table of 512 steps between -8 and 8.
            x = dot(output, label, hidden)
            if x < -8:
                p = np.float32(0)
            elif x > 8:
                p = np.float32(1)
            else:
                step = int((x + 8) * 512 / 8 / 2)
                p = np.float32(1 / (1 + np.exp(-np.float32(step * 16 / 512 - 8))))
            scores[label] = np.log(p + 1e-5)
        return
    largest = np.float32(-np.inf)
    for label in range(labels):
        scores[label] = dot(output, label, hidden)
        largest = max(largest, scores[label])
    total = np.float32(0)
    for label in range(labels):
        scores[label] = np.exp(scores[label] - largest)
        total += scores[label]
    for label in range(labels):
        scores[label] = np.log(scores[label] / total + 1e-5)


@kernel
def classify(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    max_bytes: int,
    rows: NDArray[np.float32],
    output: NDArray[np.float32],
    word_keys: NDArray[np.uint64],
    word_rows: NDArray[np.int32],
    bucket_rows: NDArray[np.int32],
    bucket_kept: NDArray[np.uint64],
    end_of_text: int,
    min_ngram: int,
    max_ngram: int,
    word_ngrams: int,
    loss: int,
    tree: NDArray[np.int32],
    best: NDArray[np.int32],
    probability: NDArray[np.float32],
) -> None:
    longest = 0
    for text in range(offsets.shape[0] - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    word = np.empty(longest + 2, np.uint8)
    word_hashes = np.empty(longest // 2 + 3, np.int32)
    hidden = np.empty(rows.shape[1], np.float32)
    scores = np.empty(tree.shape[1], np.float32)
    labels = (tree.shape[1] + 1) // 2
    for text in range(offsets.shape[0] - 1):
        start, stop = offsets[text], offsets[text + 1]
        if stop - start > max_bytes:
            stop = start + max_bytes
            while stop > start and data[stop] & 0xC0 == 0x80:  # not inside a character
                stop -= 1
        best[text] = -1
        probability[text] = 0
        added = embed(
            data, start, stop, rows, word_keys, word_rows, bucket_rows, bucket_kept,
            end_of_text, min_ngram, max_ngram, word_ngrams, word, word_hashes, hidden,
        )  # fmt: skip
        if added == 0:
            continue
        if loss == HIERARCHICAL_SOFTMAX:
            score_tree(output, tree, hidden, scores)
        else:
            score_labels(output, loss, hidden, scores)
        largest = np.float32(-np.inf)
        for label in range(labels):
            if scores[label] >= largest:  # of equals the last, as the library
                largest = scores[label]
                best[text] = label
        probability[text] = np.exp(largest)


def predict(
    classifier: Classifier, texts: TextBuffers, *, max_bytes: int | None = None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Returns the most probable label of every text and its probability.

    Line breaks count as spaces. fastText's probabilities may exceed 1 by 1e-5; they are passed on as they are.

    Args:
      max_bytes: look only at the start of each text, cut before the character that crosses this size.

    Returns:
      label positions in ``classifier.labels`` (int32; -1 for a text of which the model knows nothing at all) and
      probabilities (float32).
    """
    best = np.empty(texts.num_texts, np.int32)
    probability = np.empty(texts.num_texts, np.float32)
    c = classifier
    classify(
        texts.data, texts.offsets, np.iinfo(np.int64).max if max_bytes is None else max_bytes, c.rows, c.output,
        c.word_keys, c.word_rows, c.bucket_rows, c.bucket_kept, c.end_of_text, c.min_ngram, c.max_ngram, c.word_ngrams,
        c.loss, c.tree, best, probability,
    )  # fmt: skip
    return best, probability


def warm_up() -> None:
    """Compiles the kernel or loads it from the cache."""
    import polars as pl

    from dataeng.kernels.text import text_buffers

    tiny = Classifier(
        labels=("a", "b"), rows=np.ones((3, 2), np.float32), output=np.ones((2, 2), np.float32),
        word_keys=np.zeros(8, np.uint64), word_rows=np.zeros(8, np.int32), bucket_rows=np.arange(3, dtype=np.int32),
        bucket_kept=np.array([7], np.uint64), end_of_text=-1, min_ngram=2, max_ngram=3, word_ngrams=1,
        loss=HIERARCHICAL_SOFTMAX,
        tree=huffman_tree(np.array([2, 1])),
    )  # fmt: skip
    predict(tiny, text_buffers(pl.Series(["warm"], dtype=pl.String)))
