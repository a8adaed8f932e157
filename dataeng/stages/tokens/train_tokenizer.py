"""Training a tokenizer on a seeded, balanced sample of the corpus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, Self

import polars as pl
from pydantic import Field, model_validator

from dataeng.stage import Columns, ExchangeStage, OutputFiles, Slices
from dataeng.stages.tokens import tokenizer_sample
from dataeng.stages.tokens.pretokenization import Digits, PresetName
from dataeng.stages.tokens.special_tokens import END_OF_TEXT
from dataeng.stages.tokens.tokenizer_training import Algorithm, Recipe, train_tokenizer

__all__ = ["END_OF_TEXT", "TOKENIZER_FILE", "TrainTokenizer"]

TOKENIZER_FILE = "tokenizer/tokenizer.json"


class TrainTokenizer(ExchangeStage):
    """Trains a tokenizer (byte-level BPE, BPE with byte fallback, Unigram, WordPiece) as the artifact ``tokenizer``.

    The sample is, of every domain and language, the documents with the smallest hash of (seed, id), up to its share of
    ``sample_bytes``; the last one is cut. It is the same however the corpus is split. Temperatures give small languages
    and domains a larger share than they have in the corpus; where ``language`` is not known, that is a language, too.
    """

    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("tokenizers",)
    kernels: ClassVar[tuple[str, ...]] = ("hashing", "pretokens", "bpe_merges", "unigram")
    not_emitted: ClassVar[tuple[str, ...]] = (
        "algorithm",
        "vocab_size",
        "min_frequency",
        "special_tokens",
        "pre_tokenization",
        "digits",
        "character_coverage",
    )

    partitions: int | None = Field(default=1, ge=1, le=1, description="One: there is one sample")
    algorithm: Algorithm = Field(default="byte_level_bpe", description="The model; all but WordPiece give texts back")
    vocab_size: int = Field(
        default=8192, ge=257, le=1_000_000, description="Tokens, the 256 bytes and special ones too"
    )
    min_frequency: int = Field(default=2, ge=1, description="A pair must be there so often to become a token")
    special_tokens: tuple[str, ...] | None = Field(
        default=None,
        description="They get the first ids, in this order; names with @ are sets: @chatml, @fim, … ; "
        "null: `<|endoftext|>` and what the algorithm needs",
    )
    pre_tokenization: PresetName | None = Field(
        default=None, description="Where texts are cut before anything is merged; null: gpt2, for WordPiece bert"
    )
    digits: Digits | None = Field(default=None, description="How digits are cut; null: as the pre-tokenization has it")
    character_coverage: float = Field(
        default=0.9995, gt=0, le=1, description="Share of the characters that get tokens; not for byte_level_bpe"
    )
    sample_bytes: int = Field(default=64 << 20, ge=1, description="How much text to train on")
    language_temperature: float = Field(
        default=3.3, ge=1, description="Languages get shares ∝ bytes^(1/T): 1 is natural, larger is flatter"
    )
    domain_temperature: float = Field(default=2.0, ge=1, description="The same for domains")
    seed: int = Field(default=0, description="Draws the sample")

    @model_validator(mode="after")
    def _recipe_is_possible(self) -> Self:
        self.recipe()
        return self

    def recipe(self) -> Recipe:
        """Returns what decides the tokenizer besides the sample."""
        return Recipe(
            self.algorithm,
            self.vocab_size,
            self.min_frequency,
            self.special_tokens,
            self.pre_tokenization,
            self.digits,
            self.character_coverage,
        )

    def needed_kernels(self) -> tuple[str, ...]:
        return (*self.kernels[:2], "unigram" if self.algorithm == "unigram" else "bpe_merges")

    def columns(self) -> Columns:
        return Columns(reads=("id", "text"))

    def steps(self) -> tuple[str, ...]:
        return ("train",)

    def step_partitions(self, step: int) -> int:
        return 1

    def artifacts(self) -> Mapping[str, str]:
        return {"tokenizer": TOKENIZER_FILE}

    def emit(self, batch: pl.DataFrame) -> pl.DataFrame:
        temperatures = {"domain": self.domain_temperature, "language": self.language_temperature}
        grouped = [name for name, temperature in temperatures.items() if temperature != 1]
        return self.combine(tokenizer_sample.rows(batch, self.seed, grouped))

    def combine(self, table: pl.DataFrame) -> pl.DataFrame:
        return tokenizer_sample.combine(table, self.sample_bytes)

    def reduce_slices(self, step: int, slices: Slices, outputs: OutputFiles) -> Iterator[pl.DataFrame]:
        content = train_tokenizer(self.sample(slices), self.recipe())
        outputs.create(TOKENIZER_FILE).write(content)
        yield pl.DataFrame()

    def sample(self, tables: Iterable[pl.DataFrame]) -> pl.Series:
        """Returns the texts to train on, of all tables that `combine` has made; they are gone through twice."""
        limits = tokenizer_sample.budgets(
            tokenizer_sample.group_bytes(tables), self.sample_bytes, self.domain_temperature, self.language_temperature
        )
        return tokenizer_sample.sample(tables, limits)
