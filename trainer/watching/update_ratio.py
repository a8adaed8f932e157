"""How far one step moves the weights: ‖Δw‖ / ‖w‖ over all that are trained.

About 1e-3, and less as the learning rate decays, is usual; a rise means that the learning rate is too high for where
the run is, often before the loss shows it. The weights before the step are copied for as long as the step takes. At
that moment a step's activations are gone, so that the copy rarely is what needs the most memory; it is made in the
first step, too, so that memory that is too small for it is found out at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]
SumOverRanks = Callable[[Floats], Floats]


def is_measured(step: int, every: int) -> bool:
    """Whether the ratio of ``step`` (from 1) is to be measured: the first and every ``every``-th; 0 is never."""
    return every > 0 and (step == 1 or step % every == 0)


class UpdateRatio:
    """Measures one step: made before the update, `ratio` after it.

    ``sum_over_ranks`` adds arrays of all ranks where each rank holds a part of the weights; None: this one holds all.
    """

    @torch.no_grad()
    def __init__(self, parameters: Iterable[Tensor], sum_over_ranks: SumOverRanks | None = None) -> None:
        held = (_local(parameter) for parameter in parameters if parameter.requires_grad)
        self.parameters = [part for part in held if part.numel()]  # of a small weight, some ranks hold nothing
        self.before = [parameter.clone() for parameter in self.parameters]
        self.sum_over_ranks = sum_over_ranks

    @torch.no_grad()
    def ratio(self) -> float | None:
        """Returns ‖Δw‖ / ‖w‖ and lets the copies go; None where all weights were 0, as LoRA's cannot be."""
        squares = np.array([0.0, _squares(self.before)])
        if self.before:
            torch._foreach_sub_(self.before, self.parameters)  # in place: no second copy
        squares[0] = _squares(self.before)
        self.before.clear()
        if self.sum_over_ranks is not None:
            squares = self.sum_over_ranks(squares)
        return None if squares[1] == 0 else math.sqrt(squares[0] / squares[1])


def _squares(tensors: list[Tensor]) -> float:
    """Returns the sum of squares of all elements; of each tensor on its device, of all of them in float64."""
    norms = torch.stack(torch._foreach_norm(tensors)) if tensors else torch.zeros(0)
    return float(norms.double().square().sum())


def _local(parameter: Tensor) -> Tensor:
    """Returns this rank's part of a weight that several ranks share (FSDP), or all of it."""
    to_local = getattr(parameter, "to_local", None)
    return parameter.detach() if to_local is None else to_local().detach()
