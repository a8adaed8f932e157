"""Training a tokenizer: which documents it sees, and that its bytes depend on nothing else."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import Tokenizer

from dataeng.kernels.hashing import hash_texts
from dataeng.kernels.text import text_buffers
from dataeng.stages.tokens.train_tokenizer import TOKENIZER_FILE, TrainTokenizer
from tests.stages.exchange import frames_of, name_of, run_exchange

SYLLABLES = ["lo", "rem", "ip", "sum", "do", "lor", "sit", "a", "met", "über", "ναι", "東京", "🙂"]


def corpus(num: int, seed: int = 0) -> list[str]:
    generator = random.Random(seed)

    def word() -> str:
        return "".join(generator.choice(SYLLABLES) for _ in range(generator.randint(1, 3)))

    return [" ".join(word() for _ in range(generator.randint(5, 60))) for _ in range(num)]


def train(stage: TrainTokenizer, parts: list[list[str]], folder: Path, batch_documents: int = 1000) -> bytes:
    verdicts = run_exchange(stage, parts, folder, batch_documents=batch_documents, combine_each_batch=True)
    assert verdicts.height == 0  # an artifact, and nobody is dropped
    return (folder / TOKENIZER_FILE).read_bytes()


def sample_of(stage: TrainTokenizer, parts: list[list[str]], batch_documents: int) -> list[str]:
    tables = []
    for part, texts in enumerate(parts):
        emitted = [stage.emit(frame) for frame in frames_of(texts, part, batch_documents)]
        tables += [stage.combine(pl.concat(emitted))] if emitted else []
    return stage.sample([pl.concat(tables)]).to_list() if tables else []


def expected_sample(parts: list[list[str]], seed: int, limit: int) -> list[str]:
    """The slow, obvious way: everything in order of the hash of its id, until the bytes are used up."""
    named = {name_of(part, row): text for part, texts in enumerate(parts) for row, text in enumerate(texts)}
    keys = hash_texts(text_buffers(pl.Series([f"{seed}:{name}" for name in named], dtype=pl.String)))[1]
    ordered = [text for _, text in sorted(zip(keys.tolist(), named.values(), strict=True), key=lambda item: item[0])]
    taken: list[str] = []
    for text in ordered:
        if limit <= 0:
            break
        taken.append(text.encode()[:limit].decode(errors="ignore"))
        limit -= len(text.encode())
    return taken


texts = st.lists(st.lists(st.text("aé東", min_size=1, max_size=20), max_size=6), max_size=4)


@settings(max_examples=80, deadline=None)
@given(texts, st.integers(1, 5), st.integers(1, 200), st.integers(0, 3))
@example([["é", "aa", "aaaa東東", "aaaééééé東東", "aaaééé東東東東", "aaaaaéééééé東東東東東東東東東"]], 1, 1, 0)
def test_sample_is_the_smallest_hashes_however_the_corpus_is_split(
    parts: list[list[str]], batch: int, limit: int, seed: int
) -> None:
    stage = TrainTokenizer(sample_bytes=limit, seed=seed)
    sample = sample_of(stage, parts, batch)
    assert sample == expected_sample(parts, seed, limit)
    assert sum(len(text.encode()) for text in sample) <= limit


def test_a_document_larger_than_the_sample_gives_what_fits() -> None:
    assert sample_of(TrainTokenizer(sample_bytes=7), [["東京東京"]], 1) == ["東京"]


def test_raising_the_limit_only_adds_at_the_end() -> None:
    parts = [corpus(50)]
    small, large = (sample_of(TrainTokenizer(sample_bytes=limit), parts, 7) for limit in (2_000, 9_000))
    assert large[: len(small) - 1] == small[:-1] and large[len(small) - 1].startswith(small[-1])
    assert len(large) > len(small)


def test_seed_draws_another_sample() -> None:
    parts = [corpus(50)]
    one, other = (sample_of(TrainTokenizer(sample_bytes=1_000, seed=seed), parts, 7) for seed in (0, 1))
    assert set(one) != set(other)


def test_combined_rows_stay_within_the_limit_and_one_document() -> None:
    stage = TrainTokenizer(sample_bytes=500)
    documents = corpus(300)
    kept = pl.concat([stage.emit(frame) for frame in frames_of(documents, 0, 10)])
    for _ in range(2):  # repeated, as the engine may
        kept = stage.combine(kept)
    sizes = kept.get_column("text").str.len_bytes()
    assert int(sizes[:-1].sum()) < 500


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_same_bytes_for_every_way_to_batch(tmp_path: Path, batch: int) -> None:
    documents = corpus(120)
    stage = TrainTokenizer(vocab_size=400, sample_bytes=8_000)
    whole = train(stage, [documents], tmp_path / "whole")
    assert train(stage, [documents], tmp_path / "batched", batch) == whole
    assert train(stage, [documents], tmp_path / "again", batch) == whole


TRAIN = """
import pathlib, sys
from dataeng.stages.tokens.train_tokenizer import TrainTokenizer
from tests.stages.tokens.test_train_tokenizer import corpus, train
sys.stdout.buffer.write(train(TrainTokenizer(vocab_size=700), [corpus(200), corpus(100, 1)], pathlib.Path(sys.argv[1])))
"""


def test_same_bytes_in_other_processes_with_other_hash_seeds_and_threads(tmp_path: Path) -> None:
    results = set()
    for number, (hash_seed, parallel) in enumerate([("1", "true"), ("2", "false")]):
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, str(tmp_path / str(number))],
            capture_output=True,
            check=True,
            cwd=Path(__file__).parents[3],
            env={"PYTHONHASHSEED": hash_seed, "TOKENIZERS_PARALLELISM": parallel, "HOME": str(Path.home())},
        )
        results.add(done.stdout)
    assert len(results) == 1 and len(results.pop()) > 10_000


def test_vocabulary_holds_special_tokens_bytes_and_merges_in_this_order(tmp_path: Path) -> None:
    stage = TrainTokenizer(vocab_size=300, special_tokens=("<|endoftext|>", "<|pad|>"))
    content = json.loads(train(stage, [corpus(300)], tmp_path))
    tokenizer = Tokenizer.from_file(str(tmp_path / TOKENIZER_FILE))
    assert tokenizer.get_vocab_size(with_added_tokens=True) == 300
    assert tokenizer.token_to_id("<|endoftext|>") == 0 and tokenizer.token_to_id("<|pad|>") == 1
    assert len(content["model"]["merges"]) == 300 - 256 - 2
    assert [token["content"] for token in content["added_tokens"]] == ["<|endoftext|>", "<|pad|>"]


def test_small_corpora_give_a_smaller_vocabulary(tmp_path: Path) -> None:
    train(TrainTokenizer(vocab_size=5_000), [["ab ab ab"]], tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / TOKENIZER_FILE))
    # 256 bytes, end of text, and the merges a+b and space+ab.
    assert tokenizer.get_vocab_size() == 256 + 1 + 2
    assert [tokenizer.id_to_token(i) for i in (257, 258)] == ["ab", "Ġab"]


def test_min_frequency_keeps_rare_pairs_out(tmp_path: Path) -> None:
    train(TrainTokenizer(vocab_size=5_000, min_frequency=4), [["ab ab ab"]], tmp_path)
    assert Tokenizer.from_file(str(tmp_path / TOKENIZER_FILE)).get_vocab_size() == 257


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    train(TrainTokenizer(vocab_size=600), [corpus(200)], folder)
    return Tokenizer.from_file(str(folder / TOKENIZER_FILE))


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_every_text_comes_back_byte_for_byte(tokenizer: Tokenizer, text: str) -> None:
    tokenizer.encode_special_tokens = True
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize(
    "text", ["  leading", "a\r\n\tb", "\x00\x01", "e\u0301", "\u202e\u200b", "👩‍👩‍👧", "<|endoftext|>"]
)
def test_awkward_texts_come_back(tokenizer: Tokenizer, text: str) -> None:
    tokenizer.encode_special_tokens = True
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert 0 not in ids  # never the end-of-text token itself


@pytest.mark.parametrize(("field", "value"), [("vocab_size", 256), ("sample_bytes", 0), ("min_frequency", 0)])
def test_options_that_make_no_sense_are_refused(field: str, value: int) -> None:
    with pytest.raises(ValidationError, match="greater than or equal to"):
        TrainTokenizer.model_validate({field: value})
