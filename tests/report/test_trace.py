"""From a token to its document: held against the documents of a real run, and what is shown when parts are missing."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from dataeng.errors import ConfigError, DataengError, FormatError
from dataeng.formats.atomic import sha256_file
from dataeng.formats.pack import Pack
from dataeng.report.sql import query
from dataeng.report.trace import marked, print_documents, print_trace, trace
from tests.formats.pack_files import ALL, EOS, write_pack
from tests.small_run import HOSTILE, WORDS, SmallRun


def printed(call: object, *arguments: object) -> str:
    out = Console(file=io.StringIO(), width=160)
    assert callable(call)
    call(out, *arguments)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_every_document_s_tokens_lead_back_to_it(finished: SmallRun) -> None:
    packed = query(finished.run_dir, "SELECT id, url, source, source_offset FROM packs WHERE domain = 'web'")[1]
    folder = finished.run_dir / "packs/web"
    pack = Pack(folder)
    texts = dict(query(finished.run_dir, "SELECT id, text FROM documents")[1])
    seen = []
    for number, shard in enumerate(pack.shards):
        for index in range(len(shard.lengths)):
            middle = int(pack.starts[number] + shard.offsets[index] + shard.lengths[index] // 2)
            found = trace(folder, middle, context=10_000)
            row = found.document.row
            seen.append((row["id"], row["url"], row["source"], row["source_offset"]))
            assert "".join(found.text) == texts[row["id"]] + "<|endoftext|>"
            assert found.trained and found.position == shard.lengths[index] // 2 and not found.undecoded
            assert found.token == pack.shards[number].document(index)[found.position]
            assert found.story is not None and found.story.outcome == "kept"
            assert trace(folder, middle - int(pack.starts[number]), shard.name).document == found.document
    assert sorted(seen, key=str) == sorted(packed, key=str) and len(seen) == 3


def test_what_is_shown(finished: SmallRun) -> None:
    folder = finished.run_dir / "packs/web"
    text = printed(print_trace, trace(folder, 5))
    assert text.startswith(f"token 5 of {folder}: id ") and "a label" in text.splitlines()[0]
    for part in (
        "https://a.example/garden",
        "0.jsonl at 1",
        "token 5 of ",
        "0 of shard 00000",
        "⟦",
        "story so far: kept",
        "documents that were dropped as its duplicates: 3",
        f"dataeng explain {finished.run_dir} ",
    ):
        assert part in text, part
    assert WORDS[:20] in text.replace("⟦", "").replace("⟧", "")


def test_a_hostile_document_commands_no_terminal(finished: SmallRun) -> None:
    row = query(finished.run_dir, "SELECT id FROM packs WHERE url LIKE 'https://evil%'")[1][0]
    folder = finished.run_dir / "packs/web"
    pack = Pack(folder)
    shown = printed(print_documents, folder, str(row[0]))
    assert "\\x1b[31m" in shown and "\x1b" not in shown
    start = int(shown.split("tokens ")[1].split()[0].replace(",", ""))
    text = printed(print_trace, trace(folder, start + 30, context=len(HOSTILE)))
    assert "\x1b" not in text and "[bold red]" in text and "\\u202e" in text and int(pack.starts[-1]) > start


def test_documents_are_found_by_name(finished: SmallRun) -> None:
    folder = finished.run_dir / "packs/web"
    text = printed(print_documents, folder, "https://a.example/garden")
    assert "tokens 0 to" in text and "row 0 of shard 00000  https://a.example/garden" in text
    with pytest.raises(DataengError, match=r"no document 'https://nobody\.example' in"):
        print_documents(Console(), folder, "https://nobody.example")


@pytest.mark.parametrize(
    ("offset", "shard", "error", "message"),
    [
        (-1, None, FormatError, "tokens -1 to 0 are not in"),
        (10**9, None, FormatError, r"tokens 1,000,000,000 to 1,000,000,001 are not in .*web, which has"),
        (10**6, "00000", FormatError, r"token 1,000,000 is not in shard 00000 of .*web, which has"),
        (0, "0000O", ConfigError, "has no shard '0000O'; did you mean '00000'"),
    ],
)
def test_tokens_and_shards_that_are_not_there(
    finished: SmallRun, offset: int, shard: str | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        trace(finished.run_dir / "packs/web", offset, shard)


def test_without_tokenizer_rows_or_run_the_rest_is_shown(tmp_path: Path) -> None:
    documents = [[[5, 6, EOS], [7, EOS]]]
    masks = [[[1, 0, 1], [1, 1]]]
    write_pack(tmp_path / "pack", documents, kinds=(*ALL, "mask"), masks=masks)
    text = printed(print_trace, trace(tmp_path / "pack", 1))
    assert "context only: the mask leaves it out of the loss" in text.splitlines()[0]
    assert "text cannot be shown: the tokenizer is not at" in text and "  5 [6] 0" in text and "story" not in text
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "is not the tokenizer that made this pack" in trace(tmp_path / "pack", 1).undecoded
    write_pack(tmp_path / "bare", documents)
    assert "unknown: the pack has no docs.parquet" in printed(print_trace, trace(tmp_path / "bare", 4))


def test_a_story_that_cannot_be_told(tmp_path: Path) -> None:
    write_pack(tmp_path / "packs/web", [[[5, EOS]]], kinds=ALL)
    (tmp_path / "run.json").write_text("{}")
    found = trace(tmp_path / "packs/web", 0)
    assert found.story is None and "does not describe a run" in found.unknown_story
    assert "story unknown: " in printed(print_trace, found)


@cache
def byte_level() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=12), st.data())
def test_the_parts_of_a_text_are_its_text(text: str, data: st.DataObject) -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode(text).ids
    place = data.draw(st.integers(0, len(ids) - 1))
    parts = marked(lambda some: str(tokenizer.decode(list(some))), ids[:place], ids[place + 1 :], ids[place])
    if text.isascii():
        assert "".join(parts) == text and len(parts[1]) == 1
    # A token may be a part of a character, which is no text; what is around that character is shown all the same.
    assert text.startswith(parts[0].rstrip("\ufffd")) and text.endswith(parts[2].lstrip("\ufffd"))


def test_a_decoder_that_joins_words_with_spaces(tmp_path: Path) -> None:
    words = ["an", "old", "mill", "[UNK]"]
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece()
    parts = marked(lambda some: str(tokenizer.decode(list(some))), [0], [2], 1)
    assert parts == ("an", " old", " mill")
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    write_pack(tmp_path / "pack", [[[0, 1, 2]]], tokenizer_sha256=sha256_file(tmp_path / "tokenizer.json"), eos="none")
    assert trace(tmp_path / "pack", 1).text == parts
