"""What a step costs and how far it goes: MFU, memory, update ratio."""

from __future__ import annotations

from torch import nn

from trainer.config import TrainConfig
from trainer.optimizer.optimizers import Optimizers
from trainer.optimizer.schedule import batch_size_at
from trainer.parallel.ranks import Ranks
from trainer.watching.flops import flops_per_position, peak_flops
from trainer.watching.memory import peak_memory_bytes
from trainer.watching.update_ratio import UpdateRatio, is_measured


class StepMeter:
    """Measures the steps of a run over all its ranks; how is in `flops`, `memory` and `update_ratio` beside it.

    ``flops_per_position`` counts forward and backward, ``peak_flops`` is one device's or None where it is not known.
    """

    def __init__(self, config: TrainConfig, model: nn.Module, ranks: Ranks) -> None:
        self.config, self.model, self.ranks = config, model, ranks
        self.flops_per_position = flops_per_position(model, config.model, config.sequence_length)
        self.peak_flops = peak_flops(ranks.device) if config.peak_flops is None else config.peak_flops
        self._last: tuple[int, float | None] = 0, None

    def update(self, step: int, optimizer: Optimizers) -> None:
        """Makes the update of a step; in the steps in which it is due, measures how far it moved the weights."""
        if not is_measured(step, self.config.update_ratio_every):
            optimizer.step()
            return
        measured = UpdateRatio(self.model.parameters(), self.ranks.sum)
        optimizer.step()
        self._last = step, measured.ratio()

    def update_ratio(self, step: int) -> float | None:
        """Returns ‖Δw‖ / ‖w‖ of a step, or None where it was not measured."""
        return self._last[1] if self._last[0] == step else None

    def mfu(self, step: int, seconds: float) -> float | None:
        """Returns which part of the peak of all devices a step of so many seconds used; None without a known peak."""
        if self.peak_flops is None:
            return None
        positions = batch_size_at(step, self.config.batch_size, self.config.schedule) * self.config.sequence_length
        return positions * self.flops_per_position / seconds / (self.peak_flops * self.ranks.count)

    def peak_memory_bytes(self) -> int:
        """Returns the most memory that this rank has needed so far."""
        return peak_memory_bytes(self.ranks.device)
