"""What the trainer's benchmarks share: synthetic mixtures, our own step as a run takes it, a clock, taking turns.

Tokens are random: what a step costs does not depend on what they say. Documents are as long as real ones.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from tests.benchmarks.loader import document_lengths, write_pack
from trainer.config import TrainConfig, derive_config
from trainer.device import choose_device
from trainer.options import Options


def write_mixture(folder: Path, num_domains: int, num_tokens: int, vocab_size: int, data: Path | None) -> Path:
    """Writes ``num_domains`` packs of ``num_tokens`` tokens together, and returns a manifest of unequal weights."""
    from dataeng.formats.mixture import Domain, MixtureManifest, Policy, save_mixture

    rng = np.random.default_rng(0)
    weights = np.arange(1, num_domains + 1, dtype=np.float64)
    weights /= weights.sum()
    domains = {}
    for number, weight in enumerate(weights.tolist()):
        name = f"domain{number:03d}"
        lengths = document_lengths(data, rng, num_tokens // num_domains)
        lengths = np.append(lengths, np.int32(num_tokens // num_domains - lengths.sum() + 1))  # however long that is
        write_pack(folder / name, name, lengths, rng, vocab_size)
        total = int(lengths.sum())
        domains[name] = Domain(packs=[name], num_documents=len(lengths), num_tokens=total, weight=weight)
    manifest = MixtureManifest(
        tokenizer_sha256="-", vocab_size=vocab_size, domains=domains, policy=Policy(name="given")
    )
    save_mixture(folder / "mix.json", manifest)
    return folder / "mix.json"


class Side(Protocol):
    """One of those that are compared."""

    def step(self) -> float:
        """Takes one optimizer step; returns its loss in nats per token."""

    def release(self) -> None:
        """Drops the gradients, so that they take no memory while the others compute."""


class OurStep:
    """A run's own training step: rows, forward, sums, controller, backward, clipping, optimizer, record."""

    def __init__(self, mixture: Path, **options: Any) -> None:
        from dataeng.formats.mixture import load_mixture
        from trainer.parallel.ranks import Ranks
        from trainer.run import Run
        from trainer.watching.progress import SilentWatcher

        manifest = load_mixture(mixture)
        chosen = Options(mixture=mixture, verify_packs=False, resume=False, **options)
        self.config: TrainConfig = derive_config(chosen, manifest)
        self.run = Run(self.config, manifest, Ranks(choose_device(self.config.device)))
        self.watcher = SilentWatcher()
        self.num_steps = 0

    def step(self) -> float:
        """Takes one step; returns its unweighted loss."""
        self.num_steps += 1
        record = self.run.train_step(self.num_steps, self.watcher)
        self.run.metrics.add(record)
        return record.loss

    def release(self) -> None:
        """Drops the gradients."""
        self.run.optimizer.zero_grad()


class Clock:
    """Seconds of the processor (CPU: of all threads, so that other processes hardly count) or of the GPU's work."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def now(self) -> float:
        """Returns seconds since whenever, after all work that was given to the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return time.perf_counter()
        return time.process_time()


@dataclass
class Measured:
    """What was found of one side. Bytes are those of the GPU; 0 on the CPU."""

    side: Side
    resident: int = 0
    """Bytes that it holds between steps."""
    peak: int = 0
    """Most bytes in a step, what the other sides hold not counted."""
    first_loss: float = float("nan")
    seconds: list[float] = field(default_factory=list)


def take_turns(sides: Sequence[Measured], rounds: int, clock: Clock) -> None:
    """Takes ``rounds`` steps of every side in turn, after two rounds that are not counted."""
    on_gpu = clock.device.type == "cuda"
    for number in range(rounds + 2):
        for measured in sides:
            before = torch.cuda.memory_allocated() if on_gpu else 0
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            start = clock.now()
            loss = measured.side.step()
            took = clock.now() - start
            if on_gpu:
                measured.peak = max(measured.peak, measured.resident + torch.cuda.max_memory_allocated() - before)
            measured.side.release()
            if on_gpu:
                measured.resident += torch.cuda.memory_allocated() - before
            if number == 0:
                measured.first_loss = loss
            if number >= 2:
                measured.seconds.append(took)
