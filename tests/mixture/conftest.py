"""Tiny packs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from dataeng.kernels import prepare
from tests.small_packs import write_pack as write


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """The shuffle is compiled before the tests, not in the midst of one that hypothesis times."""
    prepare(["permutation"])


@pytest.fixture
def write_pack(tmp_path: Path) -> Callable[..., Path]:
    """Returns ``write_pack(name, lengths, domain=…, tokenizer=…, docs=…)``, which writes below ``tmp_path``."""
    return partial(write, tmp_path)
