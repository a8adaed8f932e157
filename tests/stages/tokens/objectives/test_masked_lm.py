"""Masked language modelling: two halves that belong together, BERT's shares, and no special token by chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dataeng.errors import ConfigError
from dataeng.stages.tokens.objectives.ends import Ends
from dataeng.stages.tokens.objectives.masked_lm import MaskedLm
from dataeng.stages.tokens.pack_tokenizer import PackTokenizer
from tests.stages.tokens.objectives.conftest import SPECIAL
from tests.stages.tokens.objectives.test_fim import frame, split

ENDS = Ends(1, 0)
MASK = SPECIAL.index("[MASK]")


def prepared(tokenizer: PackTokenizer, ends: Ends = ENDS, **options: object) -> MaskedLm:
    objective = MaskedLm.model_validate(options)
    objective.prepare(tokenizer, ends)
    return objective


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(max_size=60), max_size=4),
    max_tokens=st.sampled_from([1, 7, 64]),
    bos=st.sampled_from([None, 1]),
)
def test_the_second_half_is_the_document_and_the_first_differs_only_at_labels(
    tokenizer: PackTokenizer, texts: list[str], max_tokens: int, bos: int | None
) -> None:
    ends = Ends(bos, 0)
    objective = prepared(tokenizer, ends, max_tokens=max_tokens)
    rows = frame([*texts])
    encoded = objective.encode(rows, tokenizer, ends)
    assert encoded.mask is not None and encoded.tokens.dtype == np.uint16
    plain, start = split(tokenizer.encode(rows.get_column("text"))), 0
    begin = [] if bos is None else [bos]
    for tokens, document in zip(split(encoded), plain, strict=True):
        mask = encoded.mask[start : start + len(tokens)].tolist()
        start += len(tokens)
        halves: list[tuple[list[int], list[int]]] = []
        while tokens:
            stop = tokens.index(0) + 1
            assert tokens[: len(begin)] == begin
            halves.append((tokens[len(begin) : stop - 1], mask[len(begin) : stop - 1]))
            assert sum(mask[:stop]) == sum(halves[-1][1])  # BOS and EOS are no labels
            tokens, mask = tokens[stop:], mask[stop:]
        assert len(halves) % 2 == 0
        assert [token for labels, _ in halves[1::2] for token in labels] == document
        for (inputs, nothing), (labels, chosen) in zip(halves[::2], halves[1::2], strict=True):
            assert len(inputs) == len(labels) <= max_tokens and not any(nothing)
            assert sum(chosen) == (max(1, round(len(labels) * 0.15)) if labels else 0)
            assert all(a == b or one for a, b, one in zip(inputs, labels, chosen, strict=True))
            assert not {token for token in inputs if token < len(SPECIAL)} - {MASK}
    single = [split(objective.encode(rows[i : i + 1], tokenizer, ends))[0] for i in range(len(texts))]
    assert single == split(encoded)


def test_shares_can_be_set(tokenizer: PackTokenizer) -> None:
    rows = frame(["the quick brown fox jumps over the lazy dog " * 40])
    size = int(tokenizer.encode(rows.get_column("text")).lengths[0])
    objective = prepared(tokenizer, rate=0.5, mask_share=1, random_share=0, max_tokens=10_000)
    tokens = split(objective.encode(rows, tokenizer, ENDS))[0]
    assert tokens.count(MASK) == round(size * 0.5)
    objective = prepared(tokenizer, rate=1, mask_share=0, random_share=0, max_tokens=10_000)
    tokens = split(objective.encode(rows, tokenizer, ENDS))[0]
    assert tokens[: len(tokens) // 2] == tokens[len(tokens) // 2 :]


def test_what_does_not_fit_is_named(tokenizer: PackTokenizer) -> None:
    with pytest.raises(ConfigError, match=r"no token '<mask>'; set mask_token of the objective 'masked_lm'"):
        prepared(tokenizer, mask_token="<mask>")
    with pytest.raises(ConfigError, match=r"ends its halves with EOS; set write_packs\.eos to append"):
        prepared(tokenizer, Ends(1, None))
    with pytest.raises(ValidationError, match=r"mask_share 0\.8 and random_share 0\.3 are more than 1 together"):
        MaskedLm(random_share=0.3)
    for wrong in ({"rate": 0}, {"max_tokens": 0}, {"mask_share": 2}):
        with pytest.raises(ValidationError):
            MaskedLm.model_validate(wrong)
