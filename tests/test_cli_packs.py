"""`dataeng packs`, `dataeng trace` and `dataeng remove` as a stranger meets them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dataeng
from dataeng.formats.mixture import Policy, load_mixture, save_mixture
from dataeng.formats.pack import load_manifest
from dataeng.formats.pack_verification import verify_pack
from dataeng.mixture.build import build_mixture
from tests.formats.pack_files import ALL, EOS, document_table, write_pack
from tests.test_cli import Call, call

__all__ = ["call"]  # a fixture

SHARDS = [[[5, EOS], [6, 7, EOS], [8, EOS]], [[9, EOS]]]  # hosts: a, b, www.a; b


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    write_pack(tmp_path / "pack", SHARDS, kinds=ALL)
    return tmp_path / "pack"


def test_verify_exits_with_one_and_names_everything(call: Call, pack: Path, tmp_path: Path) -> None:
    called = call("packs", "verify", pack)
    assert called.code == 0 and called.err == "" and called.out.splitlines()[0].endswith(": ok")
    (pack / "00000.bin").write_bytes(bytes(14))
    (pack / "00001.parquet").unlink()
    called = call("packs", "verify", pack)
    assert called.code == 1 and called.err.startswith("error: 2 problems in 1 pack")
    assert "00000.bin was altered" in called.out and "00001.parquet is missing" in called.out
    called = call("packs", "verify", pack, "--tokenizer", tmp_path / "none")
    assert called.code == 1 and "the tokenizer is not at" in called.out
    called = call("packs", "verify", tmp_path)
    assert called.code == 1 and called.out == "" and "is no pack (pack.json)" in called.err


def test_show(call: Call, pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    called = call("packs", "show", pack)
    assert called.code == 0 and "de 67%, en 33%" in called.out


def test_trace(call: Call, pack: Path) -> None:
    called = call("trace", pack, "3")
    assert called.code == 0 and "https://b.example/0-1" in called.out and "in.warc.gz at 1" in called.out
    called = call("trace", pack, "1", "--shard", "00001", "--context", "0")
    assert called.code == 0 and "https://b.example/1-0" in called.out
    identifier = document_table(0, SHARDS[0]).column("id")[2].as_py()
    called = call("trace", pack, "--document", identifier)
    assert called.out.startswith(f"{identifier}  tokens 5 to 6, row 2 of shard 00000")
    for arguments in ((), ("1", "--document", "x")):
        called = call("trace", pack, *arguments)
        assert called.code == 1 and "give the number of a token, or --document ID" in called.err
    called = call("trace", pack, "9")
    assert called.code == 1 and "tokens 9 to 10 are not in" in called.err and "which has 9 tokens" in called.err


def test_remove(call: Call, pack: Path, tmp_path: Path) -> None:
    path = tmp_path / "mix.json"
    save_mixture(path, build_mixture([pack], path, policy=Policy(name="natural")))
    (tmp_path / "hosts.txt").write_text("*.b.example\n")
    arguments = ["remove", pack, "--hosts", tmp_path / "hosts.txt", "--ids", "nobody", "--mixture", path]
    called = call(*arguments, "--dry-run")
    assert called.code == 0 and "2 documents would be removed from 1 of 1 packs" in called.out
    assert load_manifest(pack).revision == 0
    called = call(*arguments, "--reason", "letter of 3 May")
    assert called.code == 0 and called.err == "" and f"mixture updated: {path}" in called.out
    assert load_manifest(pack).num_tokens == 4 and load_mixture(path).domains["web"].num_tokens == 4
    assert verify_pack(pack) == [] and call("packs", "verify", path).code == 0
    called = call("remove", pack)
    assert called.code == 1 and called.err == "error: nothing to remove: give --ids or --hosts (or both).\n"
    called = call("remove", pack, "--hosts", "a.example", "--hosts", "www.a.example", "--mixture", path)
    assert called.code == 1 and "would be left without tokens" in called.err and load_manifest(pack).revision == 1


KILLED = """
import os, signal, sys
from dataeng.formats.atomic import FileSystem

count, last = 0, int(sys.argv[1])

def killing(name):
    call = getattr(FileSystem, name)
    def called(*arguments):
        global count
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)
    return called

for name in ("create", "write", "sync", "rename", "sync_folder", "remove"):
    setattr(FileSystem, name, killing(name))
sys.argv[:] = ["dataeng", *sys.argv[2:]]
from dataeng.cli import main
main()
"""


@pytest.mark.parametrize("calls", [5, 30, 55, 75])
def test_kill_9_leaves_the_old_pack_or_the_new_one(call: Call, pack: Path, calls: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(dataeng.__file__).parents[1])}
    arguments = ["remove", str(pack), "--hosts", "*.b.example"]
    start = time.monotonic()
    killed = subprocess.run([sys.executable, "-c", KILLED, str(calls), *arguments], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL, f"it took {time.monotonic() - start:.1f} s and {killed.returncode}"
    manifest = load_manifest(pack)
    assert (manifest.revision, manifest.num_tokens) in ((0, 9), (1, 4)) and verify_pack(pack) == []
    called = call(*arguments)
    assert called.code == 0 and load_manifest(pack).num_tokens == 4 and verify_pack(pack) == []
    names = {path.name for path in pack.iterdir()} - {".lease.lock"}
    manifest = load_manifest(pack)
    assert manifest.removed is not None
    assert names == {
        "pack.json", manifest.removed.name, *(f.name for shard in manifest.shards for f in shard.files.values())
    }  # fmt: skip
    assert json.loads((pack / "pack.json").read_text())["revision"] == 1
