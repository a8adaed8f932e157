"""Fill in the middle: some documents are cut in three, and the middle moves to the end.

Bavarian et al. 2022, *Efficient training of language models to fill in the middle* (arXiv 2207.14255), per document, as
StarCoder's and Megatron's ``GPTFIMDataset`` write it::

    PSM  <prefix> the prefix <suffix> the suffix <middle> the middle
    SPM  <prefix> <suffix> the suffix <middle> the prefix the middle      (the paper's variant 2)
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field

from dataeng.errors import ConfigError
from dataeng.stages.tokens.encoded import Encoded
from dataeng.stages.tokens.objectives.draws import document_keys, uniform
from dataeng.stages.tokens.objectives.ends import Ends
from dataeng.stages.tokens.objectives.objective import Objective
from dataeng.stages.tokens.pack_tokenizer import PackTokenizer

Ints = npt.NDArray[np.int64]


class Cuts(NamedTuple):
    """Where documents are cut: the middle is ``[first, second)``, in characters or tokens; all are [documents]."""

    chosen: npt.NDArray[np.bool_]
    spm: npt.NDArray[np.bool_]
    first: Ints
    second: Ints


def draw_cuts(lengths: Ints, keys: npt.NDArray[np.uint64], rate: float, spm_rate: float) -> Cuts:
    """Decides which documents are cut, and where: two places from 0 to the length, both uniform, in order.

    A part may be empty, as in the paper. A document of length 0 has nothing to be cut, and is not chosen.
    """
    places = np.stack([(uniform(keys, draw) * (lengths + 1)).astype(np.int64) for draw in (1, 2)])
    chosen = (uniform(keys, 0) < rate) & (lengths > 0)
    return Cuts(chosen, uniform(keys, 3) < spm_rate, places.min(axis=0), places.max(axis=0))


def gather_ranges(values: npt.NDArray[np.generic], starts: Ints, lengths: Ints) -> npt.NDArray[np.generic]:
    """Returns ``values[start:start + length]`` of all ranges, one after the other."""
    before = np.cumsum(lengths) - lengths
    return values[np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))]


def arrange(
    tokens: npt.NDArray[np.generic], starts: Ints, lengths: Ints, cuts: Cuts, sentinels: tuple[int, int, int]
) -> Encoded:
    """Puts the parts of documents in their order, with sentinels where a document was chosen.

    Args:
      tokens: [T], in which all parts lie.
      starts, lengths: [documents, 3], of prefix, middle and suffix; side by side where a document was not chosen.
      sentinels: for prefix, middle and suffix.
    """
    prefix, middle, suffix = (np.stack([starts[:, i], lengths[:, i]]) for i in range(3))
    chosen = cuts.chosen.astype(np.int64)
    # A sentinel is a part of one token, or none, of the three behind the tokens.
    marks = [np.stack([np.full_like(chosen, len(tokens) + i), chosen]) for i in range(3)]
    nothing = np.zeros_like(prefix)
    spm = cuts.spm & cuts.chosen
    parts = [
        marks[0],
        np.where(spm, nothing, prefix),
        np.where(cuts.chosen, marks[2], middle),
        suffix,
        marks[1],
        np.where(spm, prefix, nothing),
        np.where(cuts.chosen, middle, nothing),
    ]
    table = np.stack(parts).transpose(2, 0, 1)  # [documents, parts, start and length]
    values = np.concatenate([tokens, np.array(sentinels, tokens.dtype)])
    sizes = np.ascontiguousarray(table[:, :, 1])
    moved = gather_ranges(values, np.ascontiguousarray(table[:, :, 0]).ravel(), sizes.ravel())
    return Encoded(moved, sizes.sum(axis=1).astype(np.int32))


def fim_of_tokens(
    encoded: Encoded, keys: npt.NDArray[np.uint64], rate: float, spm_rate: float, sentinels: tuple[int, int, int]
) -> Encoded:
    """Cuts documents between tokens. ``keys`` are `document_keys`; ``sentinels`` for prefix, middle and suffix."""
    lengths = encoded.lengths.astype(np.int64)
    cuts = draw_cuts(lengths, keys, rate, spm_rate)
    bounds = np.cumsum(lengths) - lengths
    places = np.stack([np.zeros_like(lengths), cuts.first, cuts.second, lengths], axis=1)
    return arrange(encoded.tokens, bounds[:, None] + places[:, :3], np.diff(places, axis=1), cuts, sentinels)


def fim_of_texts(
    texts: pl.Series, keys: npt.NDArray[np.uint64], rate: float, spm_rate: float, sentinels: tuple[int, int, int],
    tokenizer: PackTokenizer,
) -> Encoded:  # fmt: skip
    """Cuts documents between characters (Unicode code points) and encodes each part by itself, as the paper does.

    So a model learns to go on from a token that a cursor has cut. What was not chosen is encoded whole.
    """
    texts = texts.fill_null("")
    lengths = texts.str.len_chars().cast(pl.Int64).to_numpy()
    cuts = draw_cuts(lengths, keys, rate, spm_rate)
    first, second = np.where(cuts.chosen, cuts.first, lengths), np.where(cuts.chosen, cuts.second, lengths)
    text, start, stop = pl.lit(texts), pl.lit(pl.Series(first)), pl.lit(pl.Series(second))
    prefix, middle, suffix = (
        pl.select(part.alias("part")).to_series()
        for part in (text.str.slice(0, start), text.str.slice(start, stop - start), text.str.slice(stop))
    )
    # One call for all parts: the whole documents among them keep every core of the encoder busy.
    encoded = tokenizer.encode(pl.concat([prefix, middle, suffix]))
    sizes = encoded.lengths.astype(np.int64)
    starts = (np.cumsum(sizes) - sizes).reshape(3, -1).T
    return arrange(encoded.tokens, starts, sizes.reshape(3, -1).T, cuts, sentinels)


class Fim(Objective):
    """Fill in the middle: a document's middle part is moved to its end, and every token is still trained on.

    A document is treated as a whole, before documents are packed into rows; one that is longer than a row is then cut,
    and its parts may land in different rows.
    """

    kind: Literal["fim"] = "fim"
    rate: float = Field(default=0.5, ge=0, le=1, description="Share of documents that are cut; the others stay")
    spm_rate: float = Field(default=0.5, ge=0, le=1, description="Share of those that begin with the suffix")
    level: Literal["character", "token"] = Field(
        default="character", description="Where the two cuts may be; between characters is what the paper recommends"
    )
    prefix_token: str = Field(default="<|fim_prefix|>", description="Before the prefix")
    middle_token: str = Field(default="<|fim_middle|>", description="Before the middle")
    suffix_token: str = Field(default="<|fim_suffix|>", description="Before the suffix")
    seed: int = Field(default=0, description="Draws documents and cuts, together with the document's id")

    kernels: ClassVar[tuple[str, ...]] = ("hashing",)

    def columns(self) -> tuple[str, ...]:
        return ("id", "text")

    def sentinels(self, tokenizer: PackTokenizer) -> tuple[int, int, int]:
        """Returns the ids of the sentinels for prefix, middle and suffix."""
        prefix, middle, suffix = (
            self.token_id(tokenizer, getattr(self, option), option)
            for option in ("prefix_token", "middle_token", "suffix_token")
        )
        return prefix, middle, suffix

    def prepare(self, tokenizer: PackTokenizer, ends: Ends) -> None:
        sentinels = self.sentinels(tokenizer)
        if len(set(sentinels)) < 3:
            raise ConfigError(
                f"the objective 'fim' needs three different tokens, found '{self.prefix_token}', "
                f"'{self.middle_token}' and '{self.suffix_token}'."
            )
        tokenizer.reserve(*sentinels)

    def encode(self, rows: pl.DataFrame, tokenizer: PackTokenizer, ends: Ends) -> Encoded:
        keys, texts = document_keys(rows.get_column("id"), self.seed, self.kind), rows.get_column("text")
        sentinels = self.sentinels(tokenizer)
        if self.level == "character":
            encoded = fim_of_texts(texts, keys, self.rate, self.spm_rate, sentinels, tokenizer)
        else:
            encoded = fim_of_tokens(tokenizer.encode(texts), keys, self.rate, self.spm_rate, sentinels)
        return ends.around(encoded)
