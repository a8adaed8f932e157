"""Candidates of near-duplicate search: documents that share a bucket key, as star edges.

Every document of a bucket is paired with the bucket's *hub*, the one with the smallest content hash: never all pairs,
and the same pairs whatever the order of the input. Rows are read twice, so that what is in memory are keys, not
documents: a bucket with half the corpus in it is one key.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import polars as pl

from dataeng.stage import Slices

ROW_BITS = 32
FIRST_OLD_PLACE = 1 << 63
"""Places from here on are those of documents in a dedup index (`dataeng.stages.dedup.index_reading`)."""


class OldDocuments(Protocol):
    """What earlier runs kept."""

    def lookup(self, keys: pl.Series) -> pl.DataFrame:
        """Returns ``key, old``, the places of documents with these keys, which are sorted and without repetitions."""


def place_of() -> pl.Expr:
    """A document's place in the corpus as one number that sorts as (part, row) does."""
    return pl.col("part").cast(pl.UInt64) * (1 << ROW_BITS) + pl.col("row")


def part_of(place: str) -> pl.Expr:
    return (pl.col(place) // (1 << ROW_BITS)).cast(pl.UInt32)


def row_of(place: str) -> pl.Expr:
    return (pl.col(place) % (1 << ROW_BITS)).cast(pl.UInt32)


def key_partition(key: pl.Expr, partitions: int) -> pl.Expr:
    """Returns the partition of a key (UInt64): each has a range of them, as the files of a dedup index have."""
    return (((key // (1 << 32)) * partitions) // (1 << 32)).cast(pl.UInt32)


def candidate_requests(slices: Slices, old: OldDocuments | None = None) -> Iterator[pl.DataFrame]:
    """Yields what is to be fetched from the documents: rows ``partition`` (a part), ``row``, ``hub``.

    A bucket in which there are old documents has them as its hubs.

    Args:
      slices: rows ``key, place, content``.
      old: a dedup index.
    """
    buckets = _buckets(slices)
    hubs = buckets.filter(pl.col("least") != pl.col("most")).select("key", pl.col("place").alias("hub"))
    if old is not None:
        known = old.lookup(buckets.get_column("key").sort())
        hubs = pl.concat([hubs.join(known, on="key", how="anti"), known.select("key", pl.col("old").alias("hub"))])
    if hubs.height == 0:
        return
    own = hubs.filter(pl.col("hub") < FIRST_OLD_PLACE)
    yield _requests(own.select(pl.col("hub").alias("place"), "hub"))
    for table in slices:
        found = table.join(hubs, on="key", how="inner", maintain_order="left")
        yield _requests(found.filter(pl.col("place") != pl.col("hub")).select("place", "hub"))


def _requests(pairs: pl.DataFrame) -> pl.DataFrame:
    once = pairs.unique().sort("place", "hub")
    return once.select(part_of("place").alias("partition"), row_of("place").alias("row"), "hub")


def _buckets(slices: Slices) -> pl.DataFrame:
    """Returns ``key, place, least, most`` of every bucket: its document of smallest content hash, and their ends."""
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
    return found
