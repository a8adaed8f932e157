"""The command's own work: options are checked before anything is written, and what was written is shown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dataeng.cli import app
from dataeng.errors import ConfigError, FormatError
from dataeng.exports import llmc
from dataeng.exports.export import FORMATS, export
from dataeng.exports.layout import Options
from tests.conformance import peers
from tests.exports.packs import VOCABULARIES, Content, write_mixture, write_pack, write_run

PLAIN = Content([[[1, 2, 3], []], [[4]]], [None, None])
MASKED = Content([[[1, 2, 3], []], [[4]]], [[[0, 1, 1, 1], [1]], None])


def refused(tmp_path: Path, match: str, content: Content, form: str, error: type = ConfigError, **choices: Any) -> None:
    changes = choices.pop("changes", {})
    folder = write_pack(tmp_path / "web", content, **changes)
    with pytest.raises(error, match=match):
        export(folder, form, tmp_path / "out", **choices)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def test_an_unknown_format_has_a_nearest_name(tmp_path: Path) -> None:
    refused(tmp_path, "unknown format 'datatrov'; did you mean 'datatrove'", PLAIN, "datatrov")


def test_a_vocabulary_too_large_for_two_bytes(tmp_path: Path) -> None:
    content = Content(PLAIN.shards, PLAIN.masks, "int32")
    refused(tmp_path, "vocabulary has 100,000 tokens; llmc holds .* 65,536 .*--to llmc-llama3", content, "llmc")


def test_a_vocabulary_that_only_megatron_finds_too_large(tmp_path: Path) -> None:
    """Megatron takes 4 bytes from 65,500 tokens on; llm.c has 2 for up to 65,536."""
    content = Content([[[65_000]]], [None], "int32")
    folder = write_pack(tmp_path / "web", content, vocab_size=65_536)
    manifest = export(folder, "llmc", tmp_path / "out").manifest
    assert manifest.domains["web"].files[0].size_bytes == 1024 + 2 * 2


@pytest.mark.parametrize("form", [name for name, form in FORMATS.items() if not form.masks])
def test_masks_are_not_dropped_silently(tmp_path: Path, form: str) -> None:
    refused(tmp_path, f"loss masks, and {form} has no place .*datatrove.*--drop-mask", MASKED, form)
    export(tmp_path / "web", form, tmp_path / "out", drop_mask=True)


@pytest.mark.parametrize("form", ["datatrove", "huggingface", "litdata", "mds", "olmo"])
def test_a_dropped_mask_is_not_written(tmp_path: Path, form: str) -> None:
    folder = write_pack(tmp_path / "a/web", MASKED)
    plain = write_pack(tmp_path / "b/web", PLAIN)
    choices = Options(tokenizer_name="x")
    dropped = export(folder, form, tmp_path / "dropped", choices, drop_mask=True).manifest
    without = export(plain, form, tmp_path / "without", choices).manifest
    assert dropped.domains == without.domains and not dropped.masked
    assert export(folder, form, tmp_path / "kept", choices).manifest.masked


@pytest.mark.parametrize("form", FORMATS)
def test_packs_in_parquet_alone_give_the_same_export(tmp_path: Path, form: str) -> None:
    content = Content([[[1, 2, 3], [], [9] * 300], [], [[4]]], [[[0, 1, 1, 1], [1], [1] * 301], None, None])
    choices: dict[str, Any] = {"options": Options(tokenizer_name="x"), "drop_mask": not FORMATS[form].masks}
    both = [
        export(
            write_pack(tmp_path / name / "web", content, parquet_alone=alone), form, tmp_path / name / "out", **choices
        )
        for name, alone in (("megatron", False), ("parquet", True))
    ]
    assert both[0].manifest.domains == both[1].manifest.domains


def test_rows_are_only_for_formats_with_rows(tmp_path: Path) -> None:
    options = Options(sequence_length=4)
    refused(tmp_path, "olmo has no rows.*huggingface, litdata, mds", PLAIN, "olmo", options=options)


def test_a_row_longer_than_the_domain(tmp_path: Path) -> None:
    refused(tmp_path, "'web' has 7 tokens: not one row of 8", PLAIN, "mds", options=Options(sequence_length=8))


def test_documents_without_eos_have_no_place_in_llmc(tmp_path: Path) -> None:
    """Token 3 ends no document; only unverified packs come that far."""
    refused(tmp_path, "does not end with token 3", PLAIN, "llmc", FormatError, changes={"eos_id": 3}, verify=False)


def test_llmc_parts_files_between_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llmc, "TOKENS_A_FILE", 5)
    folder = write_pack(tmp_path / "web", Content([[[1, 2], [3], [4] * 9, [5]]], [None]))
    export(folder, "llmc", tmp_path / "out")
    sizes = [(path.stat().st_size - 1024) // 2 for path in sorted((tmp_path / "out").glob("*.bin"))]
    assert sizes == [5, 10, 2]


def test_the_command_prints_a_table_and_the_reader_s_lines(tmp_path: Path) -> None:
    web, code = write_run(tmp_path / "run", {"web": MASKED, "code": PLAIN}) / "packs" / "web", "run/packs/code"
    path = write_mixture(tmp_path / "mix.json", {"web": 0.25, "code": 0.75}, {"web": [web], "code": [tmp_path / code]})
    arguments = ["export", str(path), "--to", "mds", "-o", str(tmp_path / "out"), "--sequence-length", "3"]
    printed = CliRunner().invoke(app, arguments, catch_exceptions=False).stdout
    table = [line.split() for line in printed.splitlines()]
    assert ["web", "0.2500", "3", "7", "2", "1", "2"] in [row[:7] for row in table]
    assert ["proportion:", "0.75"] in table and ["max_seq_len:", "3"] in table
    manifest = json.loads((tmp_path / "out/export.json").read_text())
    assert manifest["domains"]["code"]["weight"] == 0.75 and manifest["vocab_size"] == VOCABULARIES["uint16"]
    again = CliRunner().invoke(app, arguments, catch_exceptions=False).stdout
    assert again.startswith("nothing to do: ")


def test_the_commands_and_the_code_of_the_docs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs/exports.md").read_text()
    commands = re.findall(r"^\$ dataeng (.+)$", text, re.MULTILINE)
    blocks = [
        block for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE) if "import" in block
    ]
    assert len(commands) == 7 and len(blocks) == 3
    assert {name for name in FORMATS if f"| `{name}` |" in text} == FORMATS.keys()
    long = Content([[[number] * 50 for number in range(10)]], [None])
    write_run(tmp_path / "runs/cc_clean", {"web": long, "code": long})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    peers.load("litdata")
    for command in commands:
        assert CliRunner().invoke(app, command.split(), catch_exceptions=False).exit_code == 0
    for block in blocks:
        scope: dict[str, Any] = {}
        exec(block, scope)
        assert next(iter(scope["dataset"])) is not None


def test_the_help_names_every_format() -> None:
    printed = CliRunner().invoke(app, ["export", "--help"], env={"COLUMNS": "200"}).stdout
    assert all(name in printed for name in FORMATS)
