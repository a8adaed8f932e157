"""What ``dataeng mix fit`` takes from and shows to a person."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dataeng.errors import ConfigError, nearest
from dataeng.formats.mixture import Policy
from dataeng.mixture.fit.fit import FittedMixture, Method
from dataeng.mixture.fit.runs import ProxyRuns

#: A manifest takes no weight of 0; a fit may give one to a domain that only does harm.
SMALLEST_WEIGHT = 1e-6


def parse_method(value: str) -> Method:
    """Returns the method of that name."""
    methods: tuple[Method, ...] = get_args(Method)
    for method in methods:
        if value == method:
            return method
    raise ConfigError(f"--method {value} is unknown{nearest(value, methods)}")


def parse_targets(options: Sequence[str]) -> dict[str, float] | None:
    """Parses ``--target LOSS`` and ``LOSS=IMPORTANCE``; none means all losses alike."""
    targets: dict[str, float] = {}
    for option in options:
        name, separator, number = option.partition("=")
        name = name.removeprefix("loss.")
        try:
            importance = float(number) if separator else 1.0
        except ValueError as error:
            raise ConfigError(f"--target {option}: expected LOSS or LOSS=NUMBER, e.g. --target code=2") from error
        if name in targets:
            raise ConfigError(f"--target {option}: '{name}' is given twice.")
        targets[name] = importance
    return targets or None


def check_domains(runs: ProxyRuns, num_tokens: Mapping[str, int], path: Path) -> None:
    """Raises `ConfigError` unless the runs are over the domains of the packs."""
    strangers = [name for name in runs.domains if name not in num_tokens]
    missing = [name for name in num_tokens if name not in runs.domains]
    if strangers or missing:
        sides = (
            f"the packs have no {', '.join(strangers)}" if strangers else "",
            f"the runs have no weight of {', '.join(missing)}" if missing else "",
        )
        raise ConfigError(
            f"{path} has the domains {', '.join(runs.domains)}, the packs have {', '.join(num_tokens)}: "
            f"{' and '.join(side for side in sides if side)}."
        )


def limits(caps: Mapping[str, float], num_tokens: Mapping[str, int], token_budget: int) -> dict[str, float]:
    """Returns the largest weight of each capped domain: epochs · tokens / budget."""
    for name, cap in caps.items():
        if name not in num_tokens:
            raise ConfigError(f"an epoch cap is given for '{name}', which is no domain{nearest(name, num_tokens)}")
        if not (cap > 0 and math.isfinite(cap)):
            raise ConfigError(f"the epoch cap of domain '{name}' is {cap:g}; expected a number above 0.")
    allowed = {name: cap * num_tokens[name] / token_budget for name, cap in caps.items()}
    if len(allowed) == len(num_tokens) and sum(allowed.values()) < 1:
        raise ConfigError(
            f"the epoch caps allow {sum(allowed.values()) * token_budget:,.0f} tokens in all, {token_budget:,} are "
            "asked for."
        )
    return allowed


def manifest_weights(fitted: FittedMixture) -> dict[str, float]:
    """Returns the weights as a manifest takes them: above 0."""
    floored = {name: max(weight, SMALLEST_WEIGHT) for name, weight in fitted.by_domain().items()}
    total = math.fsum(floored.values())
    return {name: weight / total for name, weight in floored.items()}


def policy(fitted: FittedMixture, path: Path, token_budget: int | None) -> Policy:
    """Returns what the manifest says about the fit."""
    worst = min(quality.r2 for quality in fitted.qualities)
    note = (
        f"{fitted.method} on {fitted.num_runs} runs of {path.name}, λ {fitted.kl:g}, "
        f"held-out R² at least {worst:.3f} over {len(fitted.targets)} losses"
    )
    return Policy(name="fitted", token_budget=token_budget, note=note)


COLUMNS = ("kind", "name", "prior", "fitted", "lowest", "highest", "limit", "r2", "spearman", "rmse")


def rows(fitted: FittedMixture) -> list[tuple[object, ...]]:
    """Returns domains and losses as rows for CSV and JSON: what holds at the prior, and at the fitted weights."""
    domains: list[tuple[object, ...]] = [
        ("weight", name, prior, weight, low, high, None if math.isinf(limit) else limit, None, None, None)
        for name, prior, weight, low, high, limit in zip(
            fitted.domains,
            fitted.prior.tolist(),
            fitted.weights.tolist(),
            fitted.lowest.tolist(),
            fitted.highest.tolist(),
            fitted.limits.tolist(),
            strict=True,
        )
    ]
    losses: list[tuple[object, ...]] = [
        ("loss", target, before, after, None, None, None, quality.r2, quality.spearman, quality.error)
        for target, before, after, quality in zip(
            fitted.targets,
            fitted.predicted_at_prior.tolist(),
            fitted.predicted.tolist(),
            fitted.qualities,
            strict=True,
        )
    ]
    return domains + losses


def print_fit(console: Console, fitted: FittedMixture) -> None:
    """Prints the weights beside prior, runs and limits, the quality of the fit, and what to beware of."""
    weights = _table("domain", "prior", "fitted", "in the runs", "limit")
    for name, prior, weight, low, high, limit in zip(
        fitted.domains, fitted.prior, fitted.weights, fitted.lowest, fitted.highest, fitted.limits, strict=True
    ):
        most = "–" if math.isinf(limit) else f"{limit:.4f}"
        weights.add_row(escape(name), f"{prior:.4f}", f"{weight:.4f}", f"{low:.3f} to {high:.3f}", most)
    console.print(weights)
    losses = _table("loss", "at the prior", "at the fit", "held-out R²", "Spearman", "error")
    for target, before, after, quality in zip(
        fitted.targets, fitted.predicted_at_prior, fitted.predicted, fitted.qualities, strict=True
    ):
        losses.add_row(
            escape(target),
            f"{before:.4f}",
            f"{after:.4f}",
            f"{quality.r2:.3f}",
            f"{quality.spearman:.3f}",
            f"{quality.error:.4f}",
        )
    console.print()
    console.print(losses)
    console.print(f"\n{fitted.method} on {fitted.num_runs} runs, KL penalty {fitted.kl:g}.", highlight=False)
    for warning in fitted.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False, soft_wrap=True)


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first)
    for column in others:
        table.add_column(column, justify="right")
    return table
