"""Saving while training goes on: one thread, one checkpoint at a time.

The tensors are copied to the CPU before `BackgroundSaver.save` returns, so that the next step may change the originals:
one model and its moments, the price of not waiting. Shards of other ranks come together one tensor at a time, straight
into that copy. What the disk does wrong is raised at the next call. Until a checkpoint's ``state.json`` is there, it
does not exist, and the one before it is the newest: a process that dies while saving loses no more than one that dies
before.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from torch import Tensor

from trainer.parallel.spread import in_order, whole
from trainer.recovery.checkpoint import CheckpointFolder


class BackgroundSaver:
    """Saves checkpoints in a thread. ``save_now`` True saves in the caller's, which then waits for the disk."""

    def __init__(self, folder: CheckpointFolder, save_now: bool = False) -> None:
        self.folder = folder
        self.executor = None if save_now else ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.running: Future[None] | None = None

    def __enter__(self) -> BackgroundSaver:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the thread, once what is being saved is there or has failed; `close` says which."""
        if self.executor is not None:
            self.executor.shutdown()

    def save(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: dict[str, Any],
        score: float | None = None,
    ) -> None:
        """Begins to save a checkpoint, after the one before is finished; see `CheckpointFolder.save`.

        Raises:
          OSError: this one or the one before could not be written.
        """
        self.wait()
        if self.executor is None:
            self.folder.save(step, tensors, state, score)
            return
        copies = {file: {name: _copy(named[name]) for name in in_order(named)} for file, named in tensors.items()}
        self.running = self.executor.submit(self.folder.save, step, copies, state, score)

    def wait(self) -> None:
        """Returns once nothing is being saved; raises what went wrong."""
        running, self.running = self.running, None
        if running is not None:
            running.result()

    def close(self) -> None:
        """Waits for what is being saved and ends the thread; raises what went wrong."""
        try:
            self.wait()
        finally:
            if self.executor is not None:
                self.executor.shutdown()


def _copy(value: Tensor) -> Tensor:
    """Returns a copy on the CPU, whatever the device and however many ranks hold parts of it."""
    return whole(value).detach().to("cpu", copy=True)
