"""Stages over training progress, and what the epoch caps leave of them.

A stage is a pair ``(until, shares)``: up to progress ``until`` (rows or tokens drawn, over all that will be drawn) the
domains are drawn in ``shares``, float64[K], which sum to 1. A mixture without a schedule is one stage that ends at 1,
so that a sampler needs one path only. All functions are pure, know no names and draw nothing.

Epoch caps are about a whole run, so stages share them. The shares that are nearest to the wanted ones (smallest mean
Kullback-Leibler divergence) and keep every cap are

    x[s, i] = w[s, i] · f[i] / Σ_j w[s, j] · f[j]          0 < f[i] ≤ 1, f[i] = 1 where the cap does not bind:

a domain that is capped is drawn less in every stage, in one proportion, unless a stage has nothing else to draw. With
one stage this is water filling (`policies.capped_shares`). The factors come from iterative proportional fitting
(Sinkhorn's algorithm); whether any shares keep the caps is decided by a maximum flow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from dataeng.errors import ConfigError
from dataeng.formats.mixture import MixtureManifest
from dataeng.mixture.policies import Floats, capped_shares

Stage = tuple[float, Floats]
MAX_ITERATIONS = 2_000
CAP_TOLERANCE = 1e-12  # of the budget: rounding, not repetition
FLOW_TOLERANCE = 1e-9  # of the budget: caps that fall short by less are met


def stages_of(manifest: MixtureManifest) -> list[Stage]:
    """Returns the stages of a manifest as ``(until, weights)``, weights in the order of ``manifest.domains``.

    Without a schedule that is one stage, ``(1.0, weights)``, with the domains' own weights.
    """
    if not manifest.schedule:
        return [(1.0, np.array([domain.weight for domain in manifest.domains.values()], np.float64))]
    return [
        (stage.until, np.array([stage.weights[name] for name in manifest.domains], np.float64))
        for stage in manifest.schedule
    ]


def stage_lengths(stages: Sequence[Stage]) -> Floats:
    """Returns each stage's part of the whole run, float64[S]; they sum to 1."""
    return np.diff([0.0, *(until for until, _ in stages)])


def mean_shares(stages: Sequence[Stage]) -> Floats:
    """Returns the domains' shares of the whole run, float64[K]."""
    return np.asarray(stage_lengths(stages) @ np.stack([shares for _, shares in stages]))


def rescaled_stages(stages: Sequence[Stage], learned: Floats) -> list[Stage]:
    """Returns the stages with every domain's share multiplied by what was learned over its mean share, then scaled.

    What training learned about a domain so holds in every stage, and a stage still draws only what it drew before. The
    new means are near ``learned`` and not it: a domain of one short stage cannot get more than that stage has.
    """
    factors = learned / mean_shares(stages)
    return [(until, shares * factors / float(shares @ factors)) for until, shares in stages]


def stage_ends(stages: Sequence[Stage], total: int) -> list[int]:
    """Returns after how many of ``total`` rows (or tokens) each stage ends; the last one is ``total``."""
    return [round(until * total) for until, _ in stages]


def planned_stages(
    stages: Sequence[Stage], capacities: Floats, budget: float, stage_names: Sequence[str] = ()
) -> list[Stage]:
    """Returns the stages with the shares nearest to theirs that draw at most ``capacities`` from each domain.

    ``capacities`` float64[K] and ``budget`` are in one unit (tokens or rows) and about the whole run; ∞ is no cap.

    Raises `ConfigError` when no shares can keep the caps; it says which stages ask for more than their domains allow.
    """
    if len(stages) == 1:
        until, shares = stages[0]
        return [(until, capped_shares(shares, capacities, budget))]
    lengths = stage_lengths(stages)
    wanted = np.stack([shares for _, shares in stages])  # S × K
    limits = np.minimum(capacities / budget, 1.0)  # in parts of the budget; nobody draws more than all of it
    if (lengths @ wanted <= limits).all():
        return list(stages)
    fitted = _fitted_shares(lengths, wanted, limits)
    draws = _draws_within(lengths, fitted, wanted > 0, limits, budget, stage_names)
    return [(until, row / row.sum()) for (until, _), row in zip(stages, draws, strict=True)]


def _fitted_shares(lengths: Floats, wanted: Floats, limits: Floats) -> Floats:
    """Returns x[s, i] = w[s, i]·f[i] / Z[s], float64[S, K], by iterative proportional fitting."""
    factors = np.ones(wanted.shape[1])
    shares = wanted
    for _ in range(MAX_ITERATIONS):
        scaled = wanted * factors
        sums = scaled.sum(axis=1, keepdims=True)
        shares = scaled / np.maximum(sums, 1e-300)
        drawn = lengths @ shares
        # A factor may rise again, when others that fell have given the domain too much room, but never above 1.
        updated = np.minimum(1.0, factors * np.divide(limits, drawn, out=np.ones_like(drawn), where=drawn > 0))
        if np.abs(updated - factors).max() <= CAP_TOLERANCE:
            break
        factors = np.maximum(updated, 1e-200)
    return np.asarray(shares)


def _draws_within(
    lengths: Floats,
    fitted: Floats,
    allowed: npt.NDArray[np.bool_],
    limits: Floats,
    budget: float,
    stage_names: Sequence[str],
) -> Floats:
    """Returns draws that keep the caps, float64[S, K] in parts of the budget; raises `ConfigError` if there are none.

    Fitting ends a little outside the caps where they leave hardly a choice, and far outside where they leave none. What
    is over is cut off, and the stages get it back from other domains by a maximum flow (shortest augmenting paths) from
    stages to the domains that they draw from. Stages that still miss something at its end cannot be met.
    """
    flow = lengths[:, None] * fitted
    flow *= np.minimum(1.0, limits / np.maximum(flow.sum(axis=0), 1e-300))
    supply, room = np.maximum(lengths - flow.sum(axis=1), 0.0), np.maximum(limits - flow.sum(axis=0), 0.0)
    while True:
        path, reached = _augmenting_path(flow, allowed, supply, room)
        if path is None:
            break
        stage, domain = path[0][0], path[-1][1]
        forward, backward = path, [(later[0], earlier[1]) for earlier, later in pairwise(path)]
        amount = min([supply[stage], room[domain], *(flow[edge] for edge in backward)])
        for edge in forward:
            flow[edge] += amount
        for edge in backward:
            flow[edge] -= amount
        supply[stage] -= amount
        room[domain] -= amount
    if supply.sum() > FLOW_TOLERANCE:
        names = [stage_names[s] if stage_names else str(s + 1) for s in reached]
        domains = allowed[reached].any(axis=0)
        which = f"stage '{names[0]}' draws" if len(names) == 1 else f"the stages {', '.join(names)} draw"
        raise ConfigError(
            f"{which} {lengths[reached].sum() * budget:,.0f} in all, but the epoch caps of the domains drawn there "
            f"allow {limits[domains].sum() * budget:,.0f}. Raise the caps, shorten the stage, or give it other domains."
        )
    return flow


def _augmenting_path(
    flow: Floats, allowed: npt.NDArray[np.bool_], supply: Floats, room: Floats
) -> tuple[list[tuple[int, int]] | None, list[int]]:
    """Returns the shortest path on which more can be drawn, as its forward edges, and the stages that were reached."""
    starts = np.flatnonzero(supply > FLOW_TOLERANCE / len(supply)).tolist()
    came_from: dict[int, int | None] = dict.fromkeys(starts)  # stage → domain
    entered: dict[int, int] = {}  # domain → stage
    queue = deque(starts)
    while queue:
        stage = queue.popleft()
        for domain in np.flatnonzero(allowed[stage]).tolist():
            if domain in entered:
                continue
            entered[domain] = stage
            if room[domain] > CAP_TOLERANCE:
                path: list[tuple[int, int]] = []
                at: int | None = domain
                while at is not None:
                    path.append((entered[at], at))
                    at = came_from[entered[at]]
                return path[::-1], []
            for other in np.flatnonzero(flow[:, domain] > CAP_TOLERANCE).tolist():
                if other not in came_from:
                    came_from[other] = domain
                    queue.append(other)
    return None, sorted(came_from)
