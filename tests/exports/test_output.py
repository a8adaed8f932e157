"""The output folder: whole or not there, whatever fails on the way; never on top of something else."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataeng.errors import ConfigError, FormatError, LeaseError
from dataeng.exports.export import FORMATS, export
from dataeng.exports.output import EXPORT_NAME, OutputFolder, unfinished_folder
from dataeng.formats import atomic
from tests.exports.packs import Content, write_pack

CONTENT = Content([[[1, 2, 3], []], [[4]]], [None, None])


class Killed(BaseException):
    """The process is gone."""


def fail_at(patch: pytest.MonkeyPatch, number: int, error: BaseException) -> list[str]:
    """Makes the ``number``-th primitive call fail, and after a kill all that follow; returns the calls made."""
    calls: list[str] = []

    def faulty(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any) -> Any:
            calls.append(name)
            if len(calls) == number or (len(calls) > number and isinstance(error, Killed)):
                raise error
            return call(*args)

        return wrapped

    for name in ("create", "write", "sync", "rename", "sync_folder", "remove"):
        patch.setattr(atomic.fs, name, faulty(name, getattr(atomic.fs, name)))
    return calls


@pytest.mark.parametrize(
    ("form", "error"),
    [("mds", OSError(errno.ENOSPC, "No space left on device")), ("mds", Killed()), ("datatrove", Killed())],
    ids=["disk full", "kill", "kill among files"],
)
def test_every_failure_leaves_nothing_or_the_whole_export(tmp_path: Path, form: str, error: BaseException) -> None:
    folder = write_pack(tmp_path / "web", Content([[[1]]], [None]))
    reference = snapshot(export(folder, form, tmp_path / "out").manifest.model_dump())
    files = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*")}
    number = 1
    while True:
        parent = tmp_path / f"{number}"
        parent.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            calls = fail_at(patch, number, error)
            try:
                export(folder, form, parent / "out")
            except (OSError, Killed) as raised:
                assert raised is error
        if len(calls) < number:
            break
        out = parent / "out"
        # The last call flushes the folder above, after the rename: then all is there, though the error is told.
        assert not out.exists() or (calls[number - 1] == "sync_folder" and (out / EXPORT_NAME).exists())
        again = export(folder, form, out)
        assert snapshot(again.manifest.model_dump()) == reference
        assert {path.relative_to(out) for path in out.rglob("*")} == files
        assert sorted(path.name for path in parent.iterdir()) == ["out"]
        number += 1
    assert number > 20


def snapshot(manifest: dict[str, Any]) -> str:
    """A manifest without what depends on the output's place: the fingerprint, and datatrove's metadata."""
    manifest.pop("fingerprint")
    for domain in manifest["domains"].values():
        domain["files"] = [file for file in domain["files"] if not file["name"].endswith(".metadata")]
    return json.dumps(manifest, sort_keys=True)


@pytest.mark.parametrize("form", FORMATS)
def test_running_again_changes_nothing(tmp_path: Path, form: str) -> None:
    folder, out = write_pack(tmp_path / "web", CONTENT), tmp_path / "deep" / "out"
    first = export(folder, form, out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = export(folder, form, out)
    assert first.written and not again.written and again.manifest == first.manifest and again.lines == first.lines
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times


def test_every_file_is_in_the_manifest_with_its_hash(tmp_path: Path) -> None:
    out = tmp_path / "out"
    manifest = export(write_pack(tmp_path / "web", CONTENT), "olmo", out).manifest
    listed = {file.name: file for file in [*manifest.other_files, *manifest.domains["web"].files]}
    found = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    assert found.keys() == listed.keys() | {EXPORT_NAME}
    for name, file in listed.items():
        assert file.size_bytes == found[name].stat().st_size and file.sha256 == atomic.sha256_file(found[name])


def test_a_damaged_export_is_told(tmp_path: Path) -> None:
    folder, out = write_pack(tmp_path / "web", CONTENT), tmp_path / "out"
    export(folder, "llmc", out)
    path = out / "web_train_000001.bin"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"\xff")
    with pytest.raises(FormatError, match=r"web_train_000001.bin is missing or was altered. Remove .*out"):
        export(folder, "llmc", out)
    assert not export(folder, "llmc", out, verify=False).written  # sizes alone
    path.write_bytes(data[:-1])
    with pytest.raises(FormatError, match="missing or was altered"):
        export(folder, "llmc", out, verify=False)


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    folder, out = write_pack(tmp_path / "web", CONTENT), tmp_path / "out"
    out.mkdir()
    export(folder, "olmo", out)  # an empty folder is taken
    with pytest.raises(ConfigError, match=r"another export \(olmo, "):
        export(folder, "llmc", out)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty and not an export"):
        export(folder, "llmc", other)
    (other / EXPORT_NAME).write_text("{}")
    with pytest.raises(ConfigError, match="not the manifest of an export"):
        export(folder, "llmc", other)
    assert sorted(path.name for path in other.iterdir()) == [EXPORT_NAME, "thesis.txt"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="not empty and not an export"):
        export(folder, "llmc", tmp_path / "file")


def test_changed_packs_are_another_export(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(write_pack(tmp_path / "a/web", CONTENT), "olmo", out)
    with pytest.raises(ConfigError, match="another export"):
        export(write_pack(tmp_path / "b/web", Content([[[9]]], [None])), "olmo", out)


def test_two_exports_at_once_do_not_meet(tmp_path: Path) -> None:
    with unfinished_folder(tmp_path / "out") as folder:
        (folder / "x").write_text("first")
        with pytest.raises(LeaseError, match="another process"), unfinished_folder(tmp_path / "out"):
            raise AssertionError("two processes wrote into one folder")
    assert (tmp_path / "out/x").read_text() == "first" and os.listdir(tmp_path) == ["out"]


def test_a_file_that_fails_leaves_no_trace(tmp_path: Path) -> None:
    out = OutputFolder(tmp_path, "web")
    with pytest.raises(ZeroDivisionError), out.create("a") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert out.files == [] and list((tmp_path / "web").iterdir()) == []
    out.write("b", b"whole")
    assert [(file.name, file.size_bytes) for file in out.files] == [("web/b", 5)]
