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

import torch

from dataeng.errors import DataengError
from dataeng.formats.atomic import fs, write_json
from dataeng.formats.mixture import MixtureManifest
from dataeng.mixture.reweighting import Controller
from dataeng.packing import prepare
from trainer.attention import documents_of
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
from trainer.cross_entropy import token_losses
from trainer.data import MixtureRows
from trainer.device import autocast, choose_device, reproducible, to_device
from trainer.initial import initial_model
from trainer.learned import save_learned_mixture
from trainer.loader import Loader
from trainer.loss import domain_sums, loss_multipliers, weighted_loss
from trainer.monitor import DomainRecord, DomainSummary, MetricsWriter, StepRecord
from trainer.optim import build_optimizer
from trainer.progress import Watcher
from trainer.schedule import batch_size_at, is_decaying, learning_rate_factor, total_rows
from trainer.session import StopRequest, held


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
            for step in range(first_step, config.num_steps + 1):
                record = run.train_step(step)
                run.metrics.add(record)
                watcher.step(record)
                if step % config.checkpoint_every == 0 or step == config.num_steps or stop.requested:
                    run.save(step)
                if stop.requested:
                    break
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


class _Run:
    """The parts of one run and the two things done with them: a step, and saving."""

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
        self.controller = Controller(config.reweighting, self.stage_shares[0])
        torch.manual_seed(config.seed)  # the model has no dropout; whatever draws at random later starts from here
        self.model = initial_model(config, self.device)
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.metrics = MetricsWriter(config.out)
        self.checkpoints = CheckpointFolder(
            config.out / "checkpoints",
            identity(config, manifest, self.rows.pack_hashes()),
            config.keep_checkpoints,
        )

    def train_step(self, step: int) -> StepRecord:
        """Runs one optimizer step and returns what was measured, losses taken before the update."""
        config, started = self.config, time.monotonic()
        self.controller.shares = self.stage_shares[self.sampler.stage]
        batch = self.loader.next(step)
        tokens_bt = batch.tokens_bt.to(self.device, non_blocking=True).long()
        is_label_n = batch.labels_bt.to(self.device, non_blocking=True).flatten()
        domains_n = to_device(batch.domains_b, self.device).repeat_interleave(config.sequence_length)
        documents = documents_of(batch.documents_bt[:, :-1], self.device) if config.document_mask else None
        with autocast(self.device):
            hidden_btd = self.model(tokens_bt[:, :-1], documents)
            losses_n = token_losses(
                hidden_btd.flatten(0, 1), self.model.output_weight, tokens_bt[:, 1:].flatten(), config.loss.chunk_tokens
            )
        loss_sums, token_counts = domain_sums(losses_n, domains_n, len(self.rows.names), is_label_n)
        self._check_finite(step, loss_sums.tolist())  # before the controller remembers them
        decaying = is_decaying(step, config.num_steps, config.schedule)
        weights = self.controller.update(
            loss_sums, token_counts, frozen=decaying and config.reweighting.freeze_in_decay
        )
        multipliers = loss_multipliers(
            weights,
            self.controller.shares,
            token_counts,
            config.loss.normalization,
            config.loss.max_multiplier if config.reweighting.method != "none" else math.inf,
        )
        loss = weighted_loss(losses_n, domains_n, multipliers, is_label_n)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.max_gradient_norm)
        factor = learning_rate_factor(step, config.num_steps, config.schedule)
        learning_rate = config.optimizer.learning_rate * factor
        self.optimizer.set_learning_rate(learning_rate)
        gradient_norm = float(norm)
        self._check_finite(step, loss_sums.tolist(), gradient_norm)
        self.optimizer.step()
        epochs = self.sampler.epochs()
        return StepRecord(
            step=step,
            loss=float(loss_sums.sum() / max(1.0, token_counts.sum())),
            weighted_loss=float(loss.detach()),
            gradient_norm=gradient_norm,
            learning_rate=learning_rate,
            seconds=time.monotonic() - started,
            domains=[
                DomainRecord(
                    domain=name,
                    loss=float(loss_sums[i] / token_counts[i]) if token_counts[i] else None,
                    weight=float(weights[i]),
                    multiplier=float(multipliers[i]),
                    share=float(self.controller.shares[i]),
                    tokens=int(token_counts[i]),
                    epochs=epochs[i],
                )
                for i, name in enumerate(self.rows.names)
            ],
        )

    def _check_finite(self, step: int, loss_sums: list[float], gradient_norm: float = 0.0) -> None:
        bad = [name for name, total in zip(self.rows.names, loss_sums, strict=True) if not math.isfinite(total)]
        if bad or not math.isfinite(gradient_norm):
            what = f"the loss of {', '.join(bad)}" if bad else "the gradient"
            raise DataengError(
                f"{what} is not finite in step {step}; no update was made, {self.last_checkpoint()}. A lower "
                f"--learning-rate usually helps (it is {self.config.optimizer.learning_rate:g})."
            )

    def last_checkpoint(self) -> str:
        """Says what a run that ends now can go on from."""
        saved = self.checkpoints.steps()
        return f"the checkpoint of step {saved[-1]} is intact" if saved else "there is no checkpoint yet"

    def save(self, step: int) -> None:
        """Commits the metrics up to ``step``, then the checkpoint that covers them."""
        self.metrics.flush()
        rng_tensors, rng_state = random_state()
        self.checkpoints.save(
            step,
            {"model": model_tensors(self.model), "optimizer": optimizer_tensors(self.optimizer), "rng": rng_tensors},
            {
                "sampler": self.loader.state(),
                "controller": self.controller.state(),
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
