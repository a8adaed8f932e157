"""From per-domain losses to target weights: the published methods, each a few lines over plain arrays.

A method sees `Evidence` about the domains that it may weight and returns weights that sum to 1 over them. What all
methods share (averaging, warm-up, floors, trust region, stale domains) is done around them, by
`dataeng.mixture.reweighting.Controller`. Where a paper and its code differ, the code is followed.

=============  ==========================================================================================
sow-…          Sow et al., arXiv 2502.06733, with domains for samples: h in [-1, 1], softmax(f(h) / r)
doremi         Xie et al., arXiv 2305.10429: log w += η · excess loss, smoothed by 0.001
sheared        Xia et al., arXiv 2310.06694: log w += η · (loss - target), smoothed by 0.0001
odm            Albalak et al., arXiv 2312.02406, as its code: shares linear in an average of exp(loss)
ado            Jiang et al., arXiv 2410.11820: fitted scaling laws; see `AdaptiveDataOptimization`
=============  ==========================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dataeng.formats.reweighting import Reweighting
from dataeng.mixture.power_law import PowerLaw, fit_power_law

#: A softmax temperature below this is as good as 0, and would make infinities of the scaled losses.
SMALLEST_R = 1e-300

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Evidence:
    """What is known when weights are computed; all arrays have an entry for each of the K domains.

    ``known`` marks the domains to weight: reweighted ones that have been seen. ``signal`` is what is compared,
    ``losses`` the averaged losses in nats per token, ``prior`` sums to 1 over the known ones, ``seen`` are those with
    tokens since the last update, ``token_shares`` their shares of these tokens; ``update`` counts updates from 1.
    """

    known: Bools
    signal: Floats
    losses: Floats
    prior: Floats
    seen: Bools
    token_shares: Floats
    update: int
    r: float
    floor: float


class Method(Protocol):
    """Turns evidence into weights that sum to 1 over ``evidence.known`` and are 0 elsewhere."""

    def weights(self, evidence: Evidence) -> Floats: ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


def softmax(values: Floats) -> Floats:
    """Returns exp(values) / Σ exp(values), without overflow."""
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())


def scale_losses(losses: Floats, floor: float) -> Floats:
    """Returns h in [-1, 1]: the smallest loss maps to -1, the largest to 1. Equal losses map to 0."""
    low, high = float(losses.min()), float(losses.max())
    return np.asarray((2 * losses - high - low) / max(high - low, floor))


#: f(h) of Sow et al., with their δ = 1.
SHAPES: dict[str, Callable[[Floats], Floats]] = {
    "sow-identity": lambda h: h,
    "sow-linupper": lambda h: np.minimum(h + 1, 1),
    "sow-quadratic": lambda h: 1 - h**2,
    "sow-extremes": np.abs,
}


class LossScaling:
    """Sow et al.: w ∝ prior · exp(f(h) / r). r sets the spread, whatever the losses are: e^(2/r) for the identity."""

    def __init__(self, reweighting: Reweighting, num_domains: int) -> None:
        self.shape = SHAPES[reweighting.method]
        self.use_prior = reweighting.prior == "shares"

    def weights(self, evidence: Evidence) -> Floats:
        known = evidence.known
        values = self.shape(scale_losses(evidence.signal[known], evidence.floor)) / max(evidence.r, SMALLEST_R)
        if self.use_prior:
            with np.errstate(divide="ignore"):  # a domain that is not drawn stays at 0
                values = values + np.log(evidence.prior[known])
        return _spread(known, softmax(values))

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


class Multiplicative:
    """DoReMi and Sheared LLaMA: exponentiated gradient ascent on the distance to given losses.

    DoReMi clips the excess at 0 for each token; per-domain sums do not tell tokens apart, so that here the domain's
    mean is clipped. The weights that DoReMi reports are the average over updates: `Controller.learned_weights`.
    """

    def __init__(self, reweighting: Reweighting, num_domains: int) -> None:
        self.eta = reweighting.eta
        self.clip, self.smoothing = (True, 1e-3) if reweighting.method == "doremi" else (False, 1e-4)
        self.use_prior = reweighting.prior == "shares"
        self.logits = np.full(num_domains, np.nan)  # NaN: not yet weighted

    def weights(self, evidence: Evidence) -> Floats:
        known, prior = evidence.known, evidence.prior
        fresh = known & np.isnan(self.logits)
        if fresh.any():
            start = prior if self.use_prior else known / known.sum()
            self.logits[fresh] = np.log(np.maximum(start[fresh], 1e-12))
        distance = np.maximum(evidence.signal, 0) if self.clip else evidence.signal
        self.logits[known] += self.eta * distance[known]
        weights = softmax(self.logits[known])
        weights = (1 - self.smoothing) * weights + self.smoothing / len(weights)
        self.logits[known] = np.log(weights)
        return _spread(known, weights)

    def state(self) -> dict[str, Any]:
        return {"logits": [None if math.isnan(value) else value for value in self.logits.tolist()]}

    def load_state(self, state: dict[str, Any]) -> None:
        self.logits = np.array([math.nan if value is None else value for value in state["logits"]])


class OnlineDataMixing:
    """ODM, as its code does it: R ← 0.9 R + 0.1 exp(loss) for observed domains, w = (1 - K ε) R / Σ R + ε.

    ε = min(1/K, √(ln K / (K t))) is the exploration after t updates. The paper has EXP3's exponential weights; the code
    is linear in an average of perplexities.
    """

    DECAY = 0.9

    def __init__(self, reweighting: Reweighting, num_domains: int) -> None:
        self.rewards = np.zeros(num_domains)

    def weights(self, evidence: Evidence) -> Floats:
        known = evidence.known
        count = int(known.sum())
        observed = known & evidence.seen
        # Losses beyond 50 nats are a broken run; without a limit their powers would be infinite.
        powers = np.exp(np.minimum(evidence.signal, 50.0))
        first = observed & (self.rewards == 0)
        self.rewards[observed] = self.DECAY * self.rewards[observed] + (1 - self.DECAY) * powers[observed]
        self.rewards[first] = powers[first]
        rewards = np.where(self.rewards[known] > 0, self.rewards[known], powers[known])
        explore = min(1 / count, math.sqrt(math.log(count) / (count * evidence.update)))
        return _spread(known, (1 - count * explore) * rewards / rewards.sum() + explore)

    def state(self) -> dict[str, Any]:
        return {"rewards": self.rewards.tolist()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.rewards = np.array(state["rewards"], np.float64)


class AdaptiveDataOptimization:
    """ADO: draws more where a fitted law ε + β n^-α says that loss falls fastest, tempered by what was drawn lately.

    With L̂ the fitted curve at the present n (updates so far, the same for all domains), μ the prior, and h the
    recent shares of tokens: ρ ∝ μ √h max(α, 0.05) (L̂ - ε), at least 0.01 (of more than 50 domains: half of an even
    share, since a hundred times 0.01 leaves nothing to prefer with); w = 0.1 ρ + 0.9 × the mean of all ρ so far.
    Laws are fitted again after every ``reweighting.refit_steps`` updates (the paper's code: 1,000) to averaged losses,
    `RECORDS` of them from one fit to the next; before the first fit the prior holds. The paper smooths losses by a
    Savitzky-Golay filter; here ``reweighting.ema`` does it.
    """

    RECORDS, FLOOR = 100, 0.01

    def __init__(self, reweighting: Reweighting, num_domains: int) -> None:
        self.refit = reweighting.refit_steps
        self.record = max(1, self.refit // self.RECORDS)
        self.history: list[list[float]] = [[] for _ in range(num_domains)]  # n, loss, n, loss …
        self.laws: list[PowerLaw | None] = [None] * num_domains
        self.drawn = np.zeros(num_domains)
        self.mean = np.zeros(num_domains)
        self.num_means = 0

    def weights(self, evidence: Evidence) -> Floats:
        known, n = evidence.known, evidence.update
        self.drawn = evidence.prior.copy() if n == 1 else 0.9 * self.drawn + 0.1 * evidence.token_shares
        if n % self.record == 0:
            for i in np.flatnonzero(known):
                self.history[i] += [float(n), float(evidence.losses[i])]
        if n % self.refit == 0:
            self.laws = [fit_power_law(np.array(h[::2]), np.array(h[1::2])) for h in self.history]
        slopes = np.zeros(len(known))
        for i in np.flatnonzero(known):
            law = self.laws[i]
            if law is None:
                return _spread(known, evidence.prior[known] / evidence.prior[known].sum())
            slopes[i] = max(law.exponent, 0.05) * law.scale * n**-law.exponent
        preference = (evidence.prior * np.sqrt(self.drawn) * slopes)[known]
        total = preference.sum()
        preference = preference / total if total > 0 else np.full(len(preference), 1 / len(preference))
        floor = min(self.FLOOR, 0.5 / len(preference))
        rho = _spread(known, (1 - len(preference) * floor) * preference + floor)
        self.num_means += 1
        self.mean += (rho - self.mean) / self.num_means
        blended = (0.1 * rho + 0.9 * self.mean)[known]
        return _spread(known, blended / blended.sum())

    def state(self) -> dict[str, Any]:
        return {
            "history": [list(h) for h in self.history],
            "laws": [None if law is None else list(law) for law in self.laws],
            "drawn": self.drawn.tolist(),
            "mean": self.mean.tolist(),
            "num_means": self.num_means,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.history = [list(map(float, h)) for h in state["history"]]
        self.laws = [None if law is None else PowerLaw(*law) for law in state["laws"]]
        self.drawn, self.mean = np.array(state["drawn"], np.float64), np.array(state["mean"], np.float64)
        self.num_means = int(state["num_means"])


def _spread(known: Bools, values: Floats) -> Floats:
    """Returns ``values`` at the known domains, 0 elsewhere."""
    weights = np.zeros(len(known))
    weights[known] = values
    return weights


METHODS: dict[str, Callable[[Reweighting, int], Method]] = {
    **dict.fromkeys(SHAPES, LossScaling),
    "doremi": Multiplicative,
    "sheared": Multiplicative,
    "odm": OnlineDataMixing,
    "ado": AdaptiveDataOptimization,
}
