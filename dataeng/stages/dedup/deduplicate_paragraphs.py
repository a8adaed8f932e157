"""Stage `deduplicate_paragraphs`: removes paragraphs of which nearly all n-grams came before, by Bloom filters.

    text ─► paragraphs ─► n-gram keys, each once per part ─┐  by range of key
                                                           ▼
                        seen: a Bloom filter of all parts before; verdicts per part: keys that came before
                                                           ▼
                        apply: share of such n-grams in a paragraph, in a document

What travels is one row for each different n-gram of a part: key, first place and count, 32 bytes before compression.
A reducer holds the filter of its partition and one part's keys, and goes through the parts in order; where a part has
many, a range of them at a time. Who edits a part holds the verdicts about it, a row for each n-gram that came before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field

from dataeng.document import TEXT, drop_where
from dataeng.errors import TaskError
from dataeng.stage import Columns, ExchangeStage, OutputFiles, Slices
from dataeng.stages.dedup import removal
from dataeng.stages.dedup.removal import (
    positions_in,
    range_partition,
    range_shares,
    removal_signals,
    remove_units,
)

if TYPE_CHECKING:
    from dataeng.kernels.bloom import BloomFilter
    from dataeng.kernels.ngrams import Ngrams
    from dataeng.kernels.units import Units

PREFIX = "duplicate_paragraphs"
SHARE = "duplicate_ngram_share"
ROW_BITS = 32


class DeduplicateParagraphs(ExchangeStage):
    """Removes paragraphs that are mostly made of n-grams from earlier paragraphs, and documents that mostly are.

    A paragraph is cut into tokens (Unicode's word boundaries) and every run of `ngram` of them is looked up among the
    n-grams of all paragraphs before it in the corpus: in lower parts (input files in sorted order), rows and places. It
    goes if more than `threshold` of its n-grams are there. One with fewer than `ngram` tokens has a single n-gram, one
    with fewer than `min_tokens` none: it stays. A document goes as `duplicate_ngrams` if more than `threshold` of all
    its n-grams came before, and as `only_duplicate_paragraphs` or `too_few_words_without_duplicate_paragraphs` where
    too little is left; it keeps its text.

    - DCLM-Baseline (Li et al. 2024; `bff --remove-type old-both`) is the default: 13-grams, 0.8, lines as paragraphs.
    - AllenAI's BFF: `min_tokens: 5`, `documents: false`.
    - Dolma (Soldaini et al. 2024): `ngram: null`, whole paragraphs as one key, `documents: false`,
      `false_positive_rate: 1.0e-6`.

    Unlike there, all n-grams of earlier paragraphs count, also those of paragraphs that were removed, and what was
    earlier is decided by the place in the corpus, not by which thread came first.

    N-grams of earlier parts are held in a Bloom filter per partition, made for `false_positive_rate` with all of the
    partition's n-grams in it (10 bits each at 0.01, 29 at 1e-6), so that on average the rate is lower; within a part
    they are compared by 64 bits. A run stops if a filter would be larger than `max_filter_mb`, and says how many
    partitions are enough. A false positive is one n-gram taken for a known one: paragraphs of many n-grams do not
    notice, those with a single one are lost at that rate.

    Signals: how many paragraphs and characters were removed, the beginning of them, and `duplicate_ngram_share`, the
    share of the document's n-grams that came before. The run's `dedup` table has a row for each such n-gram of a part;
    a filter cannot say in which document it was first (`deduplicate_lines` can).
    """

    version: ClassVar[int] = 2
    kernels: ClassVar[tuple[str, ...]] = ("hashing", "units", "normalization", "ngrams", "bloom")

    unit: Literal["line", "paragraph"] = Field(
        default="line", description="What a paragraph is: a line, or a run of lines without a blank one"
    )
    ngram: int | None = Field(
        default=13, ge=1, le=64, description="Tokens of an n-gram; null compares whole paragraphs, byte for byte"
    )
    min_tokens: int = Field(default=13, ge=1, description="Shorter paragraphs are left alone (not with `ngram: null`)")
    threshold: float = Field(default=0.8, ge=0, lt=1, description="A greater share of known n-grams is removed")
    documents: bool = Field(default=True, description="Whether whole documents go, too")
    false_positive_rate: float = Field(default=0.01, gt=0, lt=1, description="Of a full filter, for one n-gram")
    max_filter_mb: float = Field(default=512, gt=0, description="Largest size of a partition's filter, in 10^6 bytes")
    min_words: int = Field(default=0, ge=0, description="An edited document with fewer words left is dropped")

    def columns(self) -> Columns:
        return Columns(reads=("id", TEXT), signals={**removal_signals(PREFIX), SHARE: pl.Float64()})

    def verdict_columns(self) -> Mapping[str, pl.DataType]:
        return {
            "part": pl.UInt32(), "hash": pl.UInt64(), "seen_before": pl.Boolean(), "first_place": pl.UInt64(),
            "occurrences": pl.UInt64(),
        }  # fmt: skip

    def steps(self) -> tuple[str, ...]:
        return ("seen",)

    def emit(self, batch: pl.DataFrame) -> pl.DataFrame:
        units, ngrams = self._ngrams(batch)
        place = pl.Series("first_place", _places(batch, units), dtype=pl.UInt64)
        row = np.repeat(np.arange(len(units.text)), ngrams.num)
        part = batch.get_column("part")[:1]
        rows = pl.DataFrame({"hash": ngrams.key, "first_place": place.gather(row)}).with_columns(
            part.new_from_index(0, len(row)) if len(row) else part.clear(),
            pl.lit(1, dtype=pl.UInt64).alias("occurrences"),
            range_partition(pl.col("hash"), self.num_partitions).alias("partition"),
        )
        return self.combine(rows)

    def combine(self, table: pl.DataFrame) -> pl.DataFrame:
        sums = (pl.first("partition"), pl.min("first_place"), pl.sum("occurrences"))
        return table.group_by("part", "hash").agg(*sums).sort("part", "hash")

    def reduce_slices(self, step: int, slices: Slices, outputs: OutputFiles) -> Iterator[pl.DataFrame]:
        seen = self._filter(slices.num_rows)
        for inside in range_shares(_most_of_a_part(slices), self.num_partitions):
            yield from self._verdicts(seen, (piece.filter(inside) for piece in slices))

    def _verdicts(self, seen: BloomFilter, pieces: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        held: list[pl.DataFrame] = []
        for piece in pieces:
            for rows in piece.partition_by("part", maintain_order=True):
                if held and held[0].item(0, "part") != rows.item(0, "part"):
                    assert held[0].item(0, "part") < rows.item(0, "part"), "slices come in order of part"
                    yield self._seen(seen, pl.concat(held))
                    held = []
                held.append(rows)
        if held:
            yield self._seen(seen, pl.concat(held))

    def apply(self, batch: pl.DataFrame, verdicts: pl.DataFrame) -> pl.DataFrame:
        units, ngrams = self._ngrams(batch)
        unit = np.repeat(np.arange(len(units.text)), ngrams.num)
        at = positions_in(verdicts, ngrams.key)
        known = at >= 0
        judged = verdicts.select("seen_before", "first_place")[at[known]]
        place = pl.Series("place", _places(batch, units)[unit[known]], dtype=pl.UInt64)
        before = judged.select(pl.col("seen_before") | (place > pl.col("first_place"))).to_series().to_numpy()
        known[known] = before
        num_known = np.bincount(unit[known], minlength=len(units.text))
        removed = num_known > self.threshold * ngrams.num
        of_text = np.bincount(units.text, weights=ngrams.num, minlength=batch.height)
        known_of_text = np.bincount(units.text, weights=num_known, minlength=batch.height)
        share = pl.Series(SHARE, np.divide(known_of_text, of_text, where=of_text > 0, out=np.zeros(batch.height)))
        gone = known_of_text > self.threshold * of_text if self.documents else np.zeros(batch.height, np.bool_)
        edited = remove_units(batch, units, removed & ~gone[units.text], PREFIX, self.min_words)
        edited = edited.with_columns(pl.select(pl.when(pl.Series(of_text > 0)).then(share).alias(SHARE)).to_series())
        detail = pl.format("{}% of its n-grams", (100 * pl.col(SHARE)).round(1))
        return drop_where(edited, pl.lit(pl.Series(gone)), "duplicate_ngrams", detail)

    def _ngrams(self, batch: pl.DataFrame) -> tuple[Units, Ngrams]:
        """Lists the paragraphs of a batch and the keys of their n-grams."""
        from dataeng.kernels.hashing import hash_texts
        from dataeng.kernels.ngrams import Ngrams, list_ngrams
        from dataeng.kernels.normalization import normalize_units
        from dataeng.kernels.text import text_buffers
        from dataeng.kernels.units import list_units

        texts = text_buffers(batch.get_column(TEXT))
        units = list_units(texts, self.unit)
        if self.ngram is not None:
            return units, list_ngrams(texts, units, self.ngram, self.min_tokens)
        keys = hash_texts(normalize_units(texts, units.start, units.stop, "none"))[0]
        return units, Ngrams(keys, np.ones(len(keys), np.int64))

    def _filter(self, num_keys: int) -> BloomFilter:
        from dataeng.kernels.bloom import BloomFilter, bits_needed

        needed = bits_needed(num_keys, self.false_positive_rate) / 8e6
        if needed > self.max_filter_mb:
            enough = self.num_partitions * int(needed / self.max_filter_mb + 1)
            raise TaskError(
                f"deduplicate_paragraphs: a filter for {num_keys} n-grams takes {needed:.0f} MB at a false-positive "
                f"rate of {self.false_positive_rate:g}; max_filter_mb is {self.max_filter_mb:g}. "
                f"Set partitions to {enough} or more (now {self.num_partitions}), or allow for larger filters."
            )
        return BloomFilter(num_keys, self.false_positive_rate)

    def _seen(self, seen: BloomFilter, rows: pl.DataFrame) -> pl.DataFrame:
        """Returns the verdicts about one part and takes its keys into the filter."""
        # A large task emits in several pieces, so that a part may have a key more than once.
        keys = self.combine(rows)
        hashes = keys.get_column("hash").to_numpy()
        before = pl.Series("seen_before", seen.contains(hashes))
        seen.insert(hashes)
        return keys.with_columns(before).filter(pl.col("seen_before") | (pl.col("occurrences") > 1)).select(
            *self.verdict_columns()
        )  # fmt: skip


def _most_of_a_part(slices: Slices) -> int:
    """Returns how many rows of one part there are at the most."""
    if slices.num_rows <= removal.ROWS_IN_MEMORY:
        return slices.num_rows
    counts = pl.concat([piece.group_by("part").len() for piece in slices]).group_by("part").agg(pl.sum("len"))
    return int(counts.select(pl.max("len")).item())


def _places(batch: pl.DataFrame, units: Units) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Returns each unit's place in its part as one number that sorts as (row, unit) does."""
    begins = np.searchsorted(units.text, np.arange(batch.height))
    number = np.arange(len(units.text)) - begins[units.text]
    rows = batch.get_column("row").cast(pl.UInt64).to_numpy()[units.text]
    return (rows << np.uint64(ROW_BITS)) | number.astype(np.uint64)
