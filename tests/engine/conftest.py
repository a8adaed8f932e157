"""A small pipeline in a folder of its own, with the toy stages beside it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dataeng.config import load_pipeline
from dataeng.engine.executor import Pool
from dataeng.engine.records import TaskRecord
from dataeng.engine.reuse import PhaseState
from dataeng.engine.runner import RunResult, run_plan
from dataeng.plan import Phase, Plan, make_plan

PIPELINE = """\
name: toy
sources:
  - toy:Lines:
stages:
  - toy:DropContaining: {word: bad}
    name: drop
  - toy:Measure:
  - toy:Fragile:
  - toy:KeepFirst:
    name: dedup
  - toy:Upper:
  - toy:Collect:
"""


class Listener:
    """Remembers what the runner said."""

    def __init__(self) -> None:
        self.states: list[PhaseState] = []
        self.records: list[TaskRecord] = []
        self.messages: list[str] = []

    def phase_started(self, state: PhaseState, num_tasks: int) -> None:
        self.states.append(state)

    def task_done(self, record: TaskRecord) -> None:
        self.records.append(record)

    def phase_done(self, phase: Phase, seconds: float) -> None: ...

    def message(self, text: str) -> None:
        self.messages.append(text)


class Toy:
    """The pipeline, and shorthands for what tests do with it."""

    def __init__(self, folder: Path, pipeline: str = PIPELINE) -> None:
        self.folder, self.file, self.run_dir = folder, folder / "toy.yaml", folder / "run"
        (folder / "input").mkdir()
        shutil.copy(Path(__file__).with_name("toy.py"), folder / "toy.py")
        self.file.write_text(pipeline)
        for part in range(3):
            self.write_input(f"{part}.txt", [f"line {i} bad" if i % 5 == 0 else f"line {i}" for i in range(part, 20)])

    def write_input(self, name: str, lines: list[str]) -> None:
        (self.folder / "input" / name).write_text("\n".join(lines))

    def plan(self, *overrides: str) -> Plan:
        return make_plan(load_pipeline(self.file, [f"run={self.run_dir}", *overrides], allow_code=True))

    def run(
        self,
        *overrides: str,
        scheduler: str = "inline",
        workers: int = 1,
        listener: Listener | None = None,
        verify: bool = False,
    ) -> RunResult:
        pool = Pool(scheduler, workers)
        try:
            return run_plan(
                self.plan(*overrides),
                self.run_dir,
                pool,
                listener or Listener(),
                thorough=verify,
                import_path=(str(self.folder),),
            )
        finally:
            pool.close()

    def results(self) -> dict[str, bytes]:
        """Returns the content of every result file; records hold times and are left out."""
        tops = ("documents", "rejects", "signals", "dedup", "collected")
        files = [path for top in tops for path in sorted((self.run_dir / top).rglob("*")) if path.is_file()]
        return {str(path.relative_to(self.run_dir)): path.read_bytes() for path in files}


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Toy]:
    before = list(sys.path)
    sys.modules.pop("toy", None)
    yield Toy(tmp_path)
    sys.path[:] = before
    sys.modules.pop("toy", None)


@pytest.fixture
def make_toy(tmp_path: Path) -> Callable[..., Toy]:
    """Makes several toys side by side."""

    def make(name: str, pipeline: str = PIPELINE) -> Toy:
        (tmp_path / name).mkdir()
        return Toy(tmp_path / name, pipeline)

    return make
