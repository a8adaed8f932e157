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


def estimates(members: pl.Series, others: pl.Series) -> pl.Series:
    """Returns the share of equal minima of signature i of ``members`` and of ``others``; 0 where one is null."""
    frame = pl.DataFrame({"a": members, "b": others}).with_row_index("pair")
    both = frame.drop_nulls()
    equal = both.explode("a", "b").group_by("pair").agg((pl.col("a") == pl.col("b")).mean().alias("share"))
    return frame.select("pair").join(equal, on="pair", how="left", maintain_order="left")["share"].fill_null(0.0)


class _Leaders:
    """Whom the documents of each hub are compared with in a round."""

    def __init__(self, found: pl.DataFrame) -> None:
        """Takes ``hub, leader, shingles``, and ``signature`` of those of whom there is nothing else."""
        from dataeng.kernels.shingle_sets import ShingleSets

        once = found.unique("hub", maintain_order=True)
        self.places = once.select("hub", "leader").with_row_index("leader_row")
        self.sets = ShingleSets.from_series(once.get_column("shingles"))
        self.signatures = once.get_column("signature") if "signature" in once.columns else None


def _compared(
    table: pl.DataFrame, leaders: _Leaders, waiting: pl.DataFrame | None, measure: Similarity
) -> pl.DataFrame:
    """Returns ``row, place, hub, content, leader, similarity`` of the documents in a table that wait for a leader.

    Shingles stay where they are: documents are numbered, not copied. Where a leader's signature is all that there is,
    the similarity is estimated. Containment is that of the smaller set in the larger one (the overlap coefficient).
    """
    from dataeng.kernels.shingle_sets import ShingleSets, containment, jaccard

    pairs = table.select("place", "hub", "content").with_row_index("row").filter(pl.col("place") != pl.col("hub"))
    pairs = pairs.unique(["place", "hub"], keep="first", maintain_order=True)
    if waiting is not None:
        pairs = pairs.join(waiting, on=["place", "hub"], how="semi", maintain_order="left")
    pairs = pairs.join(leaders.places, on="hub", how="inner", maintain_order="left")
    pairs = pairs.filter(pl.col("place") != pl.col("leader"))
    own, others = ShingleSets.from_series(table.get_column("shingles")), leaders.sets
    rows, leader_rows = pairs.get_column("row"), pairs.get_column("leader_row")
    at, leader_at = rows.to_numpy(), leader_rows.to_numpy()
    if measure == "jaccard":
        exact = jaccard(own, others, at, leader_at)
    else:
        exact = np.maximum(containment(own, others, at, leader_at), containment(others, own, leader_at, at))
    similarity = pl.Series("similarity", exact, dtype=pl.Float64)
    if leaders.signatures is not None:
        signatures = leaders.signatures.gather(leader_rows)
        estimated = estimates(table.get_column("signature").gather(rows), signatures)
        similarity = pl.select(pl.when(signatures.is_not_null()).then(estimated).otherwise(similarity)).to_series()
    return pairs.drop("leader_row").with_columns(similarity.alias("similarity"))


def accepted_pairs(
    slices: Slices,
    threshold: float | None,
    measure: Similarity,
    rounds: int = ROUNDS,
    old: pl.DataFrame | None = None,
) -> Iterator[pl.DataFrame]:
    """Yields pairs of documents that are similar: ``place, partner, similarity``.

    Args:
      slices: rows ``place, hub, content, shingles, similarity``, a hub's own row having ``place == hub``.
      threshold: least similarity; None accepts every document with its hub, as similar as ``similarity`` says, and
        looks at no shingles.
      rounds: how often those that are left elect somebody.
      old: hubs in a dedup index: ``hub``, and ``shingles`` or ``signature``; the latter is compared with ``signature``
        of the rows.
    """
    own = pl.col("place") == pl.col("hub")
    if threshold is None:
        for table in slices:
            yield table.filter(~own).select("place", pl.col("hub").alias("partner"), "similarity")
        return
    leaders = _Leaders(_first_leaders(slices, old))
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


def _first_leaders(slices: Slices, old: pl.DataFrame | None) -> pl.DataFrame:
    """Returns the hubs themselves, and those of a dedup index."""
    own = pl.concat([_as_leaders(table.filter(pl.col("place") == pl.col("hub"))) for table in slices])
    if old is None:
        return own
    return pl.concat([own, old.select("hub", pl.col("hub").alias("leader"), pl.exclude("hub"))], how="diagonal")


def _as_leaders(table: pl.DataFrame) -> pl.DataFrame:
    return table.select("hub", pl.col("place").alias("leader"), "shingles")
