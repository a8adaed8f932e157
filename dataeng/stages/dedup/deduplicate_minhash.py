"""Near-duplicate removal by MinHash and locality-sensitive hashing, verified.

    text ─► shingles ─► signature ─► a key per band ─┐ by key
                                                     ▼
                 buckets: who is compared with whom ─┐ by part
                                                     ▼
              fetch: shingle sets, from the texts of candidates ─┐ by hub
                                                                 ▼
                               verify: exact similarity decides ─┐ by document
                                                                 ▼
             connect: stars of accepted pairs, repeated ─► cluster ─► choose ─► verdicts

Broder 1997; bands and rows as in FineWeb (14 x 8 over 5-word shingles): two documents of Jaccard similarity s share
a bucket with probability 1 - (1 - s^rows)^bands, which is 0.56 at 0.7 and 0.92 at 0.8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field, model_validator

from dataeng.stage import Columns, ExchangeStage, OutputFiles, Slices
from dataeng.stages.dedup.buckets import candidate_requests, place_of
from dataeng.stages.dedup.candidates import candidate_rows, verified_rows
from dataeng.stages.dedup.clusters import EVIDENCE, choose, connect, members
from dataeng.stages.dedup.signatures import preset_options, sign
from dataeng.stages.dedup.survivors import Survivor, survivor_columns

BUCKETS, FETCH, VERIFY, CONNECT, CLUSTER, CHOOSE = range(6)


class DeduplicateMinhash(ExchangeStage):
    """Keeps one document of every cluster of near-duplicates.

    Documents that share a bucket are candidates: each is paired with its bucket's hub (never all pairs, so a bucket
    with half the corpus in it costs no more than its size). With `threshold`, a pair counts only if the exact
    similarity of the two shingle sets reaches it; clusters are the connected components of the pairs that count, and of
    each the first document by `survivor` stays, by default the one that comes first in the input. Clusters are the same
    whatever the order of the input. A document too short for a shingle is a duplicate of those with the same words.

    The run's `dedup` table says for every removed document which one was kept, which document of the cluster it was
    found similar to, how similar they are, and how large the cluster is.
    """

    kernels: ClassVar[tuple[str, ...]] = ("hashing", "minhash", "datasketch_signatures", "shingle_sets")

    preset: str | None = Field(
        default=None,
        description="Published parameters to start from: `fineweb` (14x8), `refinedweb` (450x20), `bigcode` (25x10), "
        "or `datasketch(T)`, the bands and rows that datasketch takes for a threshold of T; other options overrule it",
    )
    bands: int = Field(default=14, ge=1, le=1000, description="More bands find less similar pairs")
    rows: int = Field(default=8, ge=1, le=1000, description="Hashes per band; more demand more similarity")
    ngram: int = Field(default=5, ge=1, le=16, description="Words (or characters) per shingle")
    unit: Literal["words", "characters"] = Field(default="words", description="What shingles are made of")
    normalization: Literal["simplified", "none", "code"] = Field(
        default="simplified",
        description="How text becomes words: without case, accents, punctuation, numbers as 0; as it is, cut at white "
        "space; or identifiers of code",
    )
    hash_bits: Literal[32, 64] = Field(default=32, description="Width of the hashes in a signature")
    signatures: Literal["native", "datasketch"] = Field(
        default="native", description="Fast ones, or those that `datasketch.MinHash` computes for the same shingles"
    )
    seed: int = Field(default=0, ge=0, description="Draws the hash functions")
    threshold: float | None = Field(
        default=0.7, gt=0, le=1, description="Least exact similarity of a pair; null takes every pair of a bucket"
    )
    similarity: Literal["jaccard", "containment"] = Field(
        default="jaccard", description="Shared shingles over those of both, or over those of the shorter document"
    )
    survivor: Survivor = Field(
        default=(),
        description="Which document of a cluster stays: columns, most important first, e.g. `quality.score desc`; "
        "`text_bytes` is the length; `domain: [books, web]` ranks values",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, options: Any) -> Any:
        if not isinstance(options, dict) or options.get("preset") is None:
            return options
        found = preset_options(str(options["preset"]))
        given = {key for key in ("bands", "rows") if key in options}
        if len(given) == 1:
            raise ValueError(f"give bands and rows together, or neither; found {', '.join(given)} beside a preset")
        return {**found, **options}

    def needed_kernels(self) -> tuple[str, ...]:
        other = "minhash" if self.signatures == "datasketch" else "datasketch_signatures"
        return tuple(name for name in self.kernels if name != other)

    def columns(self) -> Columns:
        return Columns(reads=tuple(dict.fromkeys(("id", "text", *survivor_columns(self.survivor)))))

    def verdict_columns(self) -> Mapping[str, pl.DataType]:
        return EVIDENCE

    def steps(self) -> tuple[str, ...]:
        return ("buckets", "fetch", "verify", "connect", "cluster", "choose")

    def visits(self, step: int) -> bool:
        return step == FETCH

    def repeats(self, step: int) -> bool:
        return step == CONNECT

    def emit(self, batch: pl.DataFrame) -> pl.DataFrame:
        from dataeng.kernels.hashing import hash_texts
        from dataeng.kernels.minhash import band_keys
        from dataeng.kernels.text import text_buffers

        texts = text_buffers(batch.get_column("text"))
        signed = sign(
            texts, self.bands * self.rows, self.seed, self.hash_bits, self.signatures, self.ngram, self.unit,
            self.normalization,
        )  # fmt: skip
        shingled = pl.Series(signed.num_shingles > 0)
        documents = batch.select(place_of().alias("place"), pl.Series("content", hash_texts(texts)[1]))
        keys = band_keys(signed.minima[shingled.to_numpy()], bands=self.bands, rows=self.rows)  # [documents, bands]
        # Band b of document d is row d * bands + b.
        banded = documents.filter(shingled).select(pl.all().repeat_by(self.bands).explode())
        banded = banded.with_columns(pl.Series("key", keys.reshape(-1), dtype=pl.UInt64))
        short = batch.select("text").with_columns(documents.get_columns()).filter(~shingled)
        whole = short.with_columns(self._whole(short.get_column("text")).alias("key")).filter(pl.col("key") != 0)
        emitted = pl.concat([banded, whole.select(banded.columns)])
        return emitted.with_columns((pl.col("key") % self.num_partitions).cast(pl.UInt32).alias("partition"))

    def _whole(self, texts: pl.Series) -> pl.Series:
        """Returns one hash for all the words of each text; 0 for a text without words."""
        from dataeng.kernels.folding import normalise
        from dataeng.kernels.hashing import hash_texts
        from dataeng.kernels.text import text_buffers

        words = normalise(text_buffers(texts), self.normalization, self.unit)
        hashes = hash_texts(words)[1] | 1
        hashes[words.offsets[1:] == words.offsets[:-1]] = 0
        return pl.Series(hashes, dtype=pl.UInt64)

    def visit(self, step: int, batch: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
        shingles_of = self._shingles if self.threshold is not None else None
        return candidate_rows(batch, rows, self.survivor, self.num_partitions, shingles_of)

    def _shingles(self, texts: pl.Series) -> pl.Series:
        """Returns the shingle sets of texts; the only shingle of a short one is all its words."""
        from dataeng.kernels.shingle_sets import shingle_sets
        from dataeng.kernels.text import text_buffers

        sets = shingle_sets(
            text_buffers(texts), ngram=self.ngram, unit=self.unit, normalization=self.normalization, bits=32
        ).to_series("shingles")
        frame = pl.DataFrame([sets, texts.alias("text")]).with_row_index("at")
        short = frame.filter(pl.col("shingles").list.len() == 0)
        if short.height == 0:
            return sets
        only = short.select("at", self._whole(short.get_column("text")).alias("only"))
        frame = frame.join(only, on="at", how="left", maintain_order="left")
        own = pl.concat_list((pl.col("only") % (1 << 32)).cast(pl.UInt32))
        alone = pl.when(pl.col("only").is_null()).then("shingles").otherwise(own)
        return frame.select(alone.alias("shingles")).to_series()

    def reduce_slices(self, step: int, slices: Slices, outputs: OutputFiles) -> Iterator[pl.DataFrame]:
        if step == BUCKETS:
            return candidate_requests(slices)
        if step == VERIFY:
            return verified_rows(slices, self.survivor, self.num_partitions, self.threshold, self.similarity)
        if step == CONNECT:
            return connect(slices, self.num_partitions)
        if step == CLUSTER:
            return members(slices, self.num_partitions)
        return choose(slices, self.survivor, "minhash", "near_duplicate")
