"""Conversations in records: a list of messages, or columns such as question and answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

#: Between the turns of a conversation in the column `text`: a line with a noncharacter, which no text may contain.
TURN = "\n\ufdde\n"
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


class Turns(NamedTuple):
    """A conversation: what its turns say, with `TURN` between them, and all else about them as JSON."""

    text: str
    turns: str


class ConversationError(Exception):
    """A record has no conversation as described. The message says what is wrong."""


class Conversation(BaseModel):
    """Where a record has its conversation: in a list of messages, or in columns of which each is a turn.

    A column may also be a text with names of columns in braces, as in ``user: "{context}\\n\\n{question}"``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: str | None = Field(default=None, description="Key of a list of objects, one for each message")
    role: str = Field(default="role", description="Their key for who speaks")
    content: str = Field(default="content", description="Their key for what is said")
    roles: dict[str, str] = Field(default={}, description="Other names of roles, e.g. human: user, gpt: assistant")
    system: str | None = Field(default=None, description="Without messages: key or text of a system message")
    user: str | None = Field(default=None, description="Without messages: key or text of the question")
    assistant: str | None = Field(default=None, description="Without messages: key or text of the answer")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        written = [column is not None for column in (self.user, self.assistant, self.system)]
        if any(written) if self.messages is not None else not all(written[:2]):
            raise ValueError("set either messages, or user and assistant (and perhaps system)")
        return self

    def keys(self) -> tuple[str, ...]:
        """Returns the keys of a record that this reads."""
        if self.messages is not None:
            return (self.messages,)
        written = [column for column in (self.system, self.user, self.assistant) if column is not None]
        return tuple(dict.fromkeys(key for column in written for key in _keys(column)))

    def turns_of(self, record: Mapping[str, Any]) -> Turns:
        """Returns a record's conversation.

        Raises:
          ConversationError: it has none, or not in the form described.
        """
        if self.messages is not None:
            messages = self._listed(record)
        else:
            columns = (("system", self.system), ("user", self.user), ("assistant", self.assistant))
            messages = [
                {"role": role, "content": _filled(column, record)} for role, column in columns if column is not None
            ]
        said = [message.pop("content") for message in messages]
        if any("\ufdde" in content for content in said):
            raise ConversationError("U+FDDE, which parts turns, in a message")
        return Turns(TURN.join(said), json.dumps(messages, ensure_ascii=False, default=str))

    def _listed(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        found = record.get(self.messages or "")
        if not isinstance(found, list) or not found:
            raise ConversationError(f"'{self.messages}': expected a list of messages, found {_described(found)}")
        messages = []
        for number, message in enumerate(found, 1):
            if not isinstance(message, dict):
                raise ConversationError(f"message {number}: expected an object, found {_described(message)}")
            role = message.get(self.role)
            if not isinstance(role, str):
                raise ConversationError(f"message {number}, '{self.role}': expected a string, found {_described(role)}")
            # Parquet gives all messages all keys; those that a message does not have are null.
            rest = {k: v for k, v in message.items() if k not in (self.role, self.content) and v is not None}
            content = self._content(number, message)
            messages.append({"role": self.roles.get(role, role), "content": content, **rest})
        return messages

    def _content(self, number: int, message: dict[str, Any]) -> str:
        content = message.get(self.content)
        if content is None and message.get("tool_calls"):
            return ""
        parts = content if isinstance(content, list) else [content]
        found = [part.get("text") if isinstance(part, dict) else part for part in parts]
        texts = [text for text in found if isinstance(text, str)]
        if len(texts) < len(found):
            raise ConversationError(
                f"message {number}, '{self.content}': expected a string or parts with text, found {_described(content)}"
            )
        return "".join(texts)


def _keys(column: str) -> list[str]:
    return _PLACEHOLDER.findall(column) if "{" in column else [column]


def _filled(column: str, record: Mapping[str, Any]) -> str:
    """Returns the value of a key, or a text with keys in braces replaced by their values."""

    def value(key: str) -> str:
        found = record.get(key)
        if isinstance(found, bool) or not isinstance(found, str | int | float):
            raise ConversationError(f"'{key}': expected a string or a number, found {_described(found)}")
        return str(found)

    return _PLACEHOLDER.sub(lambda match: value(match[1]), column) if "{" in column else value(column)


def _described(value: Any) -> str:
    return "nothing" if value is None else "an empty list" if value == [] else type(value).__name__
