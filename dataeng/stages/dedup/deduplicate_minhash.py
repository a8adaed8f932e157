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
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import polars as pl
from pydantic import Field, model_validator

from dataeng.stage import Columns, ExchangeStage, OutputFiles, Slices
from dataeng.stages.dedup.buckets import FIRST_OLD_PLACE, candidate_requests, key_partition, place_of
from dataeng.stages.dedup.candidates import SHINGLE_BITS, SHINGLES, candidate_rows, verified_rows
from dataeng.stages.dedup.clusters import EVIDENCE, choose, connect, members
from dataeng.stages.dedup.index_option import DedupIndex
from dataeng.stages.dedup.index_reading import IndexReader
from dataeng.stages.dedup.record_index import RecordIndex
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
    not_emitted: ClassVar[tuple[str, ...]] = ("threshold", "similarity", "survivor", "dedup_index")

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
    dedup_index: DedupIndex | None = Field(
        default=None,
        description="What earlier runs kept: `path`; `add: true` adds what is left; `segment` names it; "
        "`store: signature` keeps less of it",
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

    @model_validator(mode="after")
    def _signatures_estimate_jaccard(self) -> Self:
        index = self.dedup_index
        if index is not None and index.store == "signature" and self.similarity == "containment":
            raise ValueError("signatures say nothing about containment; an index for it has to `store: shingles`")
        return self

    def planned(self, run_dir: Path) -> Self:
        if self.dedup_index is None:
            return self
        planned = self.dedup_index.planned(run_dir, self.index_method(), self.index_parameters())
        return self.model_copy(update={"dedup_index": planned})

    def side_inputs(self) -> Mapping[str, str]:
        return self.dedup_index.side_inputs() if self.dedup_index is not None else {}

    def follower(self, name: str) -> RecordIndex | None:
        if self.dedup_index is None or not self.dedup_index.add:
            return None
        return RecordIndex(of=self, folder=f"exchange/{name}.index/segment", partitions=self.partitions)

    def index_method(self) -> str:
        return "minhash"

    def index_parameters(self) -> Mapping[str, Any]:
        assert self.dedup_index is not None
        names = ("bands", "rows", "ngram", "unit", "normalization", "hash_bits", "signatures", "seed")
        own = {name: getattr(self, name) for name in names}
        return {**own, "shingle_bits": SHINGLE_BITS, "store": self.dedup_index.store}

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
        from dataeng.kernels.text import text_buffers

        texts = batch.get_column("text")
        documents = batch.select(place_of().alias("place"), pl.Series("content", hash_texts(text_buffers(texts))[1]))
        keys, _ = self._keys(texts)
        emitted = documents.with_columns(keys).filter(pl.col("keys").list.len() > 0).explode("keys")
        emitted = emitted.rename({"keys": "key"})
        return emitted.with_columns(key_partition(pl.col("key"), self.num_partitions).alias("partition"))

    def index_rows(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Returns ``keys``, ``content`` and ``shingles`` or ``signature`` of documents, as a dedup index keeps them."""
        from dataeng.kernels.hashing import hash_texts
        from dataeng.kernels.text import text_buffers

        texts = batch.get_column("text")
        keys, signature = self._keys(texts)
        assert self.dedup_index is not None
        kept = self._shingles(texts) if self.dedup_index.store == "shingles" else signature
        return pl.DataFrame([keys, pl.Series("content", hash_texts(text_buffers(texts))[1]), kept])

    def _keys(self, texts: pl.Series) -> tuple[pl.Series, pl.Series]:
        """Returns ``keys`` and ``signature`` of texts; the only key of a short one is all its words."""
        from dataeng.kernels.minhash import band_keys
        from dataeng.kernels.text import text_buffers

        num_perm = self.bands * self.rows
        signed = sign(
            text_buffers(texts), num_perm, self.seed, self.hash_bits, self.signatures, self.ngram, self.unit,
            self.normalization,
        )  # fmt: skip
        banded = band_keys(signed.minima, bands=self.bands, rows=self.rows)  # [texts, bands]
        keys = pl.Series("keys", banded, dtype=pl.Array(pl.UInt64, self.bands)).cast(pl.List(pl.UInt64))
        frame = pl.DataFrame([keys, texts.alias("text")]).with_row_index("at")
        short = frame.filter(pl.Series(signed.num_shingles == 0))
        if short.height:
            whole = short.select("at", self._whole(short.get_column("text")).alias("whole"))
            frame = frame.join(whole, on="at", how="left", maintain_order="left")
            alone = pl.concat_list("whole").list.filter(pl.element() != 0)
            frame = frame.with_columns(pl.when(pl.col("whole").is_null()).then("keys").otherwise(alone).alias("keys"))
        width = pl.UInt32 if self.hash_bits == 32 else pl.UInt64
        signature = pl.Series("signature", signed.minima, dtype=pl.Array(width, num_perm)).cast(pl.List(width))
        return frame.get_column("keys"), signature

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
        signature_of = (lambda texts: self._keys(texts)[1]) if self._estimates else None
        return candidate_rows(batch, rows, self.survivor, self.num_partitions, shingles_of, signature_of)

    def _shingles(self, texts: pl.Series) -> pl.Series:
        """Returns the shingle sets of texts; the only shingle of a short one is all its words."""
        from dataeng.kernels.shingle_sets import shingle_sets
        from dataeng.kernels.text import text_buffers

        sets = shingle_sets(
            text_buffers(texts), ngram=self.ngram, unit=self.unit, normalization=self.normalization, bits=SHINGLE_BITS
        ).to_series("shingles")
        frame = pl.DataFrame([sets, texts.alias("text")]).with_row_index("at")
        short = frame.filter(pl.col("shingles").list.len() == 0)
        if short.height == 0:
            return sets
        only = short.select("at", self._whole(short.get_column("text")).alias("only"))
        frame = frame.join(only, on="at", how="left", maintain_order="left")
        only_bits = (pl.col("only") % (1 << SHINGLE_BITS)).cast(SHINGLES.inner)
        alone = pl.when(pl.col("only").is_null()).then("shingles").otherwise(pl.concat_list(only_bits))
        return frame.select(alone.alias("shingles")).to_series()

    def reduce_slices(self, step: int, slices: Slices, outputs: OutputFiles) -> Iterator[pl.DataFrame]:
        index = self.dedup_index
        old = IndexReader(index.path, index.origins) if index is not None and index.origins else None
        if step == BUCKETS:
            return candidate_requests(slices, old)
        if step == VERIFY:
            kept = (index.store,) if index is not None and self.threshold is not None else ()
            return verified_rows(
                slices, self.survivor, self.num_partitions, self.threshold, self.similarity, old, kept
            )  # fmt: skip
        if step == CONNECT:
            return connect(slices, self.num_partitions)
        if step == CLUSTER:
            return members(slices, self.num_partitions)
        method = pl.lit("minhash")
        if self._estimates:
            method = pl.when(pl.col("partner") >= FIRST_OLD_PLACE).then(pl.lit("minhash_estimate")).otherwise(method)
        return choose(slices, self.survivor, method, "near_duplicate")

    @property
    def _estimates(self) -> bool:
        """Whether similarity to old documents is estimated from signatures."""
        index = self.dedup_index
        return index is not None and index.store == "signature" and bool(index.origins) and self.threshold is not None
