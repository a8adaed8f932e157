"""Training a byte-level BPE tokenizer on a seeded sample of the corpus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import polars as pl
from pydantic import Field

from dataeng.stage import Columns, ExchangeStage, OutputFiles

TOKENIZER_FILE = "tokenizer/tokenizer.json"
END_OF_TEXT = "<|endoftext|>"


class TrainTokenizer(ExchangeStage):
    """Trains a byte-level BPE (GPT-2's pre-tokenization) and publishes it as the artifact ``tokenizer``.

    The sample is the documents with the smallest hash of (seed, id), up to ``sample_bytes``; the last one is cut.
    It is the same however the corpus is split, and grows at its end when the limit is raised.
    """

    libraries: ClassVar[tuple[str, ...]] = ("tokenizers",)
    kernels: ClassVar[tuple[str, ...]] = ("hashing",)

    partitions: int | None = Field(default=1, ge=1, le=1, description="One: there is one sample")
    vocab_size: int = Field(
        default=8192, ge=257, le=1_000_000, description="Tokens, the 256 bytes and special ones too"
    )
    min_frequency: int = Field(default=2, ge=1, description="A pair must be there so often to become a token")
    sample_bytes: int = Field(default=64 << 20, ge=1, description="How much text to train on")
    special_tokens: tuple[str, ...] = Field(default=(END_OF_TEXT,), description="They get the first ids, in this order")
    seed: int = Field(default=0, description="Draws the sample")

    def columns(self) -> Columns:
        return Columns(reads=("id", "text"))

    def steps(self) -> tuple[str, ...]:
        return ("train",)

    def step_partitions(self, step: int) -> int:
        return 1

    def artifacts(self) -> Mapping[str, str]:
        return {"tokenizer": TOKENIZER_FILE}

    def emit(self, batch: pl.DataFrame) -> pl.DataFrame:
        from dataeng.kernels.hashing import hash_texts
        from dataeng.kernels.text import text_buffers

        keys = batch.select(pl.format("{}:{}", pl.lit(self.seed), "id").alias("key")).get_column("key")
        low = hash_texts(text_buffers(keys))[1]
        rows = batch.select(pl.lit(0, dtype=pl.UInt32).alias("partition"), "id", "text")
        return self.combine(rows.with_columns(pl.Series("order", low)))

    def combine(self, table: pl.DataFrame) -> pl.DataFrame:
        """Keeps the documents up to the one that crosses the limit.

        That one too: without it, what comes after it in other batches would seem to fit.
        """
        ordered = table.sort("order", "id")
        size = pl.col("text").str.len_bytes().cast(pl.Int64)
        return ordered.filter(size.cum_sum() - size < self.sample_bytes)

    def reduce(self, step: int, table: pl.DataFrame, outputs: OutputFiles) -> pl.DataFrame:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=list(self.special_tokens),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(self._sample(table), trainer)
        outputs.create(TOKENIZER_FILE).write(tokenizer.to_str(pretty=False).encode())
        return pl.DataFrame()

    def _sample(self, table: pl.DataFrame) -> list[str]:
        """Returns the texts to train on: together at most ``sample_bytes``, the last one cut between characters."""
        texts: list[str] = self.combine(table).get_column("text").to_list()
        if texts:
            before = sum(len(text.encode()) for text in texts[:-1])
            texts[-1] = texts[-1].encode()[: self.sample_bytes - before].decode(errors="ignore")
        return texts
