"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon), also for matrices that are cut over ranks.

A matrix's momentum is orthogonalized, which needs all of it: where ranks hold parts, they come together for one matrix
at a time, every rank does the same few products, and keeps its part of the result. PyTorch's own (`torch.optim.Muon`)
knows no parts; on whole matrices this one computes the same numbers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from trainer.parallel.spread import shard_like, whole

#: Of the polynomial a x + b x³ + c x⁵ whose slope at 0 is large; five applications bring singular values near 1.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NUM_ITERATIONS = 5
SMALLEST_NORM = 1e-7


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalized, with decoupled weight decay; for matrices only.

    Updates are scaled by 0.2 · √(larger side), to the size of AdamW's (Liu et al., arXiv 2502.16982).
    """

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.1, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates every matrix that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                momentum = self._momentum(parameter)
                momentum.lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalized(whole(parameter.grad.lerp(momentum, group["momentum"])))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                scale = 0.2 * math.sqrt(max(parameter.shape))
                parameter.add_(shard_like(update.to(parameter.dtype), parameter), alpha=-group["lr"] * scale)

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum_buffer"]
        return momentum


def orthogonalized(matrix: Tensor) -> Tensor:
    """Returns U Vᵀ of ``matrix`` = U S Vᵀ, bfloat16, with singular values between about 0.5 and 1.5."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.bfloat16()
    is_tall = x.shape[0] > x.shape[1]
    if is_tall:
        x = x.T
    x = x / x.norm().clamp(min=SMALLEST_NORM)
    for _ in range(NUM_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x
