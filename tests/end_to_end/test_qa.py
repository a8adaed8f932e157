"""pipelines/qa.yaml, from questions to a pack that trains on answers; and documents that cannot be rendered."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from dataeng.formats.pack import Pack, PackShard
from dataeng.formats.pack_verification import verify_pack

from .runs import ROOT, assert_same, dataeng, results


def trained_on(shard: PackShard, tokenizer: Tokenizer) -> list[list[str]]:
    """What each document of a shard trains on, span by span."""
    assert shard.mask is not None
    found = []
    for index in range(len(shard.lengths)):
        mask = np.asarray(shard.mask[shard.offsets[index] : shard.offsets[index + 1]]).astype(np.int8)
        edges = np.flatnonzero(np.diff(mask, prepend=0, append=0))
        tokens = shard.document(index)
        spans = [tokens[start:stop].tolist() for start, stop in zip(edges[::2], edges[1::2], strict=True)]
        found.append([tokenizer.decode(span, skip_special_tokens=False) for span in spans])
    return found


def test_answers_become_what_is_trained_on(tmp_path: Path) -> None:
    run = tmp_path / "qa"
    dataeng("run", "pipelines/qa.yaml", "--set", f"run={run}", "--workers", "2")
    tokenizer = Tokenizer.from_file(str(run / "tokenizer/tokenizer.json"))
    pack = Pack(run / "packs/qa")
    assert verify_pack(pack.folder) == []
    assert pack.manifest.objective == {"kind": "chat", "max_tokens": 2048, "cut": "turn"}

    sample = ROOT / "dataeng/sample/qa"
    questions = [json.loads(line) for line in (sample / "questions.jsonl").read_text().splitlines()]
    chats = [json.loads(line)["messages"] for line in (sample / "conversations.jsonl").read_text().splitlines()]
    expected = [[f"{record['answer']}<|im_end|>"] for record in questions]
    expected += [[f"{turn['content']}<|im_end|>" for turn in chat if turn["role"] == "assistant"] for chat in chats]
    assert [spans for shard in pack.shards for spans in trained_on(shard, tokenizer)] == expected
    first = tokenizer.decode(pack.shards[0].document(0).tolist(), skip_special_tokens=False)
    assert first == (
        f"<|im_start|>user\n{questions[0]['question']}<|im_end|>\n"
        f"<|im_start|>assistant\n{questions[0]['answer']}<|im_end|>\n<|endoftext|>"
    )
    dataeng("run", "pipelines/qa.yaml", "--set", f"run={tmp_path / 'one'}", "--scheduler", "inline")
    assert_same(results(run), results(tmp_path / "one"))


PIPELINE = """\
name: strict
sources:
  - read_files: {{paths: [chats.jsonl], domain: qa, conversation: {{messages: messages}}}}
stages:
  - apply_chat_template: {{tokenizer: {tokenizer}, template_file: strict.jinja}}
  - write_packs: {{tokenizer: {tokenizer}, objective: {{kind: {kind}}}}}
"""
STRICT = """\
{% for message in messages %}
{% if loop.first and message.role != 'user' %}{{ raise_exception('A user speaks first.') }}{% endif %}
{{ message.role }}: {{ message.content }}
{% endfor %}
"""


def test_a_refused_conversation_is_a_reject_and_a_missing_token_stops_before_work(tmp_path: Path) -> None:
    tokenizer = ROOT / "tests/stages/tokens/chat_tokenizer.json"
    (tmp_path / "strict.jinja").write_text(STRICT)
    user, assistant = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    chats = [[user, assistant]] * 40 + [[assistant, user]]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    pipeline = tmp_path / "strict.yaml"
    pipeline.write_text(PIPELINE.format(tokenizer=tokenizer, kind="chat"))
    run = tmp_path / "run"
    dataeng("run", str(pipeline), "--set", f"run={run}", "--scheduler", "inline")
    rejects = dataeng("sql", str(run), "SELECT reason, detail FROM rejects", "--format", "json")
    assert json.loads(rejects) == {"reason": "error:template", "detail": "line 2: A user speaks first."}
    assert Pack(run / "packs/qa").manifest.num_documents == 40

    pipeline.write_text(PIPELINE.format(tokenizer=tokenizer, kind="fim"))
    printed = dataeng("run", str(pipeline), "--set", f"run={tmp_path / 'fim'}", expect=1)
    assert "no token '<|fim_prefix|>'; set prefix_token of the objective 'fim'" in " ".join(printed.split())
    (tmp_path / "strict.jinja").write_text("{% if %}")
    printed = dataeng("run", str(pipeline), "--set", f"run={tmp_path / 'fim'}", expect=1)
    assert "strict.jinja, line 1: " in " ".join(printed.split())
