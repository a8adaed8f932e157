"""Span corruption: T5's layout, nothing lost, and clear errors where sentinels are missing."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dataeng.errors import ConfigError
from dataeng.stages.tokens.objectives.ends import Ends
from dataeng.stages.tokens.objectives.span_corruption import SpanCorruption
from dataeng.stages.tokens.pack_tokenizer import PackTokenizer
from tests.stages.tokens.objectives.test_fim import frame, split

ENDS = Ends(1, 0)


def prepared(tokenizer: PackTokenizer, ends: Ends = ENDS, **options: object) -> SpanCorruption:
    objective = SpanCorruption.model_validate(options)
    objective.prepare(tokenizer, ends)
    return objective


def filled_in(inputs: list[int], target: list[int], sentinels: list[int]) -> list[int]:
    """The tokens from which an input and a target were made."""
    spans: dict[int, list[int]] = {}
    for token in target:
        if token in sentinels:
            spans[token] = []
        else:
            spans[next(reversed(spans))].append(token)
    assert list(spans) == sentinels[: len(spans)]
    return [token for place in inputs for token in spans.get(place, [place])]


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(max_size=60), max_size=4),
    max_tokens=st.sampled_from([2, 7, 64]),
    separator=st.sampled_from([None, "<|im_start|>"]),
    bos=st.sampled_from([None, 1]),
)
def test_every_piece_can_be_put_together_again(
    tokenizer: PackTokenizer, texts: list[str], max_tokens: int, separator: str | None, bos: int | None
) -> None:
    objective = prepared(tokenizer, Ends(bos, 0), max_tokens=max_tokens, separator=separator)
    sentinels = objective.sentinel_ids(tokenizer)
    between = None if separator is None else tokenizer.vocabulary.ids[separator]
    rows = frame([*texts])
    encoded = objective.encode(rows, tokenizer, Ends(bos, 0))
    assert encoded.mask is not None and encoded.tokens.dtype == np.uint16
    plain = split(tokenizer.encode(rows.get_column("text")))
    start = 0
    for tokens, document in zip(split(encoded), plain, strict=True):
        mask = encoded.mask[start : start + len(tokens)].tolist()
        start += len(tokens)
        found: list[int] = []
        while tokens:
            stop = tokens.index(0) + 1
            piece, trained = tokens[:stop], mask[:stop]
            tokens, mask = tokens[stop:], mask[stop:]
            border = stop - sum(trained)
            assert trained == [0] * border + [1] * (stop - border)  # the target, and nothing but the target
            inputs, target = (piece[:border], piece[border:-1]) if sum(trained) else (piece[:-1], [])
            if bos is not None:
                assert inputs.pop(0) == bos
            if between is not None:
                assert inputs.pop() == between
            restored = filled_in(inputs, target, sentinels)
            assert len(restored) <= max_tokens
            assert (len(target) > 0) == (len(restored) >= 2)
            found += restored
        assert found == document
    single = [split(objective.encode(rows[i : i + 1], tokenizer, Ends(bos, 0)))[0] for i in range(len(texts))]
    assert single == split(encoded)


def test_a_text_with_sentinels_in_it_makes_none(tokenizer: PackTokenizer) -> None:
    text = "thank <extra_id_0> you <extra_id_1><|endoftext|> " * 3
    objective = prepared(tokenizer)
    encoded = objective.encode(frame([text]), tokenizer, ENDS)
    sentinels = objective.sentinel_ids(tokenizer)
    counts = [int((encoded.tokens == token).sum()) for token in sentinels]
    used = sum(count > 0 for count in counts)
    assert used >= 2 and counts == [2] * used + [0] * (len(counts) - used)
    assert int((encoded.tokens == 0).sum()) == 1


def test_missing_sentinels_are_named_with_how_many_are_needed(tokenizer: PackTokenizer) -> None:
    assert len(prepared(tokenizer).sentinel_ids(tokenizer)) == 26
    message = r"needs 51 sentinels for pieces of 1024 tokens, '<extra_id_0>' to '<extra_id_50>'; .* no '<extra_id_30>'"
    with pytest.raises(ConfigError, match=message):
        prepared(tokenizer, max_tokens=1024)
    with pytest.raises(ConfigError, match=r"no '<mask_0>'"):
        prepared(tokenizer, sentinels="<mask_{}>")
    with pytest.raises(ConfigError, match=r"no token '<sep>'; set separator of the objective 'span_corruption'"):
        prepared(tokenizer, separator="<sep>")
    with pytest.raises(ConfigError, match=r"ends a target with EOS; set write_packs\.eos to append"):
        prepared(tokenizer, Ends(1, None))
    for wrong in ({"noise_density": 0}, {"mean_span": 0.5}, {"max_tokens": 1}, {"sentinels": "<extra>"}):
        with pytest.raises(ValidationError):
            SpanCorruption.model_validate(wrong)


def test_another_seed_draws_other_spans(tokenizer: PackTokenizer) -> None:
    rows = pl.concat([frame(["the quick brown fox jumps over the lazy dog " * 5])] * 2)
    first, same = split(prepared(tokenizer).encode(rows, tokenizer, ENDS))
    assert first == same != split(prepared(tokenizer, seed=1).encode(rows, tokenizer, ENDS))[0]
