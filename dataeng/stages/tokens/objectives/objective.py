"""The contract of objectives, and the one that does nothing: predict every token of the text."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict

from dataeng.stages.tokens.encoded import Encoded
from dataeng.stages.tokens.objectives.ends import Ends
from dataeng.stages.tokens.pack_tokenizer import PackTokenizer


class Objective(BaseModel):
    """Turns rows of documents into tokens, and says which of them are trained on. Fields are YAML keys.

    What it does to a document depends on the document (and its ``id``, where there is chance), never on the batch.
    A subclass has ``kind: Literal["its_name"] = "its_name"``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    masks: ClassVar[bool] = False
    """Whether what `encode` returns has a mask; it always has, or never."""

    kernels: ClassVar[tuple[str, ...]] = ()
    """Modules of `dataeng.kernels` that it calls."""

    def columns(self) -> tuple[str, ...]:
        """Returns the columns that it reads."""
        return ("text",)

    def prepare(self, tokenizer: PackTokenizer, ends: Ends) -> None:
        """Reserves the tokens that this puts into documents. Called once, before anything is encoded.

        Raises:
          ConfigError: the tokenizer lacks a token that this needs, or something does not fit it.
        """

    @abstractmethod
    def encode(self, rows: pl.DataFrame, tokenizer: PackTokenizer, ends: Ends) -> Encoded:
        """Returns the tokens of every row, in order, in ``tokenizer.dtype``, with BOS and EOS as ``ends`` says."""

    def token_id(self, tokenizer: PackTokenizer, token: str, option: str) -> int:
        """Returns the id of a token that one of this objective's options names.

        Raises:
          ConfigError: the tokenizer has no such token.
        """
        return tokenizer.token_id(token, f"{option} of the objective '{self.model_dump()['kind']}'")


class PlainText(Objective):
    """The text as it is."""

    kind: Literal["plain_text"] = "plain_text"

    def encode(self, rows: pl.DataFrame, tokenizer: PackTokenizer, ends: Ends) -> Encoded:
        return tokenizer.encode(rows.get_column("text"), *ends)
