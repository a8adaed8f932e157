"""How often a domain is met: in which part of the steps its loss can be known, said before a run begins.

Were B rows of a step drawn at random, a domain of share q would be in 1 - (1 - q)^B of the steps. Rows are planned by
the largest deficit instead, which spaces a domain's rows evenly, about 1 / q rows apart: it is in every step as soon as
q B is 1, and in about q B of them below.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dataeng.formats.reweighting import Reweighting
from trainer.data.sampler import SampledStage

#: A domain that is in fewer steps than this is named at the start.
ENOUGH = 0.95
#: Beyond so many epochs repeated tokens lose their worth (Muennighoff et al., arXiv 2305.16264).
MANY_EPOCHS = 4.0
MAX_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Presence:
    """One domain: ``share`` of rows where it is smallest but above 0, and the parts of steps that it is in."""

    domain: str
    share: float
    random: float
    """Were rows drawn at random: 1 - (1 - q)^B."""
    planned: float
    """As rows are planned: min(1, q B)."""

    @property
    def steps_between(self) -> int:
        """About how many steps lie between two that have a row of it, ⌈1 / (q B)⌉; 1: it is in every step."""
        return math.ceil(1 / self.planned - 1e-9)

    @property
    def is_rare(self) -> bool:
        """Whether it is missing from too many steps."""
        return self.planned < ENOUGH


def presences(names: Sequence[str], stage_shares: Sequence[npt.NDArray[np.float64]], batch_size: int) -> list[Presence]:
    """Returns the presence of every domain that has rows; ``stage_shares`` holds the shares of rows of every stage."""
    found = []
    for number, name in enumerate(names):
        shares = [float(stage[number]) for stage in stage_shares if stage[number] > 0]
        if shares:
            share = min(shares)
            random = -math.expm1(batch_size * math.log1p(-share)) if share < 1 else 1.0
            found.append(Presence(domain=name, share=share, random=random, planned=min(1.0, share * batch_size)))
    return found


def presence_warning(found: Sequence[Presence], batch_size: int, reweighting: Reweighting) -> str | None:
    """Returns one line that names the domains that steps often have no row of, and what helps; None without any."""
    rare = sorted((presence for presence in found if presence.is_rare), key=lambda presence: presence.share)
    if not rare:
        return None
    named = ", ".join(
        f"{p.domain} in 1 of {p.steps_between} (drawn at random: {p.random:.0%})" for p in rare[:MAX_NAMED]
    )
    more = f", and {len(rare) - MAX_NAMED} more" if len(rare) > MAX_NAMED else ""
    enough = math.ceil(1 / rare[0].share - 1e-9)
    line = (
        f"note: with {batch_size:,} rows a step, some domains are not in every step, and their losses are not known in "
        f"between: {named}{more}. --batch-size {enough:,} would put them into every step"
    )
    if reweighting.method == "none":
        return f"{line}."
    if reweighting.ema > 0:
        return f"{line}; as it is, weights go by averages over steps (ema {reweighting.ema:g})."
    return f"{line}; with `ema` in the manifest's reweighting, weights would rest on more than the last row."


def repetition_warning(
    names: Sequence[str], stages: Sequence[SampledStage], num_rows: Sequence[int], total_rows: int
) -> str | None:
    """Returns one line that names the domains that a run of ``total_rows`` repeats too often; None without any.

    ``num_rows`` is what the domains have.
    """
    ends = [total_rows if stage.until_row is None else stage.until_row for stage in stages]
    lengths = np.diff([0, *ends])
    drawn = lengths @ np.array([stage.shares for stage in stages])
    epochs = dict(zip(names, (drawn / np.array(num_rows)).tolist(), strict=True))
    many = sorted((name for name in names if epochs[name] > MANY_EPOCHS + 0.05), key=lambda name: -epochs[name])
    if not many:
        return None
    named = ", ".join(f"{name} {epochs[name]:.1f} times" for name in many[:MAX_NAMED])
    more = f", and {len(many) - MAX_NAMED} more" if len(many) > MAX_NAMED else ""
    return (
        f"note: this run reads {named}{more}; beyond {MANY_EPOCHS:g} repeated tokens help little. Train fewer steps, "
        "change the mixture, or cap epochs (dataeng mix --max-epochs)."
    )
