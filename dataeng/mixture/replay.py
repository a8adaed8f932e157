"""What a training run's controller did, over again, from what the run recorded; and what another one would have done.

A run's folder holds all that `dataeng.mixture.reweighting.Controller` saw (``trainer.watching.metrics``): per step and
domain the summed losses, their squares, the tokens and the planned shares; per step whether the learning rate was
decaying, and whether the controller was shown the step. With the run's own constants the recorded weights come out bit
for bit, on the same machine with the same NumPy. With other constants, what comes out is what they would have made of
*these* losses. Under other weights the losses would have been others: it shows how a controller behaves, not how a
model would have learned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import ValidationError

from dataeng.errors import ConfigError, FormatError, nearest
from dataeng.formats.complaints import first_complaint
from dataeng.formats.reweighting import Reweighting
from dataeng.formats.training_run import DESCRIPTION_NAME, read_description
from dataeng.mixture.reweighting import Controller

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_PER_DOMAIN = ("loss_sum", "square_sum", "tokens", "planned_share", "weight")
_PER_STEP = ("observed", "decaying")


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """What the controller of a run was given and what it returned, in T steps over K domains.

    ``loss_sums``, ``square_sums``, ``token_counts``, ``planned_shares`` and ``weights`` are float64 [T, K]; ``weights``
    are those after each step's losses. ``observed`` (the controller was shown the step) and ``decaying`` (of the
    learning rate) are bool [T]. ``reweighted`` bool [K] and ``bytes_per_token`` float64 [K] are the domains' own.
    """

    names: list[str]
    reweighting: Reweighting
    reweighted: Bools
    bytes_per_token: Floats
    loss_sums: Floats
    square_sums: Floats
    token_counts: Floats
    planned_shares: Floats
    weights: Floats
    observed: Bools
    decaying: Bools

    @property
    def num_steps(self) -> int:
        return len(self.weights)


@dataclass(frozen=True)
class Departure:
    """Where replayed weights first differ from recorded ones, and how far apart any two of them are at most."""

    step: int
    domain: str
    recorded: float
    replayed: float
    largest: float


def read_recorded(folder: Path) -> RecordedRun:
    """Reads a training run's folder, finished or not.

    Raises `FormatError` when it is none, has no metrics yet, or was recorded before all of this was.
    """
    described = _described(folder)
    names: list[str] = described["domains"]
    metrics = _table(folder, "metrics", _PER_DOMAIN)
    steps = _table(folder, "steps", _PER_STEP)
    count = len(steps)
    if steps["step"].to_list() != list(range(1, count + 1)):
        raise FormatError(f"{folder / 'steps'} does not hold every step from 1 on once; parts are missing or foreign.")
    if (
        metrics["domain"].to_list() != names * count
        or metrics["step"].to_list() != np.repeat(np.arange(1, count + 1), len(names)).tolist()
    ):
        raise FormatError(f"{folder / 'metrics'} does not hold every domain ({', '.join(names)}) in every step.")
    values = {name: metrics[name].cast(pl.Float64).to_numpy().reshape(count, len(names)).copy() for name in _PER_DOMAIN}
    return RecordedRun(
        names=names,
        reweighting=described["reweighting"],
        reweighted=np.array(described["reweighted"], bool),
        bytes_per_token=np.array(described["bytes_per_token"], np.float64),
        loss_sums=values["loss_sum"],
        square_sums=values["square_sum"],
        token_counts=values["tokens"],
        planned_shares=values["planned_share"],
        weights=values["weight"],
        observed=steps["observed"].to_numpy(),
        decaying=steps["decaying"].to_numpy(),
    )


def replay(run: RecordedRun, reweighting: Reweighting) -> Floats:
    """Returns the weights, float64 [T, K], that a controller of these constants gives after each recorded step.

    Raises `ConfigError` when the constants do not fit the run's domains.
    """
    controller = Controller(
        reweighting,
        run.planned_shares[0],
        names=run.names,
        reweighted=run.reweighted,
        bytes_per_token=run.bytes_per_token,
    )
    weights = np.empty_like(run.weights)
    for step in range(run.num_steps):  # a controller is a recurrence: a fraction of a millisecond a step
        controller.shares = run.planned_shares[step]
        if run.observed[step]:
            frozen = bool(run.decaying[step]) and reweighting.freeze_in_decay
            controller.update(run.loss_sums[step], run.token_counts[step], run.square_sums[step], frozen=frozen)
        weights[step] = controller.weights
    return weights


def departure(run: RecordedRun, weights: Floats) -> Departure | None:
    """Returns where ``weights`` first differ from those that the run recorded; None when they are the same."""
    differing = np.argwhere(weights != run.weights)
    if not len(differing):
        return None
    step, domain = differing[0].tolist()
    return Departure(
        step=step + 1,
        domain=run.names[domain],
        recorded=float(run.weights[step, domain]),
        replayed=float(weights[step, domain]),
        largest=float(np.abs(weights - run.weights).max()),
    )


def weights_table(run: RecordedRun, weights: Floats) -> pl.DataFrame:
    """Returns one row per step and domain: step, domain, weight, recorded_weight."""
    return pl.DataFrame(
        {
            "step": np.repeat(np.arange(1, run.num_steps + 1), len(run.names)),
            "domain": run.names * run.num_steps,
            "weight": weights.ravel(),
            "recorded_weight": run.weights.ravel(),
        }
    )


def changed_constants(
    reweighting: Reweighting, method: str | None, settings: Sequence[str], names: Sequence[str]
) -> Reweighting:
    """Returns the constants with another method and with ``NAME=VALUE`` settings in place of the run's own.

    A value is written as in JSON (``r=2``, ``trust_region=null``, ``prior=shares``); a domain's reference loss is
    ``reference.DOMAIN=LOSS``, of a domain among ``names``. Raises `ConfigError` naming the setting.
    """
    values = reweighting.model_dump()
    reference: dict[str, Any] = dict(values["reference"] or {})
    known = [name for name in values if name not in ("method", "feedback", "reference")]
    given = {} if method is None else {"method": "--method"}
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator:
            raise ConfigError(f"--set {setting}: expected NAME=VALUE, e.g. --set r=2.")
        given[name] = f"--set {setting}"
        if name.startswith("reference."):
            domain = name.removeprefix("reference.")
            if domain not in names:
                raise ConfigError(f"--set {setting}: the run has no domain '{domain}'{nearest(domain, names)}")
            reference[domain] = _value(text)
        elif name == "method":
            method = text
        elif name == "feedback":
            raise ConfigError("--set feedback: what weights act on changes no weight of a replay, only a run's losses.")
        elif name in known:
            values[name] = _value(text)
        else:
            raise ConfigError(f"--set {setting}: '{name}' is unknown{nearest(name, [*known, 'reference.DOMAIN'])}")
    values["reference"] = reference or None
    if method is not None:
        values["method"] = method
    try:
        return Reweighting.model_validate(values)
    except ValidationError as error:
        where, what = first_complaint(error, Reweighting)
        if not where:  # what is wrong is how two of them go together
            hint = "; give it by --set reference.DOMAIN=LOSS" if "`reference`" in what else ""
            raise ConfigError(f"{what}{hint}.") from error
        raise ConfigError(f"{given.get(where, where)}: {what}") from error


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"inf": float("inf"), "none": None}.get(text, text)  # a word, such as prior=shares


def _described(folder: Path) -> Mapping[str, Any]:
    """Returns what ``training.json`` says about domains and controller."""
    path, described = folder / DESCRIPTION_NAME, read_description(folder)
    try:
        return {
            "domains": list(described["domains"]),
            "reweighted": list(described["reweighted"]),
            "bytes_per_token": list(described["bytes_per_token"]),
            "reweighting": Reweighting.model_validate(described["config"]["reweighting"]),
        }
    except (KeyError, TypeError) as error:
        raise FormatError(
            f"{path} says nothing about {error}: the run was recorded by an earlier version, which kept too little for "
            "a replay."
        ) from error
    except ValidationError as error:
        where, what = first_complaint(error, Reweighting)
        raise FormatError(f"{path}: reweighting.{where}: {what}") from error


def _table(folder: Path, table: str, columns: Sequence[str]) -> pl.DataFrame:
    """Returns the parts of ``metrics`` or ``steps`` in order of steps, domains in the order of writing."""
    parts = sorted((folder / table).glob("part-*.parquet"))
    if not parts:
        raise FormatError(f"{folder} has no metrics yet: they are written with the first checkpoint.")
    try:
        rows = pl.concat([pl.read_parquet(part) for part in parts], how="diagonal")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise FormatError(f"cannot read {folder / table}: {error}.") from error
    for name in columns:
        if name not in rows.columns or rows[name].has_nulls():
            raise FormatError(
                f"{folder / table} has no {name} for every step: the run was recorded, in part at least, by an earlier "
                "version, which kept too little for a replay."
            )
    return rows.sort("step", maintain_order=True)
