"""Repeated runs of units joined to matches, and matches turned into ranges of bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dataeng.kernels.text import TextBuffers


def joined_matches(runs: pl.DataFrame, length: int) -> pl.DataFrame:
    """Joins runs whose windows follow each other, here and at the place that they were found at.

    Args:
      runs: ``text``, ``unit`` and ``units``; ``kept_part``, ``kept_row``, ``kept_unit``: where they stand earlier; more
        ``kept_`` columns.
      length: units of a window; a run has ``units - length + 1``.

    Returns:
      ``text``, ``unit`` (the first), ``stop`` (the unit after the last) and the ``kept_`` columns of the first run, in
      order of text, first unit and stop.
    """
    order = ["text", "unit", "units", "kept_part", "kept_row", "kept_unit"]
    ordered = runs.sort(order, descending=[False, False, True, False, False, False])
    windows = (pl.col("units") - (length - 1)).shift(1)
    follows = pl.all_horizontal(
        *(pl.col(name) == pl.col(name).shift(1) for name in ("text", "kept_part", "kept_row")),
        *(pl.col(name) == pl.col(name).shift(1) + windows for name in ("unit", "kept_unit")),
    )
    kept = [name for name in runs.columns if name.startswith("kept_")]
    return (
        ordered.with_columns((~follows).fill_null(True).cum_sum().alias("match"))
        .group_by("match", maintain_order=True)
        .agg(
            *(pl.col(name).first() for name in ("text", "unit")),
            (pl.col("unit") + pl.col("units")).last().alias("stop"),
            *(pl.col(name).first() for name in kept),
        )
        .drop("match")
        .sort("text", "unit", "stop", maintain_order=True)
    )


def disjoint_ranges(matches: pl.DataFrame) -> pl.DataFrame:
    """Keeps as few matches as cover what all do, and adds ``first``: the first unit that none before it covers.

    In a text that goes on repeating itself every window has an earlier one of its own; few of them tell the story.
    """
    from dataeng.kernels.cutting import least_cover

    text, first, stop = (matches.get_column(name).cast(pl.Int64).to_numpy() for name in ("text", "unit", "stop"))
    before = pl.col("stop").shift(1).over("text").fill_null(0)
    return matches.filter(pl.Series(least_cover(text, first, stop))).with_columns(
        pl.max_horizontal("unit", before).alias("first")
    )


def bytes_of_units(
    texts: TextBuffers, by_bytes: bool, text: NDArray[np.int64], first: NDArray[np.int64], stop: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns where in the data buffer unit ``first`` of each text begins, and where unit ``stop - 1`` ends."""
    from dataeng.kernels.sequences import list_words

    if by_bytes:
        return texts.offsets[text] + first, texts.offsets[text] + stop
    words = list_words(texts)
    offsets = words.offsets[text]
    return words.start[offsets + first], words.stop[offsets + stop - 1]
