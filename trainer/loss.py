"""Next-token loss, per domain, and the weighted combination that is trained on.

N tokens of a batch, each with a domain in [0, K). Tokens that are no labels (padding, masked) count nowhere; N is those
that are. With S_i the summed cross-entropy (nats) and N_i the number of tokens of domain i, the reported loss of a
domain is S_i / N_i, always unweighted. Trained on is

    loss = Σ_t m[domain_t] · nll_t / N        m a constant

with one of two multipliers m for the controller's weights w:

- ``planned``: m_i = min(w_i / q_i, cap), q the planned shares. The expected gradient is Σ w_i ∇L_i exactly (while no
  multiplier is capped), and a domain that happens to be absent needs no special case.
- ``batch``: m_i = w_i · N / N_i over the domains present, w scaled to 1 over them. This is Σ w_i L_i literally, with
  the noise of the batch's own counts.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]
Normalization = Literal["planned", "batch"]


@torch.no_grad()
def domain_sums(
    losses_n: Tensor, domains_n: Tensor, num_domains: int, is_label_n: Tensor | None = None
) -> tuple[Floats, Floats]:
    """Returns (S, N): summed loss in nats and number of tokens per domain, float64[K] each, on the CPU.

    ``is_label_n`` is 1 where a token counts and 0 elsewhere; None: everywhere.
    """
    counted = torch.ones_like(losses_n, dtype=torch.float64) if is_label_n is None else is_label_n.double()
    sums = torch.zeros(2, num_domains, dtype=torch.float64, device=losses_n.device)
    sums[0].index_add_(0, domains_n, losses_n.double() * counted)
    sums[1].index_add_(0, domains_n, counted)
    loss_sums, token_counts = sums.cpu().numpy()  # one transfer
    return loss_sums, token_counts


def loss_multipliers(
    weights: Floats, shares: Floats, token_counts: Floats, normalization: Normalization, cap: float
) -> Floats:
    """Returns m, float64[K]; see the module. ``cap`` applies to ``planned`` only."""
    multipliers = np.zeros(len(weights))
    if normalization == "planned":
        np.divide(weights, shares, out=multipliers, where=shares > 0)
        return np.minimum(multipliers, cap)
    present = token_counts > 0
    scaled = weights[present] / weights[present].sum()
    multipliers[present] = scaled * token_counts.sum() / token_counts[present]
    return multipliers


def weighted_loss(
    losses_n: Tensor,
    domains_n: Tensor,
    multipliers: Floats,
    is_label_n: Tensor | None = None,
    num_labels: float | None = None,
) -> Tensor:
    """Returns Σ m[domain] · loss / N as a scalar; no gradient flows into ``multipliers``. 0 without any label.

    N is ``num_labels``, or the number of these tokens that are labels.
    """
    per_token = torch.from_numpy(multipliers).to(losses_n.device, losses_n.dtype)[domains_n]
    if is_label_n is None:
        is_label_n = torch.ones_like(losses_n)
    count = is_label_n.sum() if num_labels is None else torch.tensor(num_labels, device=losses_n.device)
    return (losses_n * per_token * is_label_n).sum() / count.clamp(min=1)
