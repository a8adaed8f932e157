"""Exact deduplication: of documents with the same text, the first one stays."""

from __future__ import annotations

from typing import ClassVar

import polars as pl

from dataeng.stage import Columns, ExchangeStage, OutputFiles


class DeduplicateExact(ExchangeStage):
    """Keeps one of all documents whose text is the same, byte for byte.

    Texts are compared by a 128-bit hash. The survivor is the one that comes first in the input: lowest part (input
    files in sorted order), then lowest row.
    """

    kernels: ClassVar[tuple[str, ...]] = ("hashing",)

    def columns(self) -> Columns:
        return Columns(reads=("id", "text"))

    def steps(self) -> tuple[str, ...]:
        return ("duplicates",)

    def emit(self, batch: pl.DataFrame) -> pl.DataFrame:
        from dataeng.kernels.hashing import hash_texts
        from dataeng.kernels.text import text_buffers

        high, low = hash_texts(text_buffers(batch.get_column("text")))
        return batch.select("part", "row", "id").with_columns(
            pl.Series("hash_low", low),
            pl.Series("hash_high", high),
            pl.Series("partition", low % self.num_partitions).cast(pl.UInt32),
        )

    def reduce(self, step: int, table: pl.DataFrame, outputs: OutputFiles) -> pl.DataFrame:
        key = ["hash_low", "hash_high"]
        ordered = table.sort("part", "row")
        numbered = ordered.with_columns(
            pl.first("id").over(key).alias("kept_id"),
            pl.len().over(key).cast(pl.UInt32).alias("cluster_size"),
            pl.int_range(pl.len()).over(key).alias("place"),
        )
        return numbered.filter(pl.col("place") > 0).select(
            "part",
            "row",
            "id",
            "kept_id",
            pl.lit("exact_duplicate").alias("reason"),
            pl.format("same text as {}", "kept_id").alias("detail"),
            "cluster_size",
        )
