"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

#: With several tests at a time the cores are taken: threads would wait for each other, Polars' and OpenMP's busily.
#: Tests of whole runs take this back for the processes that they start (tests/end_to_end/runs.py).
ONE_THREAD = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
if "PYTEST_XDIST_WORKER" in os.environ:
    for name, number in ONE_THREAD.items():
        os.environ.setdefault(name, number)

#: Where tests take minutes. They come first, so that no process is left with one of them when the others have finished.
LONG = ("test_docs.py", "end_to_end", "faults", "stages", "trainer", "conformance")


def pytest_configure(config: pytest.Config) -> None:
    """Keeps pytest-xdist from putting files with many tests first: most of those are quick."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = Path(__file__).parent
    parts = {item.path: item.path.relative_to(folder).parts[0] for item in items if item.path.is_relative_to(folder)}
    rank = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(parts.get(item.path, ""), len(LONG)))  # stable: a file's tests stay together


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The large test data, where the environment says it is; tests that need it are skipped elsewhere."""
    folder = os.environ.get("DATAENG_TEST_DATA")
    if not folder:
        pytest.skip("needs the large test data: set DATAENG_TEST_DATA to its folder")
    path = Path(folder)
    assert path.is_dir(), f"DATAENG_TEST_DATA={folder} is not a folder"
    return path
