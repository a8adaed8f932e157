"""Masked language modelling: a view of the document with tokens masked, and the document as it was.

Devlin et al. 2018, *BERT: pre-training of deep bidirectional transformers* (arXiv 1810.04805).
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from dataeng.errors import ConfigError
from dataeng.stages.tokens.encoded import Encoded
from dataeng.stages.tokens.objectives.draws import document_keys
from dataeng.stages.tokens.objectives.ends import Ends
from dataeng.stages.tokens.objectives.objective import Objective
from dataeng.stages.tokens.pack_tokenizer import PackTokenizer


class MaskedLm(Objective):
    """BERT's masked tokens, input and labels behind each other in one document of the pack.

    A document is cut into pieces of at most ``max_tokens``, and each becomes ``BOS input EOS BOS labels EOS``, the two
    halves being equally long. The mask is 1 on the labels of the tokens that were chosen, and nowhere else.
    """

    masks: ClassVar[bool] = True
    kernels: ClassVar[tuple[str, ...]] = ("hashing", "noising")

    kind: Literal["masked_lm"] = "masked_lm"
    rate: float = Field(default=0.15, gt=0, le=1, description="Share of tokens that are to be predicted")
    mask_share: float = Field(default=0.8, ge=0, le=1, description="Share of those that become the mask token")
    random_share: float = Field(
        default=0.1, ge=0, le=1, description="Share of those that become any other token; what is left stays"
    )
    mask_token: str = Field(default="[MASK]", description="What stands for a masked token")
    max_tokens: int = Field(
        default=510, ge=1, le=1 << 20, description="Longer documents are cut into pieces of almost equal size"
    )
    seed: int = Field(default=0, description="Draws tokens, together with the document's id")

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.mask_share + self.random_share > 1:
            raise ValueError(
                f"mask_share {self.mask_share:g} and random_share {self.random_share:g} are more than 1 together"
            )
        return self

    def columns(self) -> tuple[str, ...]:
        return ("id", "text")

    def prepare(self, tokenizer: PackTokenizer, ends: Ends) -> None:
        if ends.eos_id is None:
            raise ConfigError("the objective 'masked_lm' ends its halves with EOS; set write_packs.eos to append.")
        tokenizer.reserve(self.token_id(tokenizer, self.mask_token, "mask_token"), *ends.ids)
        if not len(tokenizer.ordinary_ids()):
            raise ConfigError(f"the tokenizer {tokenizer.path} has no tokens but special ones.")

    def encode(self, rows: pl.DataFrame, tokenizer: PackTokenizer, ends: Ends) -> Encoded:
        from dataeng.kernels.noising import mask_tokens

        assert ends.eos_id is not None
        encoded = tokenizer.encode(rows.get_column("text"))
        noised = mask_tokens(
            encoded.tokens.astype(np.int32),
            encoded.lengths,
            document_keys(rows.get_column("id"), self.seed, self.kind),
            max_tokens=self.max_tokens,
            rate=self.rate,
            mask_share=self.mask_share,
            random_share=self.random_share,
            mask_id=self.token_id(tokenizer, self.mask_token, "mask_token"),
            ordinary=tokenizer.ordinary_ids(),
            before=ends.bos_id,
            after=ends.eos_id,
        )
        return Encoded(noised.tokens.astype(encoded.tokens.dtype), noised.lengths, noised.mask)
