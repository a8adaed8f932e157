"""One run folder, one run: a lease that says who holds it, and that a dead process cannot keep."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dataeng.errors import LeaseError
from dataeng.formats.atomic import fs, read_json, write_json

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 120.0  # on another machine, where the process cannot be looked up


@contextmanager
def hold_lease(run_dir: Path) -> Iterator[None]:
    """Holds the run folder while the block runs.

    A lease whose process is gone, or (on another machine) whose heartbeat is older than two minutes, is taken over.

    Raises:
      LeaseError: somebody else holds it; says who, where and since when.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / "lease.json"
    token = secrets.token_hex(8)
    mine: dict[str, Any] = {"token": token, "host": socket.gethostname(), "namespace": _process_namespace()}
    mine |= {"pid": os.getpid(), "process": _process_start(os.getpid())}
    with _exclusive(run_dir):
        holder = _read(path)
        for leftover in run_dir.glob(f".{path.name}.*.tmp"):  # of a process that died while it wrote its lease
            fs.remove(leftover)
        if holder is not None and _is_alive(holder):
            raise LeaseError(
                f"{run_dir} is in use by process {holder['pid']} on {holder['host']} since {holder['since']}. "
                "Wait for it, stop it, or use another folder (--set run=…)."
            )
        write_json(path, {**mine, "since": time.strftime("%Y-%m-%d %H:%M:%S"), "heartbeat": time.time()})
    stop = threading.Event()
    thread = threading.Thread(target=_beat, args=(path, token, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with _exclusive(run_dir):
            holder = _read(path)
            if holder is not None and holder.get("token") == token:
                fs.remove(path)


@contextmanager
def _exclusive(run_dir: Path) -> Iterator[None]:
    """Lets one process at a time look at the lease and change it."""
    with (run_dir / ".lease.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> dict[str, Any] | None:
    """Returns the lease, or None if there is none or it cannot be understood; then nobody holds the folder."""
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return None
    kinds = {"host": str, "since": str, "pid": int, "heartbeat": int | float}
    whole = isinstance(value, dict) and all(isinstance(value.get(key), kind) for key, kind in kinds.items())
    return value if whole else None


def _is_alive(holder: dict[str, Any]) -> bool:
    if (holder["host"], holder.get("namespace")) != (socket.gethostname(), _process_namespace()):
        return time.time() - float(holder["heartbeat"]) < STALE_SECONDS
    # A process number is used again some day; with its start time it is unique.
    started = _process_start(int(holder["pid"]))
    return started is not None and started == holder.get("process")


def _process_namespace() -> str | None:
    """Returns what tells apart containers that share a host name and a volume, but not their process numbers."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def _process_start(pid: int) -> str | None:
    """Returns something that is unique to the life of a process, or None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)  # signal 0 only asks whether the process exists
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return "alive"
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def _beat(path: Path, token: str, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        with suppress(OSError), _exclusive(path.parent):  # a disk that is full now may not be so at the next beat
            holder = _read(path)
            if holder is None or holder.get("token") != token:
                return
            write_json(path, {**holder, "heartbeat": time.time()})
