"""From what a person asks for - a policy, or stages with one each - to a weight for every domain by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dataeng.errors import ConfigError, nearest
from dataeng.formats.mixture import MixtureStage, Policy
from dataeng.mixture.policies import given_weights, temperature_weights, unimax_weights

WHOLE_RUN = "all"  # what tables call all stages together


@dataclass(frozen=True)
class WantedStage:
    """One stage as a person asks for it: weights, or a policy over all domains or some of them."""

    name: str
    until: float
    policy: Policy
    weights: Mapping[str, float] | None = None  # of policy given; domains that are not in it are not drawn
    domains: tuple[str, ...] | None = None  # the policy's; the others are not drawn


def policy_weights(
    policy: Policy, num_tokens: Mapping[str, int], weights: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Returns each domain's weight under a policy; they sum to 1.

    Raises `ConfigError` when the policy lacks something, or leaves a domain nothing.
    """
    names, counts = list(num_tokens), list(num_tokens.values())
    takes_weights = policy.name in ("given", "fitted")
    if takes_weights and weights is None:
        raise ConfigError(f"policy '{policy.name}' needs a weight for each of the domains {', '.join(names)}.")
    if not takes_weights and weights is not None:
        raise ConfigError(f"policy '{policy.name}' takes no weights; they go with policy 'given'.")
    if policy.name == "learned":
        raise ConfigError("policy 'learned' is what a training run writes; choose another one.")
    if policy.name == "temperature" and policy.temperature is None:
        raise ConfigError("policy 'temperature' needs a temperature (1 is natural, inf is uniform).")
    if weights is not None:
        values = given_weights(names, weights)
    elif policy.name == "unimax":
        if policy.max_epochs is None or policy.token_budget is None:
            raise ConfigError("policy 'unimax' needs a number of epochs and a token budget (--unimax N --tokens M).")
        values = unimax_weights(counts, policy.max_epochs, policy.token_budget)
    else:
        temperature = 1.0 if policy.name == "natural" or policy.temperature is None else policy.temperature
        values = temperature_weights(counts, temperature)
    for name, value in zip(names, values, strict=True):
        if value == 0:
            raise ConfigError(
                f"policy '{policy.name}' leaves domain '{name}' ({num_tokens[name]:,} tokens) a weight of 0."
            )
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def schedule_stages(
    wanted: Sequence[WantedStage], num_tokens: Mapping[str, int], token_budget: int | None
) -> list[MixtureStage]:
    """Returns the stages with their weights worked out; UniMax works with its stage's part of ``token_budget``.

    Raises `ConfigError` for a progress that does not grow to 1, unknown domains, and domains that no stage draws from.
    """
    stages: list[MixtureStage] = []
    before = 0.0
    for stage in wanted:
        if not before < stage.until <= 1:
            raise ConfigError(
                f"stage '{stage.name}' ends at {stage.until:g}; expected a progress above {before:g} (where the one "
                "before ends) and at most 1."
            )
        chosen = stage.domains if stage.weights is None else tuple(stage.weights)
        for name in chosen or ():
            if name not in num_tokens:
                raise ConfigError(
                    f"stage '{stage.name}' names '{name}', which is no domain of the packs{nearest(name, num_tokens)}"
                )
        drawn = {name: tokens for name, tokens in num_tokens.items() if chosen is None or name in chosen}
        policy = stage.policy
        if policy.name == "unimax" and policy.token_budget is None and token_budget is not None:
            tokens = max(1, round((stage.until - before) * token_budget))
            policy = policy.model_copy(update={"token_budget": tokens})
        if stage.weights is not None:
            drawn = {name: tokens for name, tokens in drawn.items() if stage.weights[name] != 0}
            given = {name: weight for name, weight in stage.weights.items() if weight != 0}
        try:
            weights = policy_weights(policy, drawn, None if stage.weights is None else given)
        except ConfigError as error:
            raise ConfigError(f"stage '{stage.name}': {error}") from error
        stages.append(
            MixtureStage(
                name=stage.name, until=stage.until, weights={name: weights.get(name, 0.0) for name in num_tokens}
            )
        )
        before = stage.until
    if stages and before != 1:
        raise ConfigError(f"the last stage, '{stages[-1].name}', ends at {before:g}; expected 1.")
    if any(stage.name == WHOLE_RUN for stage in stages):
        raise ConfigError(f"no stage can be called '{WHOLE_RUN}': that is what tables call the whole run.")
    if len({stage.name for stage in stages}) < len(stages):
        raise ConfigError(f"stages need different names: {', '.join(stage.name for stage in stages)}.")
    for name in num_tokens if stages else ():
        if all(stage.weights[name] == 0 for stage in stages):
            raise ConfigError(f"no stage draws from domain '{name}'; give it a weight in one, or leave out its packs.")
    return stages


def mean_weights(stages: Sequence[MixtureStage]) -> dict[str, float]:
    """Returns each domain's mean weight over stages, by their lengths."""
    starts = [0.0, *(stage.until for stage in stages)]
    return {
        name: math.fsum(
            (stage.until - start) * stage.weights[name] for start, stage in zip(starts, stages, strict=False)
        )
        for name in stages[0].weights
    }


def caps_by_name(
    names: Sequence[str], max_epochs: float | Mapping[str, float] | None, policy: Policy
) -> dict[str, float | None]:
    """Returns each domain's cap. UniMax's own cap holds where none is given, at whatever budget is trained."""
    default = policy.max_epochs if policy.name == "unimax" else None
    if max_epochs is None or isinstance(max_epochs, (int, float)):
        caps: dict[str, float | None] = dict.fromkeys(names, default if max_epochs is None else max_epochs)
    else:
        for name in max_epochs:
            if name not in names:
                raise ConfigError(f"an epoch cap is given for '{name}', which is no domain{nearest(name, names)}")
        caps = {name: max_epochs.get(name, default) for name in names}
    for name, cap in caps.items():
        if cap is not None and not (cap > 0 and math.isfinite(cap)):
            raise ConfigError(f"the epoch cap of domain '{name}' is {cap:g}; expected a number above 0, or none.")
    return caps
