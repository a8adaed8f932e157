"""Atomic files: whole or not there, whatever goes wrong on the way."""

from __future__ import annotations

import errno
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataeng.formats import atomic
from dataeng.formats.atomic import AtomicFile, commit_all, read_json, sha256_file, write_bytes, write_json


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Records the primitive calls, with the file or folder that each is about."""
    made: list[tuple[str, str]] = []

    def recorded(name: str) -> Any:
        original = getattr(atomic.fs, name)

        def call(*args: Any) -> Any:
            subject = args[-1] if name == "rename" else args[0]
            made.append(
                (name, Path(getattr(subject, "name", subject)).name if name in ("write", "sync") else subject.name)
            )
            return original(*args)

        return call

    for name in ("create", "write", "sync", "rename", "sync_folder", "remove"):
        monkeypatch.setattr(atomic.fs, name, recorded(name))
    return made


def fail(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def broken(*args: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.fs, name, broken)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_nothing_is_visible_before_the_commit(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "file.bin"
    file = AtomicFile(target)
    file.write(b"hello ")
    file.write(memoryview(b"world"))
    assert not target.exists() and len(names(target.parent)) == 1
    assert names(target.parent)[0].startswith(".file.bin.") and names(target.parent)[0].endswith(".tmp")
    commit_all([file])
    assert target.read_bytes() == b"hello world" and names(target.parent) == ["file.bin"]
    assert (file.size_bytes, file.sha256) == (11, hashlib.sha256(b"hello world").hexdigest())
    assert file.sha256 == sha256_file(target)


def test_content_is_durable_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    files = [AtomicFile(tmp_path / name) for name in ("one", "two")]
    for file in files:
        file.write(b"x")
    del calls[:]
    commit_all(files)
    assert [name for name, _ in calls] == ["sync", "sync", "rename", "rename", "sync_folder"]
    assert calls[2:] == [("rename", "one"), ("rename", "two"), ("sync_folder", tmp_path.name)]


def test_a_new_folder_is_made_durable_in_the_one_above(tmp_path: Path, calls: list[tuple[str, str]]) -> None:
    write_bytes(tmp_path / "a" / "b" / "file", b"x")
    flushed = [subject for name, subject in calls if name == "sync_folder"]
    assert flushed == [tmp_path.name, "a", "b"]


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    write_bytes(target, b"old")
    for name in ("write", "sync", "rename"):
        with monkeypatch.context() as patch:
            fail(patch, name)
            with pytest.raises(OSError, match="No space left"):
                write_bytes(target, b"new")
        assert target.read_bytes() == b"old" and names(tmp_path) == ["file"]
    write_bytes(target, b"new")
    assert target.read_bytes() == b"new"


def test_a_file_that_could_not_be_flushed_is_never_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed fsync the kernel may have dropped the pages: a second attempt would succeed, and lie."""
    file = AtomicFile(tmp_path / "file")
    file.write(b"x")
    with monkeypatch.context() as patch:
        fail(patch, "sync")
        with pytest.raises(OSError, match="No space left"):
            file.finish()
    with pytest.raises(ValueError, match="could not be flushed"):
        file.commit()
    assert not (tmp_path / "file").exists()


def test_one_failure_in_a_group_makes_none_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [AtomicFile(tmp_path / name) for name in ("one", "two")]
    syncs = []
    original = atomic.fs.sync

    def second_fails(file: Any) -> None:
        syncs.append(file)
        if len(syncs) == 2:
            raise OSError(errno.EIO, "Input/output error")
        original(file)

    monkeypatch.setattr(atomic.fs, "sync", second_fails)
    with pytest.raises(OSError, match="Input/output"):
        commit_all(files)
    for file in files:
        file.discard()
    assert names(tmp_path) == []


class FailsToClose(io.BytesIO):
    def close(self) -> None:
        super().close()
        raise OSError(errno.ENOSPC, "No space left on device")


def test_discarding_works_where_closing_fails(tmp_path: Path) -> None:
    file = AtomicFile(tmp_path / "file")
    assert file._file is not None
    file._file.close()
    file._file = FailsToClose()
    file.discard()
    assert names(tmp_path) == []


def test_discarded_means_gone_also_for_writers_that_go_on(tmp_path: Path) -> None:
    file = AtomicFile(tmp_path / "file.parquet")
    writer = pq.ParquetWriter(file, pa.schema([("x", pa.int64())]))
    writer.write_table(pa.table({"x": [1, 2]}))
    file.discard()
    writer.close()
    file.discard()
    with pytest.raises(ValueError, match="discarded"):
        file.commit()
    assert names(tmp_path) == []


def test_discarding_after_the_commit_leaves_the_file(tmp_path: Path) -> None:
    file = AtomicFile(tmp_path / "file")
    file.write(b"x")
    commit_all([file])
    file.discard()
    assert names(tmp_path) == ["file"]


def test_writing_after_the_end_is_refused(tmp_path: Path) -> None:
    file = AtomicFile(tmp_path / "file")
    file.finish()
    with pytest.raises(ValueError, match="already finished"):
        file.write(b"x")


def test_it_is_a_stream_that_other_writers_take(tmp_path: Path) -> None:
    file = AtomicFile(tmp_path / "table.parquet")
    pq.write_table(pa.table({"x": list(range(1000))}), file)
    assert file.writable() and not file.seekable() and file.tell() == file.size_bytes > 0
    commit_all([file])
    assert pq.read_table(tmp_path / "table.parquet").column("x").to_pylist() == list(range(1000))
    numbers = AtomicFile(tmp_path / "numbers")
    numbers.write(pa.array([1, 2], pa.int32()).buffers()[1])
    assert numbers.size_bytes % 4 == 0 and numbers.size_bytes >= 8
    numbers.discard()


def test_two_writers_of_one_name_do_not_meet(tmp_path: Path) -> None:
    first, second = AtomicFile(tmp_path / "file"), AtomicFile(tmp_path / "file")
    first.write(b"first")
    second.write(b"second")
    commit_all([second])
    commit_all([first])
    assert (tmp_path / "file").read_bytes() == b"first" and names(tmp_path) == ["file"]


def test_json(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "a": "žluť 𝄞\n"}
    digest = write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value and list(read_json(tmp_path / "x.json")) == ["b", "a"]
    assert digest == sha256_file(tmp_path / "x.json") and "žluť 𝄞" in (tmp_path / "x.json").read_text()
    (tmp_path / "x.json").write_bytes(b"\xff")
    with pytest.raises(ValueError):
        read_json(tmp_path / "x.json")
    with pytest.raises(TypeError):
        write_json(tmp_path / "y.json", {"x": object()})
    assert names(tmp_path) == ["x.json"] and json.loads('"ok"') == "ok"


def test_hash_of_a_file_larger_than_one_read(tmp_path: Path) -> None:
    data = bytes(range(256)) * (atomic.READ_SIZE // 128)
    (tmp_path / "large").write_bytes(data)
    assert sha256_file(tmp_path / "large") == hashlib.sha256(data).hexdigest()
