"""Where tasks run changes nothing, not one byte; and a worker that dies takes nobody else's work with it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import dataeng
from dataeng.engine import dispatch, executor
from dataeng.engine.executor import InlineExecutor, Pool, check_scheduler
from dataeng.engine.reuse import inspect_plan
from dataeng.engine.runner import run_plan
from dataeng.errors import ConfigError, TaskError

from .conftest import Listener, Toy

#: Dask does not start a worker again that died before its nanny had heard from it: on a busy machine all may be gone.
#: Others are started then, as whoever runs a cluster would.
CLUSTER = """
import sys, threading
from distributed import LocalCluster
def keep_workers(cluster, ended):
    missing = 0
    while not ended.wait(10):
        missing = 0 if cluster.scheduler.workers else missing + 1
        if missing == 4:
            cluster.scale(len(cluster.worker_spec) + 2)
            missing = 0
if __name__ == "__main__":
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None)
    print(cluster.scheduler_address, flush=True)
    ended = threading.Event()
    threading.Thread(target=keep_workers, args=(cluster, ended), daemon=True).start()
    sys.stdin.read()
    ended.set()
    cluster.close()
"""


@pytest.fixture(scope="module")
def running_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Dask cluster that other processes started: it knows nothing of the pipelines' folders."""
    pytest.importorskip("distributed")
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "cluster.py").write_text(CLUSTER)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(dataeng.__file__).parents[1]),
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "cluster.py"], cwd=folder, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    address = process.stdout.readline().strip()
    assert address.startswith("tcp://127.0.0.1:")
    yield address
    process.stdin.close()
    process.wait(timeout=30)
    process.stdout.close()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The results of the toy pipeline, run in this process."""
    before = list(sys.path)
    sys.modules.pop("toy", None)
    toy = Toy(tmp_path_factory.mktemp("expected"))
    toy.run()
    sys.path[:] = before
    sys.modules.pop("toy", None)
    results = toy.results()
    assert len(results) > 15
    return results


@pytest.mark.parametrize(("scheduler", "workers"), [("processes", 1), ("processes", 2), ("dask", 2)])
def test_schedulers_give_the_same_bytes(toy: Toy, expected: dict[str, bytes], scheduler: str, workers: int) -> None:
    result = toy.run(scheduler=scheduler, workers=workers)
    assert result.tasks_run == 12
    assert toy.results() == expected
    assert toy.run().nothing_to_do  # in this process: the fingerprints do not depend on where tasks ran


def test_a_cluster_that_is_already_running_gives_the_same_bytes(
    toy: Toy, expected: dict[str, bytes], running_cluster: str
) -> None:
    toy.run(scheduler=running_cluster, workers=1)
    assert toy.results() == expected


def test_a_running_cluster_is_used_whole_and_left_running(running_cluster: str) -> None:
    for _ in range(2):
        pool = Pool(running_cluster, 1)
        try:
            assert pool.shared().submit(os.getpid).result() != os.getpid()
            assert pool.workers == 2
        finally:
            pool.close()


def test_no_cluster_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "CONNECT_TIMEOUT", "1s")
    pool = Pool("tcp://127.0.0.1:9", 1)
    try:
        with pytest.raises(ConfigError, match=r"cannot reach the Dask scheduler tcp://127\.0\.0\.1:9: "):
            pool.shared()
    finally:
        pool.close()


def with_deaths(toy: Toy) -> list[str]:
    """Gives the toy six input files, of which the third kills whoever reads it. Returns their names."""
    names = [f"{part}.txt" for part in range(6)]
    for part, name in enumerate(names):
        toy.write_input(name, [f"text {part} {i}" for i in range(10)] + (["die"] if part == 2 else []))
    return names


@pytest.mark.parametrize(("scheduler", "workers"), [("processes", 1), ("processes", 3), ("cluster", 2)])
def test_a_task_that_kills_its_worker_is_named_and_all_others_finish(
    toy: Toy, running_cluster: str, scheduler: str, workers: int
) -> None:
    scheduler = running_cluster if scheduler == "cluster" else scheduler
    with_deaths(toy)
    listener = Listener()
    with pytest.raises(TaskError) as caught:
        toy.run(scheduler=scheduler, workers=workers, listener=listener)
    message = str(caught.value)
    assert message.startswith("1 of 6 tasks failed; the others were finished and will be reused.")
    assert message.count(".txt") == 1 and "input/2.txt: the worker process died every time" in message
    assert sorted(record.index for record in listener.records) == [0, 1, 3, 4, 5]
    state = inspect_plan(toy.plan(), toy.run_dir)[0]
    assert sorted(state.done) == [0, 1, 3, 4, 5] and state.todo == (2,)
    toy.write_input("2.txt", ["harmless"])
    result = toy.run()
    assert result.tasks_reused == 5 and (toy.run_dir / "collected/00002.txt").read_text() == "HARMLESS\n"


@pytest.mark.parametrize(("scheduler", "workers"), [("processes", 2), ("cluster", 2)])
def test_a_task_whose_worker_died_once_succeeds_when_tried_again(
    make_toy: Callable[[str], Toy], tmp_path: Path, running_cluster: str, scheduler: str, workers: int
) -> None:
    scheduler = running_cluster if scheduler == "cluster" else scheduler
    toy = make_toy("dies")
    before = list(sys.path)
    sys.modules.pop("toy", None)
    try:
        marker = tmp_path / "marker"
        toy.write_input("1.txt", [f"die once {marker}", "line 3"])
        toy.run(scheduler=scheduler, workers=workers)
        assert marker.exists()
        interrupted = toy.results()
        for path in sorted(toy.run_dir.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        toy.run()  # the marker is there: nobody dies
        assert toy.results() == interrupted
    finally:
        sys.path[:] = before
        sys.modules.pop("toy", None)


@pytest.mark.parametrize("own", [True, False])
def test_a_cluster_without_workers_is_spoken_of_and_waited_for(
    toy: Toy, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    """It gets a worker, from us if it is ours, only when somebody was told."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(dispatch, "WATCH_SECONDS", 0.2)
    options = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    with distributed.LocalCluster(n_workers=0, **options) as cluster:
        if own:
            monkeypatch.setattr(distributed, "LocalCluster", lambda **_: cluster)
        pool = Pool("dask" if own else cluster.scheduler_address, 1)

        class Told(Listener):
            def message(self, text: str) -> None:
                super().message(text)
                if not own:
                    cluster.scale(1)

        try:
            run_plan(toy.plan(), toy.run_dir, pool, told := Told(), import_path=(str(toy.folder),))
        finally:
            pool.close()
    assert toy.results() == expected
    (message,) = told.messages
    assert re.fullmatch(r"no worker is left on the Dask cluster \((dask|tcp://.*)\): (starting|waiting).*", message)


def test_several_killers_are_all_named(toy: Toy) -> None:
    with_deaths(toy)
    toy.write_input("5.txt", ["also die"])
    with pytest.raises(TaskError) as caught:
        toy.run(scheduler="processes", workers=3)
    message = str(caught.value)
    assert message.startswith("2 of 6 tasks failed") and "2.txt" in message and "5.txt" in message
    assert sorted(inspect_plan(toy.plan(), toy.run_dir)[0].done) == [0, 1, 3, 4]


def test_inline_reports_errors_through_the_future_but_lets_an_interrupt_through() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    future = InlineExecutor().submit(int, "x")
    with pytest.raises(ValueError, match="invalid literal"):
        future.result()
    with pytest.raises(KeyboardInterrupt):
        InlineExecutor().submit(interrupt)


@pytest.mark.parametrize("scheduler", ["inline", "processes", "dask", "tcp://host:8786", "tls://host:8786"])
def test_known_schedulers(scheduler: str) -> None:
    check_scheduler(scheduler)


@pytest.mark.parametrize("scheduler", ["", "thread", "host:8786"])
def test_unknown_schedulers(scheduler: str) -> None:
    with pytest.raises(ConfigError, match="expected inline, processes, dask"):
        check_scheduler(scheduler)
