"""How the trainer turns per-domain losses into weights: the section ``reweighting`` of the mixture manifest."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

Method = Literal[
    "none", "sow-identity", "sow-linupper", "sow-quadratic", "sow-extremes", "doremi", "sheared", "odm", "ado"
]
NEEDS_REFERENCE = ("doremi", "sheared")


class Reweighting(BaseModel):
    """Method and constants; the methods themselves, with their sources, are in `dataeng.mixture.methods`.

    The default is the recipe of Sow et al. (arXiv 2502.06733), per domain: losses are scaled into [-1, 1] by their
    smallest and largest, ``softmax(h / r)`` gives the weights (detached), and the weighted domain losses are summed.
    """

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    method: Method = "sow-identity"
    feedback: Literal["loss", "sampling", "both"] = Field(
        default="loss",
        description="What weights act on: multipliers on the losses, the shares that are drawn, or shares that follow "
        "with multipliers for what is left of the difference. The objective is Σ w L in all three",
    )
    signal: Literal["raw", "excess", "relative", "bits-per-byte"] = Field(
        default="raw",
        description="What is compared between domains: the loss, the loss above `reference`, the loss over the one at "
        "the start, or bits per byte of text",
    )
    reference: dict[str, FiniteFloat] | None = Field(
        default=None, description="Losses (nats per token) of a reference model or targets, by domain"
    )
    r: float = Field(default=1.0, gt=0, description="Softmax temperature; larger is flatter")
    r_start: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Softmax temperature to start from, e.g. 100"
    )
    anneal_steps: int = Field(default=0, ge=0, description="Steps from `r_start` to `r`, geometrically")
    floor: float = Field(default=1e-6, gt=0, description="Smallest range (of the signal) that is scaled to [-1, 1]")
    noise_floor: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="The range is at least so many standard errors of the noisiest domain's loss",
    )
    prior: Literal["uniform", "shares"] = Field(
        default="uniform", description="What weights are where losses say nothing: equal, or the planned shares"
    )
    eta: float = Field(
        default=1.0,
        gt=0,
        allow_inf_nan=False,
        description="Step size of doremi and sheared (DoReMi's own is 1, DoGE's 0.1)",
    )
    refit_steps: int = Field(
        default=1000,
        ge=1,
        description="Updates between two fits of ado's laws; shares stay as planned before the first one",
    )
    ema: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the old value in the averaged loss; 0 is same-step"
    )
    warmup_steps: int = Field(default=0, ge=0, description="Steps with equal treatment before weights apply")
    interval: int = Field(default=1, ge=1, description="Steps between updates of the weights")
    smallest: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="No reweighted domain gets less than this, as long as there is as much for all",
    )
    largest: float = Field(default=1.0, gt=0, le=1, description="No reweighted domain gets more than this")
    trust_region: float | None = Field(
        default=None, gt=0, description="Largest change of a weight's logarithm in one update"
    )
    stale_steps: int | None = Field(
        default=None, ge=1, description="After so many steps without a token, half of a weight is its prior again"
    )
    freeze_in_decay: bool = Field(default=True, description="Weights stay as they are once the learning rate decays")

    @model_validator(mode="after")
    def _fits_together(self) -> Reweighting:
        if self.reference is None and (self.signal == "excess" or self.method in NEEDS_REFERENCE):
            what = "signal excess" if self.signal == "excess" else f"method {self.method}"
            raise ValueError(f"{what} needs `reference`: a loss for each domain")
        if self.smallest > self.largest:
            raise ValueError(f"smallest {self.smallest:g} is above largest {self.largest:g}")
        return self
