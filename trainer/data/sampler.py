"""Which row of which domain comes next: a pure function of (seed, shares so far, how many rows came before).

The domain of a row is the one that is furthest behind its share (largest deficit, as Megatron-LM's
``build_blending_indices``), so that after any number of rows every domain has had its share to within about a row. A
domain that reaches its epoch cap leaves its share to the others in proportion to theirs. Within a domain, every epoch
is another permutation (see `dataeng.mixture.permutation`), or the same order where a curriculum wants it. Shares may
change, at a stage's end or at any time (`MixtureSampler.set_shares`): each domain goes on where it was, so that
nothing repeats before everything was read.

Rows are planned for the whole of all ranks, and then cut (`rank_part`); how many ranks there are changes nothing. The
state is one count and one deficit per domain, so that going on from it costs the same anywhere in a run.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from dataeng.errors import FormatError
from dataeng.mixture.blending import blend
from dataeng.mixture.permutation import permutation_key, permute

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SampledDomain:
    """A domain as the sampler sees it."""

    name: str
    num_rows: int  # in one epoch
    max_rows: int | None = None  # where its epoch cap stops it
    shuffled: bool = True  # False: every epoch in the rows' own order


@dataclass(frozen=True, kw_only=True)
class SampledStage:
    """Shares of rows, one per domain, that hold until so many rows were planned; None: to the end.

    ``max_rows`` are the rows that each domain may have given when the stage ends, negative for any number: its cap less
    what later stages have planned with. Rounding, or shares that were set, would otherwise use up in one stage what
    alone fills another. None: the domains' own caps.
    """

    until_row: int | None = None
    shares: tuple[float, ...]
    max_rows: tuple[int, ...] | None = None


def rank_part(count: int, rank: int, num_ranks: int) -> slice:
    """Returns which of ``count`` planned rows a rank takes: neighbours, as evenly as can be, all of them once."""
    return slice(count * rank // num_ranks, count * (rank + 1) // num_ranks)


class MixtureSampler:
    """Plans rows. ``stages`` follow one another; the last one has no end."""

    def __init__(self, domains: Sequence[SampledDomain], stages: Sequence[SampledStage], seed: int) -> None:
        self.domains, self.stages, self.seed = list(domains), list(stages), seed
        self.num_planned = 0
        self.drawn = np.zeros(len(self.domains), np.int64)  # rows of each domain so far
        self.deficits = np.zeros(len(self.domains))  # share · rows planned - rows drawn
        self._set: tuple[int, list[float]] | None = None  # stage in which other shares were set, and those
        self._caps = np.array([-1 if d.max_rows is None else d.max_rows for d in self.domains], np.int64)

    def clone(self) -> MixtureSampler:
        """Returns a sampler that goes on from here on its own."""
        other = copy.copy(self)
        other.drawn, other.deficits = self.drawn.copy(), self.deficits.copy()
        return other

    @property
    def stage(self) -> int:
        """Number of the stage that the next row is of."""
        return self.stage_at(self.num_planned)

    def stage_at(self, row: int) -> int:
        """Returns the number of the stage that a row is of, rows counted from 0."""
        for i, stage in enumerate(self.stages):
            if stage.until_row is None or row < stage.until_row:
                return i
        return len(self.stages) - 1

    @property
    def shares(self) -> Floats:
        """Shares that the next row is planned with, epoch caps apart."""
        stage = self.stage
        chosen = self._set[1] if self._set is not None and self._set[0] == stage else self.stages[stage].shares
        return np.array(chosen, np.float64)

    def set_shares(self, shares: Sequence[float]) -> None:
        """Plans with other shares from the next row to the end of the present stage.

        Raises `ValueError` when they are not one a domain, none below 0 and some above.
        """
        values = np.array(shares, np.float64)
        fits = values.shape == (len(self.domains),) and np.isfinite(values).all()
        if not fits or values.min() < 0 or values.max() == 0:
            raise ValueError(f"shares {list(shares)} for {len(self.domains)} domains")
        self._set = self.stage, values.tolist()

    def take(self, count: int) -> tuple[Ints, Ints]:
        """Returns the next ``count`` rows as (domain index, row index within the domain), int64[count] each.

        Raises `FormatError` when the epoch caps have stopped every domain before.
        """
        domains, ordinals = self._planned(count)
        self._check(len(domains), count)
        return domains, self._places(domains, ordinals)

    def take_up_to(self, count: int) -> tuple[Ints, Ints]:
        """Returns as many of the next ``count`` rows as the epoch caps allow."""
        domains, ordinals = self._planned(count)
        return domains, self._places(domains, ordinals)

    def pass_over(self, count: int) -> Ints:
        """Returns the domains of the next ``count`` rows, int64[count], and goes on behind them; raises as `take`."""
        domains, _ = self._planned(count)
        self._check(len(domains), count)
        return domains

    def _planned(self, count: int) -> tuple[Ints, Ints]:
        """Returns the domains of the next rows, and each row's running number within its domain, epochs included."""
        planned: list[tuple[Ints, Ints]] = []
        while count > 0:
            stage = self.stages[self.stage]
            until = stage.until_row
            wanted = count if until is None else min(count, max(1, until - self.num_planned))
            shares, taken = self.shares, 0
            if stage.max_rows is not None:
                planned.append(blend(shares, np.array(stage.max_rows), self.drawn, self.deficits, wanted))
                taken = len(planned[-1][0])
            if taken < wanted:  # as a rule only where there are no others
                planned.append(blend(shares, self._caps, self.drawn, self.deficits, wanted - taken))
                taken += len(planned[-1][0])
            self.num_planned += taken
            count = count - taken if taken == wanted else 0
        if len(planned) == 1:
            return planned[0]
        domains, ordinals = zip(*planned, strict=True) if planned else ((), ())
        empty = np.empty(0, np.int64)
        return np.concatenate([*domains, empty]), np.concatenate([*ordinals, empty])

    def _check(self, planned: int, wanted: int) -> None:
        if planned < wanted:
            drawn = zip(self.domains, self.drawn.tolist(), strict=True)
            listed = ", ".join(f"{domain.name} {rows:,} of {_limit(domain)}" for domain, rows in drawn)
            raise FormatError(f"every domain has reached its epoch cap (rows drawn: {listed}); raise max_epochs.")

    def _places(self, domains: Ints, ordinals: Ints) -> Ints:
        """Maps a domain's running number (epochs included) to a row of the domain."""
        rows = np.empty(len(domains), np.int64)
        for index in np.flatnonzero(np.bincount(domains, minlength=1)).tolist():
            domain = self.domains[index]
            chosen = np.flatnonzero(domains == index)  # ascending, and so are their running numbers
            epochs, values = np.divmod(ordinals[chosen], domain.num_rows)
            if domain.shuffled:
                borders = [0, *(np.flatnonzero(np.diff(epochs)) + 1).tolist(), len(chosen)]
                for start, stop in pairwise(borders):
                    key = permutation_key(self.seed, domain.name, int(epochs[start]))
                    values[start:stop] = permute(values[start:stop], domain.num_rows, key)
            rows[chosen] = values
        return rows

    def epochs(self) -> list[float]:
        """Returns how often each domain has been read so far."""
        return [drawn / domain.num_rows for drawn, domain in zip(self.drawn.tolist(), self.domains, strict=True)]

    def state(self) -> dict[str, Any]:
        """Returns what `take` depends on besides the constructor's arguments, as JSON values."""
        return {
            "num_planned": self.num_planned,
            "drawn": self.drawn.tolist(),
            "deficits": self.deficits.tolist(),
            "set": None if self._set is None else {"stage": self._set[0], "shares": self._set[1]},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores `state`; raises `FormatError` when it is of another number of domains."""
        drawn, deficits = np.array(state["drawn"], np.int64), np.array(state["deficits"], np.float64)
        if len(drawn) != len(self.domains) or len(deficits) != len(self.domains):
            raise FormatError(f"sampler state has {len(drawn)} domains, expected {len(self.domains)}.")
        self.num_planned, self.drawn, self.deficits = int(state["num_planned"]), drawn, deficits
        chosen = state["set"]
        self._set = None if chosen is None else (int(chosen["stage"]), [float(share) for share in chosen["shares"]])


def _limit(domain: SampledDomain) -> str:
    return "any" if domain.max_rows is None else f"{domain.max_rows:,}"
