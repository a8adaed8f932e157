"""A training run, from its first step or its last checkpoint to its end.

A run lives in one folder: ``training.json`` (what it is and how it went), ``metrics/``, ``steps/``, ``checkpoints/``
and, once finished, ``mix.json`` with the learned weights.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dataeng.errors import DataengError
from dataeng.formats.mixture import MixtureManifest
from dataeng.packing import prepare
from trainer.config import TrainConfig
from trainer.description import announce, describe
from trainer.device import full_memory_explained, reproducible
from trainer.ownership import check_ownership
from trainer.parallel.failure import LostRank
from trainer.parallel.ranks import open_ranks
from trainer.recovery.session import StopRequest, held
from trainer.run import RollBack, Run
from trainer.steering.learned import save_learned_mixture
from trainer.watching.metrics import DomainSummary
from trainer.watching.progress import SilentWatcher, Watcher


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """How a run ended. ``saved_mixture`` is None when it was stopped before its last step.

    Of several ranks only the first knows the ``domains`` and the ``best_validation``, and ``is_first``. ``first_step``
    is that of this process; it lies beyond the last one where there was nothing to do.
    """

    first_step: int
    step: int
    num_steps: int
    seconds: float
    domains: list[DomainSummary]
    saved_mixture: Path | None
    best_validation: tuple[int, float] | None = None
    """The step with the smallest mean held-out loss, and that loss."""
    is_first: bool = True


def train(config: TrainConfig, manifest: MixtureManifest, watcher: Watcher) -> TrainingReport:
    """Trains from the start, or from the newest fitting checkpoint in ``config.out``, to the last step.

    Under torchrun every rank calls this, and the first tells its ``watcher``. SIGINT and SIGTERM end the run after the
    step at hand, with a checkpoint. Raises `DataengError` for everything that a person can put right; what was
    committed before stays as it is.
    """
    started = time.monotonic()
    check_ownership(config)  # before any rank can have written there
    with open_ranks(config) as ranks:
        watcher = watcher if ranks.is_first else SilentWatcher()
        prepare(lambda names: watcher.note("compiling the kernels that read rows; once per machine, some ten seconds"))
        run = Run(config, manifest, ranks)  # checks everything that can be checked, and writes nothing
        folder = held(config.out) if ranks.is_first else contextlib.nullcontext()
        with (
            _disk(run),
            folder,
            reproducible(config, ranks.device),
            full_memory_explained(config),
            StopRequest() as stop,
            ranks.leaving_together(),
            watcher,
            run.loader,
            run.saver,
        ):
            announce(run, watcher)
            first_step = run.resume(watcher)
            describe(run, "running")
            with _failures_described(run), ranks.others_there():
                watcher.begin(first_step, config.num_steps)
                _run_steps(run, stop, watcher)
                finished = run.step == config.num_steps
                summaries: list[DomainSummary] = []
                best = None
                if ranks.is_first:
                    summaries, best = run.metrics.summary(manifest.domains), run.metrics.best_validation()
                    if finished:
                        save_learned_mixture(config, manifest, run.feedback.controller.learned_weights(), summaries)
                    describe(run, "finished" if finished else "stopped")
    return TrainingReport(
        first_step=first_step,
        step=run.step,
        num_steps=config.num_steps,
        seconds=time.monotonic() - started,
        domains=summaries,
        saved_mixture=config.save_mixture if finished else None,
        best_validation=best,
        is_first=ranks.is_first,
    )


def _run_steps(run: Run, stop: StopRequest, watcher: Watcher) -> None:
    """Runs the steps that are left, and saves checkpoints between them."""
    config = run.config
    if run.step == 0:
        run.validate(0, watcher)
    stopping = run.stopping(stop)
    while run.step < config.num_steps and not stopping:
        run.step += 1
        try:
            record = run.train_step(run.step, watcher)
        except RollBack:
            run.step = run.roll_back(watcher)
            continue
        run.metrics.add(record)
        watcher.step(record)
        stopping = run.stopping(stop)
        score = None if stopping else run.validate(run.step, watcher)
        if run.step % config.checkpoint_every == 0 or run.step == config.num_steps or stopping:
            run.save(run.step, score)
    run.saver.close()


@contextlib.contextmanager
def _failures_described(run: Run) -> Iterator[None]:
    """Leaves word in ``training.json`` of what ends a run that has begun."""
    try:
        yield
    except BaseException as raised:
        error: BaseException = raised
        if isinstance(error, LostRank):
            error = LostRank(f"{error}; {run.last_checkpoint()}. {run.config.way_on.capitalize()} goes on.")
        what = _disk_failure(run, error) if isinstance(error, OSError) else error or type(error).__name__
        with contextlib.suppress(OSError):  # the disk that failed just now may fail again
            describe(run, f"failed: {what}")
        if error is not raised:
            raise error from raised
        raise


@contextlib.contextmanager
def _disk(run: Run) -> Iterator[None]:
    """Turns what the disk refuses, whatever was being written, into an error that says what is left."""
    try:
        yield
    except OSError as error:
        first = "Make room" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "Put that right"
        raise DataengError(f"{_disk_failure(run, error)} {first}; {run.config.way_on} goes on.") from error


def _disk_failure(run: Run, error: OSError) -> str:
    where = run.config.out if error.filename is None else Path(str(error.filename)).parent
    return f"cannot write to {where}: {error.strerror or error}; {run.last_checkpoint()}."
