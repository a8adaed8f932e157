"""Steps that do harm, found before they do: losses and gradients that are not finite or far out of line.

A value is compared with the median of the last accepted steps, in units of their median absolute deviation (times
1.4826, which makes it the standard deviation of a normal distribution): one spike moves neither. Only upwards counts.
Gradient norms are compared by their logarithms: they vary by factors. OLMo-core skips steps beyond 6 standard
deviations of the last 128; the window and the threshold are the same here. A stage of the mixture's schedule has a
window of its own: its domains' losses may lie far above those of the domains before.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

WINDOW = 128
MIN_STEPS = 32
#: Below this part of the median, deviations are noise of a run that hardly moves, not a scale to measure spikes with.
SMALLEST_RELATIVE_DEVIATION = 0.01


@dataclass(frozen=True)
class Spike:
    """Why a step was not taken. ``value`` and ``deviations`` are of the loss (nats per token) or the gradient norm."""

    step: int
    of: str
    value: float
    deviations: float  # above the median; ∞ when the value is not finite

    def __str__(self) -> str:
        if math.isfinite(self.value):
            return (
                f"{self.of} {self.value:.4g} in step {self.step} is {self.deviations:.1f} deviations above its median"
            )
        return f"{self.of} is not finite in step {self.step}"


class SpikeDetector:
    """Judges steps, one after the other."""

    def __init__(self, threshold: float = 6.0, window: int = WINDOW, min_steps: int = MIN_STEPS) -> None:
        self.threshold, self.min_steps, self.stage = threshold, min_steps, 0
        self.accepted: dict[str, deque[float]] = {"loss": deque(maxlen=window), "gradient norm": deque(maxlen=window)}

    def judge(self, step: int, loss: float, gradient_norm: float, stage: int = 0) -> Spike | None:
        """Returns what is wrong with a step, or None; a step without fault joins the window of its ``stage``."""
        if stage != self.stage:
            self.stage = stage
            for accepted in self.accepted.values():
                accepted.clear()
        values = {"loss": loss, "gradient norm": gradient_norm}
        for name, value in values.items():
            if not math.isfinite(value):
                return Spike(step, name, value, math.inf)
        for name, value in values.items():
            deviations = self._deviations(name, _on_scale(name, value))
            if deviations > self.threshold:
                return Spike(step, name, value, deviations)
        for name, value in values.items():
            self.accepted[name].append(_on_scale(name, value))
        return None

    def _deviations(self, name: str, value: float) -> float:
        """Returns how far ``value`` is above the median, in robust standard deviations; 0 while too little is known."""
        window = np.array(self.accepted[name])
        if len(window) < self.min_steps:
            return 0.0
        median = float(np.median(window))
        deviation = 1.4826 * float(np.median(np.abs(window - median)))
        smallest = SMALLEST_RELATIVE_DEVIATION * (abs(median) if name == "loss" else 1.0)
        return (value - median) / max(deviation, smallest, 1e-12)

    def state(self) -> dict[str, Any]:
        """Returns the window as JSON values."""
        return {**{name: list(values) for name, values in self.accepted.items()}, "stage": self.stage}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores `state`."""
        for name, values in self.accepted.items():
            values.clear()
            values.extend(float(value) for value in state[name])
        self.stage = int(state.get("stage", 0))  # not in older ones


def _on_scale(name: str, value: float) -> float:
    return value if name == "loss" else math.log(max(value, 1e-12))
