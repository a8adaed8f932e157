"""Permanent redirects of a crawl: documents found under an old address get the key of the new one.

documents by key of their URL ─┐
                               ├─► meet: a document whose key is redirected goes to the target's partition (repeated)
redirects by key of their URL ─┘
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from dataeng.stage import Slices

KEY = ("hash_low", "hash_high")
TARGET = ("target_low", "target_high")
PERMANENT = (301, 308)
"""Statuses that say that the page now has another address. Others (302, 303, 307) lead to log-in pages as well."""
MAX_HOPS = 8
"""A chain is followed no further, so that a circle comes to an end. Browsers stop at 20."""

COLUMNS: dict[str, pl.DataType] = {
    "target_low": pl.UInt64(),
    "target_high": pl.UInt64(),
    "seen": pl.String(),
    "hops": pl.UInt8(),
}
"""What rows have besides a document's: redirects have a target, and ``seen``, the date of their record; documents have
``hops``, over how many redirects they came."""


def usable_redirects(urls: pl.Series, targets: pl.Series) -> pl.Series:
    """Returns which redirects, given by canonical URLs, say where the same page is.

    Not those to a URL that is the same anyway, and not those from a page to a host's home page, where sites send
    visitors of pages that are gone.
    """
    frame = pl.DataFrame({"url": urls, "target": targets})
    to_home = ~pl.col("target").str.contains("[/?]") & pl.col("url").str.contains("[/?]")
    return frame.select(((pl.col("url") != pl.col("target")) & ~to_home).fill_null(False)).to_series()


def follow_redirects(slices: Slices, partitions: int) -> Iterator[pl.DataFrame]:
    """Does one round: returns all rows, those of redirected documents with the target's key, with ``changed``."""
    moves = _moves(slices)
    for table in slices:
        if moves.height == 0:
            yield table.with_columns(pl.lit(False).alias("changed"))
            continue
        joined = table.join(moves, on=KEY, how="left", maintain_order="left")
        moved = pl.col("hops").is_not_null() & (pl.col("hops") < MAX_HOPS) & pl.col("new_low").is_not_null()
        yield joined.with_columns(
            pl.when(moved).then("new_low").otherwise("hash_low").alias("hash_low"),
            pl.when(moved).then("new_high").otherwise("hash_high").alias("hash_high"),
            pl.when(moved).then(pl.col("hops") + 1).otherwise("hops").cast(pl.UInt8).alias("hops"),
            pl.when(moved)
            .then((pl.col("new_low") % partitions).cast(pl.UInt32))
            .otherwise("partition")
            .cast(pl.UInt32)
            .alias("partition"),
            moved.alias("changed"),
        ).select(*table.columns, "changed")


def _moves(slices: Slices) -> pl.DataFrame:
    """Returns the target of every redirected key: that of the newest record; among those of one date, the smallest."""
    found: pl.DataFrame | None = None
    for table in slices:
        redirects = table.filter(pl.col("target_low").is_not_null()).select(*KEY, *TARGET, "seen")
        together = redirects if found is None else pl.concat([found, redirects])
        found = together.sort("seen", *TARGET, descending=[True, False, False], nulls_last=True).unique(
            KEY, keep="first", maintain_order=True
        )
    assert found is not None, "a partition is not reduced without rows"
    return found.select(*KEY, pl.col("target_low").alias("new_low"), pl.col("target_high").alias("new_high"))
