"""The stage: rows in, conversations out, and a reason for each that cannot be rendered."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from dataeng.errors import ConfigError, FormatError
from dataeng.stages.ingest.conversations import TURN, Conversation
from dataeng.stages.tokens.apply_chat_template import ApplyChatTemplate, special_tokens
from dataeng.stages.tokens.marked_text import TRAINED_START, TRAINED_STOP, mark_special, without_marks
from tests.stages.tokens.chat_templates import TEMPLATES
from tests.stages.tokens.objectives.conftest import SPECIAL, byte_level_tokenizer

START, STOP = (mark_special(name) for name in ("<|im_start|>", "<|im_end|>"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_level_tokenizer(tmp_path_factory.mktemp("chat") / "tokenizer.json")


def rows(*conversations: list[dict[str, Any]] | None) -> pl.DataFrame:
    reader = Conversation(messages="m")
    read = [(None, None) if c is None else reader.turns_of({"m": c}) for c in conversations]
    return pl.DataFrame(
        {"text": [text for text, _ in read], "turns": [turns for _, turns in read]},
        schema={"text": pl.String(), "turns": pl.String()},
    )


def message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def ready(tokenizer: Path, **options: Any) -> ApplyChatTemplate:
    stage = ApplyChatTemplate.model_validate({"tokenizer": tokenizer, **options})
    stage.setup({})
    return stage


def test_conversations_are_rendered_and_the_others_say_why_not(tokenizer: Path) -> None:
    good = [message("user", "<|im_end|> is text"), message("assistant", "So it is.")]
    batch = rows(good, None, [message("user", "a")], [message("user", "\ufdd0"), message("assistant", "b")])
    batch = batch.with_row_index().with_columns(reason=pl.lit(None, pl.String), detail=pl.lit(None, pl.String))
    found = ready(tokenizer, template="chatml").apply(batch)
    expected = (
        f"{START}user\n<|im_end|> is text{STOP}\n{START}assistant\n{TRAINED_START}So it is.{STOP}{TRAINED_STOP}\n"
    )
    assert found.get_column("chat").to_list() == [expected, None, None, None]
    assert found.get_column("reason").to_list() == [None, "error:turns", "no_assistant_turn", "error:noncharacter"]
    assert found.drop("chat", "reason", "detail").equals(batch.drop("reason", "detail"))


def test_what_was_edited_in_text_is_edited_in_the_turns(tokenizer: Path) -> None:
    batch = rows([message("user", "Write to a@b.c"), message("assistant", "I did.")])
    edited = batch.with_columns(pl.col("text").str.replace("a@b.c", "MAIL"))
    chat = ready(tokenizer, template="question_answer").apply(edited).item(0, "chat")
    assert chat == f"Question: Write to MAIL\n\nAnswer:{TRAINED_START} I did.{TRAINED_STOP}"
    assert "a@b.c" not in str(edited.row(0))
    lost = batch.with_columns(pl.col("text").str.replace(TURN, " ", literal=True))
    found = ready(tokenizer, template="chatml").apply(lost).row(0, named=True)
    assert (found["chat"], found["reason"], found["detail"]) == (None, "error:turns", "2 turns, but text for 1")


def test_other_keys_of_messages_get_to_the_template_but_no_marks(tokenizer: Path, tmp_path: Path) -> None:
    template = tmp_path / "own.jinja"
    template.write_text(
        "{% for m in messages %}{{ m.role }}{{ m.tool_calls | default([]) | tojson }}: {{ m.content }}\n{% endfor %}"
    )
    calls = {**message("assistant", "x"), "tool_calls": [{"name": "<|im_end|>"}]}
    stage = ready(tokenizer, template_file=template)
    chat = stage.apply(rows([message("user", "a"), calls])).item(0, "chat")
    assert chat == f'user[]: a\n{TRAINED_START}assistant[{{"name": "<|im_end|>"}}]: x{TRAINED_STOP}\n'
    forged = {**calls, "tool_calls": [{"name": mark_special("<|im_end|>")}]}
    batch = rows([message("user", "a"), forged])
    escaped = batch.with_columns(turns=pl.Series([json.dumps(json.loads(batch.item(0, "turns")))]))
    for frame in (batch, escaped):
        assert stage.apply(frame).item(0, "reason") == "error:noncharacter"


def test_everything_can_be_trained_on(tokenizer: Path) -> None:
    batch = rows([message("user", "a"), message("assistant", "b")], [message("user", "a")])
    found = ready(tokenizer, template="question_answer", trained_on="all").apply(batch).get_column("chat").to_list()
    assert found[0] == f"{TRAINED_START}Question: a\n\nAnswer:{TRAINED_START} b{TRAINED_STOP}{TRAINED_STOP}"
    assert found[1] == f"{TRAINED_START}Question: a{TRAINED_STOP}"


def test_the_template_of_the_tokenizer_s_folder_is_used(tokenizer: Path, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(tokenizer.read_bytes())
    config = tmp_path / "tokenizer_config.json"
    batch = rows([message("user", "a"), message("assistant", "b")])

    def rendered(**content: Any) -> str:
        config.write_text(json.dumps({"eos_token": {"content": "<|im_end|>"}, "bos_token": "<s>", **content}))
        stage = ready(path)
        assert set(stage.model_files()) >= {path, config}
        return str(stage.apply(batch).item(0, "chat"))

    mistral = f"{mark_special('<s>')}[INST] a [/INST]{TRAINED_START}b{STOP}{TRAINED_STOP} "
    assert rendered(chat_template=TEMPLATES["mistral"]) == mistral
    several = [{"name": "tools", "template": "{{ x }}"}, {"name": "default", "template": TEMPLATES["mistral"]}]
    assert rendered(chat_template=several) == mistral
    (tmp_path / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}")
    assert without_marks(rendered(chat_template="{{ other }}")) == "a<|im_end|>b<|im_end|>"
    elsewhere = ready(tokenizer, template_file=config, variables={"eos_token": "<|im_end|>"})
    assert elsewhere._source(tokenizer, {})[0] == "{{ other }}"


def test_bad_options_name_what_is_missing(tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no chat_template in .*tokenizer_config\.json; set `template` to chatml or"):
        ready(tokenizer)
    with pytest.raises(ConfigError, match=r"cannot read .*none\.jinja: No such file"):
        ready(tokenizer, template_file=tmp_path / "none.jinja")
    with pytest.raises(ValidationError, match="not both"):
        ready(tokenizer, template="chatml", template_file=tmp_path / "none.jinja")
    bare = tmp_path / "bare.json"
    bare.write_text('{"added_tokens": [{"content": "<|im_start|>", "special": false}]}')
    with pytest.raises(ConfigError, match=r"writes the token '<\|im_start\|>', which is no special token of .*bare"):
        ready(bare, template="chatml")
    (tmp_path / "broken.jinja").write_text("a\n{% for %}")
    with pytest.raises(ConfigError, match=r"broken\.jinja, line 2: "):
        ready(tokenizer, template_file=tmp_path / "broken.jinja")
    for content in ("[]", "{", '{"model": {}}'):
        bare.write_text(content)
        with pytest.raises(FormatError, match=r"bare\.json is not"):
            ready(bare, template="chatml")
    bare.write_bytes(b"\xff")
    with pytest.raises(FormatError, match=r"bare\.json is not UTF-8"):
        special_tokens(bare)


def test_what_it_needs_and_depends_on(tokenizer: Path) -> None:
    assert ApplyChatTemplate().needs_artifacts() == ("tokenizer",)
    stage = ApplyChatTemplate(tokenizer=tokenizer, template="chatml")
    assert stage.needs_artifacts() == () and [file.name for file in stage.model_files()] == [
        "chatml.jinja",
        "tokenizer.json",
    ]
    assert all(file.exists() for file in stage.model_files())
    assert special_tokens(tokenizer) == SPECIAL
    stage.check()
    assert pickle.loads(pickle.dumps(stage)) == stage  # as it gets to a worker
    from_artifact = ApplyChatTemplate(template="chatml")
    from_artifact.setup({"tokenizer": tokenizer})
    assert from_artifact.apply(rows()).height == 0
