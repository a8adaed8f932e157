"""Counts everything that rules look at; decides nothing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field, PrivateAttr

from dataeng.errors import ConfigError
from dataeng.stage import Columns, RowStage
from dataeng.stages.quality.bad_words import bad_word_pattern, bad_words
from dataeng.stages.quality.stop_words import STOP_WORDS

if TYPE_CHECKING:
    from dataeng.kernels.stop_words import StopWords
    from dataeng.kernels.text import TextBuffers

PREFIX = "quality_"
ZSTD_LEVEL = 1

#: Signals of ``signals: all`` that no kernel counts but a library.
COLUMN_SIGNALS = {
    "bad_words": "occurrences of the bad words of the document's language (LDNOOBW), in lower case, as whole words "
    "(anywhere in Japanese, Thai and Chinese); null for a language without a list",
    "zstd_bytes": f"bytes of the text compressed by zstd at level {ZSTD_LEVEL}; over `bytes`, the compression ratio",
}


class QualitySignals(RowStage):
    """Adds ``quality_…`` columns: raw counts, listed with their meaning in ``docs/signals.md``.

    ``quality_stop_words`` and ``quality_bad_words`` are null for a language without a list. Thresholds are in the
    presets of ``apply_rules``.
    """

    kernels: ClassVar[tuple[str, ...]] = ("signals", "extended_signals")

    signals: Literal["default", "all"] = "default"
    """``default``: what the Gopher, C4 and FineWeb presets need. ``all``: also characters by kind and script, capitals,
    numerals, addresses, line shares, bad words, entropy and compression; about half as fast."""
    words: Literal["split", "whitespace"] = "split"
    """``split`` cuts punctuation off words (datatrove, FineWeb); ``whitespace`` does not (Gopher paper, Dolma)."""
    language: str | None = None
    """Language whose stop words are counted; null takes each document's ``language``. FineWeb takes ``en`` for all."""
    stop_words: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Lists by language that replace or add to those of `dataeng.stages.quality.stop_words`."""

    _stop_words: StopWords | None = PrivateAttr(default=None)

    def needed_kernels(self) -> tuple[str, ...]:
        return self.kernels if self.signals == "all" else ("signals",)

    def columns(self) -> Columns:
        from dataeng.kernels.counters import COUNTERS

        return Columns(
            reads=("text",) if self.language else ("text", "language"),
            signals={PREFIX + name: pl.Int64() for name in COUNTERS} | (self._more() if self.signals == "all" else {}),
        )

    def remedy(self, column: str) -> str:
        return "`signals: all`" if self.signals == "default" and column in self._more() else ""

    @staticmethod
    def _more() -> dict[str, pl.DataType]:
        from dataeng.kernels.extended_counters import EXTENDED_COUNTERS, EXTENDED_MEASURES

        counts = dict.fromkeys((PREFIX + name for name in (*EXTENDED_COUNTERS, *COLUMN_SIGNALS)), pl.Int64())
        return {**counts, **dict.fromkeys((PREFIX + name for name in EXTENDED_MEASURES), pl.Float64())}

    def setup(self, artifacts: Mapping[str, Path]) -> None:
        from dataeng.kernels.stop_words import stop_word_table

        try:
            self._stop_words = stop_word_table({**STOP_WORDS, **self.stop_words})
        except ValueError as error:
            raise ConfigError(f"quality_signals: {error}") from error

    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        from dataeng.kernels.counters import COUNTERS
        from dataeng.kernels.signals import count_signals
        from dataeng.kernels.text import text_parts

        assert self._stop_words is not None, "setup() comes first"
        text = batch.get_column("text")
        if self.language is None:
            language = batch.get_column("language")
        else:
            language = pl.Series("language", [self.language], dtype=pl.String).new_from_index(0, batch.height)
        languages = language.to_list()
        counts = np.empty((batch.height, len(COUNTERS)), np.int64)
        more = []
        # In parts, since kernels and libraries need the texts in other forms than the column's: copies.
        for first, last, buffers in text_parts(text):
            counts[first:last] = count_signals(
                buffers, words=self.words, stop_words=self._stop_words, languages=languages[first:last]
            )
            if self.signals == "all":
                rows = slice(first, last)
                more.append(self._more_of(text[rows], buffers, language[rows]))
        columns = [pl.Series(PREFIX + name, counts[:, i]) for i, name in enumerate(COUNTERS)]
        if self.signals == "all":
            columns += pl.concat(more).get_columns() if more else pl.DataFrame(schema=self._more()).get_columns()
        unlisted = ~language.is_in(list(self._stop_words.languages)).fill_null(False)
        of_lists = (PREFIX + "stop_words", PREFIX + "stop_word_occurrences")
        columns = [column.set(unlisted, None) if column.name in of_lists else column for column in columns]
        measured_before = [column.name for column in columns if column.name in batch.columns]
        # `drop` and `with_columns` take memory of twice the texts; `hstack` takes none.
        return (batch.drop(measured_before) if measured_before else batch).hstack(columns)

    def _more_of(self, text: pl.Series, buffers: TextBuffers, language: pl.Series) -> pl.DataFrame:
        from dataeng.kernels.extended_counters import EXTENDED_COUNTERS, EXTENDED_MEASURES
        from dataeng.kernels.extended_signals import count_extended_signals

        counts, measures = count_extended_signals(buffers, stop_words=self._stop_words, languages=language.to_list())
        return pl.DataFrame(
            [
                *(pl.Series(PREFIX + name, counts[:, i]) for i, name in enumerate(EXTENDED_COUNTERS)),
                count_bad_words(text.fill_null(""), language).alias(PREFIX + "bad_words"),
                compressed_bytes(buffers).alias(PREFIX + "zstd_bytes"),
                *(pl.Series(PREFIX + name, measures[:, i]) for i, name in enumerate(EXTENDED_MEASURES)),
            ]
        )


def documented_signals() -> dict[str, dict[str, str]]:
    """Returns the meaning of every column, by what switches it on."""
    from dataeng.kernels.counters import COUNTERS
    from dataeng.kernels.extended_counters import EXTENDED_COUNTERS, EXTENDED_MEASURES

    groups = {
        "Default signals": COUNTERS,
        "More with `signals: all`": {**EXTENDED_COUNTERS, **EXTENDED_MEASURES, **COLUMN_SIGNALS},
    }
    return {title: {PREFIX + name: text for name, text in signals.items()} for title, signals in groups.items()}


def count_bad_words(text: pl.Series, language: pl.Series) -> pl.Series:
    """Returns how often listed words of each text's language occur, Int64; null for a language without a list."""
    found = pl.Series(pl.repeat(None, len(text), dtype=pl.Int64, eager=True))
    for name in language.unique().drop_nulls().to_list():
        if bad_words(name):
            rows = (language == name).fill_null(False).arg_true()
            lowered = text.gather(rows).str.to_lowercase()
            found = found.scatter(rows, 0)
            # Two patterns: one knows ASCII only and is fast, the other is exact and needed where the text has more.
            quick = bad_word_pattern(name, ascii_only=True)
            suspect = lowered.str.contains(quick).arg_true()
            lowered, rows = lowered.gather(suspect), rows.gather(suspect)
            is_ascii = lowered.str.len_bytes() == lowered.str.len_chars()
            for chosen, pattern in ((is_ascii, quick), (~is_ascii, bad_word_pattern(name))):
                at = chosen.arg_true()
                found = found.scatter(rows.gather(at), lowered.gather(at).str.count_matches(pattern).cast(pl.Int64))
    return found


def compressed_bytes(texts: TextBuffers) -> pl.Series:
    """Returns the size of each text compressed by zstd at `ZSTD_LEVEL`, Int64; the library is as fast as can be."""
    import pyarrow as pa

    codec = pa.Codec("zstd", compression_level=ZSTD_LEVEL)
    data, offsets = pa.py_buffer(texts.data), texts.offsets.tolist()
    # A Python loop over documents: the codec takes one buffer at a time, and nearly all the time is inside it.
    sizes = [codec.compress(data.slice(start, stop - start)).size for start, stop in itertools.pairwise(offsets)]
    return pl.Series(sizes, dtype=pl.Int64)
