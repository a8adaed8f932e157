"""What the options of ``dataeng mix`` mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from dataeng.errors import ConfigError, FormatError, nearest
from dataeng.formats.mixture import Order, Policy, load_mixture
from dataeng.formats.pack import HELD_OUT_SUFFIX, MANIFEST_NAME
from dataeng.mixture.build import Packing
from dataeng.mixture.recipes import RECIPES, recipe_weights
from dataeng.mixture.weighting import WantedStage


def refuse_to_lose_history(path: Path, force: bool) -> None:
    """Raises `ConfigError` if ``path`` is a manifest with learned weights, unless ``force``."""
    if force or not path.exists():
        return
    try:
        learned = len(load_mixture(path).history)
    except FormatError:
        return  # not a manifest of ours, or a damaged one: nothing learned is lost with it
    if learned:
        raise ConfigError(f"{path} holds the weights of {learned} training runs; choose another --output, or --force.")


def pack_folders(folders: Sequence[Path], held_out: bool = False) -> tuple[list[Path], Path | None]:
    """Returns the packs that run or pack folders stand for, and the run folder if they all come from one.

    A run stands for the packs to train on, or with ``held_out`` for the others; a pack for itself.

    Raises:
      ConfigError: a folder holds no packs.
    """
    packs: list[Path] = []
    runs: list[Path] = []
    for folder in folders:
        if (folder / MANIFEST_NAME).exists():
            packs.append(folder)
            continue
        found = sorted(path.parent for path in folder.glob(f"packs/*/{MANIFEST_NAME}"))
        wanted = [path for path in found if path.name.endswith(HELD_OUT_SUFFIX) == held_out]
        if found and not wanted:
            what = "held-out packs (write_packs: {held_out: 0.01} makes them)" if held_out else "packs to train on"
            raise ConfigError(f"{folder} has no {what}.")
        if not found:
            raise ConfigError(f"{folder} has no packs (packs/DOMAIN/{MANIFEST_NAME}). Run a pipeline first.")
        packs += wanted
        runs.append(folder)
    return packs, runs[0] if len(runs) == 1 == len(folders) else None


@dataclass(frozen=True)
class Choice:
    """How the weights are to come about."""

    policy: Policy
    weights: dict[str, float] | None = None
    schedule: Sequence[WantedStage] = ()


def choose(
    num_tokens: Mapping[str, int],
    token_budget: int | None,
    *,
    temperature: float | None = None,
    alpha: float | None = None,
    unimax: float | None = None,
    weights: Mapping[str, float] | None = None,
    weights_file: tuple[Path, Mapping[str, float]] | None = None,
    recipe: str | None = None,
    mapping: Mapping[str, str] | None = None,
    schedule: tuple[Path, Sequence[WantedStage]] | None = None,
) -> Choice:
    """Returns what the options ask for; without any, the natural policy. Files come as (path, content).

    Raises `ConfigError` for options that exclude each other, and for values outside their range.
    """
    options = {
        "--temperature": temperature,
        "--alpha": alpha,
        "--unimax": unimax,
        "--weight": weights,
        "--weights": weights_file,
        "--recipe": recipe,
        "--schedule": schedule,
    }
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} exclude each other: give one of them.")
    if mapping and recipe is None:
        raise ConfigError("--map belongs to --recipe: it says which domain stands for which part of one.")
    if schedule is not None:
        path, stages = schedule
        note = f"{path.name}: {', '.join(stage.name for stage in stages)}"
        return Choice(Policy(name="given", token_budget=token_budget, note=note), schedule=stages)
    if recipe is not None:
        found = recipe_weights(recipe, num_tokens, mapping)
        return Choice(Policy(name="given", note=f"recipe {recipe}: {RECIPES[recipe].source}"), found)
    if weights_file is not None:
        return Choice(Policy(name="given", note=weights_file[0].name), dict(weights_file[1]))
    if weights is not None:
        return Choice(Policy(name="given"), dict(weights))
    if unimax is not None:
        if not (unimax > 0 and math.isfinite(unimax)):
            raise ConfigError(f"--unimax {unimax:g}: expected a number of epochs above 0.")
        if token_budget is None:
            raise ConfigError("--unimax needs --tokens: it shares out a budget.")
        return Choice(Policy(name="unimax", max_epochs=unimax, token_budget=token_budget))
    return Choice(_temperature_policy(temperature, alpha))


def _temperature_policy(temperature: float | None, alpha: float | None) -> Policy:
    if alpha is not None:
        if not (alpha >= 0 and math.isfinite(alpha)):
            raise ConfigError(f"--alpha {alpha:g}: expected a number of at least 0 (1 is natural, 0 is uniform).")
        return Policy(name="temperature", temperature=1 / alpha if alpha else math.inf)
    if temperature is None:
        return Policy(name="natural")
    if not temperature > 0:
        raise ConfigError(f"--temperature {temperature:g}: expected a number above 0 (1 is natural, inf is uniform).")
    return Policy(name="temperature", temperature=temperature)


def parse_weights(options: Sequence[str], option_name: str = "--weight") -> dict[str, float]:
    """Parses ``DOMAIN=WEIGHT`` options."""
    weights: dict[str, float] = {}
    for option in options:
        domain, separator, number = option.partition("=")
        if domain in weights:
            raise ConfigError(f"{option_name} {option}: '{domain}' has a weight of {weights[domain]:g} already.")
        try:
            weights[domain] = float(number)
        except ValueError:
            separator = ""
        if not separator:
            raise ConfigError(f"{option_name} {option}: expected DOMAIN=NUMBER, e.g. {option_name} code=0.2")
    return weights


def parse_epoch_caps(options: Sequence[str], domains: Sequence[str]) -> dict[str, float]:
    """Parses ``--max-epochs``: ``N`` for every domain that has no ``DOMAIN=N`` of its own. Returns caps by domain."""
    general: float | None = None
    caps: dict[str, float] = {}
    for option in options:
        domain, _, number = option.rpartition("=")
        try:
            value = float(number)
        except ValueError as error:
            raise ConfigError(
                f"--max-epochs {option}: expected NUMBER or DOMAIN=NUMBER, e.g. --max-epochs 4"
            ) from error
        if (domain in caps) if domain else general is not None:
            raise ConfigError(f"--max-epochs {option}: there is another cap for {domain or 'all domains'}.")
        if domain:
            caps[domain] = value
        else:
            general = value
    return caps if general is None else dict.fromkeys(domains, general) | caps


def parse_orders(options: Sequence[str]) -> dict[str, Order]:
    """Parses ``--order DOMAIN=COLUMN`` and ``DOMAIN=COLUMN:desc``."""
    orders: dict[str, Order] = {}
    for option in options:
        domain, _, column = option.partition("=")
        by, separator, direction = column.rpartition(":")
        by = by if separator else column
        if not domain or not by or (separator and direction not in ("asc", "desc")):
            raise ConfigError(
                f"--order {option}: expected DOMAIN=COLUMN or DOMAIN=COLUMN:desc, e.g. --order web=num_tokens"
            )
        if domain in orders:
            raise ConfigError(f"--order {option}: '{domain}' is ordered by '{orders[domain].by}' already.")
        orders[domain] = Order(by=by, descending=direction == "desc" and bool(separator))
    return orders


def parse_mapping(options: Sequence[str]) -> dict[str, str]:
    """Parses ``--map DOMAIN=PART``."""
    mapping: dict[str, str] = {}
    for option in options:
        domain, _, part = option.partition("=")
        if not domain or not part or domain in mapping:
            raise ConfigError(f"--map {option}: expected one DOMAIN=PART for a domain, e.g. --map web=common_crawl")
        mapping[domain] = part
    return mapping


def parse_packing(value: str) -> Packing:
    """Returns the packing of that name."""
    for name in get_args(Packing):
        if value == name:
            return cast(Packing, name)
    raise ConfigError(f"--packing {value} is unknown{nearest(value, get_args(Packing))}")
