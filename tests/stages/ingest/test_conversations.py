"""Conversations in records: every usual form, and what is wrong with the others."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from dataeng.stages.ingest.conversations import TURN, Conversation, ConversationError


def turns(options: dict[str, Any], record: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    text, others = Conversation.model_validate(options).turns_of(record)
    return list(zip(json.loads(others), text.split(TURN), strict=True))


def test_lists_of_messages() -> None:
    messages = [
        {"role": "user", "content": "q", "name": None},
        {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]},
        {"role": "tool", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "é"},
    ]
    assert turns({"messages": "m"}, {"m": messages}) == [
        ({"role": "user"}, "q"),
        ({"role": "assistant", "tool_calls": [{"id": 1}]}, ""),
        ({"role": "tool", "name": "é"}, "ab"),
    ]
    shared = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
    names = {"human": "user", "gpt": "assistant"}
    options = {"messages": "conversations", "role": "from", "content": "value", "roles": names}
    assert turns(options, shared) == [({"role": "user"}, "q"), ({"role": "assistant"}, "a")]


def test_columns() -> None:
    record = {"question": "q {x}", "answer": 4, "hint": "h"}
    assert turns({"user": "question", "assistant": "answer"}, record) == [
        ({"role": "user"}, "q {x}"),
        ({"role": "assistant"}, "4"),
    ]
    options = {"system": "Use {hint}.{hint}", "user": "{hint}\n\n{question}", "assistant": "#### {answer}"}
    assert [said for _, said in turns(options, record)] == ["Use h.h", "h\n\nq {x}", "#### 4"]
    assert Conversation.model_validate(options).keys() == ("hint", "question", "answer")
    assert Conversation(messages="m").keys() == ("m",)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "'m': expected a list of messages, found nothing"),
        ({"m": []}, "'m': expected a list of messages, found an empty list"),
        ({"m": "x"}, "'m': expected a list of messages, found str"),
        ({"m": ["x"]}, "message 1: expected an object, found str"),
        ({"m": [{"content": "x"}]}, "message 1, 'role': expected a string, found nothing"),
        ({"m": [{"role": "user"}]}, "message 1, 'content': expected a string or parts with text, found nothing"),
        ({"m": [{"role": "user", "content": [{"type": "image"}]}]}, "message 1, 'content': .*found list"),
        ({"m": [{"role": "user", "content": "\ufdde"}]}, r"U\+FDDE, which parts turns"),
    ],
)
def test_records_without_one(record: dict[str, Any], message: str) -> None:
    with pytest.raises(ConversationError, match=message):
        Conversation(messages="m").turns_of(record)


def test_columns_without_text() -> None:
    for value in (None, ["x"], True):
        with pytest.raises(ConversationError, match=r"'q': expected a string or a number, found (nothing|list|bool)"):
            Conversation(user="q", assistant="a").turns_of({"q": value, "a": "x"})


@pytest.mark.parametrize(
    "options", [{}, {"user": "q"}, {"assistant": "a"}, {"messages": "m", "user": "q", "assistant": "a"},
                {"messages": "m", "system": "s"}, {"messages": "m", "prompt": "p"}],
)  # fmt: skip
def test_one_way_or_the_other(options: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Conversation.model_validate(options)
