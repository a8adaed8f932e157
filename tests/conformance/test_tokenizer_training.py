"""Training against the peer: `tokenizers` on real text of many kinds gives the same file, byte for byte."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from dataeng.stages.tokens.pretokenization import PresetName, pre_tokenizer
from dataeng.stages.tokens.tokenizer_training import Recipe, train_tokenizer

FILES = ("domains/manpages", "domains/code", "domains/stackexchange", "domains/wiki", "lid/udhr", "domains/quotations")
BYTES_OF_EACH = 150_000


def real_texts(folder: Path) -> list[str]:
    texts = []
    for name in FILES:
        size = 0
        with gzip.open(folder / f"{name}.jsonl.gz", "rt") as lines:
            for line in lines:
                texts.append(json.loads(line)["text"][:20_000])
                size += len(texts[-1].encode())
                if size > BYTES_OF_EACH:
                    break
    return texts


@pytest.mark.parametrize("preset", ["gpt2", "llama3"])
def test_the_same_vocabulary_and_merges_on_real_text(test_data: Path, preset: PresetName) -> None:
    texts = real_texts(test_data)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer(preset, None, byte_level=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8_000,
        min_frequency=2,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    ours = train_tokenizer(pl.Series(texts), Recipe(vocab_size=8_000, pre_tokenization=preset))
    assert len(json.loads(ours)["model"]["merges"]) > 7_500
    assert ours.decode() == tokenizer.to_str(pretty=False)
