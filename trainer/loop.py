"""The training loop, in a straight line: rows → losses → weights → gradient → step; metrics; checkpoint.

A run lives in one folder: ``training.json`` (what it is and how it went), ``metrics/``, ``steps/``, ``checkpoints/``
and, once finished, ``mix.json`` with the learned weights.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dataeng.errors import DataengError
from dataeng.formats.atomic import fs, write_json
from dataeng.formats.mixture import MixtureManifest
from dataeng.mixture.reweighting import Controller
from dataeng.packing import prepare
from trainer.background import BackgroundSaver
from trainer.checkpoint import (
    Checkpoint,
    CheckpointFolder,
    load_model_tensors,
    load_optimizer_tensors,
    load_random_state,
    model_tensors,
    optimizer_tensors,
    random_state,
)
from trainer.config import TrainConfig, as_json, identity
from trainer.data import MixtureRows
from trainer.device import choose_device, reproducible
from trainer.incidents import Incidents
from trainer.initial import initial_model
from trainer.learned import save_learned_mixture
from trainer.loader import Batch, Loader
from trainer.loss import loss_multipliers
from trainer.monitor import DomainRecord, DomainSummary, MetricsWriter, StepRecord
from trainer.optim import build_optimizer
from trainer.progress import Watcher
from trainer.schedule import batch_size_at, is_decaying, learning_rate_factor, total_rows
from trainer.session import StopRequest, held
from trainer.spikes import Spike, SpikeDetector
from trainer.step import Forward, Sums, accumulate, label_counts

Floats = npt.NDArray[np.float64]

MAX_ROLLBACKS = 3
MAX_SPIKES_IN_A_ROW = 10


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """How a run ended. ``saved_mixture`` is None when it was stopped before its last step."""

    step: int
    num_steps: int
    seconds: float
    domains: list[DomainSummary]
    saved_mixture: Path | None


def train(config: TrainConfig, manifest: MixtureManifest, watcher: Watcher) -> TrainingReport:
    """Trains from the start, or from the newest fitting checkpoint in ``config.out``, to the last step.

    SIGINT and SIGTERM end the run after the step at hand, with a checkpoint. Raises `DataengError` for everything that
    a person can put right; what was committed before stays as it is.
    """
    started = time.monotonic()
    prepare(lambda names: watcher.note("compiling the kernels that read rows; once per machine, some ten seconds"))
    run = _Run(config, manifest)  # checks everything that can be checked, and writes nothing
    with held(config.out), reproducible(config), StopRequest() as stop, watcher, run.loader:
        first_step = run.resume(watcher)
        run.describe("running", first_step - 1)
        watcher.begin(first_step, config.num_steps)
        step = first_step - 1
        try:
            while step < config.num_steps and not stop.requested:
                step += 1
                try:
                    record = run.train_step(step, watcher)
                except RollBack:
                    step = run.roll_back(watcher)
                    continue
                run.metrics.add(record)
                watcher.step(record)
                if step % config.checkpoint_every == 0 or step == config.num_steps or stop.requested:
                    run.save(step)
            run.saver.close()
        except OSError as error:
            message = f"cannot write to {config.out}: {error.strerror or error}; {run.last_checkpoint()}."
            with contextlib.suppress(OSError):  # the disk that failed just now may fail again; the error below says so
                run.describe(f"failed: {message}", step)
            raise DataengError(f"{message} Make room; {config.way_on} goes on.") from error
        except BaseException as error:
            run.describe(f"failed: {error or type(error).__name__}", step)
            raise
        summaries = run.metrics.summary(manifest.domains)
        finished = step == config.num_steps
        if finished:
            save_learned_mixture(config, manifest, run.controller.learned_weights(), summaries)
        run.describe("finished" if finished else "stopped", step)
    return TrainingReport(
        step=step,
        num_steps=config.num_steps,
        seconds=time.monotonic() - started,
        domains=summaries,
        saved_mixture=config.save_mixture if finished else None,
    )


class RollBack(Exception):  # noqa: N818 - a way to go, not a fault
    """A step did harm, and the run goes on from its last checkpoint."""


class _Run:
    """The parts of one run and what is done with them: a step, saving, going back."""

    def __init__(self, config: TrainConfig, manifest: MixtureManifest) -> None:
        self.config = config
        self.device = choose_device(config.device)
        self.rows = rows = MixtureRows(manifest, config.mixture, config.sequence_length, config.packing)
        rows.verify(config.verify_packs)
        stages = rows.planned_stages(total_rows(config.num_steps, config.batch_size, config.schedule))
        self.sampler = rows.sampler(stages, config.seed)
        self.loader = Loader(
            rows.reader,
            self.sampler,
            lambda step: batch_size_at(step, config.batch_size, config.schedule),
            pinned=self.device.type == "cuda",
        )
        self.stage_shares = [rows.label_shares(stage.shares) for stage in stages]
        domains = manifest.domains.values()
        self.controller = Controller(
            config.reweighting,
            self.stage_shares[0],
            names=rows.names,
            reweighted=np.array([domain.reweighted for domain in domains]),
            bytes_per_token=rows.bytes_per_token(),
        )
        self.spikes = SpikeDetector(config.spike_threshold)
        self.incidents = Incidents(config.out, rows)
        self.not_taken: set[int] = set()  # steps whose rows are left out after going back
        self.num_rollbacks = self.num_spikes_in_a_row = 0
        torch.manual_seed(config.seed)  # the model has no dropout; whatever draws at random later starts from here
        self.model = initial_model(config, self.device)
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.metrics = MetricsWriter(config.out)
        self.checkpoints = CheckpointFolder(
            config.out / "checkpoints",
            identity(config, manifest, self.rows.pack_hashes()),
            config.keep_checkpoints,
        )
        self.saver = BackgroundSaver(self.checkpoints, save_now=not config.background_checkpoints)

    def train_step(self, step: int, watcher: Watcher) -> StepRecord:
        """Runs one optimizer step and returns what was measured, losses taken before the update.

        Raises `RollBack` for a step that did harm when the run is to go back, and `DataengError` when it is to end.
        """
        config, started = self.config, time.monotonic()
        self.controller.shares = self.stage_shares[self.sampler.stage]
        drawn_shares = self.rows.label_shares(self.sampler.shares)
        batch = self.loader.next(step)
        self.optimizer.zero_grad()
        sums, weighted, multipliers, spike = self._gradient(step, batch, drawn_shares)
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.max_gradient_norm))
        if step in self.not_taken:
            spike = None
        elif spike is None:
            spike = self.spikes.judge(step, sums.mean_loss, norm)
        factor = learning_rate_factor(step, config.num_steps, config.schedule) * 0.5**self.num_rollbacks
        learning_rate = config.optimizer.learning_rate * factor
        self.optimizer.set_learning_rate(learning_rate)
        if spike is not None:
            self._stumble(spike, batch, sums, watcher)
        elif step not in self.not_taken:
            self.num_spikes_in_a_row = 0
            self.optimizer.step()
        self._feed_back()
        return self._record(
            step, sums, weighted, norm, learning_rate, multipliers, drawn_shares, time.monotonic() - started
        )

    def _gradient(self, step: int, batch: Batch, drawn_shares: Floats) -> tuple[Sums, float, Floats, Spike | None]:
        """Computes the gradient; returns the step's sums, its weighted loss, the multipliers, and what is wrong.

        In one piece, the weights follow from the step's own losses; in several, from those of the step before. Losses
        that are not finite never reach the controller.
        """
        config, device, num_domains = self.config, self.device, len(self.rows.names)
        if config.accumulate == 1:
            forward = Forward(self.model, batch, config, device, num_domains)
            sums = forward.sums()
            spike = self._not_finite(step, sums)
            if spike is None:
                self._update_weights(step, sums)
            multipliers = self._multipliers(sums.tokens, drawn_shares)
            weighted = forward.backward(multipliers) if spike is None else math.nan
            return sums, weighted, multipliers, spike
        multipliers = self._multipliers(label_counts(batch, num_domains), drawn_shares)
        sums, weighted = accumulate(self.model, batch, config, device, multipliers)
        spike = self._not_finite(step, sums)
        if spike is None:
            self._update_weights(step, sums)
        return sums, weighted, multipliers, spike

    def _not_finite(self, step: int, sums: Sums) -> Spike | None:
        names = zip(self.rows.names, sums.losses.tolist(), strict=True)
        bad = [name for name, total in names if not math.isfinite(total)]
        return Spike(step, f"the loss of {', '.join(bad)}", math.nan, math.inf) if bad else None

    def _update_weights(self, step: int, sums: Sums) -> None:
        if step in self.not_taken:
            return
        config = self.config
        decaying = is_decaying(step, config.num_steps, config.schedule)
        frozen = decaying and config.reweighting.freeze_in_decay
        self.controller.update(sums.losses, sums.tokens, sums.squares, frozen=frozen)

    def _multipliers(self, token_counts: Floats, drawn_shares: Floats) -> Floats:
        """Returns what the domains' losses are multiplied by, so that the objective is Σ weight · loss."""
        reweighting, loss = self.config.reweighting, self.config.loss
        if reweighting.feedback == "sampling":
            return np.ones(len(token_counts))
        cap = loss.max_multiplier if reweighting.method != "none" else math.inf
        return loss_multipliers(self.controller.weights, drawn_shares, token_counts, loss.normalization, cap)

    def _feed_back(self) -> None:
        """Lets the shares of rows follow the weights, where the manifest says so."""
        if self.config.reweighting.feedback == "loss" or self.config.reweighting.method == "none":
            return
        shares = self.rows.row_shares_for_labels(self.controller.weights)
        if not np.allclose(shares, self.sampler.shares, rtol=1e-6, atol=1e-9):
            self.loader.set_shares(shares.tolist())

    def _stumble(self, spike: Spike, batch: Batch, sums: Sums, watcher: Watcher) -> None:
        """Writes down a step that is not taken, and says what follows; see `RollBack`."""
        config = self.config
        self.num_spikes_in_a_row += 1
        back = config.on_spike == "roll-back" and self.num_rollbacks < MAX_ROLLBACKS and self.checkpoints.steps()
        ends = config.on_spike == "stop" or self.num_spikes_in_a_row > MAX_SPIKES_IN_A_ROW
        action = "ended the run" if ends else "went back to the last checkpoint" if back else "left the step out"
        found = self.incidents.add(spike, action, batch, sums.row_losses)
        if ends:
            raise DataengError(
                f"{spike}; no update was made, {self.last_checkpoint()}. {found} documents of its rows are in "
                f"{self.incidents.documents}. A lower --learning-rate usually helps (it is "
                f"{config.optimizer.learning_rate:g})."
            )
        watcher.note(f"{spike}: {action}; {found} documents in {self.incidents.documents}")
        if back:
            self.not_taken.add(spike.step)
            raise RollBack

    def roll_back(self, watcher: Watcher) -> int:
        """Restores the last checkpoint, at half the learning rate; returns its step. What was not taken stays out."""
        not_taken, num_rollbacks = self.not_taken, self.num_rollbacks + 1
        self.saver.wait()
        checkpoint = self.checkpoints.load()
        assert checkpoint is not None, "looked for before"
        self._restore(checkpoint)
        self.not_taken, self.num_rollbacks = not_taken | self.not_taken, num_rollbacks
        self.metrics.pending.clear()
        watcher.note(f"going on after step {checkpoint.step} at {0.5**num_rollbacks:g} of the learning rate")
        return checkpoint.step

    def _record(
        self,
        step: int,
        sums: Sums,
        weighted: float,
        norm: float,
        learning_rate: float,
        multipliers: Floats,
        drawn_shares: Floats,
        seconds: float,
    ) -> StepRecord:
        epochs, weights = self.sampler.epochs(), self.controller.weights
        return StepRecord(
            step=step,
            loss=sums.mean_loss,
            weighted_loss=weighted,
            gradient_norm=norm,
            learning_rate=learning_rate,
            seconds=seconds,
            domains=[
                DomainRecord(
                    domain=name,
                    loss=float(sums.losses[i] / sums.tokens[i]) if sums.tokens[i] else None,
                    weight=float(weights[i]),
                    multiplier=float(multipliers[i]),
                    share=float(drawn_shares[i]),
                    tokens=int(sums.tokens[i]),
                    epochs=epochs[i],
                )
                for i, name in enumerate(self.rows.names)
            ],
        )

    def last_checkpoint(self) -> str:
        """Says what a run that ends now can go on from."""
        saved = self.checkpoints.steps()
        return f"the checkpoint of step {saved[-1]} is intact" if saved else "there is no checkpoint yet"

    def save(self, step: int) -> None:
        """Commits the metrics up to ``step``, then the checkpoint that covers them."""
        self.metrics.flush()
        rng_tensors, rng_state = random_state()
        self.saver.save(
            step,
            {"model": model_tensors(self.model), "optimizer": optimizer_tensors(self.optimizer), "rng": rng_tensors},
            {
                "sampler": self.loader.state(),
                "controller": self.controller.state(),
                "spikes": self.spikes.state(),
                "not_taken": sorted(self.not_taken),
                "num_rollbacks": self.num_rollbacks,
                "random": rng_state,
                "environment": self._environment(),
            },
        )

    def resume(self, watcher: Watcher) -> int:
        """Restores the newest checkpoint, or the one asked for, and returns the first step to run.

        Metrics and checkpoints of later steps are removed: they will be made again. So is the learned mixture of a run
        that starts over or goes back, unless it is the very manifest that this one trains on.
        """
        config = self.config
        checkpoint = self.checkpoints.load(config.resume_from) if config.resume else None
        if checkpoint is not None:
            self._restore(checkpoint)
            watcher.note(f"resuming {config.out} after step {checkpoint.step}")
            if checkpoint.state["environment"] != self._environment():
                watcher.note(
                    f"note: the checkpoint was made with {checkpoint.state['environment']}, this is "
                    f"{self._environment()}; losses may differ in their last digits"
                )
        done = 0 if checkpoint is None else checkpoint.step
        learned = config.out / "mix.json"
        if done < config.num_steps and self._described() and learned.resolve() != config.mixture.resolve():
            fs.remove(learned)
        self.metrics.discard_after(done)
        self.incidents.discard_after(done)
        self.checkpoints.discard_after(done)
        return done + 1

    def _described(self) -> bool:
        """Whether a run has been in this folder before: a ``mix.json`` of anybody else is left alone."""
        return (self.config.out / "training.json").exists()

    def _restore(self, checkpoint: Checkpoint) -> None:
        load_model_tensors(self.model, checkpoint.tensors["model"])
        load_optimizer_tensors(self.optimizer, checkpoint.tensors["optimizer"])
        self.loader.load_state(checkpoint.state["sampler"])
        self.controller.load_state(checkpoint.state["controller"])
        self.spikes.load_state(checkpoint.state["spikes"])
        self.not_taken = set(checkpoint.state["not_taken"])
        self.num_rollbacks = int(checkpoint.state["num_rollbacks"])
        load_random_state(checkpoint.tensors["rng"], checkpoint.state["random"])

    def _environment(self) -> dict[str, Any]:
        """What may change the last digits of a loss."""
        return {
            "torch": torch.__version__,
            "device": self.device.type,
            "threads": torch.get_num_threads(),
            "compile": self.config.compile,
        }

    def describe(self, status: str, step: int) -> None:
        """Writes ``training.json``."""
        write_json(
            self.config.out / "training.json",
            {
                "format_version": 1,
                "status": status,
                "step": step,
                "num_steps": self.config.num_steps,
                "num_parameters": self.model.num_parameters(),
                "tokens_per_step": self.config.tokens_per_step,
                "domains": self.rows.names,
                "environment": self._environment(),
                "config": as_json(self.config),
            },
        )
