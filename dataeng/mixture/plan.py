"""What a token budget means for a mixture: each domain's share, tokens and epochs, over the run and in every stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataeng.errors import ConfigError
from dataeng.formats.mixture import MixtureManifest
from dataeng.mixture.policies import epochs_at_budget
from dataeng.mixture.schedule import Stage, mean_shares, planned_stages, stage_lengths, stages_of


@dataclass(frozen=True)
class MixtureRow:
    """What a token budget means for one domain."""

    domain: str
    num_documents: int
    num_tokens: int
    weight: float
    share: float  # the weight after epoch caps
    tokens_drawn: int
    epochs: float


def planned_shares(manifest: MixtureManifest, token_budget: int) -> list[Stage]:
    """Returns the stages' shares at a token budget, after epoch caps; without a schedule, one stage.

    Raises `ConfigError` when the epoch caps allow fewer tokens, naming the stage where there is a schedule.
    """
    if token_budget <= 0:
        raise ConfigError(f"the token budget is {token_budget}; expected a number above 0.")
    domains = manifest.domains.values()
    capacities = np.array([math.inf if d.max_epochs is None else d.max_epochs * d.num_tokens for d in domains])
    return planned_stages(stages_of(manifest), capacities, token_budget, [stage.name for stage in manifest.schedule])


def mixture_table(manifest: MixtureManifest, token_budget: int) -> list[MixtureRow]:
    """Returns one row per domain: what a training run of ``token_budget`` tokens will draw.

    Raises `ConfigError` when the epoch caps allow fewer tokens.
    """
    planned = planned_shares(manifest, token_budget)
    weights = [domain.weight for domain in manifest.domains.values()]
    return _rows(manifest, weights, mean_shares(planned).tolist(), token_budget)


def stage_tables(manifest: MixtureManifest, token_budget: int) -> list[tuple[str, list[MixtureRow]]]:
    """Returns, for each stage by name, one row per domain: what the stage's part of the budget will draw.

    Epochs are those within the stage. Without a schedule the list is empty.
    """
    if not manifest.schedule:
        return []
    planned = planned_shares(manifest, token_budget)
    lengths = stage_lengths(planned)
    return [
        (
            stage.name,
            _rows(
                manifest,
                [stage.weights[name] for name in manifest.domains],
                shares.tolist(),
                float(length) * token_budget,
            ),
        )
        for stage, (_, shares), length in zip(manifest.schedule, planned, lengths, strict=True)
    ]


def _rows(
    manifest: MixtureManifest, weights: Sequence[float], shares: Sequence[float], token_budget: float
) -> list[MixtureRow]:
    num_tokens = [domain.num_tokens for domain in manifest.domains.values()]
    epochs = epochs_at_budget(np.array(shares), num_tokens, token_budget)
    return [
        MixtureRow(
            name, domain.num_documents, domain.num_tokens, weight, share, round(share * token_budget), float(read)
        )
        for (name, domain), weight, share, read in zip(manifest.domains.items(), weights, shares, epochs, strict=True)
    ]
