from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataeng.errors import InputError
from dataeng.stages.ingest.input_files import find_input_files


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name in ("a.jsonl", "one/b.jsonl", "one/two/c.jsonl", "one/.hidden.jsonl", "one/notes.txt", "three/d.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def names(base: Path, *patterns: str) -> list[str]:
    return [file.name for file in find_input_files(patterns, base)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.jsonl", ["a.jsonl"]),
        ("./one/b.jsonl", ["b.jsonl"]),
        ("one/../three/d.jsonl", ["d.jsonl"]),
        ("*.jsonl", ["a.jsonl"]),
        ("*/[bd].jsonl", ["one/b.jsonl", "three/d.jsonl"]),
        ("*/two/c.jsonl", ["one/two/c.jsonl"]),
        ("one/*", [".hidden.jsonl", "b.jsonl", "notes.txt"]),
        ("**/*.jsonl", ["a.jsonl", "one/.hidden.jsonl", "one/b.jsonl", "one/two/c.jsonl", "three/d.jsonl"]),
        ("one/**/c.jsonl", ["two/c.jsonl"]),
        ("**/two/**/*", ["one/two/c.jsonl"]),
        ("**/**/c.jsonl", ["one/two/c.jsonl"]),
    ],
)
def test_patterns(corpus: Path, pattern: str, expected: list[str]) -> None:
    assert names(corpus, pattern) == expected
    assert names(Path("/"), str(corpus / pattern)) == expected
    assert names(corpus, pattern, pattern) == expected


def test_size_and_time(corpus: Path) -> None:
    (file,) = find_input_files(["one/two/*"], corpus)
    status = (corpus / "one/two/c.jsonl").stat()
    assert (file.path, file.size_bytes) == (str(corpus / "one/two/c.jsonl"), len("one/two/c.jsonl"))
    assert file.modified_ns == status.st_mtime_ns


def test_links(corpus: Path) -> None:
    (corpus / "three/e.jsonl").symlink_to(corpus / "one/b.jsonl")
    (corpus / "linked").symlink_to(corpus / "one")
    assert names(corpus, "three/*") == ["d.jsonl", "e.jsonl"]
    assert names(corpus, "*/b.jsonl") == ["linked/b.jsonl", "one/b.jsonl"]
    assert names(corpus, "**/b.jsonl") == ["one/b.jsonl"]


@pytest.mark.parametrize("pattern", ["**/*.jsonl", "one/*/e.jsonl", "one/two/*", "one/two/e.jsonl"])
def test_links_that_lead_nowhere(corpus: Path, pattern: str) -> None:
    link = corpus / "one/two/e.jsonl"
    link.symlink_to("gone.jsonl")
    with pytest.raises(InputError, match=rf"the link '{link}' leads to 'gone.jsonl', which does not exist"):
        find_input_files([pattern], corpus)
    assert names(corpus, "one/two/c*") == ["c.jsonl"]  # a link that does not match is nobody's input


def test_folder_link_that_leads_nowhere(corpus: Path) -> None:
    (corpus / "four").symlink_to(corpus / "gone")
    for pattern in ("*/b.jsonl", "four/*.jsonl", "four/b.jsonl"):
        with pytest.raises(InputError, match=r"four|gone"):
            find_input_files([pattern], corpus)


def test_links_in_a_circle(corpus: Path) -> None:
    (corpus / "three/e.jsonl").symlink_to("e.jsonl")
    (corpus / "circle").symlink_to("circle")
    with pytest.raises(InputError, match=r"three/e\.jsonl' cannot be read"):
        find_input_files(["three/*"], corpus)
    with pytest.raises(InputError, match="circle"):
        find_input_files(["circle/*.jsonl"], corpus)


@pytest.mark.parametrize("pattern", ["**/*.jsonl", "one/*/*.jsonl", "one/two/*"])
def test_folders_that_cannot_be_read(corpus: Path, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root reads a folder of mode 000, so the refusal is made here.
    listed = os.scandir

    def refuse(path: Any) -> Iterator[os.DirEntry[str]]:
        if Path(path).name == "two":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=rf"the folder '{corpus / 'one/two'}' cannot be read \(Permission denied\)"):
        find_input_files([pattern], corpus)
    assert names(corpus, "one/b*") == ["b.jsonl"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_folders_of_mode_000(corpus: Path) -> None:
    (corpus / "one/two").chmod(0)
    try:
        with pytest.raises(InputError, match="one/two' cannot be read"):
            find_input_files(["**/*.jsonl"], corpus)
        with pytest.raises(InputError, match=r"one/two/c\.jsonl' cannot be read"):
            find_input_files(["one/two/c.jsonl"], corpus)
    finally:
        (corpus / "one/two").chmod(0o700)


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        ".",
        "./",
        "..",
        "/",
        "~nouserx/x",
        "~",
        "sample:",
        "two",
        "two/",
        "none/*",
        "b.jsonl/*",
        "a\0b",
        "**",
        "**.x",
    ],
)
def test_patterns_that_name_no_file(corpus: Path, pattern: str) -> None:
    with pytest.raises(InputError, match=r"data/\*\*/\*\.jsonl") as error:
        find_input_files([pattern], corpus / "one")
    assert f"'{pattern}'" in str(error.value)


def test_names_that_are_too_long(corpus: Path) -> None:
    for pattern in ("x" * 300, "x" * 300 + "/*"):
        with pytest.raises(InputError, match="x' cannot be read: File name too long"):
            find_input_files([pattern], corpus)
