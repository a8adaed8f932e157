"""The contract of objectives, and the one that does nothing: predict every token of the text."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict

from dataeng.stages.tokens.encoded import Encoded
from dataeng.stages.tokens.pack_tokenizer import PackTokenizer


class Objective(BaseModel):
    """Turns rows of documents into tokens, and says which of them are trained on. Fields are YAML keys.

    What it does to a document depends on the document (and its ``id``, where there is chance), never on the batch.
    `write_packs` adds BOS and EOS afterwards. A subclass has ``kind: Literal["its_name"] = "its_name"``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    masks: ClassVar[bool] = False
    """Whether what `encode` returns has a mask; it always has, or never."""

    def columns(self) -> tuple[str, ...]:
        """Returns the columns that it reads."""
        return ("text",)

    def check(self, tokenizer: PackTokenizer) -> None:
        """Raises `ConfigError` where the tokenizer lacks a token that this needs. Called before anything runs."""

    @abstractmethod
    def encode(self, rows: pl.DataFrame, tokenizer: PackTokenizer) -> Encoded:
        """Returns the tokens of every row, in order, in ``tokenizer.dtype``, without BOS and EOS."""


class PlainText(Objective):
    """The text as it is."""

    kind: Literal["plain_text"] = "plain_text"

    def encode(self, rows: pl.DataFrame, tokenizer: PackTokenizer) -> Encoded:
        return tokenizer.encode(rows.get_column("text"))
