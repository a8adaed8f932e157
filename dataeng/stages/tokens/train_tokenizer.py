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

    The sample is the documents with the smallest hash of (seed, id), up to ``sample_bytes``: it is the same whatever
    the number of workers, and grows by documents at its end when the limit is raised.
    """

    libraries: ClassVar[tuple[str, ...]] = ("tokenizers",)
    kernels: ClassVar[tuple[str, ...]] = ("hashing",)

    partitions: int = 1
    vocab_size: int = Field(default=8192, ge=257, le=1_000_000)
    min_frequency: int = Field(default=2, ge=1)
    sample_bytes: int = Field(default=64 << 20, ge=1)
    special_tokens: tuple[str, ...] = (END_OF_TEXT,)
    seed: int = 0

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
        ordered = table.sort("order", "id")
        return ordered.filter(pl.col("text").str.len_bytes().cum_sum() <= self.sample_bytes)

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
        tokenizer.train_from_iterator(self.combine(table).get_column("text").to_list(), trainer)
        outputs.create(TOKENIZER_FILE).write(tokenizer.to_str(pretty=False).encode())
        return pl.DataFrame()
