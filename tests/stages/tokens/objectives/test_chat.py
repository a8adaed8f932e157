"""Conversations as tokens: what is special, what is trained on, how they end, and where they are cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from dataeng.errors import ConfigError, FormatError
from dataeng.stages.tokens.apply_chat_template import ApplyChatTemplate
from dataeng.stages.tokens.marked_text import RESERVED, TRAINED_START, TRAINED_STOP, mark_special
from dataeng.stages.tokens.objectives.chat import Chat, MarkedTextEncoder, trained_tokens
from dataeng.stages.tokens.objectives.ends import Ends
from dataeng.stages.tokens.pack_tokenizer import PackTokenizer, load_tokenizer
from tests.stages.tokens.objectives.conftest import SPECIAL
from tests.stages.tokens.objectives.test_fim import split
from tests.stages.tokens.test_apply_chat_template import message, rows

ENDS = Ends(None, 0)
STOP = SPECIAL.index("<|im_end|>")


def chats(tokenizer: PackTokenizer, *conversations: list[dict[str, Any]], template: str = "chatml") -> pl.DataFrame:
    stage = ApplyChatTemplate.model_validate({"tokenizer": tokenizer.path, "template": template})
    stage.setup({})
    frame = stage.apply(rows(*conversations))
    return frame.with_columns(pl.format("id{}", pl.int_range(pl.len())).alias("id"))


def encoded(
    tokenizer: PackTokenizer, frame: pl.DataFrame, ends: Ends = ENDS, **options: Any
) -> list[tuple[list[int], list[int]]]:
    objective = Chat.model_validate(options)
    objective.prepare(tokenizer, ends)
    found = objective.encode(frame, tokenizer, ends)
    assert found.mask is not None and found.tokens.dtype == np.uint16 and found.mask.dtype == np.uint8
    stops = np.cumsum(found.lengths)
    masks = [found.mask[stop - n : stop].tolist() for stop, n in zip(stops, found.lengths, strict=True)]
    return list(zip(split(found), masks, strict=True))


def decoded(tokenizer: PackTokenizer, tokens: list[int]) -> str:
    library = Tokenizer.from_file(str(tokenizer.path))
    return str(library.decode(tokens, skip_special_tokens=False))


text = st.text(max_size=20).filter(lambda t: not RESERVED.search(t))


@settings(max_examples=60, deadline=None)
@given(said=st.lists(st.one_of(text, st.sampled_from(SPECIAL[:8])), min_size=1, max_size=6))
def test_assistants_turns_are_trained_on_with_their_end_token(tokenizer: PackTokenizer, said: list[str]) -> None:
    turns = [message(("user", "assistant")[i % 2], content) for i, content in enumerate(said)]
    frame = chats(tokenizer, turns).with_columns(
        pl.col("chat").fill_null("".join(f"{TRAINED_START}x{TRAINED_STOP}" for _ in said[:1]))
    )
    ((tokens, mask),) = encoded(tokenizer, frame)
    if len(said) == 1:  # no assistant: what stands in is trained on
        assert mask == [1] * len(tokens) and decoded(tokenizer, tokens) == "x<|endoftext|>"
        return
    expected = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns)
    assert decoded(tokenizer, tokens) == expected + "<|endoftext|>"
    assert [token for token in tokens if token < len(SPECIAL)] == [SPECIAL.index("<|im_start|>"), STOP] * len(said) + [
        0
    ]
    answers = [content + "<|im_end|>" for content in said[1::2]]
    spans = "".join("|" if not one else decoded(tokenizer, [token]) if token == STOP else "." for token, one in
                    zip(tokens, mask, strict=True))  # fmt: skip
    assert spans.count("<|im_end|>") == len(answers)
    trained = [token for token, one in zip(tokens, mask, strict=True) if one]
    assert decoded(tokenizer, trained) == "".join(answers)


def test_a_hand_made_example(tokenizer: PackTokenizer) -> None:
    frame = chats(tokenizer, [message("system", "Be brief."), message("user", "2+2?"), message("assistant", "Four.")])
    ((tokens, mask),) = encoded(tokenizer, frame)
    parts = [
        ("".join(decoded(tokenizer, [t]) for t, m in zip(tokens, mask, strict=True) if m == one)) for one in (0, 1)
    ]
    assert parts == [
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
        "\n<|endoftext|>",
        "Four.<|im_end|>",
    ]


def test_an_answer_without_end_token_ends_with_eos_which_is_trained_on(tokenizer: PackTokenizer) -> None:
    turns = [message("user", "a"), message("assistant", "b")]
    frame = chats(tokenizer, turns, [*turns, message("user", "c")], template="question_answer")
    (first, mask), (second, other) = encoded(tokenizer, frame)
    assert decoded(tokenizer, first) == "Question: a\n\nAnswer: b<|endoftext|>" and mask[-2:] == [1, 1]
    assert decoded(tokenizer, second).endswith("\n\nQuestion: c<|endoftext|>") and other[-1] == 0
    # The space before the answer belongs to its first token, and to what is trained on.
    trained = [token for token, one in zip(first, mask, strict=True) if one]
    assert decoded(tokenizer, trained) == " b<|endoftext|>"


def test_bos_and_eos_are_not_written_twice(tokenizer: PackTokenizer) -> None:
    bos, eos = mark_special("<s>"), mark_special("<|endoftext|>")
    frame = pl.DataFrame({"id": ["a", "b", "c"], "text": [""] * 3, "chat": [
        f"{bos}x{TRAINED_START}y{eos}{TRAINED_STOP}", f"x{TRAINED_START}y{TRAINED_STOP}", ""]})  # fmt: skip
    found = encoded(tokenizer, frame, Ends(1, 0))
    assert [decoded(tokenizer, tokens) for tokens, _ in found] == ["<s>xy<|endoftext|>"] * 2 + ["<s><|endoftext|>"]
    assert [mask for _, mask in found] == [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0]]
    assert [tokens for tokens, _ in encoded(tokenizer, frame[1:2], Ends())] == [found[1][0][1:-1]]
    assert encoded(tokenizer, frame[:0]) == []


def test_long_conversations_are_cut_behind_a_turn_or_at_a_token(tokenizer: PackTokenizer) -> None:
    turns = [message(("user", "assistant")[i % 2], f"{i}") for i in range(6)]
    frame = chats(tokenizer, turns)
    ((whole, mask),) = encoded(tokenizer, frame)
    turn_ends = [i + 1 for i, (token, one) in enumerate(zip(whole, mask, strict=True)) if token == STOP and one]
    assert len(turn_ends) == 3
    for limit in range(8, len(whole) + 2):
        for cut in ("turn", "token"):
            ((tokens, cut_mask),) = encoded(tokenizer, frame, max_tokens=limit, cut=cut)
            if limit >= len(whole):
                assert (tokens, cut_mask) == (whole, mask)
                continue
            kept = len(tokens) - 1
            assert len(tokens) <= limit and tokens == [*whole[:kept], 0] and cut_mask == [*mask[:kept], 0]
            fitting = [end for end in turn_ends if end <= limit - 1]
            assert kept == (fitting[-1] if cut == "turn" and fitting else limit - 1)
    ((tokens, _),) = encoded(tokenizer, frame, Ends(), max_tokens=9, cut="token")
    assert tokens == whole[:9]


def test_tokens_that_lie_in_a_span_in_part_are_trained_on() -> None:
    places = np.array([[0, 2], [2, 3], [3, 3], [3, 6], [3, 6], [6, 8]])
    assert trained_tokens(places, [(2, 3)]).tolist() == [0, 1, 0, 0, 0, 0]
    assert trained_tokens(places, [(1, 4)]).tolist() == [1, 1, 1, 1, 1, 0]
    assert trained_tokens(places, [(0, 1), (7, 8)]).tolist() == [1, 0, 0, 0, 0, 1]
    assert trained_tokens(places, []).tolist() == [0] * 6


MODELS = {
    "wordpiece": (models.WordPiece(unk_token="<unk>"), trainers.WordPieceTrainer),
    "unigram": (models.Unigram(), trainers.UnigramTrainer),
    "bpe": (models.BPE(unk_token="<unk>"), trainers.BpeTrainer),
    "wordlevel": (models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer),
}


@pytest.mark.parametrize("name", MODELS)
def test_special_tokens_keep_their_ids_whatever_the_model(tmp_path: Path, name: str) -> None:
    model, trainer = MODELS[name]
    library = Tokenizer(model)
    library.pre_tokenizer = pre_tokenizers.Metaspace() if name == "unigram" else pre_tokenizers.WhitespaceSplit()
    extra: dict[str, Any] = {"unk_token": "<unk>"} if name == "unigram" else {}
    names = ["<unk>", "</s>", "<|end|>"]
    library.train_from_iterator(
        ["who says so a b c d e < / s > u n k |"] * 5,
        trainer(vocab_size=60, special_tokens=names[:2], show_progress=False, **extra),
    )
    library.add_special_tokens(names)
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    given = {special: library.token_to_id(special) for special in names}
    encoder = MarkedTextEncoder((tmp_path / "tokenizer.json").read_bytes(), tokenizer.vocabulary.special)
    marked = "who" + mark_special("</s>") + "says </s> <unk>" + mark_special("<|end|>") + " so <|end|>"
    ((ids, places),) = encoder.encode([marked])
    assert [i for i in ids.tolist() if i == given["</s>"]] == [given["</s>"]]
    assert [i for i in ids.tolist() if i == given["<|end|>"]] == [given["<|end|>"]]
    start, stop = places[ids.tolist().index(given["</s>"])]
    assert marked[start:stop] == mark_special("</s>")
    # Without special names in the text, the ids are the library's own.
    plain = "who" + "</s>" + "says" + "<|end|>" + " so"
    marked = plain.replace("</s>", mark_special("</s>")).replace("<|end|>", mark_special("<|end|>"))
    assert encoder.encode([marked])[0][0].tolist() == library.encode(plain, add_special_tokens=False).ids


def test_a_mark_that_is_not_found_is_an_error(tokenizer: PackTokenizer) -> None:
    content = json.loads(tokenizer.path.read_bytes())
    for token in content["added_tokens"]:
        token["single_word"] = True
    encoder = MarkedTextEncoder(json.dumps(content).encode(), tokenizer.vocabulary.special)
    with pytest.raises(FormatError, match=r"finds 0 special tokens in a conversation that has 1"):
        encoder.encode([f"a{mark_special('<s>')}b"])


def test_what_does_not_fit_is_named(tokenizer: PackTokenizer, tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": ["a", "b"], "text": ["", ""], "chat": ["x", None]})
    with pytest.raises(
        FormatError, match=r"1 documents \(the first: b\) have no chat; let apply_chat_template see all"
    ):
        encoded(tokenizer, frame)
    model = load_tokenizer(tokenizer.path)
    model.path = tmp_path / "llama.model"
    with pytest.raises(ConfigError, match=r"'chat' needs a tokenizer\.json, found .*llama\.model"):
        Chat().prepare(model, ENDS)
    for wrong in ({"max_tokens": 7}, {"cut": "word"}):
        with pytest.raises(ValidationError):
            Chat.model_validate(wrong)
