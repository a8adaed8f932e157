"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The large test data, where the environment says it is; tests that need it are skipped elsewhere."""
    folder = os.environ.get("DATAENG_TEST_DATA")
    if not folder:
        pytest.skip("needs the large test data: set DATAENG_TEST_DATA to its folder")
    path = Path(folder)
    assert path.is_dir(), f"DATAENG_TEST_DATA={folder} is not a folder"
    return path
