"""Counts everything that the Gopher, C4 and FineWeb rules look at; decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import polars as pl
from pydantic import Field, PrivateAttr

from dataeng.errors import ConfigError
from dataeng.stage import Columns, RowStage
from dataeng.stages.quality.stop_words import STOP_WORDS

if TYPE_CHECKING:
    from dataeng.kernels.words import StopWords

PREFIX = "quality_"


class QualitySignals(RowStage):
    """Adds ``quality_…`` columns: raw counts, one column per entry of `dataeng.kernels.counters.COUNTERS`.

    ``quality_stop_words`` is null for a language without a list. Thresholds are in the presets of ``apply_rules``.
    """

    kernels: ClassVar[tuple[str, ...]] = ("signals",)

    words: Literal["split", "whitespace"] = "split"
    """``split`` cuts punctuation off words (datatrove, FineWeb); ``whitespace`` does not (Gopher paper, Dolma)."""
    language: str | None = None
    """Language whose stop words are counted; null takes each document's ``language``. FineWeb takes ``en`` for all."""
    stop_words: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Lists by language that replace or add to those of `dataeng.stages.quality.stop_words`."""

    _stop_words: StopWords | None = PrivateAttr(default=None)

    def columns(self) -> Columns:
        from dataeng.kernels.counters import COUNTERS

        return Columns(
            reads=("text",) if self.language else ("text", "language"),
            signals={PREFIX + name: pl.Int64() for name in COUNTERS},
        )

    def setup(self, artifacts: Mapping[str, Path]) -> None:
        from dataeng.kernels.words import stop_word_table

        try:
            self._stop_words = stop_word_table({**STOP_WORDS, **self.stop_words})
        except ValueError as error:
            raise ConfigError(f"quality_signals: {error}") from error

    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        from dataeng.kernels.counters import COUNTERS
        from dataeng.kernels.signals import count_signals
        from dataeng.kernels.text import text_buffers

        assert self._stop_words is not None, "setup() comes first"
        if self.language is None:
            language = batch.get_column("language")
        else:
            language = pl.Series("language", [self.language], dtype=pl.String).new_from_index(0, batch.height)
        counts = count_signals(
            text_buffers(batch.get_column("text")),
            words=self.words,
            stop_words=self._stop_words,
            languages=language.to_list(),
        )
        batch = batch.with_columns(pl.Series(PREFIX + name, counts[:, i]) for i, name in enumerate(COUNTERS))
        listed = language.is_in(list(self._stop_words.languages)).fill_null(False)
        return batch.with_columns(batch.get_column(PREFIX + "stop_words").set(~listed, None))
