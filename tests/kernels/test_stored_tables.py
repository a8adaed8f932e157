from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dataeng.kernels import stored_tables
from dataeng.kernels.stored_tables import stored_table


class Builder:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Mapping[str, NDArray[np.uint32]]:
        self.calls += 1
        return {"codes": np.arange(1000, dtype=np.uint32), "more": np.array([7], np.uint32)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stored_tables, "cache_folder", lambda: tmp_path)
    return tmp_path


def check(build: Builder, calls: int) -> None:
    table = stored_table("codes", build)
    assert {name: array.tolist() for name, array in table.items()} == {"codes": list(range(1000)), "more": [7]}
    assert not table["codes"].flags.writeable
    assert build.calls == calls


def test_is_built_once(folder: Path) -> None:
    build = Builder()
    check(build, 1)
    check(build, 1)
    assert [path.suffix for path in folder.iterdir()] == [".npz"]  # nothing temporary is left


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_file_is_built_anew(folder: Path, damage: str) -> None:
    build = Builder()
    check(build, 1)
    (path,) = folder.iterdir()
    content = bytearray(path.read_bytes())
    content[2000] ^= 0x10
    path.write_bytes({"cut": content[:1500], "flipped": content, "empty": b""}[damage])
    check(build, 2)
    check(build, 2)


def test_another_unicode_version_is_another_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Builder()
    check(build, 1)
    monkeypatch.setattr("unicodedata.unidata_version", "99.0.0")
    check(build, 2)


def test_a_folder_that_cannot_be_written_costs_only_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_tables, "cache_folder", lambda: folder / "missing")
    build = Builder()
    check(build, 1)
    check(build, 2)
