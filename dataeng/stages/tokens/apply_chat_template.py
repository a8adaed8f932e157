"""Stage `apply_chat_template`: conversations as a model reads them, with what is trained on marked."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import polars as pl
from pydantic import Field, PrivateAttr, model_validator

from dataeng.document import DETAIL, REASON, TEXT, with_reason_columns
from dataeng.errors import ConfigError, FormatError
from dataeng.stage import Columns, PipelinePath, RowStage
from dataeng.stages.ingest.conversations import TURN
from dataeng.stages.tokens.marked_text import ESCAPED_RESERVED, RESERVED, TRAINED_START, TRAINED_STOP

TURNS, CHAT = "turns", "chat"
#: Special tokens that templates may ask for by name, as `transformers` hands them over.
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
#: Templates that come with the package, and the special tokens that they write.
BUILT_IN: dict[str, tuple[str, ...]] = {"chatml": ("<|im_start|>", "<|im_end|>"), "question_answer": ()}


class ApplyChatTemplate(RowStage):
    """Renders conversations by a chat template, for ``write_packs`` with the objective ``chat``.

    Reads the column ``turns`` that ``read_files`` makes with its option ``conversation``. What the turns say is in
    ``text``, so whatever edits ``text`` on the way (``scrub_pii``, ``normalize_text``) has edited the turns. Adds
    ``chat``, the rendered conversation, in which only what the template itself writes can become a special token.

    Rows with a reason:

    - ``error:template``: the template raised an exception; the detail has its line and what it said
    - ``error:turns``: an editing stage has taken away what parts the turns, or there never were any
    - ``error:noncharacter``: a turn contains U+FDD0 to U+FDDF, which mark special tokens
    - ``no_assistant_turn``: nothing in it would be trained on
    """

    libraries: ClassVar[tuple[str, ...]] = ("jinja2",)

    tokenizer: PipelinePath | None = Field(
        default=None, description="The tokenizer.json of write_packs; default: the one trained before"
    )
    template: Literal["chatml", "question_answer"] | None = Field(
        default=None, description="A template that comes with dataeng; default: the one in the tokenizer's folder"
    )
    template_file: PipelinePath | None = Field(
        default=None, description="A Jinja file, or a tokenizer_config.json with a chat_template"
    )
    variables: dict[str, Any] = Field(
        default={}, description="What the template may use besides, e.g. bos_token, enable_thinking"
    )
    trained_on: Literal["assistant", "all"] = Field(
        default="assistant", description="Assistants' turns with their end token, or everything"
    )
    today: datetime.date | None = Field(
        default=None, description="The date that templates write which ask for today's; packs must not change daily"
    )
    _renderer: Any = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _one_template(self) -> Self:
        if self.template is not None and self.template_file is not None:
            raise ValueError("set template or template_file, not both")
        return self

    def columns(self) -> Columns:
        hint = "read_files makes it with `conversation`, e.g. conversation: {messages: messages}"
        return Columns(reads=(TEXT, TURNS), adds={CHAT: pl.String()}, hints={TURNS: hint})

    def needs_artifacts(self) -> tuple[str, ...]:
        return ("tokenizer",) if self.tokenizer is None else ()

    def model_files(self) -> tuple[Path, ...]:
        beside = [] if self.tokenizer is None else [self.tokenizer, *_beside(self.tokenizer)]
        if self.template is not None:
            return (_built_in_file(self.template), *beside)
        return (*([self.template_file] if self.template_file else []), *beside)

    def check(self) -> None:
        if self.tokenizer is not None:
            self.model_copy(deep=True).setup({})  # a compiled template cannot go to workers with the stage

    def setup(self, artifacts: Mapping[str, Path]) -> None:
        from dataeng.stages.tokens.chat_rendering import ChatRenderer

        path = self.tokenizer or artifacts["tokenizer"]
        special = special_tokens(path)
        config = _config_beside(path)
        source, name = self._source(path, config)
        missing = [token for token in BUILT_IN.get(self.template or "", ()) if token not in special]
        if missing:
            raise ConfigError(
                f"{name} writes the token '{missing[0]}', which is no special token of {path}. Train a tokenizer with "
                "it among its special_tokens, or choose another template."
            )
        variables = {**_named_tokens(config), **self.variables}
        self._renderer = ChatRenderer(source, name, special, variables, self.today)

    def _source(self, tokenizer: Path, config: dict[str, Any]) -> tuple[str, str]:
        """Returns the template and what to call it."""
        if self.template is not None:
            return _read_text(_built_in_file(self.template)), f"the template '{self.template}'"
        if self.template_file is not None and self.template_file.suffix == ".json":
            config, where = _read_json(self.template_file), self.template_file
        elif self.template_file is not None:
            return _read_text(self.template_file), f"the template {self.template_file}"
        else:
            where = tokenizer.parent / "tokenizer_config.json"
            if (beside := tokenizer.parent / "chat_template.jinja").exists():
                return _read_text(beside), f"the template {beside}"
        template = config.get("chat_template")
        if isinstance(template, list):  # several, by name
            template = next((one.get("template") for one in template if one.get("name") == "default"), None)
        if not isinstance(template, str):
            raise ConfigError(
                f"there is no chat_template in {where}; set `template` to {' or '.join(BUILT_IN)}, or `template_file`."
            )
        return template, f"the chat_template of {where}"

    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        batch = with_reason_columns(batch)
        chats: list[str | None] = []
        reasons: list[str | None] = []
        details: list[str | None] = []
        # A Python step per document: the template is Python. It takes a fifth of what encoding the result takes.
        for text, turns in batch.select(TEXT, TURNS).iter_rows():
            chat, reason, detail = self._chat(text, turns)
            chats.append(chat)
            reasons.append(reason)
            details.append(detail)
        new = pl.col(REASON).is_null()
        return batch.with_columns(
            pl.Series(CHAT, chats, pl.String),
            pl.when(new).then(pl.Series(reasons, dtype=pl.String)).otherwise(pl.col(REASON)).alias(REASON),
            pl.when(new).then(pl.Series(details, dtype=pl.String)).otherwise(pl.col(DETAIL)).alias(DETAIL),
        )

    def _chat(self, text: str | None, turns: str | None) -> tuple[str | None, str | None, str | None]:
        """Returns a rendered conversation, or a reason and a detail."""
        from dataeng.stages.tokens.chat_rendering import TemplateError

        if turns is None or text is None:
            return None, "error:turns", "no conversation"
        if RESERVED.search(turns) or ESCAPED_RESERVED.search(turns) or RESERVED.search(text.replace(TURN, "")):
            return None, "error:noncharacter", "U+FDD0 to U+FDDF, which mark special tokens, in a turn"
        keys, said = json.loads(turns), text.split(TURN)
        if len(keys) != len(said):
            return None, "error:turns", f"{len(keys)} turns, but text for {len(said)}"
        messages = [{**turn, "content": content} for turn, content in zip(keys, said, strict=True)]
        try:
            chat = self._renderer.render(messages)
            if self.trained_on == "all":
                chat = f"{TRAINED_START}{chat}{TRAINED_STOP}"
        except TemplateError as error:
            return None, "error:template", str(error)[:300]
        return (chat, None, None) if TRAINED_START in chat else (None, "no_assistant_turn", None)


def special_tokens(path: Path) -> tuple[str, ...]:
    """Returns the names of the special tokens of a ``tokenizer.json``.

    Raises:
      ConfigError: it cannot be read.
      FormatError: it is none.
    """
    added = _read_json(path).get("added_tokens")
    if not isinstance(added, list):
        raise FormatError(f"{path} is not a tokenizer.json, which chat templates need: it has no added_tokens.")
    return tuple(token["content"] for token in added if token.get("special"))


def _built_in_file(name: str) -> Path:
    return Path(__file__).parent / "chat_templates" / f"{name}.jinja"


def _beside(tokenizer: Path) -> list[Path]:
    """Returns what there is of the files beside a tokenizer that decide how conversations look."""
    files = [tokenizer.parent / name for name in ("tokenizer_config.json", "chat_template.jinja")]
    return [file for file in files if file.exists()]


def _config_beside(tokenizer: Path) -> dict[str, Any]:
    path = tokenizer.parent / "tokenizer_config.json"
    return _read_json(path) if path.exists() else {}


def _named_tokens(config: dict[str, Any]) -> dict[str, str]:
    """Returns the tokens that a tokenizer_config.json names; each is a string, or an object with the string in it."""
    tokens = {name: config.get(name) for name in NAMED_TOKENS}
    names = {name: token.get("content") if isinstance(token, dict) else token for name, token in tokens.items()}
    return {name: token for name, token in names.items() if isinstance(token, str)}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8: byte {error.start}, {error.reason}.") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read_text(path))
    except ValueError as error:
        raise FormatError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path} is not a JSON object.")
    return content
