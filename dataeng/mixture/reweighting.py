"""From per-domain losses to weights on them: the controller behind ``reweighting`` in the mixture manifest.

``sow-identity`` is the recipe of Sow et al. (arXiv 2502.06733) with domains in place of samples and f = identity:
with L the domains' losses in nats per token,

    h_i = (2 L_i - max L - min L) / max(max L - min L, floor)        in [-1, 1]
    w   = softmax(h / r)

The largest weight is e^(2/r) times the smallest whatever the losses are: r sets the spread, the losses the order.
The controller sees plain sums, so it can be replayed from recorded metrics; the trainer treats w as constants.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dataeng.errors import FormatError
from dataeng.formats.mixture import Reweighting

Floats = npt.NDArray[np.float64]


def scale_losses(losses: Floats, floor: float) -> Floats:
    """Returns h in [-1, 1]: the smallest loss maps to -1, the largest to 1. Equal losses map to 0."""
    low, high = float(losses.min()), float(losses.max())
    return np.asarray((2 * losses - high - low) / max(high - low, floor))


def softmax(values: Floats) -> Floats:
    """Returns exp(values) / Σ exp(values), without overflow."""
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())


class Controller:
    """Averages per-domain losses over steps and turns them into weights on the domains' losses.

    ``shares`` are the planned sampling shares q. They are the weights wherever the losses have no say: method
    ``none``, the warm-up steps, and domains that have not been seen yet (which keep their share while the seen ones
    divide the rest). Weights equal to the shares mean that every token counts the same.
    """

    def __init__(self, reweighting: Reweighting, shares: Floats) -> None:
        self.reweighting = reweighting
        self.shares = np.asarray(shares, np.float64)
        self.loss_sums = np.zeros(len(shares))  # nats, averaged over steps with `ema`
        self.token_counts = np.zeros(len(shares))  # likewise
        self.num_steps = 0
        self.weight_sums = np.zeros(len(shares))  # over the steps in which losses had their say
        self.num_weighted_steps = 0

    def update(self, loss_sums: Floats, token_counts: Floats) -> Floats:
        """Takes one step's summed loss and token count per domain; returns the weights to apply in this step.

        A domain without tokens in this step keeps what is known of it.
        """
        ema = self.reweighting.ema
        seen = token_counts > 0
        self.loss_sums[seen] = ema * self.loss_sums[seen] + loss_sums[seen]
        self.token_counts[seen] = ema * self.token_counts[seen] + token_counts[seen]
        self.num_steps += 1
        if self.reweighting.method == "none" or self.num_steps <= self.reweighting.warmup_steps:
            return self.shares.copy()
        weights = self._weights()
        self.weight_sums += weights
        self.num_weighted_steps += 1
        return weights

    def _weights(self) -> Floats:
        known = self.token_counts > 0
        weights = self.shares.copy()
        if known.any():
            losses = self.loss_sums[known] / self.token_counts[known]
            scaled = scale_losses(losses, self.reweighting.floor)
            weights[known] = self.shares[known].sum() * softmax(scaled / self.reweighting.r)
        return weights

    def learned_weights(self) -> Floats:
        """Returns the mean of the applied weights over steps (as DoReMi does, arXiv 2305.10429); shares if none."""
        return self.weight_sums / self.num_weighted_steps if self.num_weighted_steps else self.shares.copy()

    def state(self) -> dict[str, Any]:
        """Returns everything that `update` depends on, as JSON values (floats survive JSON exactly)."""
        return {
            "loss_sums": self.loss_sums.tolist(),
            "token_counts": self.token_counts.tolist(),
            "num_steps": self.num_steps,
            "weight_sums": self.weight_sums.tolist(),
            "num_weighted_steps": self.num_weighted_steps,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores `state`; raises `FormatError` when it is of another number of domains."""
        for name in ("loss_sums", "token_counts", "weight_sums"):
            values = np.array(state[name], np.float64)
            if len(values) != len(self.shares):
                raise FormatError(f"controller state has {len(values)} domains, expected {len(self.shares)}.")
            setattr(self, name, values)
        self.num_steps, self.num_weighted_steps = int(state["num_steps"]), int(state["num_weighted_steps"])
