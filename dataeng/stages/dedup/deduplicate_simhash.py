"""Near-duplicate removal by SimHash.

    text ─► fingerprint ─┐ by fingerprint
                         ▼
                  equal: one of all documents with the same fingerprint goes on ─┐ by block key
                                                                                 ▼
                                     near: pairs that differ in a few bits ─┐ by part
                                                                            ▼
       fetch ─► verify ─► connect (repeated) ─► cluster ─► choose, as in `deduplicate_minhash`

Charikar 2002; the search by blocks is that of Manku, Jain and Das Sarma 2007 (64 bits, up to 3 of them different, for
Google's crawl).

Besides the rows that stream by, `equal` holds one row for each different fingerprint of its partition. `near` has a
fixed number of keys in memory, in as many passes as that takes, and all different fingerprints of one bucket: the more
bits the blocks have that agree, the fewer those are. Documents with equal fingerprints are one there, however many.
The steps after these hold what they do in `deduplicate_minhash`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import polars as pl
from pydantic import Field, model_validator

from dataeng.stage import Columns, ExchangeStage, OutputFiles, Slices
from dataeng.stages.dedup.buckets import part_of, place_of, row_of
from dataeng.stages.dedup.candidates import SHINGLE_BITS, candidate_rows, verified_rows
from dataeng.stages.dedup.clusters import EVIDENCE, choose, connect, members
from dataeng.stages.dedup.first_occurrences import Share
from dataeng.stages.dedup.survivors import Survivor, survivor_columns

EQUAL, NEAR, FETCH, VERIFY, CONNECT, CLUSTER, CHOOSE = range(7)
BITS = 64
KEYS_IN_MEMORY = 1_000_000
"""Block keys that are compared at a time, each about 100 bytes."""


class DeduplicateSimhash(ExchangeStage):
    """Keeps one document of every cluster of documents whose 64-bit fingerprints differ in few bits.

    Two fingerprints that differ in at most `max_distance` bits agree in all but `max_distance` of `blocks` blocks of
    them, so every choice of blocks is a table in which they meet. Within a table's bucket, each fingerprint is compared
    with those that sort near it. Cheap where documents are long and nearly the same; it says less about similarity
    than MinHash does: 3 bits are a similarity of 61/64 of the fingerprints and not of the words. With `threshold`, a
    pair counts only if the shingle sets of the documents are that similar, too.

    Documents with fewer than `ngram` words have no fingerprint and stay.
    """

    kernels: ClassVar[tuple[str, ...]] = ("hashing", "simhash", "shingle_sets")

    max_distance: int = Field(default=3, ge=0, le=16, description="Most bits in which two fingerprints may differ")
    blocks: int = Field(default=6, ge=2, le=32, description="Blocks of the 64 bits; more mean more and smaller buckets")
    ngram: int = Field(default=3, ge=1, le=16, description="Words (or characters) per feature")
    unit: Literal["words", "characters"] = Field(default="words", description="What features are made of")
    threshold: float | None = Field(
        default=None, gt=0, le=1, description="Least exact similarity of the two sets of shingles; null trusts the bits"
    )
    similarity: Literal["jaccard", "containment"] = Field(
        default="jaccard", description="Shared shingles over those of both, or over those of the shorter document"
    )
    survivor: Survivor = Field(default=(), description="Which document of a cluster stays; see `deduplicate_minhash`")

    @model_validator(mode="after")
    def _check_tables(self) -> DeduplicateSimhash:
        if self.blocks <= self.max_distance:
            raise ValueError(f"blocks must be more than max_distance ({self.max_distance}), found {self.blocks}")
        return self

    def columns(self) -> Columns:
        return Columns(reads=tuple(dict.fromkeys(("id", "text", *survivor_columns(self.survivor)))))

    def verdict_columns(self) -> Mapping[str, pl.DataType]:
        return EVIDENCE

    def steps(self) -> tuple[str, ...]:
        return ("equal", "near", "fetch", "verify", "connect", "cluster", "choose")

    def visits(self, step: int) -> bool:
        return step == FETCH

    def repeats(self, step: int) -> bool:
        return step == CONNECT

    def emit(self, batch: pl.DataFrame) -> pl.DataFrame:
        from dataeng.kernels.simhash import simhash
        from dataeng.kernels.text import text_buffers

        found = simhash(text_buffers(batch.get_column("text")), ngram=self.ngram, unit=self.unit)
        rows = batch.select(place_of().alias("place"), pl.Series("value", found.values))
        return rows.filter(pl.Series(found.num_features > 0)).with_columns(
            (pl.col("value") % self.num_partitions).cast(pl.UInt32).alias("partition")
        )

    def visit(self, step: int, batch: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
        shingles_of = self._shingles if self.threshold is not None else None
        return candidate_rows(batch, rows, self.survivor, self.num_partitions, shingles_of)

    def _shingles(self, texts: pl.Series) -> pl.Series:
        from dataeng.kernels.shingle_sets import shingle_sets
        from dataeng.kernels.text import text_buffers

        sets = shingle_sets(text_buffers(texts), ngram=self.ngram, unit=self.unit, bits=SHINGLE_BITS)
        return sets.to_series("shingles")

    def reduce_slices(self, step: int, slices: Slices, outputs: OutputFiles) -> Iterator[pl.DataFrame]:
        if step == EQUAL:
            return self._equal(slices)
        if step == NEAR:
            return self._near(slices)
        if step == VERIFY:
            return verified_rows(slices, self.survivor, self.num_partitions, self.threshold, self.similarity)
        if step == CONNECT:
            return connect(slices, self.num_partitions)
        if step == CLUSTER:
            return members(slices, self.num_partitions)
        return choose(slices, self.survivor, "simhash", "near_duplicate")

    def _equal(self, slices: Slices) -> Iterator[pl.DataFrame]:
        """Yields pairs of documents with the same fingerprint, and the block keys of one document for each.

        Rows: ``partition, place, hub`` for pairs, ``partition, place, value, key`` for keys.
        """
        from dataeng.kernels.simhash import block_keys, block_masks

        found: list[pl.DataFrame] = []
        for table in slices:
            found.append(table.group_by("value").agg(pl.min("place")))
            # As in a merge sort: small tables together before they meet the large one.
            while len(found) > 1 and found[-2].height < 2 * found[-1].height:
                found.append(pl.concat([found.pop(-2), found.pop()]).group_by("value").agg(pl.min("place")))
        firsts = pl.concat(found).group_by("value").agg(pl.min("place")).sort("place")
        no_hub, no_key = (pl.lit(None, dtype=pl.UInt64).alias(name) for name in ("hub", "key"))
        masks = block_masks(self.max_distance, self.blocks)
        for piece in firsts.iter_slices(50_000):
            keys = block_keys(piece.get_column("value").to_numpy(), masks)  # [fingerprints, tables]
            repeated = piece.select(pl.all().repeat_by(len(masks)).explode())
            keyed = repeated.with_columns(pl.Series("key", keys.reshape(-1), dtype=pl.UInt64), no_hub)
            yield self._spread(keyed, "key")
        for table in slices:
            known = table.join(firsts.rename({"place": "hub"}), on="value", how="left", maintain_order="left")
            yield self._spread(known.filter(pl.col("place") != pl.col("hub")).with_columns(no_key), "value")

    def _spread(self, rows: pl.DataFrame, by: str) -> pl.DataFrame:
        partition = (pl.col(by) % self.num_partitions).cast(pl.UInt32).alias("partition")
        return rows.select(partition, "place", "hub", "value", "key")

    def _near(self, slices: Slices) -> Iterator[pl.DataFrame]:
        """Yields requests for the documents of pairs: rows ``partition`` (a part), ``row, hub, similarity``."""
        for table in slices:
            equal = table.filter(pl.col("key").is_null())
            yield _requests(equal.select("place", "hub", pl.lit(1.0).alias("similarity")))
        # Keys are one per different fingerprint and table, however many documents there are.
        number = -(-slices.num_rows // KEYS_IN_MEMORY)
        for share in range(number):
            keyed = [table.select("key", "value", "place") for table in Share(slices, "key", share, number)]
            yield _requests(self._near_pairs(pl.concat(keyed).drop_nulls("key")))

    def _near_pairs(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Returns ``place, hub, similarity`` of fingerprints that are near each other, from ``key, value, place``."""
        from dataeng.kernels.simhash import near_pairs

        keys, values = (rows.get_column(name).to_numpy() for name in ("key", "value"))
        found = near_pairs(keys, values, max_distance=self.max_distance)
        places = rows.get_column("place")
        return pl.DataFrame(
            {
                "place": places[found.first],
                "hub": places[found.second],
                "similarity": 1 - pl.Series(found.distance, dtype=pl.Float64) / BITS,
            }
        )


def _requests(pairs: pl.DataFrame) -> pl.DataFrame:
    """Returns what is asked of documents about pairs: of both ends of each."""
    hubs = pairs.select(pl.col("hub").alias("place"), "hub", pl.lit(1.0).alias("similarity")).unique()
    both = pl.concat([pairs, hubs]).sort("place", "hub")
    return both.select(part_of("place").alias("partition"), row_of("place").alias("row"), "hub", "similarity")
