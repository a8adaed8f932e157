"""The controller: from the summed losses of every step to the weights that hold in it.

    update(loss sums, token counts) → averages → signal → method → floors, caps, trust region → weights

The controller sees plain sums, so that it can be run again from recorded metrics (`dataeng.mixture.replay`); the
trainer treats the weights as constants. Weights equal to the shares mean that every token counts the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dataeng.errors import ConfigError, FormatError
from dataeng.formats.reweighting import NEEDS_REFERENCE, Reweighting
from dataeng.mixture.bounds import SMALLEST, nearest_within
from dataeng.mixture.methods import METHODS, Evidence

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

LARGEST_EXPONENT = 700.0  # a trust region beyond it is none


class Controller:
    """Averages per-domain losses over steps and turns them into weights on the domains' losses.

    ``shares`` are the planned sampling shares q, the prior. They are the weights wherever losses have no say: method
    ``none``, the warm-up steps, domains that are not ``reweighted`` and those that have not been seen yet (which keep
    their share while the others divide the rest). When a stage of the schedule begins, assign its shares to `shares`.

    Args:
      reweighting: method and constants.
      shares: float64 [K], summing to 1.
      names: of the domains; needed with ``reweighting.reference``.
      reweighted: bool [K]; False where losses never move the weight. Default: True everywhere.
      bytes_per_token: float64 [K]; needed for the signal ``bits-per-byte``.
    """

    def __init__(
        self,
        reweighting: Reweighting,
        shares: Floats,
        *,
        names: Sequence[str] | None = None,
        reweighted: Bools | None = None,
        bytes_per_token: Floats | None = None,
    ) -> None:
        num_domains = len(shares)
        self.reweighting = reweighting
        self.shares = np.asarray(shares, np.float64)
        self.reweighted = np.ones(num_domains, bool) if reweighted is None else np.asarray(reweighted, bool)
        self.reference = _reference(reweighting.reference, names, self.reweighted)
        if reweighting.signal == "bits-per-byte" and bytes_per_token is None:
            raise ConfigError("signal bits-per-byte needs the bytes per token of every domain.")
        if reweighting.signal == "bits-per-byte" and not (np.asarray(bytes_per_token) > 0).all():
            raise ConfigError("signal bits-per-byte: the packs of a domain stand for no bytes of text.")
        if reweighting.smallest * num_domains >= 1:
            raise ConfigError(
                f"smallest is {reweighting.smallest:g}: {num_domains} domains with at least that much are 1 or more."
            )
        if reweighting.largest * num_domains < 1:
            raise ConfigError(
                f"largest is {reweighting.largest:g}: {num_domains} domains with at most that much are below 1."
            )
        self.bytes_per_token = np.ones(num_domains) if bytes_per_token is None else bytes_per_token
        self.method = None if reweighting.method == "none" else METHODS[reweighting.method](reweighting, num_domains)
        self.loss_sums = np.zeros(num_domains)  # nats, averaged over steps with `ema`
        self.token_counts = np.zeros(num_domains)  # likewise
        self.square_sums = np.zeros(num_domains)  # likewise, of squared token losses
        self.squared_counts = np.zeros(
            num_domains
        )  # tokens, each counted by the square of what it counts in the others
        self.new_tokens = np.zeros(num_domains)  # since the last update of the weights
        self.ages = np.zeros(num_domains, np.int64)  # steps since a domain was seen
        self.start_losses = np.full(num_domains, np.nan)  # what signal `relative` divides by
        self.num_steps = self.num_updates = 0
        self.current: Floats | None = None  # the last update's weights: 0 where losses had no say, the others sum to 1
        self.weighted = np.zeros(num_domains, bool)  # where they had
        self.weight_sums = np.zeros(num_domains)  # over the steps in which losses had their say
        self.num_weighted_steps = 0

    @property
    def weights(self) -> Floats:
        """The weights that hold now: those of the last step, or the shares before the first."""
        weights = self.shares.copy()
        if self.current is None:
            return weights
        here = self.weighted & (self.shares > 0)  # a stage may not draw all domains
        if here.any():
            weights[here] = self.shares[here].sum() * self.current[here] / max(self.current[here].sum(), 1e-300)
        return weights

    def update(
        self, loss_sums: Floats, token_counts: Floats, square_sums: Floats | None = None, frozen: bool = False
    ) -> Floats:
        """Takes one step's sums per domain; returns the weights to apply, which sum to 1.

        Args:
          loss_sums: float64 [K], summed cross-entropy in nats.
          token_counts: float64 [K]. A domain without tokens keeps what is known of it.
          square_sums: float64 [K], summed squares of the tokens' losses; needed for standard errors only.
          frozen: the losses are taken in, the weights stay (``freeze_in_decay`` is the caller's to ask for).

        Raises `ValueError` for sums that are not finite, and takes nothing in: one of them would stay in every average.
        """
        for sums in (loss_sums, token_counts, square_sums):
            if sums is not None and not np.isfinite(sums).all():
                raise ValueError(f"sums of step {self.num_steps + 1} are not finite: {sums.tolist()}")
        is_due = self.is_due(frozen)
        self._take_in(loss_sums, token_counts, square_sums)
        if self.method is None or self.num_steps <= self.reweighting.warmup_steps:
            return self.shares.copy()
        if is_due:
            self._update_weights()
        weights = self.weights
        self.weight_sums += weights
        self.num_weighted_steps += 1
        return weights

    def is_due(self, frozen: bool = False) -> bool:
        """Whether the next `update` may move the weights; otherwise those that hold now will hold after it, too."""
        done = self.num_steps - self.reweighting.warmup_steps  # steps since the warm-up
        if self.method is None or done < 0 or frozen:
            return False
        return done % self.reweighting.interval == 0 or self.current is None

    def _take_in(self, loss_sums: Floats, token_counts: Floats, square_sums: Floats | None) -> None:
        ema, seen = self.reweighting.ema, token_counts > 0
        for total, new in (
            (self.loss_sums, loss_sums),
            (self.token_counts, token_counts),
            (self.square_sums, np.zeros(len(seen)) if square_sums is None else square_sums),
        ):
            total[seen] = ema * total[seen] + new[seen]
        self.squared_counts[seen] = ema**2 * self.squared_counts[seen] + token_counts[seen]
        self.new_tokens += token_counts
        self.ages = np.where(seen, 0, self.ages + 1)
        self.num_steps += 1
        # The start is what a domain's loss was when the warm-up ended, or when it was first seen after that.
        unset = np.isnan(self.start_losses) | (self.num_steps <= self.reweighting.warmup_steps)
        self.start_losses = np.where(unset & (self.token_counts > 0), self.mean_losses(), self.start_losses)

    def mean_losses(self) -> Floats:
        """Returns the averaged losses, nats per token, float64 [K]; NaN for domains that were never seen."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.loss_sums / self.token_counts)

    def standard_errors(self) -> Floats:
        """Returns the standard errors of `mean_losses`, from the tokens' variance; NaN where nothing is known.

        With the tokens' weights u it is σ √Σu² / Σu. Tokens of one document are alike: these are lower bounds.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            variances = self.square_sums / self.token_counts - self.mean_losses() ** 2
            return np.asarray(np.sqrt(np.maximum(variances, 0) * self.squared_counts) / self.token_counts)

    def _update_weights(self) -> None:
        """Asks the method for weights over the domains that are drawn, reweighted and known."""
        reweighting, known = self.reweighting, self.reweighted & (self.token_counts > 0) & (self.shares > 0)
        if not known.any() or self.method is None:
            return
        self.num_updates += 1
        prior = np.where(known, self.shares, 0.0) / self.shares[known].sum()
        new = self.new_tokens * known
        weights = self.method.weights(
            Evidence(
                known=known,
                signal=np.where(known, self._signal(), 0.0),
                losses=np.where(known, self.mean_losses(), 0.0),
                prior=prior,
                seen=new > 0,
                token_shares=new / max(new.sum(), 1.0),
                update=self.num_updates,
                r=self._r(),
                floor=max(reweighting.floor, self._noise(known)),
            )
        )
        self.new_tokens = np.zeros(len(known))
        self.current, self.weighted = self._bounded(weights, prior, known), known

    def _signal(self) -> Floats:
        losses = self.mean_losses()
        if self.reweighting.signal == "excess" or self.reweighting.method in NEEDS_REFERENCE:
            return np.asarray(losses - self.reference)
        return self._in_unit(losses)

    def _in_unit(self, nats: Floats) -> Floats:
        """Returns losses, or differences of losses, in the unit of the signal."""
        if self.reweighting.signal == "relative":
            return np.asarray(nats / np.maximum(self.start_losses, SMALLEST))
        if self.reweighting.signal == "bits-per-byte":
            return np.asarray(nats / math.log(2) / self.bytes_per_token)
        return nats

    def _noise(self, known: Bools) -> float:
        """Returns the least range of the signal that is more than noise."""
        if self.reweighting.noise_floor == 0:
            return 0.0
        errors = self._in_unit(self.standard_errors())
        return self.reweighting.noise_floor * float(np.nan_to_num(errors[known]).max())

    def _r(self) -> float:
        """Returns the softmax temperature of this step."""
        reweighting = self.reweighting
        if reweighting.r_start is None:
            return reweighting.r
        done = (self.num_steps - reweighting.warmup_steps - 1) / max(reweighting.anneal_steps, 1)
        return float(reweighting.r_start * (reweighting.r / reweighting.r_start) ** min(1.0, done))

    def _bounded(self, weights: Floats, prior: Floats, known: Bools) -> Floats:
        """Returns the weights nearest to these that keep floor, cap and trust region; stale domains first.

        Floor and cap are about weights among all domains, of which the known ones have a part to divide. Where it is
        too small for so many floors (too large for so many caps), all get the same. They hold also where they leave
        the trust region no room, as in the first update from shares outside them.
        """
        reweighting = self.reweighting
        if reweighting.stale_steps is not None:
            trust = 0.5 ** (self.ages / reweighting.stale_steps)
            weights = trust * weights + (1 - trust) * prior
            weights = np.where(known, weights, 0.0) / weights[known].sum()
        count, part = int(known.sum()), float(self.shares[known].sum())
        low = np.full(count, min(reweighting.smallest / part, 1 / count))
        high = np.full(count, 1.0 if reweighting.largest == 1 else max(reweighting.largest / part, 1 / count))
        if reweighting.trust_region is not None:
            before = prior if self.current is None else np.where(self.weighted, self.current, prior)
            before = nearest_within(before[known] / before[known].sum(), low, high)
            before = np.maximum(before, SMALLEST)
            low = np.maximum(low, before * math.exp(-reweighting.trust_region))
            high = np.minimum(high, before * math.exp(min(reweighting.trust_region, LARGEST_EXPONENT)))
        bounded = np.zeros(len(known))
        bounded[known] = nearest_within(weights[known], low, high)
        return bounded

    def learned_weights(self) -> Floats:
        """Returns the mean of the applied weights over steps (as DoReMi does, arXiv 2305.10429); shares if none."""
        return self.weight_sums / self.num_weighted_steps if self.num_weighted_steps else self.shares.copy()

    def state(self) -> dict[str, Any]:
        """Returns everything that `update` depends on, as JSON values (floats survive JSON exactly)."""
        return {
            "loss_sums": self.loss_sums.tolist(),
            "token_counts": self.token_counts.tolist(),
            "square_sums": self.square_sums.tolist(),
            "squared_counts": self.squared_counts.tolist(),
            "new_tokens": self.new_tokens.tolist(),
            "ages": self.ages.tolist(),
            "start_losses": [None if math.isnan(loss) else loss for loss in self.start_losses.tolist()],
            "shares": self.shares.tolist(),
            "current": None if self.current is None else self.current.tolist(),
            "weighted": self.weighted.tolist(),
            "num_steps": self.num_steps,
            "num_updates": self.num_updates,
            "weight_sums": self.weight_sums.tolist(),
            "num_weighted_steps": self.num_weighted_steps,
            "method": None if self.method is None else self.method.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores `state`; raises `FormatError` when it is of another number of domains."""
        for name in ("loss_sums", "token_counts", "square_sums", "new_tokens", "shares", "weight_sums"):
            values = np.array(state[name], np.float64)
            if len(values) != len(self.shares):
                raise FormatError(f"controller state has {len(values)} domains, expected {len(self.shares)}.")
            setattr(self, name, values)
        self.squared_counts = np.array(
            state.get("squared_counts", state["token_counts"]), np.float64
        )  # not in older ones
        self.ages = np.array(state["ages"], np.int64)
        self.start_losses = np.array([math.nan if loss is None else loss for loss in state["start_losses"]])
        self.current = None if state["current"] is None else np.array(state["current"], np.float64)
        self.weighted = np.array(state["weighted"], bool)
        for name in ("num_steps", "num_updates", "num_weighted_steps"):
            setattr(self, name, int(state[name]))
        if self.method is not None:
            self.method.load_state(state["method"])


def _reference(reference: Mapping[str, float] | None, names: Sequence[str] | None, reweighted: Bools) -> Floats:
    """Returns the reference losses in the order of the domains; NaN for domains that are not reweighted."""
    values = np.full(len(reweighted), np.nan)
    if reference is None:
        return values
    if names is None:
        raise ConfigError("reference losses are given by domain; the controller needs the domains' names.")
    for i, name in enumerate(names):
        if reweighted[i] and name not in reference:
            raise ConfigError(f"no reference loss for domain '{name}' (there are: {', '.join(sorted(reference))}).")
        values[i] = reference.get(name, math.nan)
    return values
