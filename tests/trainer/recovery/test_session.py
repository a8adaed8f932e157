"""Holding a folder, and the wish to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dataeng.errors import LeaseError
from trainer.recovery.session import StopRequest, held

HOLDER = """
import sys
from pathlib import Path
from trainer.recovery.session import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_live_process_holds_its_folder_and_a_dead_one_does_not(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "out")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(LeaseError, match=f"process {holder.pid}"), held(tmp_path / "out"):
            pass
        holder.kill()
    with held(tmp_path / "out"):
        assert (tmp_path / "out" / ".lock").read_text() == f"{os.getpid()}\n"


def test_the_first_signal_asks_and_the_second_acts() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with StopRequest() as stop:
            assert not stop.requested
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.requested
            assert seen == []
            os.kill(os.getpid(), signal.SIGTERM)
            assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
