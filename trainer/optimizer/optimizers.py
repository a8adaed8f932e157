"""Optimizers: AdamW, Adafactor, Lion, and Muon for the matrices with AdamW for everything else.

All decay only matrices. Norms have no reason to be small, and a rare token's embedding would shrink at every step in
which it does not occur.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from trainer.config import OptimizerConfig
from trainer.optimizer.muon import Muon

NamedParameters = list[tuple[str, nn.Parameter]]


class Lion(torch.optim.Optimizer):
    """Lion (Chen et al., arXiv 2302.06675): the sign of an interpolated momentum, with decoupled weight decay.

    update = sign(β1 m + (1 - β1) g); m ← β2 m + (1 - β2) g. Its authors advise a learning rate 3 to 10 times below
    AdamW's and a weight decay as many times above.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients = [p.grad for p in parameters]
            moments = [self._moment(p) for p in parameters]
            updates = torch._foreach_lerp(moments, gradients, 1 - beta1)
            torch._foreach_sign_(updates)
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, updates, alpha=-group["lr"])
            torch._foreach_lerp_(moments, gradients, 1 - beta2)

    def _moment(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["exp_avg"] = torch.zeros_like(parameter)
        moment: Tensor = state["exp_avg"]
        return moment


class Optimizers:
    """One or two optimizers that step together and are saved under their weights' names."""

    def __init__(self, parts: Iterable[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        """Makes one update with the gradients at hand."""
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        """Drops all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Sets the learning rate of every group."""
        for group in self.param_groups:
            group["lr"] = learning_rate


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizers:
    """Returns the configured optimizer over all weights of ``model`` that are trained; matrices alone are decayed.

    With ``muon``, its updates are scaled to the size of AdamW's, so that one learning rate and decay suit both.
    """
    hidden, head, others = _split(model)
    decay, betas, rate = config.weight_decay, (config.beta1, config.beta2), config.learning_rate
    # PyTorch takes an empty group for a nameless one. With LoRA only hidden matrices are trained.
    rest = [{"params": params, "weight_decay": d} for params, d in ((head, decay), (others, 0.0)) if params]
    groups = [{"params": hidden, "weight_decay": decay}, *rest]
    if config.name == "lion":
        return Optimizers([Lion(groups, rate, (config.beta1, 0.99))])
    if config.name == "adafactor":
        return Optimizers([torch.optim.Adafactor(groups, lr=rate)])
    if config.name == "muon":
        muon = Muon(hidden, rate, weight_decay=decay)
        adamw = [torch.optim.AdamW(rest, lr=rate, betas=betas, eps=config.epsilon, fused=True)] if rest else []
        return Optimizers([muon, *adamw])
    return Optimizers([torch.optim.AdamW(groups, lr=rate, betas=betas, eps=config.epsilon, fused=True)])


def _split(model: nn.Module) -> tuple[NamedParameters, NamedParameters, NamedParameters]:
    """Returns the trained weights with their names: hidden matrices, an output matrix of its own, all others.

    Muon's authors leave embeddings and the output to AdamW: their gradients are sparse, row by row.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    heads = {id(m.weight) for name, m in model.named_modules() if name.endswith("lm_head")}
    hidden: NamedParameters = []
    head: NamedParameters = []
    others: NamedParameters = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2 or id(parameter) in embeddings:
            others.append((name, parameter))
        else:
            (head if id(parameter) in heads else hidden).append((name, parameter))
    return hidden, head, others
