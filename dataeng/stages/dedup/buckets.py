"""Candidates of near-duplicate search: documents that share a bucket key, as star edges.

Every document of a bucket is paired with the bucket's *hub*, the one with the smallest content hash: never all pairs,
and the same pairs whatever the order of the input. Rows are read twice, so that what is in memory are keys, not
documents: a bucket with half the corpus in it is one key.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from dataeng.stage import Slices

ROW_BITS = 32


def place_of() -> pl.Expr:
    """A document's place in the corpus as one number that sorts as (part, row) does."""
    return pl.col("part").cast(pl.UInt64) * (1 << ROW_BITS) + pl.col("row")


def part_of(place: str) -> pl.Expr:
    return (pl.col(place) // (1 << ROW_BITS)).cast(pl.UInt32)


def row_of(place: str) -> pl.Expr:
    return (pl.col(place) % (1 << ROW_BITS)).cast(pl.UInt32)


def candidate_requests(slices: Slices) -> Iterator[pl.DataFrame]:
    """Yields what is to be fetched from the documents: rows ``partition`` (a part), ``row``, ``hub``.

    Args:
      slices: rows ``key, place, content``.
    """
    hubs = _hubs(slices)
    if hubs.height == 0:
        return
    yield _requests(hubs.select(pl.col("hub").alias("place"), "hub"))
    for table in slices:
        found = table.join(hubs.select("key", "hub"), on="key", how="inner", maintain_order="left")
        yield _requests(found.filter(pl.col("place") != pl.col("hub")).select("place", "hub"))


def _requests(pairs: pl.DataFrame) -> pl.DataFrame:
    once = pairs.unique().sort("place", "hub")
    return once.select(part_of("place").alias("partition"), row_of("place").alias("row"), "hub")


def _hubs(slices: Slices) -> pl.DataFrame:
    """Returns ``key, hub`` of every bucket with more than one document."""
    order = ["key", "content", "place"]
    found: pl.DataFrame | None = None
    for table in slices:
        part = table.sort(order).group_by("key", maintain_order=True).agg(
            pl.first("content"), pl.first("place"), pl.min("place").alias("least"), pl.max("place").alias("most")
        )  # fmt: skip
        if found is not None:
            both = pl.concat([found, part]).sort(order)
            part = both.group_by("key", maintain_order=True).agg(
                pl.first("content"), pl.first("place"), pl.min("least"), pl.max("most")
            )
        found = part
    assert found is not None
    return found.filter(pl.col("least") != pl.col("most")).select("key", pl.col("place").alias("hub"))
