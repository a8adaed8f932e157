"""One rank of runs that go wrong, started by the tests: each has a fault, on one rank, at a certain step.

    python -m tests.trainer.parallel.failing_process ORDERS.json

Orders are ``{"options": …, "fault": NAME, "port": …}``; what came of each goes to ``ORDERS.json.RANK``, a line each.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

from dataeng.errors import DataengError
from dataeng.formats.mixture import load_mixture
from trainer.config import TrainConfig, derive_config
from trainer.data.loader import Loader
from trainer.loop import train
from trainer.model.presets import ModelConfig
from trainer.options import Options
from trainer.parallel.failure import last_word
from trainer.parallel.ranks import open_ranks
from trainer.run import Run
from trainer.watching.progress import SilentWatcher

SHAPE = ModelConfig(vocab_size=257, dim=16, num_layers=1, num_heads=2, num_kv_heads=1, hidden_dim=24, max_positions=64)
#: The faults happen in the step after the first checkpoint.
STEP = 3
#: A file's size in bytes that the weights stay below and the optimizer's moments exceed.
FULL = 45_000


def config_of(options: dict[str, Any]) -> TrainConfig:
    """Returns the configuration of a run of milliseconds a step."""
    paths = {name: Path(options[name]) for name in ("mixture", "out")}
    values = {"steps": 4, "batch_size": 4, "sequence_length": 16, "threads": 1, "checkpoint_every": 2, "device": "cpu"}
    config = derive_config(Options(**{**values, **options, **paths}), load_mixture(paths["mixture"]))
    return replace(config, model=SHAPE)


def main() -> None:
    """Carries out all orders."""
    orders, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    with Path(f"{orders}.{rank}").open("w") as found:
        for order in json.loads(orders.read_text()):
            os.environ["MASTER_PORT"] = str(order["port"])
            found.write(json.dumps(outcome(order, rank)) + "\n")
            found.flush()
            gc.collect()  # connections are closed with what a failed run leaves behind; ranks end with their process


def outcome(order: dict[str, Any], rank: int) -> dict[str, str | None]:
    """Returns the error that an order ended with, and what the command line would say of it."""
    config, (faulty_rank, fault) = config_of(order["options"]), FAULTS[order["fault"]]
    try:
        with fault() if rank == faulty_rank else contextlib.nullcontext():
            (save_again if order["fault"] == "saved again" else run)(config)
    except Exception as error:
        said = last_word(error) if isinstance(error, DataengError) else str(error)
        return {"error": type(error).__name__, "said": said}
    return {"error": None, "said": None}


def run(config: TrainConfig) -> None:
    train(config, load_mixture(config.mixture), SilentWatcher())


def save_again(config: TrainConfig) -> None:
    """Restores the last checkpoint, and writes it once more."""
    with open_ranks(config) as ranks:
        run = Run(config, load_mixture(config.mixture), ranks)
        with run.saver:
            run.resume(SilentWatcher())
            run.save(run.step)
            run.saver.close()


def in_step(action: Callable[[], object]) -> Callable[[], contextlib.AbstractContextManager[object]]:
    """Does something between a step's forward and its backward pass."""
    real = Run._over_ranks

    def over_ranks(self: Run, sums: Any) -> Any:
        if self.step == STEP:
            action()
        return real(self, sums)

    return lambda: patch.object(Run, "_over_ranks", over_ranks)


def raise_bug() -> None:
    raise ValueError("a bug")


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Files cannot grow beyond `FULL` bytes once the step has begun."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with in_step(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (FULL, before[1])))():
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def dying_reader() -> contextlib.AbstractContextManager[object]:
    """The thread that reads ahead ends in silence before that step's batch."""
    real = Loader._read_ahead
    return patch.object(Loader, "_read_ahead", lambda self, plan: real(self, islice(plan, STEP - 1)))


#: The rank that has it, and what makes it.
FAULTS: dict[str, tuple[int, Callable[[], contextlib.AbstractContextManager[object]]]] = {
    "none": (0, contextlib.nullcontext),
    "saved again": (0, contextlib.nullcontext),
    "bug": (1, in_step(raise_bug)),
    "full disk": (0, full_disk),
    "dying reader": (1, dying_reader),
    "killed": (1, in_step(lambda: os.kill(os.getpid(), signal.SIGKILL))),
}


if __name__ == "__main__":
    main()
