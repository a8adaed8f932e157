"""Near-duplicate removal by MinHash and locality-sensitive hashing.

    text ─► word shingles ─► signature ─► a key per band ─┐  by key
                                                          ▼
                              buckets: star edges to each bucket's first document ─┐  all edges
                                                                                   ▼
                                             clusters: connected components, first document stays

Broder 1997; bands and rows as in FineWeb (14 x 8 over 5-word shingles): two documents of Jaccard similarity s share
a bucket with probability 1 - (1 - s^rows)^bands, which is 0.57 at 0.7 and 0.92 at 0.8.
"""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field

from dataeng.stage import Columns, ExchangeStage, OutputFiles

ROW_BITS = 32


class DeduplicateMinhash(ExchangeStage):
    """Keeps the first document of every cluster of near-duplicates.

    Documents with fewer than ``ngram`` words have no shingles and are left to exact deduplication.
    Edges are stars (each document of a bucket with the bucket's first), never all pairs, so that a bucket with half
    the corpus in it costs no more than its size.
    """

    kernels: ClassVar[tuple[str, ...]] = ("minhash", "components")

    bands: int = Field(default=14, ge=1, le=1000, description="More bands find less similar pairs")
    rows: int = Field(default=8, ge=1, le=1000, description="Hashes per band; more demand more similarity")
    ngram: int = Field(default=5, ge=1, le=16, description="Words per shingle")
    seed: int = Field(default=0, description="Draws the hash functions")

    def columns(self) -> Columns:
        return Columns(reads=("id", "text"))

    def steps(self) -> tuple[str, ...]:
        return ("buckets", "clusters")

    def step_partitions(self, step: int) -> int:
        return self.num_partitions if step == 0 else 1

    def emit(self, batch: pl.DataFrame) -> pl.DataFrame:
        from dataeng.kernels.minhash import band_keys, minhash, permutations
        from dataeng.kernels.text import text_buffers

        functions = permutations(self.bands * self.rows, self.seed)
        signed = minhash(text_buffers(batch.get_column("text")), functions, ngram=self.ngram)
        shingled = signed.num_shingles > 0
        keys = band_keys(signed.minima[shingled], bands=self.bands, rows=self.rows)  # uint64[documents, bands]
        documents = batch.select("id", _place().alias("place")).filter(pl.Series(shingled))
        # Band b of document d is row d * bands + b.
        repeated = documents.select(pl.all().repeat_by(self.bands).explode())
        return repeated.with_columns(
            pl.Series("key", keys.reshape(-1), dtype=pl.UInt64),
            pl.Series("partition", keys.reshape(-1) % self.num_partitions).cast(pl.UInt32),
        )

    def reduce(self, step: int, table: pl.DataFrame, outputs: OutputFiles) -> pl.DataFrame:
        return self._buckets(table) if step == 0 else self._clusters(table)

    def _buckets(self, table: pl.DataFrame) -> pl.DataFrame:
        """Returns star edges: every document of a bucket with the bucket's first. Keys differ between bands."""
        ordered = table.sort("place")
        edges = ordered.with_columns(
            pl.first("place").over("key").alias("hub"), pl.first("id").over("key").alias("hub_id")
        )
        edges = edges.filter(pl.col("place") != pl.col("hub"))
        return edges.select(pl.lit(0, dtype=pl.UInt32).alias("partition"), "place", "id", "hub", "hub_id").unique(
            ["place", "hub"], keep="first", maintain_order=True
        )

    def _clusters(self, edges: pl.DataFrame) -> pl.DataFrame:
        """Returns verdicts: every document but the first of each connected component."""
        from dataeng.kernels.components import components_of_edges

        hubs = edges.select(pl.col("hub").alias("place"), pl.col("hub_id").alias("id"))
        documents = pl.concat([edges.select("place", "id"), hubs]).unique("place").sort("place")
        ends = (edges.get_column(name).cast(pl.Int64).to_numpy() for name in ("place", "hub"))
        _, roots = components_of_edges(*ends)  # in order of place; a root is its component's first document
        clusters = documents.with_columns(pl.Series("root", roots).cast(pl.UInt64))
        firsts = documents.rename({"place": "root", "id": "kept_id"})
        clusters = clusters.join(firsts, on="root", how="left", maintain_order="left").with_columns(
            pl.len().over("root").cast(pl.UInt32).alias("cluster_size")
        )
        return clusters.filter(pl.col("place") != pl.col("root")).select(
            (pl.col("place") // (1 << ROW_BITS)).cast(pl.UInt32).alias("part"),
            (pl.col("place") % (1 << ROW_BITS)).cast(pl.UInt32).alias("row"),
            "id",
            "kept_id",
            pl.lit("near_duplicate").alias("reason"),
            pl.format("near-duplicate of {}", "kept_id").alias("detail"),
            "cluster_size",
        )


def _place() -> pl.Expr:
    """A document's place in the corpus as one number that sorts as (part, row) does."""
    return pl.col("part").cast(pl.UInt64) * (1 << ROW_BITS) + pl.col("row")
