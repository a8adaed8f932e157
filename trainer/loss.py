"""Next-token loss, per domain, and the weighted combination that is trained on.

N tokens of a batch, each with a domain in [0, K). Tokens that are no labels (padding, masked) count nowhere; N is those
that are. With S_i the summed cross-entropy (nats) and N_i the number of tokens of domain i, the reported loss of a
domain is S_i / N_i, always unweighted. Trained on is

    loss = Σ_t m[domain_t] · nll_t / N        m a constant

with one of two multipliers m for the controller's weights w:

- ``planned``: m_i = min(w_i / q_i, cap), q the planned shares. The expected gradient is Σ w_i ∇L_i exactly (while no
  multiplier is capped, and steps count by their labels), and a domain that happens to be absent needs no special
  case.
- ``batch``: m_i = w_i · N / N_i over the domains present, w scaled to 1 over them. This is Σ w_i L_i literally, with
  the noise of the batch's own counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Normalization = Literal["planned", "batch"]

SMALLEST = 1e-300  # of a sum that is divided by


@torch.no_grad()
def row_sums(losses_bt: Tensor) -> Tensor:
    """Returns each row's sums of losses and of their squares, float64 [2, B]. Tokens that are no labels have loss 0."""
    exact_bt = losses_bt.double()
    return torch.stack([exact_bt.sum(1), exact_bt.square().sum(1)])


def domain_sums(values_b: npt.NDArray[Any], domains_b: Ints, num_domains: int) -> Floats:
    """Returns the sums of the rows' values over the rows of each domain, float64 [K]."""
    return np.bincount(domains_b, weights=values_b, minlength=num_domains).astype(np.float64)


def loss_multipliers(
    weights: Floats, shares: Floats, token_counts: Floats, normalization: Normalization, cap: float
) -> Floats:
    """Returns m, float64[K]; see the module. ``cap`` applies to ``planned`` only.

    A domain whose planned share is 0 has m = 1: in the step in which a stage ends, rows of the next one are as good as
    any others.
    """
    if normalization == "planned":
        multipliers = np.ones(len(weights))
        np.divide(weights, shares, out=multipliers, where=shares > 0)
        return np.minimum(multipliers, cap)
    multipliers = np.zeros(len(weights))
    present = token_counts > 0
    # All of them may be 0, rounded by a softmax: then the step has no objective, as with planned shares.
    scaled = weights[present] / max(float(weights[present].sum()), SMALLEST)
    multipliers[present] = scaled * token_counts.sum() / token_counts[present]
    return multipliers


@dataclass(frozen=True)
class Objective:
    """What is trained on: Σ multiplier of its domain · loss / ``num_labels`` over the tokens of a step.

    ``num_labels`` is the labels of the whole step; where gradients are averaged over ranks, over the number of these.
    """

    multipliers: Floats
    num_labels: float

    def row_weights(self, domains_b: Tensor) -> Tensor:
        """Returns what the loss of each token of a row counts, float32 [B]; a row is of one domain."""
        weights = self.multipliers / max(1.0, self.num_labels)
        return torch.from_numpy(weights).float()[domains_b]
