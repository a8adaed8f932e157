"""`dataeng train-tokenizer`: from files and runs to a tokenizer and its report, and what it refuses."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tokenizers import Tokenizer

from dataeng.cli import main
from dataeng.errors import ConfigError, FormatError, InputError
from dataeng.report.tokenizer_documents import documents
from dataeng.report.tokenizer_report import load_reference, measure
from dataeng.report.train_tokenizer import parse_size, train_and_measure
from tests.small_run import SmallRun

ENGLISH = "the quick brown fox jumps over the lazy dog and runs away again. "
GERMAN = "der schnelle braune Fuchs springt über den faulen Hund und läuft davon. "


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rows = [
        {"id": f"w{i}", "text": (ENGLISH, GERMAN)[i % 4 == 3] * 3, "lang": ("en", "de")[i % 4 == 3]} for i in range(80)
    ]
    with gzip.open(tmp_path / "web.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, rows)) + '\n\n{"text": null}\n')
    code = pl.DataFrame({"text": [f"def f{i}(x):\n    return x + {i}\n" for i in range(40)], "domain": "code"})
    code.write_parquet(tmp_path / "functions.parquet")
    return [tmp_path / "web.jsonl.gz", tmp_path / "functions.parquet"]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dataeng", "train-tokenizer", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return run


def test_documents_have_domain_and_language_wherever_they_come_from(files: list[Path]) -> None:
    frame = pl.concat(list(documents(files)))
    assert frame.columns == ["id", "text", "domain", "language"]
    counts = frame.group_by("domain", "language").len().sort("domain", "language").rows()
    assert counts == [("code", None, 40), ("web", "de", 20), ("web", "en", 60)]
    assert frame.get_column("id").n_unique() == 120


def test_a_finished_run_is_read(finished: SmallRun) -> None:
    frame = pl.concat(list(documents([finished.run_dir])))
    assert frame.height > 0 and frame.get_column("text").null_count() == 0


def test_from_files_to_a_tokenizer_and_a_report(
    files: list[Path], tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    gpt2 = tmp_path / "gpt2"
    gpt2.mkdir()
    small = {character: i for i, character in enumerate("abcdefghijklmnopqrstuvwxyzĠ.Ċ")}
    (gpt2 / "encoder.json").write_text(json.dumps({**small, "th": 29}))
    (gpt2 / "vocab.bpe").write_text("#version: 0.2\nt h\n")
    out = tmp_path / "tokenizer"
    code, printed, _ = command(
        *files, "-o", out, "--vocab-size", 350, "--pre-tokenization", "qwen", "--special-token", "@sentence",
        "--special-token", "@chatml", "--reference", gpt2, "--sample", "5kB", "--seed", 3,
    )  # fmt: skip
    assert code == 0
    assert "language de" in printed and "domain code" in printed and "gpt2" in printed and "trained" in printed
    assert "not all of these texts come back" in printed  # the reference has no ü
    assert "350 tokens (byte_level_bpe, qwen)" in printed and "in 3 groups" in printed

    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 350 and tokenizer.token_to_id("</s>") == 2
    config = json.loads((out / "tokenizer_config.json").read_text())
    assert config["eos_token"] == "</s>" and config["pad_token"] == "<pad>"
    training = json.loads((out / "training.json").read_text())
    assert training["options"]["seed"] == 3 and training["options"]["vocab_size"] == 350
    assert sum(group["sample_bytes"] for group in training["sample"]) == pytest.approx(5_000, abs=3)
    report = pl.read_parquet(out / "report.parquet")
    assert report.get_column("tokenizer").unique(maintain_order=True).to_list() == ["trained", "gpt2"]
    row = report.filter((pl.col("tokenizer") == "trained") & (pl.col("level") == "all")).row(0, named=True)
    texts = pl.concat(list(documents(files))).get_column("text")
    assert row["documents"] == row["restored_documents"] == 120
    assert row["bytes"] == sum(len(text.encode()) for text in texts)
    assert row["words"] == sum(len(text.split()) for text in texts)
    encoded = sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)
    assert row["tokens"] == encoded
    assert row["fertility"] == pytest.approx(encoded / row["words"])
    assert row["bytes_per_token"] == pytest.approx(row["bytes"] / encoded)
    domains = report.filter((pl.col("tokenizer") == "trained") & (pl.col("level") == "domain"))
    assert domains.get_column("tokens").sum() == row["tokens"]


def test_the_same_files_give_the_same_bytes_in_any_order(files: list[Path], tmp_path: Path) -> None:
    options = {"vocab_size": 300, "sample_bytes": 3_000}
    for name, order in (("one", files), ("other", files[::-1])):
        train_and_measure(order, tmp_path / name, options, (), 1_000)
    for name in ("tokenizer.json", "training.json", "report.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


@pytest.mark.parametrize("output", ["csv", "json"])
def test_reports_for_other_programs(
    files: list[Path], tmp_path: Path, command: Callable[..., tuple[int, str, str]], output: str
) -> None:
    code, printed, _ = command(*files, "-o", tmp_path / "t", "--vocab-size", 300, "--format", output)
    assert code == 0
    if output == "csv":
        rows: list[Any] = list(csv.DictReader(io.StringIO(printed)))
    else:
        rows = [json.loads(line) for line in printed.splitlines()]
    assert {row["level"] for row in rows} == {"all", "domain", "language", "group"}
    assert all(float(row["bytes_per_token"]) > 1 for row in rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--algorithm", "byte_level_bpee"], "--algorithm byte_level_bpee; did you mean 'byte_level_bpe'"),
        (["--pre-tokenization", "gpt3"], "--pre-tokenization gpt3; did you mean 'gpt"),
        (["--vocab-size", "100"], "--vocab-size 100"),
        (["--language-temperature", "0.5"], "--language-temperature 0.5"),
        (["--special-token", "@chatlm"], "did you mean '@chatml'"),
        (["--sample", "5 parsecs"], "'5 parsecs' is not a size"),
        (["--format", "tabel"], "did you mean 'table'"),
        (["--reference", "nowhere"], "nowhere is no tokenizer"),
    ],
)
def test_wrong_options_are_named(
    files: list[Path], tmp_path: Path, command: Callable[..., tuple[int, str, str]], options: list[str], message: str
) -> None:
    code, _, error = command(*files, "-o", tmp_path / "t", *options)
    assert code == 1 and message in error, error
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "a.jsonl, line 2: "),
        ("a.jsonl", b"[1]\n", "line 1: expected an object, found list"),
        ("a.jsonl", b'{"txt": "a"}\n', "a.jsonl has no documents"),
        ("a.jsonl", b"", "a.jsonl has no documents"),
        ("a.jsonl", b'{"text": "\xff"}\n', "a.jsonl, line 1: "),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n', mtime=0)[:-9], "is damaged"),
        ("a.parquet", b"PAR1", "cannot be read as Parquet"),
        ("a.txt", b"a", "neither a run folder nor JSON Lines"),
    ],
)
def test_files_that_are_no_documents_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(documents([tmp_path / name]))


def test_folders_that_are_no_run_and_tables_without_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run folder: it has no run\.json"):
        list(documents([tmp_path]))
    pl.DataFrame({"texts": ["a"]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="no column 'text'; did you mean 'texts'"):
        list(documents([tmp_path / "a.parquet"]))


def test_half_a_surrogate_pair_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "\\ud800"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl, line 1"):
        list(documents([tmp_path / "a.jsonl"]))


def test_broken_tokenizers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(FormatError, match="cannot be read as a tokenizer"):
        load_reference(tmp_path)
    with pytest.raises(InputError, match="is no tokenizer"):
        load_reference(tmp_path / "other.json")


def test_nobody_is_measured_twice_by_one_name(files: list[Path], tmp_path: Path) -> None:
    trained = train_and_measure(files, tmp_path / "trained", {"vocab_size": 300}, (), 1_000)
    assert trained.report.height > 0
    again = train_and_measure(files, tmp_path / "b", {"vocab_size": 320}, [tmp_path / "trained"] * 2, 1_000)
    names = again.report.get_column("tokenizer").unique(maintain_order=True).to_list()
    assert len(names) == 3 and names.count("trained") == 1


def test_measures_of_nothing_unusual() -> None:
    from tokenizers import models

    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    texts = pl.DataFrame({"text": ["ab a", "bb"], "domain": ["x", "x"], "language": ["", "de"]})
    report = measure(texts, {"letters": tokenizer})
    row = report.filter(pl.col("level") == "all").row(0, named=True)
    assert (row["tokens"], row["words"], row["bytes"], row["restored_documents"]) == (5, 3, 6, 0)


@pytest.mark.parametrize(("text", "size"), [("64MB", 64_000_000), ("1.5 GiB", 3 << 29), ("7", 7), ("2kb", 2_000)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-5MB", "5XB", "MB", "1e3"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigError, match="not a size"):
        parse_size(text)
