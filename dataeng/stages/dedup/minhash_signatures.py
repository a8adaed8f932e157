"""Stage `minhash_signatures`: keeps every document's MinHash signature, for tools that compare documents later."""

from __future__ import annotations

from typing import ClassVar, Literal

import polars as pl
from pydantic import Field

from dataeng.stage import Columns, RowStage
from dataeng.stages.dedup.signatures import sign

SIGNATURE = "minhash_signature"


class MinhashSignatures(RowStage):
    """Adds the MinHash signature of every text as the signal `minhash_signature`, a list of unsigned integers.

    With the defaults it is what `datasketch.MinHash(num_perm=128, seed=1)` computes from the same shingles (words
    joined by one space), so that `datasketch.MinHash(hashvalues=signature, seed=1, scheme="affine32")` compares it and
    `MinHashLSH` takes it. Null for texts with fewer than `ngram` words. Costs four (or eight) bytes for each
    permutation and document.
    """

    kernels: ClassVar[tuple[str, ...]] = ("minhash", "datasketch_signatures")

    num_perm: int = Field(default=128, ge=2, le=10_000, description="Permutations, the signature's length")
    ngram: int = Field(default=5, ge=1, le=16, description="Words (or characters) per shingle")
    unit: Literal["words", "characters"] = Field(default="words", description="What shingles are made of")
    normalization: Literal["simplified", "none", "code"] = Field(
        default="simplified", description="As in `deduplicate_minhash`"
    )
    hash_bits: Literal[32, 64] = Field(default=32, description="Width of the hashes")
    signatures: Literal["native", "datasketch"] = Field(
        default="datasketch", description="Those of `datasketch.MinHash`, or our faster ones"
    )
    seed: int = Field(default=1, ge=0, description="Draws the hash functions")

    def needed_kernels(self) -> tuple[str, ...]:
        return ("datasketch_signatures",) if self.signatures == "datasketch" else ("minhash",)

    def columns(self) -> Columns:
        return Columns(
            reads=("text",), signals={SIGNATURE: pl.List(pl.UInt32() if self.hash_bits == 32 else pl.UInt64())}
        )

    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        from dataeng.kernels.text import text_buffers

        texts = text_buffers(batch.get_column("text"))
        signed = sign(
            texts, self.num_perm, self.seed, self.hash_bits, self.signatures, self.ngram, self.unit, self.normalization
        )
        dtype = self.columns().signals[SIGNATURE]
        lists = pl.Series(SIGNATURE, signed.minima).arr.to_list().cast(dtype)
        shingled = pl.Series(signed.num_shingles > 0)
        return batch.with_columns(pl.when(shingled).then(lists).otherwise(None).alias(SIGNATURE))
