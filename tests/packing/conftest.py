"""Kernels are compiled before the tests, not in the midst of one that hypothesis times."""

from __future__ import annotations

import pytest

from dataeng.packing import prepare


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    prepare()
