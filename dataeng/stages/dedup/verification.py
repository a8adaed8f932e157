"""Candidate pairs checked by the exact similarity of their shingle sets.

A partition holds hubs with all the documents that share a bucket with them. Every document is compared with its hub;
those that are not similar to it elect the one with the smallest content hash among them and are compared with that,
and so on, a few times: a bucket whose key is an accident of two templates still finds the duplicates within each. What
is in memory are hubs and elected ones; documents stream by, once per round.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import polars as pl

from dataeng.stage import Slices

ROUNDS = 8
"""How often those that are left of a hub's documents elect somebody."""

Similarity = Literal["jaccard", "containment"]


def similarities(members: pl.Series, others: pl.Series, measure: Similarity) -> pl.Series:
    """Returns the similarity of set i of ``members`` with set i of ``others`` (lists of sorted, unique hashes).

    Containment is that of the smaller set in the larger one (the overlap coefficient).
    """
    from dataeng.kernels.shingle_sets import ShingleSets, containment, jaccard

    first, second = ShingleSets.from_series(members), ShingleSets.from_series(others)
    if measure == "jaccard":
        return pl.Series(jaccard(first, second))
    return pl.select(
        pl.max_horizontal(pl.Series(containment(first, second)), pl.Series(containment(second, first)))
    ).to_series()


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
    leaders = pl.concat(
        [
            table.filter(own).select(
                "hub", pl.col("place").alias("leader"), pl.col("shingles").alias("leader_shingles")
            )
            for table in slices
        ]
    )
    leaders = leaders.unique("hub")
    waiting: pl.DataFrame | None = None  # (place, hub) not yet similar to anybody; None: all
    for _ in range(rounds):
        rejected = []
        for table in slices:
            pairs = table.filter(~own).unique(["place", "hub"], maintain_order=True)
            if waiting is not None:
                pairs = pairs.join(waiting, on=["place", "hub"], how="semi", maintain_order="left")
            pairs = pairs.join(leaders, on="hub", how="inner", maintain_order="left").filter(
                pl.col("place") != pl.col("leader")
            )
            if pairs.height == 0:
                continue
            pairs = pairs.with_columns(
                similarities(pairs.get_column("shingles"), pairs.get_column("leader_shingles"), measure).alias(
                    "similarity"
                )
            )
            similar = pl.col("similarity") >= threshold
            yield pairs.filter(similar).select("place", pl.col("leader").alias("partner"), "similarity")
            rejected.append(pairs.filter(~similar).select("place", "hub", "content"))
        left = pl.concat(rejected).sort("content", "place") if rejected else pl.DataFrame()
        if left.height == 0:
            return
        elected = left.unique("hub", keep="first", maintain_order=True)
        leaders = _with_shingles(slices, elected)
        waiting = left.join(elected, on=["place", "hub"], how="anti").select("place", "hub")
        if waiting.height == 0:
            return


def _with_shingles(slices: Slices, elected: pl.DataFrame) -> pl.DataFrame:
    found = [
        table.join(elected.select("place", "hub"), on=["place", "hub"], how="semi").select(
            "hub", pl.col("place").alias("leader"), pl.col("shingles").alias("leader_shingles")
        )
        for table in slices
    ]
    return pl.concat(found).unique("hub")
