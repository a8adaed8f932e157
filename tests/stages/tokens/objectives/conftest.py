"""A small tokenizer with the special tokens of all objectives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from dataeng.stages.tokens.pack_tokenizer import PackTokenizer, load_tokenizer

FIM = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
CHAT = ("<|im_start|>", "<|im_end|>")
SPECIAL = ("<|endoftext|>", "<s>", "[MASK]", *FIM, *CHAT, *(f"<extra_id_{i}>" for i in range(30)))
CORPUS = ["def add(a, b):\n    return a + b\n", "the quick brown fox jumps over the lazy dog", "Wie geht's? Gut!"] * 3


def byte_level_tokenizer(path: Path, not_special: tuple[str, ...] = ()) -> Path:
    """Writes a byte-level BPE with `SPECIAL`, of which some are added but not special, as Qwen's FIM tokens are."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=list(SPECIAL), show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        ),
    )  # fmt: skip
    description = json.loads(tokenizer.to_str())
    description["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    for token in description["added_tokens"]:
        token["special"] = token["content"] not in not_special
    path.write_text(json.dumps(description))
    return path


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_level_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


@pytest.fixture(scope="session")
def tokenizer(tokenizer_path: Path) -> PackTokenizer:
    return load_tokenizer(tokenizer_path)
