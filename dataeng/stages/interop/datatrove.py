"""An existing datatrove block as a stage::

    - datatrove:
        block: datatrove.pipeline.filters.GopherQualityFilter
        options: {min_doc_words: 20}

Works for filters (their reason becomes ours), formatters, and any block whose ``run`` looks at one document at a time.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
from pydantic import Field, PrivateAttr, model_validator

from dataeng.document import DETAIL, REASON, with_reason_columns
from dataeng.errors import nearest
from dataeng.stage import Columns, RowStage

#: Packages of datatrove whose blocks need files or the whole corpus.
CORPUS_WIDE = tuple(
    f"datatrove.pipeline.{name}." for name in ("readers", "writers", "dedup", "tokens", "decont", "stats", "inference")
)
METADATA = ("url", "date", "language", "language_score", "host", "domain")


class DatatroveBlock(RowStage):
    """Runs a block of datatrove's on every document. As slow as datatrove: it handles one Python object at a time."""

    libraries: ClassVar[tuple[str, ...]] = ("datatrove",)

    block: str = Field(description="Dotted path of the class, below 'datatrove.'")
    options: dict[str, Any] = Field(default={}, description="Arguments of its constructor")
    _block: Any = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _can_be_built(self) -> DatatroveBlock:
        self._build()
        return self

    def _build(self) -> Any:
        module_name, _, class_name = self.block.rpartition(".")
        if not module_name.startswith("datatrove."):
            raise ValueError(
                f"block must be a class of datatrove, e.g. datatrove.pipeline.filters.X, found {self.block!r}"
            )
        try:
            module = importlib.import_module(module_name)
            step = importlib.import_module("datatrove.pipeline.base").PipelineStep
        except ImportError as error:
            raise ValueError(f"cannot import {module_name}: {error}; try pip install 'dataeng[datatrove]'") from error
        cls = getattr(module, class_name, None)
        # Only blocks: a dotted path must not be a way to call whatever a module of datatrove has imported.
        blocks = {name for name, value in vars(module).items() if isinstance(value, type) and issubclass(value, step)}
        if cls is None:
            raise ValueError(f"{module_name} has no class '{class_name}'{nearest(class_name, blocks)}")
        if not (isinstance(cls, type) and issubclass(cls, step)):
            raise ValueError(f"{self.block} is not a block of a datatrove pipeline{nearest(class_name, blocks)}")
        if f"{cls.__module__}.".startswith(CORPUS_WIDE):
            raise ValueError(
                f"{class_name} reads or writes files; a stage needs a block that looks at one document at a time"
            )
        try:
            return cls(**self.options)
        except Exception as error:  # a block's constructor may raise anything; here the user's options are at fault
            problem = " ".join(str(error).split())
            raise ValueError(f"{class_name} cannot be made with these options: {problem}") from error

    def columns(self) -> Columns:
        return Columns(reads=("id", "text"))

    def setup(self, artifacts: Mapping[str, Path]) -> None:
        self._block = self._build()

    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        from datatrove.data import Document

        batch = with_reason_columns(batch)
        metadata = [column for column in METADATA if column in batch.columns]
        texts: list[str] = []
        reasons: list[str | None] = []
        details: list[str | None] = []
        # A loop over documents: that is what a datatrove block is.
        for row in batch.select("id", "text", REASON, DETAIL, *metadata).iter_rows(named=True):
            if row[REASON] is None:
                known = {column: row[column] for column in metadata if row[column] is not None}
                document = Document(text=row["text"] or "", id=row["id"], metadata=known)
                reason, detail = self._judge(document)
                texts.append(document.text if reason is None else row["text"])
            else:
                reason, detail = row[REASON], row[DETAIL]
                texts.append(row["text"])
            reasons.append(reason)
            details.append(detail)
        return batch.with_columns(
            pl.Series("text", texts, dtype=pl.String),
            pl.Series(REASON, reasons, dtype=pl.String),
            pl.Series(DETAIL, details, dtype=pl.String),
        )

    def _judge(self, document: Any) -> tuple[str | None, str | None]:
        """Returns why the block drops a document (and its class as detail), or two Nones; edits the text in place."""
        from datatrove.pipeline.filters.base_filter import BaseFilter
        from datatrove.pipeline.formatters.base import BaseFormatter

        name = type(self._block).__name__
        if isinstance(self._block, BaseFilter):
            outcome = self._block.filter(document)
            keep, why = outcome if isinstance(outcome, tuple) else (outcome, None)
            return (None, None) if keep else (str(why or "datatrove_filter"), name)
        if isinstance(self._block, BaseFormatter):
            document.text = self._block.format(document.text)
            return None, None
        out: Iterator[Any] = self._block.run(iter([document]), 0, 1)
        results = list(out)
        if not results:
            return "datatrove_block", name
        document.text = results[0].text
        return None, None
