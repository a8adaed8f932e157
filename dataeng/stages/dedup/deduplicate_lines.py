"""Stage `deduplicate_lines`: removes lines, paragraphs or spans of sentences that the corpus has more than once.

    text ─► units ─► normal form ─► a hash per span, counted per part ─┐  by range of hash
                                                                       ▼
                       repeats: hashes that occur more than once, with their first place; verdicts per part

What travels is one row for each different span of a part, however often the part has it: hash, first place, counts and
the id of the document there, about 60 bytes. A span that half the corpus has is one row for each part.

A reducer holds a fixed number of rows, in as many passes over its partition as that takes, and all rows of one hash:
one for each part. Who edits a part holds the verdicts about it, a row for each of its repeated spans.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from dataeng.document import TEXT
from dataeng.stage import Columns, ExchangeStage, OutputFiles, Slices
from dataeng.stages.dedup.removal import (
    MOST_UNITS,
    hash_ranges,
    positions_in,
    range_partition,
    removal_signals,
    remove_units,
    scattered,
)

if TYPE_CHECKING:
    from dataeng.kernels.units import Units


class Spans(NamedTuple):
    """What is compared: runs of `span` units of one text, in order."""

    units: Units
    first: NDArray[np.int64]
    """[spans], the first unit of each."""
    unit: NDArray[np.int64]
    """[spans], that unit's number in its text."""
    hash: NDArray[np.uint64]


class DeduplicateLines(ExchangeStage):
    """Removes lines, paragraphs or sentences that occur elsewhere in the corpus, and keeps the first occurrence.

    A text is cut into units: lines, paragraphs (runs of lines without a blank one) or sentences (which end with their
    line at the latest). Compared are spans of `span` consecutive units in a normal form, by 64 bits of MurmurHash3; a
    unit goes if any repeated span covers it. The first occurrence is that in the lowest part (input files in sorted
    order), row and place in the text, whatever runs when. White space is not a unit: blank lines are no duplicates.

    - CCNet (Wenzek et al. 2020): `unit: line`, `normalize: ccnet@paper`. Its code differs: `normalize: ccnet@code` and
      `keep: none`, which removes all copies of a line that two or more documents have, and in one document all but
      the first.
    - C4 (Raffel et al. 2020), "all but one of any three-sentence span": `unit: sentence`, `span: 3`,
      `normalize: datatrove`, and as datatrove has it `min_words: 50`, `min_units: 3`. The code in TensorFlow Datasets
      that makes C4 compares lines instead: `unit: line`, `normalize: lower`.

    Normal forms: `none`; `lower`; `ccnet@code` (lower case, digits 0, without 34 punctuation signs that are not ASCII);
    `ccnet@paper` (lower case, digits 0, without accents and punctuation); `datatrove` (lower case, numbers 0, without
    accents, punctuation is white space). Spans with nothing left in their normal form are not compared.

    With `keep: first` no text is lost: of every unit removed a copy stays somewhere, unless its document is dropped. An
    edited document is dropped as `only_duplicate_lines` if no unit is left, `too_few_units_without_duplicate_lines` and
    `too_few_words_without_duplicate_lines` (or `…_paragraphs`, `…_sentences`); it keeps its text.

    Signals: how many units and characters were removed, `duplicate_lines_sample` (the beginning of them),
    `duplicate_lines_hashes` and `duplicate_lines_first_ids` (of the first 20 removed spans: the hash, and the document
    of the first occurrence, separated by spaces). The run's `dedup` table has `hash`, `first_id`, and in how many
    `documents` and how many times (`occurrences`) the corpus has the span.
    """

    kernels: ClassVar[tuple[str, ...]] = ("hashing", "units", "normalization")

    unit: Literal["line", "paragraph", "sentence"] = Field(default="line", description="What texts are cut into")
    span: int = Field(default=1, ge=1, le=100, description="How many units in a row are compared as one")
    normalize: Literal["none", "lower", "ccnet@code", "ccnet@paper", "datatrove"] = Field(
        default="ccnet@paper", description="What counts as the same"
    )
    keep: Literal["first", "none"] = Field(
        default="first", description="Whether the first occurrence stays, or none that several documents have"
    )
    min_chars: int = Field(default=1, ge=1, description="Shorter spans, in normal form, are not compared")
    min_words: int = Field(default=0, ge=0, description="An edited document with fewer words left is dropped")
    min_units: int = Field(default=0, ge=0, description="An edited document with fewer units left is dropped")

    @property
    def _prefix(self) -> str:
        return f"duplicate_{self.unit}s"

    def columns(self) -> Columns:
        evidence = {f"{self._prefix}_hashes": pl.String(), f"{self._prefix}_first_ids": pl.String()}
        return Columns(reads=("id", TEXT), signals={**removal_signals(self._prefix), **evidence})

    def verdict_columns(self) -> Mapping[str, pl.DataType]:
        return {
            "part": pl.UInt32(), "hash": pl.UInt64(), "first_part": pl.UInt32(), "first_row": pl.UInt32(),
            "first_unit": pl.UInt32(), "first_id": pl.String(), "documents": pl.UInt64(), "occurrences": pl.UInt64(),
        }  # fmt: skip

    def steps(self) -> tuple[str, ...]:
        return ("repeats",)

    def emit(self, batch: pl.DataFrame) -> pl.DataFrame:
        spans = self._spans(batch)
        text = spans.units.text[spans.first]
        one = pl.lit(1, dtype=pl.UInt64)
        named = batch.select("part", "row", "id")[text].with_columns(
            pl.Series("hash", spans.hash), pl.Series("unit", spans.unit, pl.UInt32),
            one.alias("occurrences"), pl.Series("documents", _first_of_text(text, spans.hash), pl.UInt64),
        )  # fmt: skip
        return self.combine(named.with_columns(range_partition(pl.col("hash"), self.num_partitions).alias("partition")))

    def combine(self, table: pl.DataFrame) -> pl.DataFrame:
        parts = table.get_column("part")
        # Rows of several parts have nothing in common but what `reduce` looks for.
        return _combined(table) if parts.min() == parts.max() else table

    def reduce_slices(self, step: int, slices: Slices, outputs: OutputFiles) -> Iterator[pl.DataFrame]:
        for table in hash_ranges(slices, self.num_partitions):
            yield self.reduce(step, table, outputs)

    def reduce(self, step: int, table: pl.DataFrame, outputs: OutputFiles) -> pl.DataFrame:
        occurrences = table.group_by("hash").agg(pl.sum("occurrences").alias("_all"))
        table = table.join(occurrences.filter(pl.col("_all") > 1), on="hash", how="semi", maintain_order="left")
        # A large task emits in several pieces, so that a part may have a hash more than once.
        ordered = _combined(table)
        totals = (
            ordered.group_by("hash", maintain_order=True)
            .agg(
                *(pl.first(name).alias(f"first_{name}") for name in ("part", "row", "unit", "id")),
                pl.sum("documents"), pl.sum("occurrences"),
            )
        )  # fmt: skip
        own = ordered.select("part", "hash", pl.col("occurrences").alias("_own"))
        repeated = own.join(totals, on="hash", how="inner", maintain_order="left")
        # A part learns only of what it may have to remove.
        stays = (pl.col("first_part") == pl.col("part")) & (pl.col("_own") == 1)
        if self.keep == "none":
            stays &= pl.col("documents") == 1
        return repeated.filter(~stays).select(*self.verdict_columns())

    def apply(self, batch: pl.DataFrame, verdicts: pl.DataFrame) -> pl.DataFrame:
        spans = self._spans(batch)
        at = positions_in(verdicts, spans.hash)
        found = np.flatnonzero(at >= 0)
        text = spans.units.text[spans.first[found]]
        place = batch.select("row")[text].with_columns(pl.Series("unit", spans.unit[found], pl.UInt32))
        judged = place.hstack(verdicts[at[found]])
        goes = (pl.col("first_part") != pl.col("part")) | (pl.col("first_row") != pl.col("row"))
        goes |= pl.col("first_unit") != pl.col("unit")
        if self.keep == "none":
            goes |= pl.col("documents") > 1
        chosen = judged.select(goes.alias("goes")).get_column("goes").to_numpy()
        removed = np.zeros(len(spans.units.text), np.bool_)
        for offset in range(self.span):
            removed[spans.first[found[chosen]] + offset] = True
        evidence = self._evidence(batch.height, text[chosen], judged.filter(chosen))
        edited = remove_units(batch, spans.units, removed, self._prefix, self.min_words, self.min_units)
        return edited.with_columns(evidence)

    def _spans(self, batch: pl.DataFrame) -> Spans:
        from dataeng.kernels.hashing import hash_texts
        from dataeng.kernels.normalization import count_characters, normalize_units
        from dataeng.kernels.text import TextBuffers, text_buffers
        from dataeng.kernels.units import list_units

        texts = text_buffers(batch.get_column(TEXT))
        units = list_units(texts, self.unit)
        normal = normalize_units(texts, units.start, units.stop, self.normalize)
        # Bytes will do to tell what is empty, and cost nothing.
        chars = count_characters(normal) if self.min_chars > 1 else np.diff(normal.offsets)
        hashes = hash_texts(normal)[0]
        num = max(len(hashes) - self.span + 1, 0)
        if self.span > 1 and num:
            # The hash of a span is that of its units' hashes, as little-endian bytes.
            windows = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(hashes, self.span))
            bounds = np.arange(num + 1, dtype=np.int64) * (8 * self.span)
            hashes = hash_texts(TextBuffers(windows.reshape(-1).view(np.uint8), bounds))[0]
            chars = np.lib.stride_tricks.sliding_window_view(chars, self.span).sum(axis=1)
        whole = units.text[:num] == units.text[len(units.text) - num :]
        first = np.flatnonzero(whole & (chars[:num] >= self.min_chars))
        begins = np.searchsorted(units.text, np.arange(batch.height))
        return Spans(units, first, first - begins[units.text[first]], hashes[first])

    def _evidence(self, height: int, text: NDArray[np.int64], removed: pl.DataFrame) -> list[pl.Series]:
        """Returns hashes and first documents of the spans that go, by text."""
        listed = (
            removed.select("hash", "first_id", pl.Series("text", text))
            .group_by("text", maintain_order=True)
            .head(MOST_UNITS)
            .group_by("text", maintain_order=True)
            .agg(pl.col("hash").cast(pl.String).str.join(" "), pl.col("first_id").str.join(" "))
        )
        at = listed.get_column("text")
        return [
            scattered(height, at, listed.get_column("hash")).alias(f"{self._prefix}_hashes"),
            scattered(height, at, listed.get_column("first_id")).alias(f"{self._prefix}_first_ids"),
        ]


def _combined(table: pl.DataFrame) -> pl.DataFrame:
    """Returns one row for each part and hash: the first place and the sums of the counts."""
    firsts = [pl.first(name) for name in ("partition", "row", "unit", "id")]
    counts = [pl.sum("documents"), pl.sum("occurrences")]
    ordered = table.sort("part", "row", "unit")
    combined = ordered.group_by("part", "hash", maintain_order=True).agg(*firsts, *counts)
    return combined.sort("hash", "part")


def _first_of_text(text: NDArray[np.int64], hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Returns for each span whether its text has the same span no earlier."""
    pairs = pl.DataFrame({"text": text, "hash": hashes})
    first: NDArray[np.bool_] = pairs.select(pl.struct("text", "hash").is_first_distinct()).to_series().to_numpy()
    return first
