"""Peak memory is what the operating system says, in bytes everywhere."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from trainer.watching.memory import peak_memory_bytes

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's own account of the process")
def test_it_is_the_largest_resident_set() -> None:
    lines = Path("/proc/self/status").read_text().splitlines()
    high_water = next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    assert high_water <= peak_memory_bytes(CPU) + 2**20
    assert peak_memory_bytes(CPU) == pytest.approx(high_water, rel=0.05)


@pytest.mark.parametrize(("platform", "expected"), [("linux", 5 * 1024), ("darwin", 5)])
def test_units_of_the_platform(monkeypatch: pytest.MonkeyPatch, platform: str, expected: int) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=5))
    assert peak_memory_bytes(CPU) == expected
