"""Writes small fastText models from the format's byte layout, so that every loss and matrix kind can be tested."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

MAGIC = 793712314


def dictionary(words: list[str], labels: list[str], pruned: list[tuple[int, int]] | None) -> bytes:
    content = struct.pack(
        "<3i2q", len(words) + len(labels), len(words), len(labels), 1000, -1 if pruned is None else len(pruned)
    )
    for kind, entries in ((0, words), (1, labels)):
        for i, entry in enumerate(entries):
            content += entry.encode() + b"\0" + struct.pack("<qb", 100 - i, kind)
    return content + b"".join(struct.pack("<2i", *pair) for pair in pruned or ())


def dense(matrix: np.ndarray) -> bytes:
    return struct.pack("<?2q", False, *matrix.shape) + matrix.astype("<f4").tobytes()


def quantized(rng: np.random.Generator, rows: int, dim: int, part_dim: int, with_norms: bool) -> bytes:
    """A product-quantized matrix with random codes and centroids."""

    def quantizer(dim: int, part_dim: int) -> bytes:
        parts = -(-dim // part_dim)
        last = dim - (parts - 1) * part_dim
        return struct.pack("<4i", dim, parts, part_dim, last) + rng.normal(size=dim * 256).astype("<f4").tobytes()

    parts = -(-dim // part_dim)
    content = struct.pack("<2?2qi", True, with_norms, rows, dim, rows * parts)
    content += rng.integers(0, 256, rows * parts, dtype=np.uint8).tobytes() + quantizer(dim, part_dim)
    if with_norms:
        content += rng.integers(0, 256, rows, dtype=np.uint8).tobytes() + quantizer(1, 1)
    return content


def write_model(
    path: Path,
    *,
    loss: int,
    words: list[str],
    labels: list[str],
    dim: int = 6,
    buckets: int = 40,
    ngrams: tuple[int, int] = (2, 4),
    word_ngrams: int = 1,
    pruned: list[tuple[int, int]] | None = None,
    part_dim: int | None = None,
    seed: int = 0,
) -> Path:
    """Writes a supervised model with random weights; quantized where ``part_dim`` is given."""
    rng = np.random.default_rng(seed)
    arguments = (dim, 5, 5, 1, 5, word_ngrams, loss, 3, buckets, *ngrams, 100)
    content = struct.pack("<2i12id", MAGIC, 12, *arguments, 1e-4) + dictionary(words, labels, pruned)
    rows = len(words) + (buckets if pruned is None else len(pruned))
    if part_dim is None:
        content += dense(rng.normal(size=(rows, dim)))
    else:
        content += quantized(rng, rows, dim, part_dim, with_norms=True)
    content += dense(rng.normal(size=(len(labels), dim)))
    path.write_bytes(content)
    return path
