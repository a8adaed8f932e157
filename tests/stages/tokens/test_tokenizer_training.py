"""Every algorithm: it trains, gives texts back, keeps special tokens apart, and refuses what cannot work."""

from __future__ import annotations

import gzip
import json
import random
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from dataeng.errors import ConfigError, InputError
from dataeng.stages.tokens.pretokenization import pre_tokenizer
from dataeng.stages.tokens.special_tokens import SETS
from dataeng.stages.tokens.tokenizer_training import Recipe, byte_characters, train_tokenizer

SAMPLE = Path(__file__).parents[3] / "dataeng/sample"
LOSSLESS = ("byte_level_bpe", "byte_fallback_bpe", "unigram")
PRESETS = ("gpt2", "gpt4", "llama3", "qwen")
AWKWARD = [
    "",
    "  leading",
    "a\r\n\tb",
    "\x00\x01",
    "e\u0301",
    "\u202e\u200b",
    "👩‍👩‍👧",
    "▁ ▁▁",
    "<0x41><unk><|endoftext|> </s>",
]


@lru_cache
def texts() -> pl.Series:
    """Real code, and text in several scripts: the code of the sample that comes with the package."""
    found = []
    for path in sorted((SAMPLE / "code").glob("*.jsonl.gz")):
        with gzip.open(path, "rt") as lines:
            found += [json.loads(line)["text"][:2000] for line in lines]
    generator = random.Random(0)
    words = ["der", "die", "nicht", "über", "ναι", "όχι", "да", "нет", "東京", "は", "これ", "🙂", "12", "345", "2024"]
    found += [" ".join(generator.choices(words, k=40)) + "\n" for _ in range(200)]
    return pl.Series(found)


@lru_cache
def trained(recipe: Recipe) -> tuple[Tokenizer, dict[str, Any]]:
    content = train_tokenizer(texts(), recipe)
    tokenizer = Tokenizer.from_str(content.decode())
    tokenizer.encode_special_tokens = True
    return tokenizer, json.loads(content)


def ids_of(recipe: Recipe, text: str) -> list[int]:
    return list(trained(recipe)[0].encode(text, add_special_tokens=False).ids)


def back(recipe: Recipe, text: str) -> str:
    return str(trained(recipe)[0].decode(ids_of(recipe, text), skip_special_tokens=False))


@pytest.mark.parametrize("algorithm", LOSSLESS)
@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_every_text_comes_back(algorithm: Any, text: str) -> None:
    assert back(Recipe(algorithm, 1500), text) == text


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("digits", [None, "individual", "groups_of_three"])
@pytest.mark.parametrize("algorithm", LOSSLESS)
def test_every_preset_gives_texts_back_and_cuts_digits(algorithm: Any, preset: Any, digits: Any) -> None:
    recipe = Recipe(algorithm, 900, pre_tokenization=preset, digits=digits)
    for text in [*AWKWARD, *texts()[-3:].to_list(), texts()[0]]:
        assert back(recipe, text) == text
    tokenizer, _ = trained(recipe)
    most = {"individual": 1, "groups_of_three": 3}.get(digits, {"gpt2": 99, "qwen": 1}.get(preset, 3))
    assert all(sum(map(str.isdigit, tokenizer.decode([i]))) <= most for i in range(300, tokenizer.get_vocab_size()))


@pytest.mark.parametrize("algorithm", [*LOSSLESS, "wordpiece"])
def test_the_vocabulary_has_its_size_and_special_tokens_come_first(algorithm: Any) -> None:
    specials = ("<unk>", "<|endoftext|>", "@chatml", "@fim", "@roles")
    tokenizer, content = trained(Recipe(algorithm, 1200, special_tokens=specials))
    assert tokenizer.get_vocab_size(with_added_tokens=True) == 1200
    expected = ["<unk>", "<|endoftext|>", *SETS["@chatml"], *SETS["@fim"], *SETS["@roles"]]
    assert [tokenizer.id_to_token(i) for i in range(len(expected))] == expected
    assert [(token["id"], token["content"], token["special"]) for token in content["added_tokens"]] == [
        (i, token, True) for i, token in enumerate(expected)
    ]


@pytest.mark.parametrize("algorithm", [*LOSSLESS, "wordpiece"])
def test_text_that_reads_like_special_tokens_never_becomes_one(algorithm: Any) -> None:
    specials = ("[UNK]", "<|im_start|>", "<|im_end|>", "<pad>", "[PAD]")
    corpus = pl.Series(["<|im_start|>user <pad> [PAD]<0x0A> <|im_end|>\n"] * 50 + ["ab cd"])
    tokenizer = Tokenizer.from_str(
        train_tokenizer(corpus, Recipe(algorithm, 400, special_tokens=specials, character_coverage=1)).decode()
    )
    tokenizer.encode_special_tokens = True
    for text in (corpus[0], "<|im_start|>", "[PAD][PAD]", "[UNK]", "x<pad>"):
        encoding = tokenizer.encode(text, add_special_tokens=False)
        unknown = 0 if algorithm == "wordpiece" and "UNK" in text else None  # U, N and K are in no word it has seen
        assert {i for i in encoding.ids if i < len(specials)} <= {unknown}, encoding.tokens
        if algorithm not in ("wordpiece", "byte_level_bpe"):
            assert "<0x0A>" not in encoding.tokens or text.endswith("\n")


def test_byte_fallback_uses_bytes_for_what_the_alphabet_leaves_out() -> None:
    recipe = Recipe("byte_fallback_bpe", 1200, character_coverage=0.98)
    tokens = trained(recipe)[0].encode("é 𓀀", add_special_tokens=False).tokens
    assert [token for token in tokens if token.startswith("<0x")][-4:] == ["<0xF0>", "<0x93>", "<0x80>", "<0x80>"]
    assert "é" not in trained(recipe)[0].get_vocab() and "e" in trained(recipe)[0].get_vocab()


def test_wordpiece_gives_words_back() -> None:
    recipe = Recipe("wordpiece", 2000)
    text = "def train(self, values): return über 東京"
    encoding = trained(recipe)[0].encode(text, add_special_tokens=False)
    assert "[UNK]" not in encoding.tokens and any(token.startswith("##") for token in encoding.tokens)
    assert trained(recipe)[0].decode(encoding.ids).replace(" ", "") == text.replace(" ", "")
    assert trained(recipe)[0].encode("𓀀x", add_special_tokens=False).tokens == ["[UNK]"]


@pytest.mark.parametrize("algorithm", [*LOSSLESS, "wordpiece"])
def test_the_order_of_texts_does_not_matter(algorithm: Any) -> None:
    recipe = Recipe(algorithm, 1000)
    some = texts()[:60].extend(texts()[-100:])
    assert train_tokenizer(some, recipe) == train_tokenizer(some.reverse(), recipe)


@pytest.mark.parametrize(("preset", "digits"), [("gpt2", None), ("llama3", None), ("gpt2", "individual")])
def test_byte_level_bpe_is_the_library_s_byte_for_byte(preset: Any, digits: Any) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer(preset, digits, byte_level=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        min_frequency=2,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts().to_list(), trainer)
    recipe = Recipe(
        vocab_size=3000, special_tokens=("<|endoftext|>", "@chatml"), pre_tokenization=preset, digits=digits
    )
    assert train_tokenizer(texts(), recipe).decode() == tokenizer.to_str(pretty=False)


def test_unigram_needs_no_more_tokens_than_the_library_s() -> None:
    """Not the same pieces: the library counts every word once for its seeds. But pieces as good, within 2 %."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizer("gpt2", None, byte_level=False)
    trainer = trainers.UnigramTrainer(
        vocab_size=2000 - 256, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts().to_list(), trainer)
    ours, _ = trained(Recipe("unigram", 2000, special_tokens=("<unk>",), character_coverage=1))
    num_ours, num_library = (
        sum(len(encoding.ids) for encoding in each.encode_batch(texts().to_list(), add_special_tokens=False))
        for each in (ours, tokenizer)
    )
    assert num_ours < 1.02 * num_library


def test_byte_characters_are_the_library_s() -> None:
    assert set(byte_characters()) == set(pre_tokenizers.ByteLevel.alphabet())
    cutter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for code in range(0x800):
        shown = "".join(byte_characters()[byte] for byte in chr(code).encode())
        assert cutter.pre_tokenize_str(chr(code))[0][0] == shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 256}, "vocab_size 256 is too small: 1 special tokens and 256 bytes need 257"),
        ({"special_tokens": ("@chatlm",)}, "did you mean '@chatml'"),
        ({"special_tokens": ("a",)}, "also ordinary text: 'a'"),
        ({"algorithm": "unigram", "special_tokens": ("<pad>",)}, "unigram needs a special token for what it does not"),
        ({"algorithm": "wordpiece", "special_tokens": ("[UNK]", "PAD")}, "also ordinary text: 'PAD'"),
        ({"algorithm": "wordpiece", "pre_tokenization": "gpt2"}, "'gpt2' does not go with wordpiece"),
        ({"pre_tokenization": "bert"}, "'bert' does not go with byte_level_bpe"),
        ({"algorithm": "wordpiece", "digits": "individual"}, "no rule for digits"),
    ],
)
def test_recipes_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe(**options)


@pytest.mark.parametrize("corpus", [[], [""], [None]])
def test_an_empty_corpus_is_refused(corpus: list[str | None]) -> None:
    with pytest.raises(InputError, match="no text to train"):
        train_tokenizer(pl.Series(corpus, dtype=pl.String), Recipe())


@pytest.mark.parametrize("algorithm", ["byte_fallback_bpe", "unigram", "wordpiece"])
def test_more_characters_than_the_vocabulary_has_room_for_are_refused(algorithm: Any) -> None:
    corpus = pl.Series(["".join(map(chr, range(0x4E00, 0x5000)))])
    with pytest.raises(InputError, match=r"300 is too small for these texts: .* and (512|1023) char"):
        train_tokenizer(corpus, Recipe(algorithm, 300, character_coverage=1))
