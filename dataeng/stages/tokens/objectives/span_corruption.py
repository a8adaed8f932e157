"""Span corruption: the encoder's input with spans replaced by sentinels, and the decoder's target with what they were.

Raffel et al. 2020, *Exploring the limits of transfer learning with a unified text-to-text transformer*
(arXiv 1910.10683); as one row for decoders, after UL2 (Tay et al., arXiv 2205.05131).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field, field_validator

from dataeng.errors import ConfigError
from dataeng.stages.tokens.encoded import Encoded
from dataeng.stages.tokens.objectives.draws import document_keys
from dataeng.stages.tokens.objectives.ends import Ends
from dataeng.stages.tokens.objectives.objective import Objective
from dataeng.stages.tokens.pack_tokenizer import PackTokenizer


class SpanCorruption(Objective):
    """T5's span corruption, input and target behind each other in one document of the pack.

    A document is cut into pieces of at most ``max_tokens``, and each becomes ``BOS input separator target EOS`` (BOS
    and the separator only if there are such). The mask is 1 on the target and its EOS: where it turns from 0 to 1, an
    encoder-decoder model's reader parts the two.
    """

    masks: ClassVar[bool] = True
    kernels: ClassVar[tuple[str, ...]] = ("hashing", "noising")

    kind: Literal["span_corruption"] = "span_corruption"
    noise_density: float = Field(default=0.15, gt=0, lt=1, description="Share of tokens that are noise")
    mean_span: float = Field(default=3.0, ge=1, description="Tokens of a span of noise, on average")
    max_tokens: int = Field(
        default=512, ge=2, le=1 << 20, description="Longer documents are cut into pieces of almost equal size"
    )
    sentinels: str = Field(default="<extra_id_{}>", description="What sentinels are called; {} is their number, from 0")
    separator: str | None = Field(default=None, description="A token between input and target")
    seed: int = Field(default=0, description="Draws the spans, together with the document's id")

    @field_validator("sentinels")
    @classmethod
    def _has_a_number(cls, pattern: str) -> str:
        if pattern.count("{}") != 1:
            raise ValueError(f"expected one {{}} for the number of a sentinel, found {pattern!r}")
        return pattern

    def columns(self) -> tuple[str, ...]:
        return ("id", "text")

    def sentinel_ids(self, tokenizer: PackTokenizer) -> list[int]:
        """Returns the ids of the sentinels that a piece can need.

        Raises:
          ConfigError: the tokenizer has fewer.
        """
        from dataeng.kernels.noising import max_spans

        needed = max_spans(self.max_tokens, self.noise_density, self.mean_span)
        names = [self.sentinels.replace("{}", str(number)) for number in range(needed)]
        missing = [name for name in names if name not in tokenizer.vocabulary.ids]
        if missing:
            raise ConfigError(
                f"the objective 'span_corruption' needs {needed} sentinels for pieces of {self.max_tokens} tokens, "
                f"'{names[0]}' to '{names[-1]}'; the tokenizer {tokenizer.path} has no '{missing[0]}'. Set `sentinels` "
                "to what it calls them, lower max_tokens, or train a tokenizer with them among its special_tokens."
            )
        return [tokenizer.vocabulary.ids[name] for name in names]

    def prepare(self, tokenizer: PackTokenizer, ends: Ends) -> None:
        if ends.eos_id is None:
            raise ConfigError("the objective 'span_corruption' ends a target with EOS; set write_packs.eos to append.")
        separator = [] if self.separator is None else [self.token_id(tokenizer, self.separator, "separator")]
        tokenizer.reserve(*self.sentinel_ids(tokenizer), *separator, *ends.ids)

    def encode(self, rows: pl.DataFrame, tokenizer: PackTokenizer, ends: Ends) -> Encoded:
        from dataeng.kernels.noising import corrupt_spans

        assert ends.eos_id is not None
        encoded = tokenizer.encode(rows.get_column("text"))
        noised = corrupt_spans(
            encoded.tokens.astype(np.int32),
            encoded.lengths,
            document_keys(rows.get_column("id"), self.seed, self.kind),
            max_tokens=self.max_tokens,
            density=self.noise_density,
            mean_span=self.mean_span,
            sentinels=np.array(self.sentinel_ids(tokenizer), np.int32),
            before=ends.bos_id,
            between=None if self.separator is None else self.token_id(tokenizer, self.separator, "separator"),
            after=ends.eos_id,
        )
        return Encoded(noised.tokens.astype(encoded.tokens.dtype), noised.lengths, noised.mask)
