"""Learning rate over steps: warmup, stable, decay (WSD; Hu et al., arXiv 2404.06395)."""

from __future__ import annotations


def warmup_stable_decay(step: int, num_steps: int, warmup_steps: int, decay_steps: int) -> float:
    """Returns the factor on the peak learning rate at ``step`` (1 … ``num_steps``).

    Rises linearly over ``warmup_steps``, stays 1, falls linearly over the last ``decay_steps``. No step is wasted on
    a factor of 0: the first has 1 / warmup_steps, the last 1 / decay_steps.
    """
    factor = 1.0
    if step < warmup_steps:
        factor = step / warmup_steps
    remaining = num_steps - step + 1
    if remaining < decay_steps:
        factor = min(factor, remaining / decay_steps)
    return factor
