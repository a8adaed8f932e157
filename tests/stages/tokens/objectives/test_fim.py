"""Fill in the middle: the published layout, nothing lost, and rates kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dataeng.errors import ConfigError
from dataeng.stages.tokens.encoded import Encoded
from dataeng.stages.tokens.objectives.draws import document_keys, uniform
from dataeng.stages.tokens.objectives.ends import Ends
from dataeng.stages.tokens.objectives.fim import Fim, draw_cuts, fim_of_tokens
from dataeng.stages.tokens.pack_tokenizer import PackTokenizer, load_tokenizer
from tests.stages.tokens.objectives.conftest import FIM, byte_level_tokenizer

PREFIX, MIDDLE, SUFFIX = 1000, 1001, 1002


def permuted(sample: list[int], boundaries: list[int], spm: bool) -> list[int]:
    """What Megatron's ``GPTFIMDataset._permute`` makes of a sample whose boundaries were drawn so."""
    prefix, middle, suffix = (
        sample[: boundaries[0]],
        sample[boundaries[0] : boundaries[1]],
        sample[boundaries[1] :],
    )
    if spm:
        return [PREFIX, SUFFIX, *suffix, MIDDLE, *prefix, *middle]
    return [PREFIX, *prefix, SUFFIX, *suffix, MIDDLE, *middle]


def restored(tokens: list[int], prefix: int = PREFIX, middle: int = MIDDLE, suffix: int = SUFFIX) -> list[int]:
    """The document from which a row was made, whichever way."""
    if prefix not in tokens:
        return tokens
    assert tokens[0] == prefix and tokens.count(suffix) == tokens.count(middle) == 1
    at_suffix, at_middle = tokens.index(suffix), tokens.index(middle)
    assert at_suffix < at_middle
    return tokens[1:at_suffix] + tokens[at_middle + 1 :] + tokens[at_suffix + 1 : at_middle]


def encoded_of(documents: list[list[int]]) -> Encoded:
    flat = np.array([token for tokens in documents for token in tokens], np.uint16)
    return Encoded(flat, np.array([len(tokens) for tokens in documents], np.int32))


def split(encoded: Encoded) -> list[list[int]]:
    stops = np.cumsum(encoded.lengths)
    return [encoded.tokens[stop - n : stop].tolist() for stop, n in zip(stops, encoded.lengths, strict=True)]


@settings(max_examples=200, deadline=None)
@given(
    documents=st.lists(st.lists(st.integers(0, 999), max_size=12), max_size=8),
    seed=st.integers(0, 1000),
    rate=st.sampled_from([0.0, 0.5, 1.0]),
    spm_rate=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_tokens_are_permuted_as_megatron_does(
    documents: list[list[int]], seed: int, rate: float, spm_rate: float
) -> None:
    keys = document_keys(pl.Series([str(i) for i in range(len(documents))], dtype=pl.String), seed, "fim")
    found = fim_of_tokens(encoded_of(documents), keys, rate, spm_rate, (PREFIX, MIDDLE, SUFFIX))
    assert found.tokens.dtype == np.uint16 and found.lengths.dtype == np.int32 and found.mask is None
    expected = []
    for document, *numbers in zip(documents, *(uniform(keys, i).tolist() for i in range(4)), strict=True):
        boundaries = sorted(int(number * (len(document) + 1)) for number in numbers[1:3])
        chosen = numbers[0] < rate and document
        expected.append(permuted(document, boundaries, numbers[3] < spm_rate) if chosen else document)
    assert split(found) == expected
    assert [restored(tokens) for tokens in split(found)] == documents
    if rate == 1:
        assert all(PREFIX in tokens for tokens, document in zip(split(found), documents, strict=True) if document)


def test_rates_and_cuts_are_those_asked_for() -> None:
    count = 20_000
    keys = document_keys(pl.Series([str(i) for i in range(count)]), 3, "fim")
    cuts = draw_cuts(np.full(count, 4), keys, 0.3, 0.8)
    assert abs(cuts.chosen.mean() - 0.3) < 0.02 and abs(cuts.spm[cuts.chosen].mean() - 0.8) < 0.02
    pairs = np.zeros((5, 5))
    np.add.at(pairs, (cuts.first, cuts.second), 1)
    assert (pairs[np.tril_indices(5, -1)] == 0).all()
    expected = np.triu(np.full((5, 5), 2 / 25), 1) + np.eye(5) / 25  # two draws of 0 to 4, in order
    assert (abs(pairs / count - expected) < 0.01).all()


def frame(texts: list[str | None]) -> pl.DataFrame:
    ids = [f"id{i}" for i in range(len(texts))]
    return pl.DataFrame({"id": ids, "text": texts}, schema={"id": pl.String(), "text": pl.String()})


def prepared(tokenizer: PackTokenizer, **options: object) -> Fim:
    fim = Fim.model_validate(options)
    fim.prepare(tokenizer, Ends(None, 0))
    return fim


def ids_of(tokenizer: PackTokenizer, names: tuple[str, ...] = FIM) -> tuple[int, ...]:
    return tuple(tokenizer.vocabulary.ids[name] for name in names)


TEXTS = st.lists(st.text(max_size=30), max_size=4)


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS, level=st.sampled_from(["character", "token"]), seed=st.integers(0, 99))
def test_the_text_can_be_put_together_again(tokenizer: PackTokenizer, texts: list[str], level: str, seed: int) -> None:
    fim = prepared(tokenizer, level=level, rate=1, seed=seed)
    rows = frame([*texts])
    found = split(fim.encode(rows, tokenizer, Ends(1, 0)))
    prefix, middle, suffix = ids_of(tokenizer)
    decode = tokenizer.encoder.reference.tokenizer.decode  # type: ignore[attr-defined]
    for tokens, text in zip(found, texts, strict=True):
        assert tokens[0] == 1 and tokens[-1] == 0
        assert decode(restored(tokens[1:-1], prefix, middle, suffix)) == text
        assert (tokens[1:2] == [prefix]) == bool(text)
    # A document's row does not depend on the others of the batch.
    assert found == [split(fim.encode(rows[i : i + 1], tokenizer, Ends(1, 0)))[0] for i in range(len(texts))]


def test_parts_are_encoded_each_by_itself(tokenizer: PackTokenizer) -> None:
    text = "def add(a, b):\n    return a + b — 東京🙂\n"
    fim = prepared(tokenizer, rate=1, spm_rate=0)
    keys = document_keys(pl.Series(["id0"]), 0, "fim")
    first, second = sorted(int(uniform(keys, draw)[0] * (len(text) + 1)) for draw in (1, 2))
    parts = pl.Series([text[:first], text[first:second], text[second:]])
    prefix, middle, suffix = split(tokenizer.encode(parts))
    at = ids_of(tokenizer)
    expected = [at[0], *prefix, at[2], *suffix, at[1], *middle, 0]
    assert split(fim.encode(frame([text]), tokenizer, Ends(None, 0))) == [expected]


def test_what_is_not_chosen_is_as_without_an_objective(tokenizer: PackTokenizer) -> None:
    rows = frame(["the quick fox", None, "", "a dog"])
    plain = split(tokenizer.encode(rows.get_column("text")))
    for level in ("character", "token"):
        assert split(prepared(tokenizer, rate=0, level=level).encode(rows, tokenizer, Ends())) == plain
    assert split(prepared(tokenizer, rate=1).encode(rows, tokenizer, Ends()))[1:3] == [[], []]
    assert prepared(tokenizer).encode(rows[:0], tokenizer, Ends(1, 0)).tokens.tolist() == []


def sentinel_counts(tokens: npt.NDArray[np.uint16], tokenizer: PackTokenizer) -> list[int]:
    return [int((tokens == token).sum()) for token in ids_of(tokenizer)]


@pytest.mark.parametrize("not_special", [(), FIM])
def test_a_text_with_sentinels_in_it_makes_none(tmp_path: Path, not_special: tuple[str, ...]) -> None:
    """Not even where the tokenizer has them as ordinary added tokens, as Qwen's coder models do."""
    tokenizer = load_tokenizer(byte_level_tokenizer(tmp_path / "tokenizer.json", not_special))
    text = "x <|fim_middle|> y <|fim_prefix|><|fim_suffix|> z"
    for rate, count in ((0, 0), (1, 1)):
        found = prepared(tokenizer, rate=rate, level="token").encode(frame([text]), tokenizer, Ends())
        assert sentinel_counts(found.tokens, tokenizer) == [count] * 3
    prefix, middle, suffix = ids_of(tokenizer)
    decode = tokenizer.encoder.reference.tokenizer.decode  # type: ignore[attr-defined]
    assert decode(restored(found.tokens.tolist(), prefix, middle, suffix)) == text


def test_missing_and_repeated_sentinels_are_named(tokenizer: PackTokenizer) -> None:
    with pytest.raises(ConfigError, match=r"no token '<PRE>'; set prefix_token of the objective 'fim'"):
        prepared(tokenizer, prefix_token="<PRE>")
    with pytest.raises(ConfigError, match=r"three different tokens, found '<s>', '<\|fim_middle\|>' and '<s>'"):
        prepared(tokenizer, prefix_token="<s>", suffix_token="<s>")
    for wrong in ({"rate": 1.5}, {"spm_rate": -1}, {"level": "line"}, {"fim_rate": 1}):
        with pytest.raises(ValidationError):
            Fim.model_validate(wrong)
