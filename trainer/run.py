"""One run's parts and what is done with them, in a straight line: rows → losses → weights → gradient → step."""

from __future__ import annotations

import math
import time

import numpy as np
import numpy.typing as npt
import torch

from dataeng.errors import DataengError
from dataeng.formats.atomic import fs
from dataeng.formats.mixture import MixtureManifest
from trainer.config import TrainConfig
from trainer.data.loader import Batch, Loader
from trainer.data.presence import presences
from trainer.data.rows import MixtureRows
from trainer.evaluation.validation import open_validation
from trainer.identity import identity
from trainer.initial import initial_model
from trainer.loss import Objective
from trainer.optimizer.optimizers import build_optimizer
from trainer.optimizer.schedule import batch_size_at, learning_rate_factor, total_rows
from trainer.parallel.ranks import Ranks, environment
from trainer.parallel.spread import SpreadModel, send_shards
from trainer.recovery.background import BackgroundSaver
from trainer.recovery.checkpoint import (
    Checkpoint,
    CheckpointFolder,
    load_model_tensors,
    load_optimizer_tensors,
    load_random_state,
    model_tensors,
    optimizer_tensors,
    random_state,
)
from trainer.recovery.incidents import Incidents
from trainer.recovery.session import StopRequest
from trainer.recovery.spikes import Spike, SpikeDetector
from trainer.steering.feedback import Feedback
from trainer.step import Forward, Sums, accumulate, label_counts
from trainer.watching.meter import StepMeter
from trainer.watching.metrics import DomainRecord, MetricsWriter, StepRecord
from trainer.watching.progress import Watcher

Floats = npt.NDArray[np.float64]

MAX_ROLLBACKS = 3
MAX_SPIKES_IN_A_ROW = 10
#: What stands in a run's folder beside metrics and checkpoints.
OWN_FILES = ("training.json", "mix.json", "incidents.jsonl", "quarantine.parquet")


class RollBack(Exception):  # noqa: N818 - a way to go, not a fault
    """A step did harm, and the run goes on from its last checkpoint."""


class Run:
    """The parts of one run, as one rank holds them. All ranks call the same methods in the same order."""

    def __init__(self, config: TrainConfig, manifest: MixtureManifest, ranks: Ranks) -> None:
        self.config, self.ranks = config, ranks
        self.rows = rows = MixtureRows(manifest, config.mixture, config.sequence_length, config.packing)
        with ranks.long_work("checking packs") as file_done:
            rows.verify(config.verify_packs, ranks.rank, ranks.count, file_done)
        stages = rows.planned_stages(total_rows(config.num_steps, config.batch_size, config.schedule))
        self.loader = Loader(
            rows.reader,
            rows.sampler(stages, config.seed),
            lambda step: batch_size_at(step, config.batch_size, config.schedule),
            rank=ranks.rank,
            num_ranks=ranks.count,
            device=ranks.device,
        )
        self.feedback = Feedback(config, manifest, rows, stages, self.loader)
        self.presences = presences(rows.names, [np.array(stage.shares) for stage in stages], config.batch_size)
        self.validation = open_validation(config, rows, ranks)
        self.spikes = SpikeDetector(config.spike_threshold)
        self.incidents = Incidents(config.out, rows)
        self.step = 0  # the last one that was begun
        self.not_taken: set[int] = set()  # steps whose rows are left out after going back
        self.num_rollbacks = self.num_spikes_in_a_row = 0
        self.has_checkpoint = False  # that this run may go back to
        self._stop_seen = False  # by any rank, as of the last step
        self._stop: StopRequest | None = None
        torch.manual_seed(config.seed)  # the model has no dropout; whatever draws at random later starts from here
        self.spread = SpreadModel(initial_model(config), config.parallel, ranks)
        self.model = self.spread.model
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.meter = StepMeter(config, self.model, ranks)
        self.metrics = MetricsWriter(config.out)
        self.checkpoints = CheckpointFolder(
            config.out / "checkpoints", identity(config, manifest, rows.pack_hashes()), config.keep_checkpoints
        )
        self.saver = BackgroundSaver(self.checkpoints, save_now=not config.background_checkpoints)

    def train_step(self, step: int, watcher: Watcher) -> StepRecord:
        """Runs one optimizer step and returns what was measured, losses taken before the update.

        Raises `RollBack` for a step that did harm when the run is to go back, and `DataengError` when it is to end.
        """
        config, started = self.config, time.monotonic()
        self.feedback.begin()
        batch = self.loader.next(step)
        self.optimizer.zero_grad()
        sums, multipliers, spike = self._gradient(step, batch)
        norm = self.spread.clip_gradient(config.optimizer.max_gradient_norm)
        if step in self.not_taken:
            spike = None
        elif spike is None:
            sampler = self.loader.sampler
            spike = self.spikes.judge(step, sums.mean_loss, norm, sampler.stage_at(sampler.num_planned - 1))
        factor = learning_rate_factor(step, config.num_steps, config.schedule) * 0.5**self.num_rollbacks
        learning_rate = config.optimizer.learning_rate * factor
        self.optimizer.set_learning_rate(learning_rate)
        if spike is not None:
            self._stumble(spike, batch, sums, watcher)
        elif step not in self.not_taken:
            self.num_spikes_in_a_row = 0
            self.meter.update(step, self.optimizer)
        return self._record(step, sums, norm, learning_rate, multipliers, time.monotonic() - started)

    def _gradient(self, step: int, batch: Batch) -> tuple[Sums, Floats, Spike | None]:
        """Computes the gradient; returns the sums of all ranks, the multipliers, and what is wrong.

        The weights follow from the step's own losses, unless these do not move them, or the batch is computed in
        several pieces: then they are those of the step before. Losses that are not finite never reach the controller.
        """
        config, ranks, num_domains = self.config, self.ranks, len(self.rows.names)
        if config.accumulate > 1 or not self.feedback.is_moved_by(step):
            counts = ranks.sum(label_counts(batch, num_domains))
            objective = Objective(self.feedback.multipliers(counts), counts.sum() / ranks.count)
            sums = self._over_ranks(accumulate(self.spread, batch, config, objective))
            return sums, objective.multipliers, self._take(step, sums)
        with self.spread.part(is_last=True):
            forward = Forward(self.spread.forward, batch, config, ranks.device)
            sums = self._over_ranks(forward.sums(num_domains))
            spike = self._take(step, sums)
            objective = Objective(self.feedback.multipliers(sums.tokens), sums.tokens.sum() / ranks.count)
            # Also where the loss is not finite: ranks that wait for a backward pass would wait for ever.
            forward.backward(objective)
        return sums, objective.multipliers, spike

    def _over_ranks(self, sums: Sums) -> Sums:
        """Returns the sums of all ranks but for the rows' losses, and finds out whether any rank is to stop."""
        if self.ranks.count == 1:
            return sums
        stop = np.array([float(self._stop is not None and self._stop.requested)])
        total = self.ranks.sum(np.concatenate([sums.losses, sums.tokens, sums.squares, stop]))
        self._stop_seen = bool(total[-1])
        losses, tokens, squares = total[:-1].reshape(3, -1)
        return Sums(losses, tokens, squares, sums.row_losses)

    def stopping(self, stop: StopRequest) -> bool:
        """Whether the run is to end after the step at hand: by a signal, which several ranks agree on in each step."""
        self._stop = stop
        return stop.requested if self.ranks.count == 1 else self._stop_seen

    def _take(self, step: int, sums: Sums) -> Spike | None:
        """Gives the losses to the controller, or says which are not finite."""
        bad = [name for name, finite in zip(self.rows.names, sums.finite.tolist(), strict=True) if not finite]
        if bad:
            return Spike(step, f"the loss of {', '.join(bad)}", math.nan, math.inf)
        if step not in self.not_taken:
            self.feedback.take(step, sums)
        return None

    def _stumble(self, spike: Spike, batch: Batch, sums: Sums, watcher: Watcher) -> None:
        """Writes down a step that is not taken, and says what follows; see `RollBack`."""
        config = self.config
        self.num_spikes_in_a_row += 1
        back = config.on_spike == "roll-back" and self.num_rollbacks < MAX_ROLLBACKS and self.has_checkpoint
        ends = config.on_spike == "stop" or self.num_spikes_in_a_row > MAX_SPIKES_IN_A_ROW
        action = "ended the run" if ends else "went back to the last checkpoint" if back else "left the step out"
        own = np.stack([batch.domains_b.numpy(), batch.rows_b.numpy(), sums.row_losses])
        domains, rows, losses = np.concatenate(self.ranks.gather(own), axis=1)
        found = 0
        if self.ranks.is_first:
            found = self.incidents.add(spike, action, domains.astype(np.int64), rows.astype(np.int64), losses)
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
        not_taken, num_rollbacks, num_spikes = self.not_taken, self.num_rollbacks + 1, self.num_spikes_in_a_row
        self.saver.wait()
        self.ranks.wait_for_all()  # the first one has saved
        checkpoint = self._load()
        self._agree_on(checkpoint)
        assert checkpoint is not None, "looked for before"
        self._restore(checkpoint)
        self.not_taken, self.num_rollbacks = not_taken | self.not_taken, num_rollbacks
        self.num_spikes_in_a_row = num_spikes
        self.metrics.forget()
        watcher.note(f"going on after step {checkpoint.step} at {0.5**num_rollbacks:g} of the learning rate")
        return checkpoint.step

    def _record(
        self, step: int, sums: Sums, norm: float, learning_rate: float, multipliers: Floats, seconds: float
    ) -> StepRecord:
        feedback = self.feedback
        columns = (
            sums.losses, sums.squares, sums.tokens.astype(np.int64), feedback.weights, multipliers,
            feedback.drawn_shares, feedback.planned_shares,
        )  # fmt: skip
        # As lists, which are read ten times as fast as arrays; there may be hundreds of domains.
        rows = zip(self.rows.names, *(column.tolist() for column in columns), self.loader.sampler.epochs(), strict=True)
        return StepRecord(
            step=step,
            loss=sums.mean_loss,
            weighted_loss=sums.weighted_loss(multipliers),
            gradient_norm=norm,
            learning_rate=learning_rate,
            seconds=seconds,
            decaying=self.feedback.decaying(step),
            observed=step not in self.not_taken and bool(sums.finite.all()),
            update_ratio=self.meter.update_ratio(step),
            mfu=self.meter.mfu(step, seconds),
            peak_memory_bytes=self.meter.peak_memory_bytes(),
            domains=[
                DomainRecord(
                    domain=name,
                    loss_sum=loss_sum,
                    square_sum=square_sum,
                    tokens=tokens,
                    weight=weight,
                    multiplier=multiplier,
                    share=share,
                    planned_share=planned,
                    epochs=epochs,
                )
                for name, loss_sum, square_sum, tokens, weight, multiplier, share, planned, epochs in rows
            ],
        )

    def last_checkpoint(self) -> str:
        """Says what a run that ends now can go on from."""
        saved = self.checkpoints.steps()
        return f"the checkpoint of step {saved[-1]} is intact" if saved else "there is no checkpoint yet"

    def validate(self, step: int, watcher: Watcher) -> float | None:
        """Measures held-out losses where they are due, and returns their mean: what checkpoints are compared by."""
        if self.validation is None or not self.validation.is_due(step):
            return None
        record = self.validation.run(self.spread.forward, step)
        self.metrics.add_validation(record)
        watcher.validated(record)
        return record.mean_loss if math.isfinite(record.mean_loss) else None

    def save(self, step: int, score: float | None = None) -> None:
        """Commits the metrics up to ``step``, then the checkpoint that covers them; the first rank writes for all."""
        self.ranks.agree(self.feedback.weights, "the mixture's weights, which they compute from the same sums")
        tensors = {"model": model_tensors(self.model), "optimizer": optimizer_tensors(self.optimizer)}
        self.has_checkpoint = True
        if not self.ranks.is_first:
            self.metrics.forget()
            send_shards(tensors)
            return
        self.metrics.flush()
        rng_tensors, rng_state = random_state()
        self.saver.save(
            step,
            {**tensors, "rng": rng_tensors},
            {
                "sampler": self.loader.state(),
                "controller": self.feedback.state(),
                "spikes": self.spikes.state(),
                "not_taken": sorted(self.not_taken),
                "num_rollbacks": self.num_rollbacks,
                "num_spikes_in_a_row": self.num_spikes_in_a_row,
                "random": rng_state,
                "environment": environment(self.config, self.ranks),
            },
            score,
        )

    def resume(self, watcher: Watcher) -> int:
        """Restores the newest checkpoint, or the one asked for, and returns the first step to run.

        Metrics and checkpoints of later steps are removed: they will be made again. So is the learned mixture of a run
        that starts over or goes back, unless it is the very manifest that this one trains on.
        """
        config = self.config
        self.ranks.wait_for_all()  # the first one holds the folder
        checkpoint = self._load(config.resume_from) if config.resume else None
        if checkpoint is not None:
            self._restore(checkpoint)
            watcher.note(f"resuming {config.out} after step {checkpoint.step}")
            if checkpoint.state["environment"] != environment(self.config, self.ranks):
                watcher.note(
                    f"note: the checkpoint was made with {checkpoint.state['environment']}, this is "
                    f"{environment(self.config, self.ranks)}; losses may differ in their last digits"
                )
        done = 0 if checkpoint is None else checkpoint.step
        self.has_checkpoint = checkpoint is not None
        self.step = done
        # And all have read what is about to be removed.
        self._agree_on(checkpoint)
        if self.ranks.is_first:
            self._discard_after(done)
        return done + 1

    def _load(self, step: int | None = None) -> Checkpoint | None:
        """Opens a checkpoint; the first rank looks for damage, for all."""
        return self.checkpoints.load(step, verify=self.ranks.is_first)

    def _agree_on(self, checkpoint: Checkpoint | None) -> None:
        """Raises `DataengError` on all ranks when one of them has found another checkpoint, or none."""
        found = np.array([0 if checkpoint is None else checkpoint.step])
        self.ranks.agree(found, f"the last checkpoint that they find (do all see {self.config.out}?)")

    def _discard_after(self, done: int) -> None:
        config = self.config
        learned = config.out / "mix.json"
        # A mix.json is a run's own only where there has been a run; anybody else's is left alone.
        ours = (config.out / "training.json").exists() and learned.resolve() != config.mixture.resolve()
        if done < config.num_steps and ours:
            fs.remove(learned)
        for name in OWN_FILES:
            for half in config.out.glob(f".{name}.*.tmp"):  # of a process that was killed
                fs.remove(half)
        self.metrics.discard_after(done)
        self.incidents.discard_after(done, self.not_taken)
        self.checkpoints.discard_after(done)

    def _restore(self, checkpoint: Checkpoint) -> None:
        load_model_tensors(self.model, checkpoint.tensors["model"])
        load_optimizer_tensors(self.optimizer, checkpoint.tensors["optimizer"])
        self.loader.load_state(checkpoint.state["sampler"])
        self.feedback.load_state(checkpoint.state["controller"])
        self.spikes.load_state(checkpoint.state["spikes"])
        self.not_taken = set(checkpoint.state["not_taken"])
        self.num_rollbacks = int(checkpoint.state["num_rollbacks"])
        self.num_spikes_in_a_row = int(checkpoint.state.get("num_spikes_in_a_row", 0))  # not in older ones
        load_random_state(checkpoint.tensors["rng"], checkpoint.state["random"])
