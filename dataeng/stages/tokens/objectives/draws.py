"""Chance in objectives: numbers that depend on a seed and a document's id, and on nothing else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl


def document_keys(ids: pl.Series, seed: int, purpose: str) -> npt.NDArray[np.uint64]:
    """Returns a number for every document, [documents], to draw from; another ``purpose`` gives unrelated ones."""
    from dataeng.kernels.hashing import hash_texts
    from dataeng.kernels.text import text_buffers

    keys = pl.select(pl.format("{}:{}:{}", pl.lit(purpose), pl.lit(seed), pl.lit(ids))).to_series()
    low: npt.NDArray[np.uint64] = hash_texts(text_buffers(keys))[1]
    return low


def uniform(keys: npt.NDArray[np.uint64], index: int) -> npt.NDArray[np.float64]:
    """Returns the number in [0, 1) that every document draws as its ``index``-th: float64 [documents]."""
    mixed = keys + np.uint64(((index + 1) * 0x9E3779B97F4A7C15) % 2**64)
    for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):  # MurmurHash3's finalizer
        mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(multiplier)
    mixed ^= mixed >> np.uint64(33)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
