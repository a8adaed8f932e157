"""Learning rate and batch size over steps: pure functions of the step.

Steps count from 1. No step is wasted on a factor of 0: a linear warmup's first has 1 / warmup_steps, a linear decay's
last 1 / decay_steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from trainer.config import ScheduleConfig

#: From the part of the decay that lies behind, in (0, 1), to the height between the final factor (0) and 1.
DECAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda t: 1 - t,
    "cosine": lambda t: (1 + math.cos(math.pi * t)) / 2,
    "1-sqrt": lambda t: 1 - math.sqrt(t),  # Hägele et al., arXiv 2405.18392
    "exponential": lambda t: (0.5 ** (10 * t) - 0.5**10) / (1 - 0.5**10),  # ten halvings, as in MiniCPM's 2404.06395
}


def learning_rate_factor(step: int, num_steps: int, config: ScheduleConfig) -> float:
    """Returns the factor on the peak learning rate at ``step`` (1 … ``num_steps``).

    After a linear warmup over ``warmup_steps`` (0: none): ``wsd`` stays at 1 and decays over the last ``decay_steps``
    (warmup, stable, decay; Hu et al., arXiv 2404.06395); ``cosine`` and ``linear`` decay from the warmup's end to the
    run's (cosine: Loshchilov and Hutter, arXiv 1608.03983); ``constant`` stays. Decays end at ``final_factor``.
    """
    factor = min(1.0, step / max(config.warmup_steps, 1))
    if config.name == "constant":
        return factor
    decay_steps = config.decay_steps if config.name == "wsd" else max(num_steps - config.warmup_steps, 1)
    done = step - 1 - (num_steps - decay_steps)  # full steps of the decay behind this one
    if done > 0:
        height = DECAYS[config.decay if config.name == "wsd" else config.name](done / decay_steps)
        factor = min(factor, config.final_factor + (1 - config.final_factor) * height)
    return factor


def is_decaying(step: int, num_steps: int, config: ScheduleConfig) -> bool:
    """Whether ``step`` is in the last phase of ``wsd``; cosine and linear decay all along and have no such phase."""
    return config.name == "wsd" and step > num_steps - config.decay_steps


def batch_size_at(step: int, batch_size: int, config: ScheduleConfig) -> int:
    """Returns the rows of ``step``: a ramp from ``ramp_start`` rows to ``batch_size`` over ``ramp_steps`` steps.

    The ramp is linear in steps, in multiples of ``ramp_start``, so that it can be cut over the same ranks all along.
    """
    if config.ramp_steps == 0 or step > config.ramp_steps:
        return batch_size
    levels = batch_size // config.ramp_start
    level = 1 + (step - 1) * levels // config.ramp_steps
    return min(batch_size, config.ramp_start * level)


def total_rows(num_steps: int, batch_size: int, config: ScheduleConfig) -> int:
    """Returns the rows that all steps draw together."""
    ramp = min(config.ramp_steps, num_steps)
    return sum(batch_size_at(step, batch_size, config) for step in range(1, ramp + 1)) + (num_steps - ramp) * batch_size
