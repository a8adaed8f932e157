"""What stages that take units out of texts have in common: finding hashes in verdicts, editing, and evidence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dataeng.document import REASON, TEXT, drop_where
from dataeng.stage import Slices

if TYPE_CHECKING:
    from dataeng.kernels.units import Units

ROWS_IN_MEMORY = 1_000_000
"""About 100 bytes each while they are being reduced; a larger partition is gone through as often as it takes."""
SAMPLE_CHARS = 300
MOST_UNITS = 20  # of one text that go into its evidence


def range_partition(hashes: pl.Expr, partitions: int) -> pl.Expr:
    """Returns the partition of 64-bit hashes: equal ranges, so that partitions in order are hashes in order."""
    return (hashes // (1 << 32) * partitions // (1 << 32)).cast(pl.UInt32)


def hash_ranges(slices: Slices, partitions: int) -> Iterator[pl.DataFrame]:
    """Cuts the rows of a partition by range of ``hash``, in order, into tables of about `ROWS_IN_MEMORY` rows.

    Rows of one hash stay together, those of one table in the order in which they came.

    Args:
      slices: rows that `range_partition` has sent to one of ``partitions``.
    """
    for inside in range_shares(slices.num_rows, partitions):
        found = [table.filter(inside) for table in slices]
        if any(table.height for table in found):
            yield pl.concat(found)


def range_shares(num_rows: int, partitions: int) -> list[pl.Expr]:
    """Returns conditions, in order of ``hash``, that each hold for about `ROWS_IN_MEMORY` of a partition's rows."""
    number = max(1, math.ceil(num_rows / ROWS_IN_MEMORY))
    # Ranges of the whole that are ``number`` times as fine lie within those of the partitions.
    finer = range_partition(pl.col("hash"), partitions * number) % number
    return [finer == share for share in range(number)]


def positions_in(verdicts: pl.DataFrame, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Returns for each of ``hashes`` its row in ``verdicts``, which are in order of ``hash``; -1 where it has none."""
    known = verdicts.get_column("hash").to_numpy()
    assert np.all(known[1:] > known[:-1]), "verdicts about a part come in order of partition, and those by range"
    if not len(known):
        return np.full(len(hashes), -1, np.int64)
    at = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    return np.where(known[at] == hashes, at, -1)


def removal_signals(prefix: str) -> dict[str, pl.DataType]:
    """Returns the signals that `remove_units` writes."""
    return {f"{prefix}_removed": pl.Int64(), f"{prefix}_chars_removed": pl.Int64(), f"{prefix}_sample": pl.String()}


def remove_units(
    batch: pl.DataFrame, units: Units, removed: NDArray[np.bool_], prefix: str, min_words: int = 0, min_units: int = 0
) -> pl.DataFrame:
    """Takes units out of texts and says so in signals; drops the edited documents that are left with too little.

    Args:
      units: of the batch's texts; ``removed``: one value for each.
      prefix: of signals and reasons: ``only_PREFIX`` where nothing is left, ``too_few_words_without_PREFIX`` and
        ``too_few_units_without_PREFIX`` for less than the given. A dropped document keeps its text.
    """
    from dataeng.kernels.text import text_buffers
    from dataeng.kernels.units import without_units

    column = batch.get_column(TEXT)
    num_removed = np.bincount(units.text[removed], minlength=batch.height)
    num_units = np.bincount(units.text, minlength=batch.height)
    left = without_units(text_buffers(column), units, removed) if removed.any() else column.fill_null("")
    batch = batch.with_columns(
        pl.Series(f"{prefix}_removed", num_removed, pl.Int64),
        (column.str.len_chars().fill_null(0).cast(pl.Int64) - left.str.len_chars().cast(pl.Int64))
        .alias(f"{prefix}_chars_removed"),
        samples(column, units, removed).alias(f"{prefix}_sample"),
        left.alias("_left"), pl.Series("_units", num_units - num_removed, pl.Int64),
    )  # fmt: skip
    edited = pl.col(f"{prefix}_removed") > 0
    detail = pl.format("{} of {} units", f"{prefix}_removed", pl.col(f"{prefix}_removed") + pl.col("_units"))
    batch = drop_where(batch, edited & (pl.col("_units") == 0), f"only_{prefix}", detail)
    batch = drop_where(batch, edited & (pl.col("_units") < min_units), f"too_few_units_without_{prefix}", detail)
    if min_words > 0:
        words = pl.when(edited).then(pl.col("_left")).str.count_matches(r"\S+")
        batch = drop_where(batch, edited & (words < min_words), f"too_few_words_without_{prefix}", detail)
    text = pl.when(edited & pl.col(REASON).is_null()).then(pl.col("_left")).otherwise(pl.col(TEXT))
    return batch.with_columns(text.alias(TEXT)).drop("_left", "_units")


def samples(column: pl.Series, units: Units, removed: NDArray[np.bool_]) -> pl.Series:
    """Returns the beginning of what is removed of every text; null where nothing is."""
    from dataeng.kernels.text import text_buffers

    offsets = text_buffers(column).offsets
    pieces = pl.DataFrame(
        {"text": units.text[removed], "start": units.start[removed] - offsets[units.text[removed]],
         "stop": units.stop[removed] - offsets[units.text[removed]]}
    ).group_by("text", maintain_order=True).head(MOST_UNITS)  # fmt: skip
    # Bytes of a text, not characters; units begin and end between characters.
    source = column.cast(pl.Binary).gather(pieces.get_column("text")).alias("source")
    piece = pl.col("source").bin.slice(pl.col("start"), pl.col("stop") - pl.col("start")).cast(pl.String)
    sample = (
        pieces.with_columns(source)
        .select("text", piece.str.slice(0, SAMPLE_CHARS).alias("piece"))
        .group_by("text", maintain_order=True)
        .agg(pl.col("piece").str.join("\n").str.slice(0, SAMPLE_CHARS))
    )
    return scattered(len(column), sample.get_column("text"), sample.get_column("piece"))


def scattered(length: int, at: pl.Series, values: pl.Series) -> pl.Series:
    """Returns a column of nulls with ``values`` in the places ``at``."""
    places = np.full(length, -1, np.int64)
    places[at.to_numpy()] = np.arange(len(at))
    return values.gather(pl.Series(places).replace(-1, None))
