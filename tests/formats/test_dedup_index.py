"""The manifest of a dedup index: added to by several at once, never half-written, errors that name what is wrong."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from pathlib import Path

import pytest

from dataeng.errors import FormatError, InputError, PlanError
from dataeng.formats import atomic
from dataeng.formats.dedup_index import (
    Index,
    NewFile,
    Origin,
    check_method,
    content_digest,
    damages,
    load_index,
    publish,
    strangers,
)

INDEX = Index(method="test", parameters={"bands": 3, "unit": "words"})


def new_files(folder: Path, content: bytes) -> list[NewFile]:
    folder.mkdir(parents=True, exist_ok=True)
    files: list[NewFile] = []
    for kind in ("documents", "keys"):
        path = folder / f"{kind}-00000.parquet"
        path.write_bytes(kind.encode() + content)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append(NewFile(path, kind, 0, 1, sha256, "a", "b"))  # type: ignore[arg-type]
    return files


def add(path: Path, scratch: Path, name: str, content: bytes = b"") -> Path:
    files = new_files(scratch / name, content)
    digest = content_digest(files, INDEX.parameters)
    origin = Origin(name=name, digest=digest, documents=1, text_bytes=1, run=name)
    return publish(path, INDEX, name, [origin], files)


def names(path: Path) -> list[str]:
    return [origin.name for origin in load_index(path).origins]


def whole(path: Path) -> bool:
    index = load_index(path)
    return not list(damages(path, index.segments, thorough=True))


def test_adding_is_appending_and_adding_twice_is_adding_once(tmp_path: Path) -> None:
    for name in ("b", "a"):
        add(tmp_path / "index", tmp_path / "made", name)
    before = (tmp_path / "index/manifest.json").read_bytes()
    segment = add(tmp_path / "index", tmp_path / "made", "b")
    assert names(tmp_path / "index") == ["b", "a"] and whole(tmp_path / "index")
    assert (tmp_path / "index/manifest.json").read_bytes() == before
    assert json.loads(segment.read_text()) == load_index(tmp_path / "index").segments[0].model_dump(mode="json")


def test_other_content_takes_the_place_of_the_segment(tmp_path: Path) -> None:
    first = add(tmp_path / "index", tmp_path / "made", "a")
    add(tmp_path / "index", tmp_path / "made", "b")
    second = add(tmp_path / "index", tmp_path / "made", "a", b"new")
    assert names(tmp_path / "index") == ["a", "b"] and whole(tmp_path / "index")
    assert second.exists() and not first.parent.exists()


def add_many(path: Path, scratch: Path, worker: int) -> None:
    for number in range(15):
        add(path, scratch, f"w{worker}-{number}")


def test_several_that_add_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=add_many, args=(tmp_path / "index", tmp_path / "made", worker)) for worker in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    found = names(tmp_path / "index")
    assert sorted(found) == sorted(f"w{worker}-{number}" for worker in range(4) for number in range(15))
    for worker in range(4):  # each one's in its order
        assert [name for name in found if name.startswith(f"w{worker}-")] == [f"w{worker}-{n}" for n in range(15)]
    assert whole(tmp_path / "index") and not strangers(tmp_path / "index", load_index(tmp_path / "index"))


class Failing(atomic.FileSystem):
    """A file system whose n-th call fails."""

    def __init__(self, at: int) -> None:
        self.at, self.calls = at, 0

    def _call(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise OSError(28, "No space left on device")

    def create(self, path):  # type: ignore[no-untyped-def]
        self._call()
        return super().create(path)

    def write(self, file, data):  # type: ignore[no-untyped-def]
        self._call()
        return super().write(file, data)

    def sync(self, file):  # type: ignore[no-untyped-def]
        self._call()
        super().sync(file)

    def rename(self, source, target):  # type: ignore[no-untyped-def]
        self._call()
        super().rename(source, target)

    def sync_folder(self, folder):  # type: ignore[no-untyped-def]
        self._call()
        super().sync_folder(folder)


def test_every_call_that_fails_leaves_a_whole_index_and_trying_again_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = 0
    for at in range(1, 100):
        path = tmp_path / f"index-{at}"
        add(path, tmp_path / "made", "first")
        failing = Failing(at)
        with monkeypatch.context() as patch:
            patch.setattr(atomic, "fs", failing)
            try:
                add(path, tmp_path / "made", "second")
            except OSError:
                failed += 1
            else:
                break
        assert whole(path) and names(path) in (["first"], ["first", "second"])
        add(path, tmp_path / "made", "second")
        assert whole(path) and names(path) == ["first", "second"]
    assert failed == failing.calls > 15


def test_a_source_that_changed_is_not_added(tmp_path: Path) -> None:
    files = new_files(tmp_path / "made", b"")
    files[1].path.write_bytes(b"other")
    origin = Origin(name="a", digest="0", documents=1, text_bytes=1, run="a")
    with pytest.raises(FormatError, match=r"keys-00000.parquet is not what was committed"):
        publish(tmp_path / "index", INDEX, "a", [origin], files)
    assert not (tmp_path / "index/manifest.json").exists()


def test_differences_of_method_and_parameters_are_named(tmp_path: Path) -> None:
    check_method(INDEX, tmp_path, "test", {"unit": "words", "bands": 3})
    with pytest.raises(PlanError, match="holds keys of 'test', not of 'other'"):
        check_method(INDEX, tmp_path, "other", INDEX.parameters)
    with pytest.raises(PlanError, match="unit is 'words' there and None here; rows is None there and 8 here"):
        check_method(INDEX, tmp_path, "test", {"bands": 3, "rows": 8})


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"format_version": 2}'])
def test_a_damaged_manifest_is_an_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match="no dedup index"):
        load_index(tmp_path)
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(FormatError, match="not the manifest of a dedup index"):
        load_index(tmp_path)


def test_damages_are_named_with_segment_and_file(tmp_path: Path) -> None:
    segment = add(tmp_path / "index", tmp_path / "made", "a").parent
    index = load_index(tmp_path / "index")
    (segment / "keys-00000.parquet").write_bytes(b"KEYS")
    assert list(damages(tmp_path / "index", index.segments)) == []  # only what costs nothing to see
    (found,) = damages(tmp_path / "index", index.segments, thorough=True)
    assert found == f"segment 'a': {segment / 'keys-00000.parquet'} is not what was committed (SHA-256)"
    (segment / "keys-00000.parquet").write_bytes(b"K")
    (segment / "documents-00000.parquet").unlink()
    assert [text.split(" ", 3)[-1] for text in damages(tmp_path / "index", index.segments)] == [
        "is missing",
        "has 1 bytes, expected 4",
    ]
