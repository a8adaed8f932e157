"""Runs to report on: one that nobody changes, and one to spoil."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rules_run import RulesRun
from tests.small_run import SmallRun


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallRun]:
    """A complete run; leave it as it is."""
    before = list(sys.path)
    small = SmallRun(tmp_path_factory.mktemp("finished"))
    small.run()
    yield small
    sys.path[:] = before
    sys.modules.pop("toy", None)


@pytest.fixture
def own(finished: SmallRun, tmp_path: Path) -> Iterator[SmallRun]:
    """A complete run of one's own."""
    before = list(sys.path)
    sys.modules.pop("toy", None)
    small = SmallRun(tmp_path / "own")
    small.run()
    yield small
    sys.path[:] = before
    sys.modules.pop("toy", None)


@pytest.fixture(scope="session")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> RulesRun:
    """A complete run with rules steps; leave it as it is."""
    made = RulesRun(tmp_path_factory.mktemp("ruled"))
    made.run()
    return made
