"""Held-out documents: packs of their own that nobody trains on, in every command that knows packs."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from dataeng.formats.mixture import load_mixture
from dataeng.formats.pack import load_manifest
from dataeng.formats.pack_verification import verify_pack
from tests.test_cli import Call, call

__all__ = ["call"]  # a fixture

PIPELINE = """\
name: split
run: runs/split
sources:
  - read_files: {paths: ["web/*.jsonl"], domain: web}
    name: web
  - read_files: {paths: ["notes/*.jsonl"], domain: notes}
    name: notes
stages:
  - train_tokenizer: {vocab_size: 270}
  - write_packs: {held_out: 0.3}
"""
FOLDERS = ["notes", "notes.held-out", "web", "web.held-out"]


@pytest.fixture
def run(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for domain in ("web", "notes"):
        (tmp_path / domain).mkdir()
        for part in range(2):
            write(tmp_path / domain / f"{domain}-{part}.jsonl", domain, range(part * 30, part * 30 + 30))
    (tmp_path / "split.yaml").write_text(PIPELINE)
    called = call("run", "split.yaml", "--scheduler", "inline")
    assert called.code == 0, called.err
    assert "packs/web.held-out: " in called.out
    return tmp_path / "runs/split"


def write(path: Path, domain: str, numbers: range) -> None:
    pages = [{"url": f"https://{domain}.example/{i}", "text": f"{domain} page {i} " * 9} for i in numbers]
    path.write_text("".join(json.dumps(page) + "\n" for page in pages))


def urls(run: Path, folder: str) -> list[str]:
    found = [pl.read_parquet(path) for path in sorted((run / "packs" / folder).glob("*.docs.parquet"))]
    return pl.concat(found)["url"].to_list()


def test_every_document_is_in_one_pack_and_the_same_ones_are_held_out_of_other_runs(run: Path, call: Call) -> None:
    packs = {folder: load_manifest(run / "packs" / folder) for folder in FOLDERS}
    assert sorted(path.name for path in (run / "packs").iterdir()) == FOLDERS
    assert {name: (pack.domain, pack.held_out) for name, pack in packs.items()} == {
        folder: (folder.removesuffix(".held-out"), folder.endswith(".held-out")) for folder in FOLDERS
    }
    for domain in ("web", "notes"):
        kept, held_out = urls(run, domain), urls(run, f"{domain}.held-out")
        assert sorted(kept + held_out) == sorted(f"https://{domain}.example/{i}" for i in range(60))
        assert 8 <= len(held_out) <= 28  # 18 expected of 60
        assert all(verify_pack(run / "packs" / name) == [] for name in (domain, f"{domain}.held-out"))
    before = set(urls(run, "web.held-out"))
    write(Path("web/web-0.jsonl"), "web", range(200, 260))  # other documents instead of half of them
    assert call("run", "split.yaml", "--scheduler", "inline").code == 0
    after = set(urls(run, "web.held-out"))
    assert before & after == before & {f"https://web.example/{i}" for i in range(30, 60)} != set()
    assert call("run", "split.yaml", "--scheduler", "inline", "--set", "write_packs.held_out=0").code == 0
    assert sorted(path.name for path in (run / "packs").iterdir()) == ["notes", "web"]


def test_mixtures_take_one_kind_of_packs(run: Path, call: Call) -> None:
    assert call("mix", run, "-o", "mix.json").code == 0
    assert call("mix", run, "--held-out", "-o", "held_out.json").code == 0
    trained, measured = load_mixture(Path("mix.json")), load_mixture(Path("held_out.json"))
    assert list(trained.domains) == list(measured.domains) == ["notes", "web"]
    assert trained.domains["web"].packs == ["runs/split/packs/web"]
    assert measured.domains["web"].packs == ["runs/split/packs/web.held-out"]
    assert trained.domains["web"].num_documents + measured.domains["web"].num_documents == 60
    assert call("run", "split.yaml", "--scheduler", "inline", "--set", "write_packs.held_out=0").code == 0
    called = call("mix", run, "--held-out", "-o", "held_out.json", "--force")
    assert called.code == 1 and "has no held-out packs (write_packs: {held_out: 0.01} makes them)" in called.err


def test_questions_and_removals_reach_held_out_documents(run: Path, call: Call) -> None:
    called = call("sql", run, "SELECT count(*) AS n, count(DISTINCT id) AS ids FROM packs", "--format", "csv")
    assert called.out.split() == ["n,ids", "120,120"]
    url = urls(run, "web.held-out")[0]
    called = call("explain", run, url)
    assert called.code == 0 and "kept" in called.out
    assert call("mix", run, "--held-out", "-o", "held_out.json").code == 0
    Path("ids.txt").write_text(
        call("sql", run, f"SELECT id FROM packs WHERE url = '{url}'", "--format", "csv").out.split()[1]
    )
    called = call("remove", run, "--ids", "ids.txt", "--reason", "a test", "--mixture", "held_out.json")
    assert called.code == 0, called.err
    assert url not in urls(run, "web.held-out") and verify_pack(run / "packs/web.held-out") == []
    measured = load_mixture(Path("held_out.json")).domains["web"]
    assert measured.num_documents == load_manifest(run / "packs/web.held-out").num_documents
    called = call("sql", run, "SELECT count(*) AS n FROM packs", "--format", "csv")
    assert called.out.split() == ["n", "119"]
    assert call("run", "split.yaml", "--scheduler", "inline").code == 0
    assert url not in urls(run, "web.held-out")
