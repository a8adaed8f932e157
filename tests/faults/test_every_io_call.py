"""Every primitive call behind a commit is made to fail in turn; running again must always heal, and lose nothing.

The method is SQLite's: fail the first call, then the second, … until a run gets through without meeting its fault. All
points in all modes take about a quarter of an hour (set ``DATAENG_ALL_FAULTS=1``); otherwise an even sample of them is
taken, a different one for every mode.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dataeng.engine.executor import Pool
from dataeng.engine.ledger import total
from dataeng.engine.records import damaged_file, read_record
from dataeng.engine.runner import RunResult, run_plan
from dataeng.errors import DataengError
from dataeng.formats import atomic
from dataeng.plan import Plan
from dataeng.report.finish import write_reports
from tests.engine.conftest import Listener, Toy, toy

__all__ = ["toy"]  # a fixture

PRIMITIVES = ("create", "write", "sync", "rename", "sync_folder", "remove")
MODES = ("error", "lost response", "disk full", "torn write", "kill")
POINTS = int(os.environ.get("DATAENG_FAULT_POINTS", "4"))  # of each mode and scenario, unless all are asked for


class Killed(BaseException):
    """The process is gone: nothing catches this, and nothing that runs afterwards has any effect."""


class Faults:
    """Makes the ``n``-th primitive call fail, and in some modes the following ones, too."""

    def __init__(self, patch: pytest.MonkeyPatch, mode: str = "", n: int = 0) -> None:
        self.mode, self.n, self.calls, self.met = mode, n, 0, False
        for name in PRIMITIVES:
            patch.setattr(atomic.fs, name, self._wrapped(name, getattr(atomic.fs, name)), raising=True)

    def _wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def faulty(*args: Any) -> Any:
            if self.mode == "torn write" and name != "write":
                return call(*args)
            self.calls += 1
            if self.calls < self.n or not self.n:
                return call(*args)
            first, self.met = self.calls == self.n, True
            if self.mode == "kill":
                if first and name == "write":
                    self._half(call, *args)
                raise Killed
            if self.mode == "disk full":
                if name in ("create", "write", "sync"):
                    raise OSError(errno.ENOSPC, "No space left on device")
                return call(*args)
            if not first:
                return call(*args)
            if self.mode == "lost response":
                call(*args)
            elif name == "write":
                self._half(call, *args)
            raise OSError(errno.EIO, f"Input/output error in {name}")

        return faulty

    @staticmethod
    def _half(call: Callable[..., Any], file: Any, data: Any) -> None:
        call(file, data[: len(data) // 2])
        file.flush()


class Bench:
    """The toy pipeline in two configurations, with what each should leave behind."""

    def __init__(self, toy: Toy) -> None:
        self.toy = toy
        self.points: dict[tuple[str, bool], int] = {}
        toy.write_input("0.txt", ["one", "two bad", "three", "one"])
        toy.write_input("1.txt", ["three", "four", "bad"])
        (toy.folder / "input" / "2.txt").unlink()
        self.plan = toy.plan("dedup.partitions=2")
        self.other_plan = toy.plan("dedup.partitions=2", "drop.word=four")
        self.expected = self.fresh(self.plan)
        shutil.copytree(toy.run_dir, toy.folder / "complete")
        self.other_expected = self.fresh(self.other_plan)
        assert self.expected != self.other_expected

    def fresh(self, plan: Plan) -> dict[str, bytes]:
        shutil.rmtree(self.toy.run_dir, ignore_errors=True)
        self.run(plan)
        return self.toy.results()

    def run(self, plan: Plan) -> RunResult:
        run_dir = self.toy.run_dir
        return run_plan(
            plan,
            run_dir,
            Pool("inline", 1),
            Listener(),
            finish=lambda records: write_reports(plan.pipeline, run_dir, records),
        )

    def committed(self, plan: Plan) -> dict[tuple[str, int], str]:
        """Returns the tokens of all tasks of a plan that are done."""
        tokens = {}
        for name, tasks in plan.tasks.items():
            for task in tasks:
                record = read_record(self.toy.run_dir, name, task.index)
                if record is not None and record.fingerprint == task.fingerprint:
                    assert damaged_file(self.toy.run_dir, record, thorough=True) is None
                    tokens[name, task.index] = record.token
        return tokens

    def start(self, changed: bool) -> None:
        """Sets the run folder up: empty, or with a complete run of the other configuration."""
        shutil.rmtree(self.toy.run_dir, ignore_errors=True)
        if changed:
            shutil.copytree(self.toy.folder / "complete", self.toy.run_dir)

    def check_healed(self, plan: Plan, expected: dict[str, bytes], before: dict[tuple[str, int], str]) -> None:
        """Runs again without faults, and checks bytes, books, leftovers, and that what was committed was not redone."""
        result = self.run(plan)
        assert self.toy.results() == expected
        after = self.committed(plan)
        assert {key: after[key] for key in before} == before and result.tasks_reused >= len(before)
        assert not [path for path in self.toy.run_dir.rglob("*.tmp")]
        assert json.loads((self.toy.run_dir / "run.json").read_text())["status"] == "complete"
        read = total(record.counts["lines"] for record in result.records["read"]).documents_in
        dropped = pl.read_parquet(self.toy.run_dir / "stats/drops.parquet").get_column("documents").sum()
        left = pl.read_parquet(self.toy.run_dir / "documents/dedup.apply/*.parquet").height
        assert (read, left + dropped) == (7, 7)
        assert self.run(plan).nothing_to_do

    def bury(self) -> None:
        """Makes the lease look as it does when its process has really died."""
        path = self.toy.run_dir / "lease.json"
        if path.exists():
            path.write_text(json.dumps({**json.loads(path.read_text()), "process": "dead"}))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    before = list(sys.path)
    sys.modules.pop("toy", None)
    bench = Bench(Toy(tmp_path_factory.mktemp("faults")))
    yield bench
    if len(bench.points) == 2 * len(MODES):
        print(f"{sum(bench.points.values()) // len(MODES)} fault points x {len(MODES)} modes: all equal")
    sys.path[:] = before
    sys.modules.pop("toy", None)


def count_calls(bench: Bench, changed: bool, mode: str) -> int:
    bench.start(changed)
    with pytest.MonkeyPatch.context() as patch:
        faults = Faults(patch, mode)
        bench.run(bench.other_plan if changed else bench.plan)
    return faults.calls


@pytest.mark.parametrize("changed", [False, True], ids=["fresh", "over a complete run of another configuration"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Arrow's writers, closed after a "kill"
def test_running_again_heals_every_fault(bench: Bench, mode: str, changed: bool) -> None:
    num_calls = count_calls(bench, changed, mode)
    assert num_calls > 50
    plan, expected = (bench.other_plan, bench.other_expected) if changed else (bench.plan, bench.expected)
    if os.environ.get("DATAENG_ALL_FAULTS"):
        points = list(range(1, num_calls + 1))
    else:
        offset = (MODES.index(mode) * 2 + changed) / (2 * len(MODES))
        points = sorted({1 + int((i + offset) * num_calls / POINTS) for i in range(POINTS)} | {num_calls})
    for n in points:
        bench.start(changed)
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, mode, n)
            with suppress(DataengError, OSError, Killed):
                bench.run(plan)
            assert faults.met, f"{mode} {n}: the fault was not met"
        bench.bury()
        bench.check_healed(plan, expected, bench.committed(plan))
    bench.points[mode, changed] = len(points)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_after_a_kill_in_a_changed_run_one_can_go_back(bench: Bench) -> None:
    num_calls = count_calls(bench, True, "kill")
    for n in (num_calls // 4, num_calls // 2, num_calls - 3):
        bench.start(True)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            Faults(patch, "kill", n)
            bench.run(bench.other_plan)
        bench.bury()
        bench.check_healed(bench.plan, bench.expected, bench.committed(bench.plan))


LIMITED = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.argv[:] = ["dataeng", *sys.argv[2:]]
from dataeng.cli import main
main()
"""


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_real_writes_that_the_system_refuses(toy: Toy, share: float) -> None:
    """No file may be larger than a share of the largest one, so that writes fail late, in flush or close."""
    toy.run()
    undisturbed = toy.results()
    largest = max(path.stat().st_size for path in toy.run_dir.rglob("*") if path.is_file())
    shutil.rmtree(toy.run_dir)
    command = [sys.executable, "-c", LIMITED, str(int(share * largest)), "run", str(toy.file), "--allow-code"]
    command += ["--scheduler", "inline", "--set", f"run={toy.run_dir}"]
    environment = {**os.environ, "PYTHONPATH": str(Path(atomic.__file__).parents[2])}
    failed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert failed.returncode == 1, failed.stdout
    assert "File too large" in failed.stderr and "Traceback" not in failed.stderr
    toy.run()
    assert toy.results() == undisturbed
    assert not list(toy.run_dir.rglob("*.tmp"))
