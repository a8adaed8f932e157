"""Reader of fastText's binary model files, version 12 (``fasttext.cc``, ``FastText::saveModel``).

    int32 magic, version; 12 x int32 and a double of arguments; dictionary; matrices.

Every length and index is checked, so that a damaged or hostile file ends in a `FormatError` and nothing else.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataeng.errors import FormatError, InputError

MAGIC = 793712314
VERSIONS = (11, 12)
SUPERVISED = 3
HIERARCHICAL_SOFTMAX, NEGATIVE_SAMPLING, SOFTMAX, ONE_VS_ALL = 1, 2, 3, 4
WORD, LABEL = 0, 1

#: No matrix of a model that fits in memory is larger; a damaged header must not make us ask for more.
MAX_VALUES = 1 << 33
CENTROIDS = 256


@dataclass(frozen=True)
class ModelFile:
    """What a supervised model file holds; quantized matrices are unpacked."""

    words: list[bytes]
    labels: list[str]
    label_counts: NDArray[np.int64]
    buckets: int
    pruned: NDArray[np.int32] | None  # [kept, 2]: bucket, row after the words; None = all buckets are kept
    min_ngram: int
    max_ngram: int
    word_ngrams: int
    loss: int
    input: NDArray[np.float32]
    output: NDArray[np.float32]


class _Bytes:
    """A file's bytes with a reading position; every read is checked against the end."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path, self.content, self.position = path, content, 0

    def error(self, problem: str) -> FormatError:
        return FormatError(f"{self.path} is not a usable fastText model: {problem} (at byte {self.position})")

    def values(self, layout: str) -> tuple[Any, ...]:
        size = struct.calcsize("<" + layout)
        self.need(size)
        found = struct.unpack_from("<" + layout, self.content, self.position)
        self.position += size
        return found

    def need(self, size: int) -> None:
        if size < 0 or self.position + size > len(self.content):
            raise self.error(f"it ends early: {size} more bytes expected, {len(self.content) - self.position} are left")

    def array(self, dtype: str, count: int) -> NDArray[Any]:
        kind = np.dtype(dtype)
        if not 0 <= count <= MAX_VALUES:
            raise self.error(f"an array of {count} values")
        self.need(count * kind.itemsize)
        found = np.frombuffer(self.content, kind, count, self.position)
        self.position += count * kind.itemsize
        return found

    def string(self) -> bytes:
        end = self.content.find(b"\0", self.position)
        if end < 0:
            raise self.error("a word does not end")
        found = self.content[self.position : end]
        self.position = end + 1
        return found


def read_model(path: Path) -> ModelFile:
    """Reads a ``.bin`` or ``.ftz`` classifier.

    Raises:
      InputError: the file cannot be read.
      FormatError: it is not a fastText classifier, or is damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the fastText model {path}: {error.strerror or error}") from error
    file = _Bytes(path, content)
    magic, version = file.values("2i")
    if magic != MAGIC:
        raise file.error(f"it starts with {magic}, expected {MAGIC}")
    if version not in VERSIONS:
        raise file.error(f"its version is {version}, known are {VERSIONS}")
    dim, _, _, _, _, word_ngrams, loss, model, buckets, min_ngram, max_ngram, _, _ = file.values("12id")
    if model != SUPERVISED:
        raise file.error(f"it is not a classifier (model type {model}, expected {SUPERVISED})")
    if loss not in (HIERARCHICAL_SOFTMAX, NEGATIVE_SAMPLING, SOFTMAX, ONE_VS_ALL):
        raise file.error(f"unknown loss {loss}")
    if version == 11:  # as FastText::loadModel: old supervised models do not use character n-grams
        max_ngram = 0
    if not (0 < dim <= 65536 and 0 <= buckets < 2**31 and 0 <= word_ngrams <= 64 and 0 <= max_ngram <= 1024):
        raise file.error(f"senseless arguments: dim={dim} buckets={buckets} wordNgrams={word_ngrams} maxn={max_ngram}")
    words, labels, counts, pruned = _read_dictionary(file, buckets)
    input_matrix = _read_matrix(file, dim, "input")
    output = _read_matrix(file, dim, "output")
    rows_after_words = buckets if pruned is None else int(pruned[:, 1].max(initial=-1)) + 1
    uses_buckets = max_ngram > 0 or word_ngrams > 1
    if len(input_matrix) < len(words) + (rows_after_words if uses_buckets else 0):
        raise file.error(
            f"the input matrix has {len(input_matrix)} rows for {len(words)} words and {rows_after_words} buckets"
        )
    if len(output) != len(labels):
        raise file.error(f"the output matrix has {len(output)} rows for {len(labels)} labels")
    return ModelFile(
        words=words, labels=labels, label_counts=counts, buckets=buckets if uses_buckets else 0,
        pruned=pruned if uses_buckets else None, min_ngram=min_ngram, max_ngram=max_ngram, word_ngrams=word_ngrams,
        loss=loss, input=input_matrix, output=output,
    )  # fmt: skip


def _read_dictionary(
    file: _Bytes, buckets: int
) -> tuple[list[bytes], list[str], NDArray[np.int64], NDArray[np.int32] | None]:
    size, num_words, num_labels, _, num_pruned = file.values("3i2q")
    if num_labels < 1 or num_words < 0 or size != num_words + num_labels:
        raise file.error(f"{size} entries, {num_words} words and {num_labels} labels")
    words: list[bytes] = []
    labels: list[str] = []
    counts: list[int] = []
    for _ in range(size):
        entry = file.string()
        count, kind = file.values("qb")
        if kind == WORD and not labels:
            words.append(entry)
        elif kind == LABEL:
            if not 0 <= count < 10**15:
                raise file.error(f"label {entry!r} occurs {count} times")
            labels.append(entry.decode("utf-8", "replace"))
            counts.append(count)
        else:
            raise file.error(f"entry {entry!r} has type {kind}, or is a word after the labels")
    if (len(words), len(labels)) != (num_words, num_labels):
        raise file.error(f"{len(words)} words and {len(labels)} labels, {num_words} and {num_labels} were announced")
    if num_pruned < 0:
        return words, labels, np.array(counts, np.int64), None
    pruned = file.array("<i4", 2 * num_pruned).reshape(-1, 2)
    if len(pruned) and (pruned.min() < 0 or pruned[:, 0].max() >= buckets):
        raise file.error(f"the pruning table names buckets outside 0 … {buckets - 1}")
    return words, labels, np.array(counts, np.int64), pruned


def _read_matrix(file: _Bytes, dim: int, name: str) -> NDArray[np.float32]:
    (quantized,) = file.values("?")
    if quantized:
        return _read_quantized(file, dim, name)
    rows, columns = file.values("2q")
    _check_shape(file, rows, columns, dim, name)
    return file.array("<f4", rows * columns).reshape(rows, columns).astype(np.float32)


def _check_shape(file: _Bytes, rows: int, columns: int, dim: int, name: str) -> None:
    if columns != dim or not 0 <= rows < 2**31:
        raise file.error(f"the {name} matrix is {rows} x {columns}, expected {dim} columns")


def _read_quantized(file: _Bytes, dim: int, name: str) -> NDArray[np.float32]:
    (with_norms,) = file.values("?")
    rows, columns = file.values("2q")
    _check_shape(file, rows, columns, dim, name)
    (num_codes,) = file.values("i")
    codes = file.array("u1", num_codes)
    matrix = _unpack(file, codes, rows, dim, name)
    if with_norms:
        norm_codes = file.array("u1", rows)
        matrix *= _unpack(file, norm_codes, rows, 1, f"{name} norm")
    return matrix


def _unpack(file: _Bytes, codes: NDArray[np.uint8], rows: int, dim: int, name: str) -> NDArray[np.float32]:
    """Undoes a product quantizer: each row is cut into parts, and each code names one of 256 centroids of its part."""
    stored_dim, parts, part_dim, last_dim = file.values("4i")
    if stored_dim != dim or parts < 1 or part_dim < 1 or not 0 < last_dim <= part_dim:
        raise file.error(
            f"the {name} quantizer cuts {stored_dim} values into {parts} parts of {part_dim} and {last_dim}"
        )
    if (parts - 1) * part_dim + last_dim != dim or len(codes) != rows * parts:
        raise file.error(
            f"the {name} quantizer does not fit: {len(codes)} codes, {rows} rows, {parts} parts, {dim} values"
        )
    centroids = file.array("<f4", dim * CENTROIDS)
    by_row = codes.reshape(rows, parts)
    matrix = np.empty((rows, dim), np.float32)
    for part in range(parts):
        width = last_dim if part == parts - 1 else part_dim
        start = part * CENTROIDS * part_dim
        table = centroids[start : start + CENTROIDS * width].reshape(CENTROIDS, width)
        matrix[:, part * part_dim : part * part_dim + width] = table[by_row[:, part]]
    return matrix
