"""Stage `deduplicate_substrings`: removes passages that stand earlier in the corpus, word for word or byte for byte.

    text ─► segments: runs of windows with a common anchor ─┐  by anchor
                                                            ▼
              anchors: those that occur once go; is the rest equal to its first? ─┐  by part
                                                                                  ▼
               places: the texts again; hashes of whole segments, or of each window ─┐  by hash
                                                                                     ▼
                                     occurrences: all but the first, with the first's place ─┐  by part
                                                                                             ▼
                             ranges: matches joined, cut to characters or words; verdicts per part

Exact substring deduplication as in Lee et al. 2022, *Deduplicating Training Data Makes Language Models Better*
(github.com/google-research/deduplicate-text-datasets): every run of N units that occurs more than once is removed.
There, a suffix array of the corpus brings equal windows together, which needs the whole text in one place and eight
bytes of table per byte of text. Here they meet by hash, in partitions, with the same result:

* Every window of N units has an *anchor* that depends on the window alone, and only anchors travel (one per 18 words
  for N = 50). So equal windows have equal anchors: nothing is missed (`dataeng.kernels.substrings`).
* Whoever shares an anchor with an earlier place is looked at again. Where the whole segment is equal to that of the
  anchor's first occurrence, it travels as one row; only segments that are not, mostly the edges of a repeated passage,
  send each of their windows. A segment is equal to the first in all its windows, and windows of one content are
  in segments that are either all equal to it or not: so the first occurrence of every window is found exactly.
* Contents are compared by 122-bit hashes with a bound on their collisions (`dataeng.kernels.sequences`).

A reducer holds one row per different key, in as many passes over its partition as keep that below a fixed number; a key
with half the corpus in it is one row. A visit holds the rows about one part, and hashes a fixed number of windows at a
time. What is emitted about a document does not depend on others, and firsts are found by place, so batches,
partitions, workers and order change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import polars as pl
from pydantic import Field, model_validator

from dataeng.document import TEXT, drop_where
from dataeng.stage import Columns, ExchangeStage, OutputFiles, Slices
from dataeng.stages.dedup.first_occurrences import later_rows, mark_segments
from dataeng.stages.dedup.matches import bytes_of_units, disjoint_ranges, joined_matches

if TYPE_CHECKING:
    from dataeng.kernels.sequences import Points

REMOVED_RANGES = "substring_ranges_removed"
REMOVED_CHARS = "substring_chars_removed"
SAMPLE = "substring_sample"
SAMPLE_CHARS = 200

ANCHORS, PLACES, OCCURRENCES, RANGES = range(4)
WINDOWS_AT_A_TIME = 200_000
"""Runs that a visit has in memory, each about 150 bytes; the last segment, or text, comes on top."""


class DeduplicateSubstrings(ExchangeStage):
    """Removes passages of at least `min_words` words or `min_bytes` bytes that occur more than once in the corpus.

    A window of so many units is repeated if an equal one starts at another place, in the same document or another; none
    reaches from one document into the next. With `keep: first`, what is covered by repeated windows that have an
    equal one earlier (by input file, row and place) is removed, so that of a text that repeats itself one period
    stays. With `keep: none`, what is covered by any repeated window is removed, as Lee et al. do.

    Words are runs of characters other than white space, and single letters in scripts without spaces (Chinese,
    Japanese, Thai …). They are compared exactly, white space between them is not compared. Bytes are compared exactly.
    Removed bytes are shrunk to whole characters, or with `cut: words` to whole words; then the white space on one side
    goes along.

    A document with fewer than `min_chars` characters left (white space at both ends aside) is dropped as
    `only_repeated_substrings` and keeps its text. Signals: number of removed ranges and characters, and
    `substring_sample`, the beginning of what was removed. The run's `dedup` table has a row for each removed
    range and each place that it also stands at: where it was (`start`, `stop` in bytes, `start_char`, `end_char`), the
    document and character at which its first occurrence starts (`original_id`, `original_start_char`; with
    `keep: none`, of the first itself the second), and the beginning of its text. That place may have lost parts of
    it to still earlier ones.
    """

    kernels: ClassVar[tuple[str, ...]] = ("sequences", "substrings", "cutting")

    min_words: int | None = Field(default=None, ge=2, le=10_000, description="Least words of a passage; 50 if unset")
    min_bytes: int | None = Field(default=None, ge=2, le=100_000, description="Least bytes of a passage, instead")
    keep: Literal["first", "none"] = Field(default="first", description="Which occurrence of a passage stays")
    cut: Literal["characters", "words"] | None = Field(
        default=None, description="What is not cut in two; null means words, or characters with `min_bytes`"
    )
    min_chars: int = Field(default=1, ge=0, description="Documents with fewer characters left are dropped")
    seed: int = Field(default=0, description="Draws the hash functions")

    @model_validator(mode="after")
    def _check_units(self) -> Self:
        if self.min_words is not None and self.min_bytes is not None:
            raise ValueError("give min_words or min_bytes, not both")
        if self.min_bytes is None and self.cut == "characters":
            raise ValueError("passages of words are cut at words; `cut: characters` needs min_bytes")
        return self

    @property
    def by_bytes(self) -> bool:
        return self.min_bytes is not None

    @property
    def length(self) -> int:
        """Units of a window."""
        return self.min_bytes or self.min_words or 50

    @property
    def by_words(self) -> bool:
        """Whether ranges are cut to whole words."""
        return not self.by_bytes or self.cut == "words"

    def columns(self) -> Columns:
        return Columns(
            reads=("id", TEXT),
            signals={REMOVED_RANGES: pl.Int64(), REMOVED_CHARS: pl.Int64(), SAMPLE: pl.String()},
        )

    def verdict_columns(self) -> Mapping[str, pl.DataType]:
        return {**{name: pl.UInt32() for name in ("part", "row", "start", "stop")}, "sample": pl.String()}

    def steps(self) -> tuple[str, ...]:
        return ("anchors", "places", "occurrences", "ranges")

    def visits(self, step: int) -> bool:
        return step in (PLACES, RANGES)

    def _points(self) -> Points:
        from dataeng.kernels.sequences import points

        return points(2 * self.length, self.seed)

    def emit(self, batch: pl.DataFrame) -> pl.DataFrame:
        from dataeng.kernels.substrings import list_segments
        from dataeng.kernels.text import text_buffers

        # Longer anchors are rarer by chance, shorter ones further apart.
        gram = max(1, self.length // 3)
        segments = list_segments(text_buffers(batch.get_column(TEXT)), self.length, gram, self.by_bytes, self._points())
        return batch.select("part", "row")[pl.Series(segments.text)].with_columns(
            pl.Series("unit", segments.first).cast(pl.UInt32),
            pl.Series("windows", segments.windows).cast(pl.UInt32),
            pl.Series("anchor", segments.anchor),
            pl.Series("content", segments.content[0]),
            pl.Series("partition", segments.anchor % self.num_partitions).cast(pl.UInt32),
        )

    def reduce_slices(self, step: int, slices: Slices, outputs: OutputFiles) -> Iterator[pl.DataFrame]:
        if step == ANCHORS:
            yield from mark_segments(slices)
        else:
            yield from later_rows(slices, also_first=self.keep == "none")

    def visit(self, step: int, batch: pl.DataFrame, rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
        batch = batch.join(rows.select("row").unique(), on="row", how="semi", maintain_order="left")
        numbered = batch.select("row").with_row_index("text")
        rows = rows.drop("partition").join(numbered, on="row", how="inner").sort("text", "unit")
        for piece in _pieces(rows, within_texts=step == PLACES):
            first, last = piece.item(0, "text"), piece.item(-1, "text")
            texts, piece = batch[first : last + 1], piece.with_columns(pl.col("text") - first)
            yield self._places(texts, piece) if step == PLACES else self._ranges(texts, piece)

    def _places(self, batch: pl.DataFrame, marked: pl.DataFrame) -> pl.DataFrame:
        """Hashes marked segments as a whole, each of their windows, or both."""
        from dataeng.kernels.cutting import characters_before
        from dataeng.kernels.substrings import hash_runs
        from dataeng.kernels.text import text_buffers

        length = self.length
        wholes = marked.filter("whole").select("text", "unit", (pl.col("windows") + (length - 1)).alias("units"))
        each = marked.filter("each").select(
            "text", pl.int_ranges("unit", pl.col("unit") + pl.col("windows"), dtype=pl.UInt32).alias("unit")
        )
        each = each.explode("unit").with_columns(pl.lit(length, dtype=pl.UInt32).alias("units"))
        runs = pl.concat([wholes, each]).unique().sort("text", pl.col("unit") + pl.col("units"), "unit")
        texts = text_buffers(batch.get_column(TEXT))
        text, unit, units = (runs.get_column(name).cast(pl.Int64).to_numpy() for name in ("text", "unit", "units"))
        hashes = hash_runs(texts, self.by_bytes, self._points(), text, unit, unit + units)
        starts, _ = bytes_of_units(texts, self.by_bytes, text, unit, unit + 1)
        return batch.select("part", "row", "id")[runs.get_column("text")].with_columns(
            runs.get_column("unit"),
            runs.get_column("units"),
            pl.Series("start_char", characters_before(texts, text, starts)).cast(pl.UInt32),
            pl.Series("first_hash", hashes[0]),
            pl.Series("second_hash", hashes[1]),
            pl.Series("partition", hashes[0] % self.num_partitions).cast(pl.UInt32),
        )

    def _ranges(self, batch: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
        """Joins repeated runs to matches and says which bytes of the documents go."""
        from dataeng.kernels.cutting import characters_before, fit_ranges
        from dataeng.kernels.text import text_buffers

        ranges = disjoint_ranges(joined_matches(runs, self.length))
        texts = text_buffers(batch.get_column(TEXT))
        text, match, first, stop = (
            ranges.get_column(name).cast(pl.Int64).to_numpy() for name in ("text", "unit", "first", "stop")
        )
        match_byte, _ = bytes_of_units(texts, self.by_bytes, text, match, match + 1)
        start_byte, stop_byte = bytes_of_units(texts, self.by_bytes, text, first, stop)
        # Words that follow each other have white space between them, and it goes along.
        meets = (text[1:] == text[:-1]) & (first[1:] == stop[:-1])
        stop_byte[:-1][meets] = start_byte[1:][meets]
        start_byte, stop_byte = fit_ranges(texts, self.by_words, text, start_byte, stop_byte)
        match_char, start_char, end_char = (
            pl.Series(characters_before(texts, text, byte)) for byte in (match_byte, start_byte, stop_byte)
        )
        offsets = texts.offsets[text]
        found = batch.select("part", "row", "id")[pl.Series(text)].with_columns(
            pl.Series("start", start_byte - offsets).cast(pl.UInt32),
            pl.Series("stop", stop_byte - offsets).cast(pl.UInt32),
            start_char.alias("start_char").cast(pl.UInt32),
            end_char.alias("end_char").cast(pl.UInt32),
            ranges.get_column("kept_id").alias("original_id"),
            (ranges.get_column("kept_char").cast(pl.Int64) + start_char - match_char)
            .clip(lower_bound=0).cast(pl.UInt32).alias("original_start_char"),
        )  # fmt: skip
        size = pl.min_horizontal(pl.col("end_char") - pl.col("start_char"), SAMPLE_CHARS)
        sample = pl.col(TEXT).str.slice(pl.col("start_char"), size).alias("sample")
        return (
            found.with_columns(batch.get_column(TEXT)[pl.Series(text)])
            .filter(pl.col("start") < pl.col("stop"))
            .with_columns(sample)
            .drop(TEXT)
        )

    def apply(self, batch: pl.DataFrame, verdicts: pl.DataFrame) -> pl.DataFrame:
        from dataeng.kernels.cutting import without_ranges
        from dataeng.kernels.text import text_buffers

        numbered = batch.select("row").with_row_index("text")
        ranges = numbered.join(verdicts.select("row", "start", "stop", "sample"), on="row").sort("text", "start")
        texts = text_buffers(batch.get_column(TEXT))
        text, start, stop = (ranges.get_column(name).cast(pl.Int64).to_numpy() for name in ("text", "start", "stop"))
        left = without_ranges(texts, text, start + texts.offsets[text], stop + texts.offsets[text])
        # Ranges that touch each other were found at several places and are one.
        begins = (pl.col("start") != pl.col("stop").shift(1).over("text")).fill_null(True)
        removed = ranges.group_by("row").agg(
            begins.sum().cast(pl.Int64).alias(REMOVED_RANGES),
            pl.col("sample").str.join("").str.slice(0, SAMPLE_CHARS).alias(SAMPLE),
        )
        batch = batch.join(removed, on="row", how="left", maintain_order="left").with_columns(
            pl.col(REMOVED_RANGES).fill_null(0),
            (pl.col(TEXT).str.len_chars().fill_null(0).cast(pl.Int64) - left.str.len_chars().cast(pl.Int64))
            .alias(REMOVED_CHARS),
            left.alias("_left"),
        )  # fmt: skip
        edited = pl.col(REMOVED_RANGES) > 0
        little = edited & (pl.col("_left").str.strip_chars().str.len_chars() < self.min_chars)
        detail = pl.format("{} characters removed", REMOVED_CHARS)
        batch = drop_where(batch, little, "only_repeated_substrings", detail)
        kept = pl.when(edited & ~little).then(pl.col("_left")).otherwise(pl.col(TEXT))
        return batch.with_columns(kept.alias(TEXT)).drop("_left")


def _pieces(rows: pl.DataFrame, *, within_texts: bool) -> list[pl.DataFrame]:
    """Cuts rows about texts into pieces of about `WINDOWS_AT_A_TIME` runs.

    Args:
      rows: in order of ``text``.
      within_texts: whether rows are segments, of which each can be looked at by itself; otherwise they are runs, and
        those of one text stay together.
    """
    if within_texts:
        runs = pl.col("whole").cast(pl.Int64) + pl.col("each").cast(pl.Int64) * pl.col("windows")
        before = runs.cum_sum() - runs
    else:
        before = pl.col("_number").first().over("text")
    cut = rows.with_row_index("_number").with_columns((before // WINDOWS_AT_A_TIME).alias("_piece")).drop("_number")
    return cut.partition_by("_piece", maintain_order=True, include_key=False)
