"""The lease: one run per folder, whoever comes second is told who is there, and the dead hold nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import dataeng
from dataeng.engine import lease
from dataeng.engine.lease import STALE_SECONDS, hold_lease
from dataeng.errors import LeaseError

from .conftest import Toy

HOLD = """
import sys
from pathlib import Path
from dataeng.engine.lease import hold_lease
with hold_lease(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_holds(run_dir: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": str(Path(dataeng.__file__).parents[1])}
    command = [sys.executable, "-c", HOLD, str(run_dir)]
    with subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def write_lease(run_dir: Path, **changes: object) -> None:
    value = {"token": "0" * 16, "host": "elsewhere", "pid": 1, "process": "1", "since": "2026-01-01 00:00:00"}
    run_dir.mkdir(exist_ok=True)
    (run_dir / "lease.json").write_text(json.dumps({**value, "heartbeat": time.time(), **changes}))


def can_hold(run_dir: Path) -> bool:
    try:
        with hold_lease(run_dir):
            return True
    except LeaseError:
        return False


def test_the_second_is_refused_and_told_who_holds_the_folder(toy: Toy) -> None:
    with another_process_holds(toy.run_dir) as process:
        with pytest.raises(LeaseError) as caught:
            toy.run()
        message = str(caught.value)
        assert f"{toy.run_dir} is in use by process {process.pid} on {socket.gethostname()} since 20" in message
        assert [path.name for path in toy.run_dir.iterdir() if not path.name.startswith(".")] == ["lease.json"]
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=20) == 0
    assert not (toy.run_dir / "lease.json").exists()
    toy.run()


def test_the_same_process_cannot_hold_it_twice_and_lets_go_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), hold_lease(tmp_path):
        assert not can_hold(tmp_path)
        raise ZeroDivisionError
    assert can_hold(tmp_path) and not (tmp_path / "lease.json").exists()


def test_a_lease_left_by_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    with another_process_holds(tmp_path) as process:
        assert not can_hold(tmp_path)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert (tmp_path / "lease.json").exists()
        assert can_hold(tmp_path)


def test_a_process_that_died_but_was_not_waited_for_is_dead(tmp_path: Path) -> None:
    with another_process_holds(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while not (taken := can_hold(tmp_path)) and time.monotonic() < deadline:
            time.sleep(0.02)  # until the kernel has made a zombie of it
        assert taken


def test_a_process_number_that_was_given_to_another_process_holds_nothing(tmp_path: Path) -> None:
    namespace = str(Path("/proc/self/ns/pid").readlink())
    write_lease(tmp_path, host=socket.gethostname(), namespace=namespace, pid=os.getpid(), process="0")
    assert can_hold(tmp_path)


def test_a_process_of_another_container_is_judged_by_its_heartbeat(tmp_path: Path) -> None:
    """Same host name, but process numbers mean nothing: fresh is held, old is free."""
    write_lease(tmp_path, host=socket.gethostname(), namespace="pid:[1]", pid=1, heartbeat=time.time())
    assert not can_hold(tmp_path)
    write_lease(tmp_path, host=socket.gethostname(), namespace="pid:[1]", pid=1, heartbeat=time.time() - 1000)
    assert can_hold(tmp_path)


def test_another_host_is_believed_while_its_heart_beats(tmp_path: Path) -> None:
    write_lease(tmp_path, heartbeat=time.time() - STALE_SECONDS / 2)
    with (
        pytest.raises(LeaseError, match="in use by process 1 on elsewhere since 2026-01-01 00:00:00"),
        hold_lease(tmp_path),
    ):
        pass
    write_lease(tmp_path, heartbeat=time.time() - STALE_SECONDS - 1)
    assert can_hold(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"5",
        b'{"host": "elsewhere"}',
        b'{"host": 5, "pid": 1, "since": "x", "heartbeat": 9e99, "process": "1"}',
        b'{"host": "elsewhere", "pid": 1, "since": "x", "heartbeat": "soon", "process": "1"}',
        b'{"host": "elsewhere", "pid": "one", "since": "x", "heartbeat": 1, "process": "1"}',
        b'{"host": "elsewhere", "pid": null, "since": null, "heartbeat": null}',
    ],
)
def test_a_lease_that_cannot_be_understood_holds_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lease.json").write_bytes(content)
    assert can_hold(tmp_path)


def test_the_heart_beats_while_the_folder_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.02)
    path = tmp_path / "lease.json"
    with hold_lease(tmp_path):
        first = json.loads(path.read_text())
        deadline = time.monotonic() + 10
        while (latest := json.loads(path.read_text()))["heartbeat"] == first["heartbeat"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert {**latest, "heartbeat": 0} == {**first, "heartbeat": 0}
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lease.lock"]


def test_the_heart_goes_on_beating_after_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.02)
    beats: list[Path] = []
    write = lease.write_json

    def fails_at_first(path: Path, value: object) -> str:
        beats.append(path)
        if 2 <= len(beats) <= 4:
            raise OSError(28, "No space left on device")
        return write(path, value)

    monkeypatch.setattr(lease, "write_json", fails_at_first)
    with hold_lease(tmp_path):
        first = json.loads((tmp_path / "lease.json").read_text())["heartbeat"]
        deadline = time.monotonic() + 10
        while json.loads((tmp_path / "lease.json").read_text())["heartbeat"] == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert len(beats) > 4


def test_a_lease_that_was_taken_over_is_neither_overwritten_nor_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.02)
    with hold_lease(tmp_path):
        write_lease(tmp_path, heartbeat=1.0)
        time.sleep(0.2)
    assert json.loads((tmp_path / "lease.json").read_text())["heartbeat"] == 1.0


def test_what_a_killed_process_left_of_an_unfinished_lease_is_removed(tmp_path: Path) -> None:
    leftover = tmp_path / ".lease.json.0123456789ab.tmp"
    leftover.write_text("{")
    assert can_hold(tmp_path) and not leftover.exists()
