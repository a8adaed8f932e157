"""Checkpoints that are written while training goes on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.recovery.background import BackgroundSaver
from trainer.recovery.checkpoint import CheckpointFolder


class Slow(CheckpointFolder):
    """Writes only when it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {}, keep=3)
        self.go = threading.Event()
        self.error: OSError | None = None

    def save(self, *arguments: Any) -> None:
        assert self.go.wait(30)
        if self.error is not None:
            raise self.error
        super().save(*arguments)


@pytest.fixture
def folder(tmp_path: Path) -> Slow:
    return Slow(tmp_path / "checkpoints")


def test_what_is_saved_is_what_was_there_at_the_call(folder: Slow) -> None:
    weight = torch.ones(3)
    saver = BackgroundSaver(folder)
    saver.save(1, {"model": {"w": weight}}, {"a": 1}, 2.5)
    weight.fill_(7)
    assert folder.steps() == []  # it is not there before it is whole
    folder.go.set()
    saver.close()
    loaded = folder.load()
    assert loaded is not None and loaded.tensors["model"]["w"].tolist() == [1, 1, 1]
    assert (loaded.state["a"], loaded.state["score"]) == (1, 2.5)


def test_one_after_the_other(folder: Slow) -> None:
    saver = BackgroundSaver(folder)
    folder.go.set()
    for step in (1, 2, 3):
        saver.save(step, {"model": {"w": torch.full((2,), float(step))}}, {})
        assert folder.steps()[: step - 1] == list(range(1, step))
    saver.wait()
    assert folder.steps() == [1, 2, 3]
    saver.close()


@pytest.mark.parametrize("ending", ["save", "wait", "close"])
def test_a_full_disk_is_raised_at_the_next_call(folder: Slow, ending: str) -> None:
    saver = BackgroundSaver(folder)
    folder.error = OSError(28, "No space left on device")
    saver.save(1, {"model": {"w": torch.ones(1)}}, {})
    folder.go.set()
    with pytest.raises(OSError, match="No space left"):
        saver.save(2, {"model": {}}, {}) if ending == "save" else getattr(saver, ending)()
    assert folder.steps() == []
    saver.close()


def test_saving_in_place_waits(folder: Slow) -> None:
    folder.go.set()
    saver = BackgroundSaver(folder, save_now=True)
    saver.save(1, {"model": {"w": torch.ones(1)}}, {})
    assert folder.steps() == [1]
    saver.close()
