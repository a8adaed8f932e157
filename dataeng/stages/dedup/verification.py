"""Candidate pairs checked by the exact similarity of their shingle sets.

A partition holds hubs with all the documents that share a bucket with them. Every document is compared with its hub;
those that are not similar to it elect the one with the smallest content hash among them and are compared with that,
and so on, a few times: a bucket whose key is an accident of two templates still finds the duplicates within each. What
is in memory are hubs and elected ones; documents stream by, once per round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import polars as pl

from dataeng.stage import Slices

ROUNDS = 8
"""How often those that are left of a hub's documents elect somebody."""

Similarity = Literal["jaccard", "containment"]


WAITING_BYTES = 32 << 20
"""Documents that wait for a later round are kept in memory up to this size; if they are more, all are read again."""


class _Leaders:
    """Whom the documents of each hub are compared with in a round: ``hub, leader, shingles``, one row a hub."""

    def __init__(self, found: pl.DataFrame) -> None:
        from dataeng.kernels.shingle_sets import ShingleSets

        once = found.unique("hub", maintain_order=True)
        self.places = once.select("hub", "leader").with_row_index("leader_row")
        self.sets = ShingleSets.from_series(once.get_column("shingles"))


def _compared(
    table: pl.DataFrame, leaders: _Leaders, waiting: pl.DataFrame | None, measure: Similarity
) -> pl.DataFrame:
    """Returns ``row, place, hub, content, leader, similarity`` of the documents in a table that wait for a leader.

    Shingles stay where they are: documents are numbered, not copied. Containment is that of the smaller set in the
    larger one (the overlap coefficient).
    """
    from dataeng.kernels.shingle_sets import ShingleSets, containment, jaccard

    pairs = table.select("place", "hub", "content").with_row_index("row").filter(pl.col("place") != pl.col("hub"))
    pairs = pairs.unique(["place", "hub"], keep="first", maintain_order=True)
    if waiting is not None:
        pairs = pairs.join(waiting, on=["place", "hub"], how="semi", maintain_order="left")
    pairs = pairs.join(leaders.places, on="hub", how="inner", maintain_order="left")
    pairs = pairs.filter(pl.col("place") != pl.col("leader"))
    own, others = ShingleSets.from_series(table.get_column("shingles")), leaders.sets
    rows, leader_rows = pairs.get_column("row").to_numpy(), pairs.get_column("leader_row").to_numpy()
    if measure == "jaccard":
        similarity = jaccard(own, others, rows, leader_rows)
    else:
        similarity = np.maximum(
            containment(own, others, rows, leader_rows), containment(others, own, leader_rows, rows)
        )
    return pairs.drop("leader_row").with_columns(pl.Series("similarity", similarity, dtype=pl.Float64))


def accepted_pairs(
    slices: Slices, threshold: float | None, measure: Similarity, rounds: int = ROUNDS
) -> Iterator[pl.DataFrame]:
    """Yields pairs of documents that are similar: ``place, partner, similarity``.

    Args:
      slices: rows ``place, hub, content, shingles, similarity``, a hub's own row having ``place == hub``.
      threshold: least similarity; None accepts every document with its hub, as similar as ``similarity`` says, and
        looks at no shingles.
      rounds: how often those that are left elect somebody.
    """
    own = pl.col("place") == pl.col("hub")
    if threshold is None:
        for table in slices:
            yield table.filter(~own).select("place", pl.col("hub").alias("partner"), "similarity")
        return
    leaders = _Leaders(pl.concat([_as_leaders(table.filter(own)) for table in slices]))
    source: Iterable[pl.DataFrame] = slices
    waiting: pl.DataFrame | None = None  # (place, hub) not yet similar to anybody; None: all
    for _ in range(rounds):
        rejected, kept, size = [], [], 0.0
        for table in source:
            pairs = _compared(table, leaders, waiting, measure)
            similar = pl.col("similarity") >= threshold
            yield pairs.filter(similar).select("place", pl.col("leader").alias("partner"), "similarity")
            left_here = pairs.filter(~similar)
            rejected.append(left_here.select("place", "hub", "content"))
            if left_here.height and size <= WAITING_BYTES:
                kept.append(table[left_here.get_column("row")])
                size += kept[-1].estimated_size()
        left = pl.concat(rejected).sort("content", "place") if rejected else pl.DataFrame()
        if left.height == 0:
            return
        elected = left.unique("hub", keep="first", maintain_order=True)
        waiting = left.join(elected, on=["place", "hub"], how="anti").select("place", "hub")
        if waiting.height == 0:
            return
        if size <= WAITING_BYTES:
            source = kept
        chosen = elected.select("place", "hub")
        leaders = _Leaders(
            pl.concat([_as_leaders(table.join(chosen, on=["place", "hub"], how="semi")) for table in source])
        )


def _as_leaders(table: pl.DataFrame) -> pl.DataFrame:
    return table.select("hub", pl.col("place").alias("leader"), "shingles")
