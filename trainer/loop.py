"""A training run, from its first step or its last checkpoint to its end.

A run lives in one folder: ``training.json`` (what it is and how it went), ``metrics/``, ``steps/``, ``checkpoints/``
and, once finished, ``mix.json`` with the learned weights.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from dataeng.errors import DataengError
from dataeng.formats.mixture import MixtureManifest
from dataeng.packing import prepare
from trainer.config import TrainConfig
from trainer.description import announce, describe
from trainer.device import reproducible
from trainer.learned import save_learned_mixture
from trainer.monitor import DomainSummary
from trainer.progress import SilentWatcher, Watcher
from trainer.ranks import open_ranks
from trainer.run import RollBack, Run
from trainer.session import StopRequest, held


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """How a run ended. ``saved_mixture`` is None when it was stopped before its last step.

    Of several ranks only the first knows the ``domains`` and the ``best_validation``, and ``is_first``.
    """

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
    with open_ranks(config) as ranks:
        watcher = watcher if ranks.is_first else SilentWatcher()
        prepare(lambda names: watcher.note("compiling the kernels that read rows; once per machine, some ten seconds"))
        run = Run(config, manifest, ranks)  # checks everything that can be checked, and writes nothing
        folder = held(config.out) if ranks.is_first else contextlib.nullcontext()
        with folder, reproducible(config, ranks.device), StopRequest() as stop, watcher, run.loader:
            step = _run_steps(run, stop, watcher)
            finished = step == config.num_steps
            summaries: list[DomainSummary] = []
            best = None
            if ranks.is_first:
                summaries, best = run.metrics.summary(manifest.domains), run.metrics.best_validation()
                if finished:
                    save_learned_mixture(config, manifest, run.feedback.controller.learned_weights(), summaries)
                describe(run, "finished" if finished else "stopped", step)
    return TrainingReport(
        step=step,
        num_steps=config.num_steps,
        seconds=time.monotonic() - started,
        domains=summaries,
        saved_mixture=config.save_mixture if finished else None,
        best_validation=best,
        is_first=ranks.is_first,
    )


def _run_steps(run: Run, stop: StopRequest, watcher: Watcher) -> int:
    """Runs the steps that are left, saves checkpoints between them, and returns the last step taken."""
    config = run.config
    announce(run, watcher)
    first_step = run.resume(watcher)
    describe(run, "running", first_step - 1)
    watcher.begin(first_step, config.num_steps)
    if first_step == 1:
        run.validate(0, watcher)
    step, stopping = first_step - 1, run.stopping(stop)
    try:
        while step < config.num_steps and not stopping:
            step += 1
            try:
                record = run.train_step(step, watcher)
            except RollBack:
                step = run.roll_back(watcher)
                continue
            run.metrics.add(record)
            watcher.step(record)
            stopping = run.stopping(stop)
            score = None if stopping else run.validate(step, watcher)
            if step % config.checkpoint_every == 0 or step == config.num_steps or stopping:
                run.save(step, score)
        run.saver.close()
    except OSError as error:
        message = f"cannot write to {config.out}: {error.strerror or error}; {run.last_checkpoint()}."
        with contextlib.suppress(OSError):  # the disk that failed just now may fail again; the error below says so
            describe(run, f"failed: {message}", step)
        raise DataengError(f"{message} Make room; {config.way_on} goes on.") from error
    except BaseException as error:
        describe(run, f"failed: {error or type(error).__name__}", step)
        raise
    return step
