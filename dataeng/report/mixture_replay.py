"""What ``dataeng mix replay`` shows and writes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dataeng.errors import ConfigError
from dataeng.formats.atomic import write_bytes
from dataeng.formats.reweighting import Reweighting
from dataeng.mixture.replay import Departure, Floats, RecordedRun

SUFFIXES = (".parquet", ".csv")
COLUMNS = ("domain", "mean", "final", "smallest", "largest", "recorded_mean", "recorded_final")


def check_target(path: Path) -> None:
    """Raises `ConfigError` unless the file can be written as its name says."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"--out {path}: expected a name that ends in {' or '.join(SUFFIXES)}.")


def write_weights(path: Path, weights: pl.DataFrame) -> None:
    """Writes the weights of every step as Parquet or CSV, by the name."""
    buffer = io.BytesIO()
    if path.suffix == ".csv":
        weights.write_csv(buffer)
    else:
        weights.write_parquet(buffer)
    try:
        write_bytes(path, buffer.getvalue())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}.") from error


def rows(run: RecordedRun, weights: Floats) -> list[tuple[object, ...]]:
    """Returns a row a domain, as `COLUMNS`; means are over all steps, finals those of the last one."""
    columns = (
        weights.mean(axis=0),
        weights[-1],
        weights.min(axis=0),
        weights.max(axis=0),
        run.weights.mean(axis=0),
        run.weights[-1],
    )
    return [(name, *map(float, values)) for name, *values in zip(run.names, *columns, strict=True)]


def own_line(found: Departure | None, num_steps: int) -> str:
    """Says whether the run's own constants gave the weights that it recorded."""
    if found is None:
        return f"The run's own constants give its recorded weights bit for bit, in all {num_steps:,} steps."
    return (
        f"The run's own constants do not quite give its recorded weights: from step {found.step:,} on, where "
        f"'{found.domain}' had {found.recorded!r} and gets {found.replayed!r}; they differ by {found.largest:.3g} at "
        "most. Another machine or another NumPy rounds exponentials otherwise; more than 1e-9 is more than rounding."
    )


def changes(own: Reweighting, other: Reweighting) -> str:
    """Says which method and which constants differ, these as ``name was → is``; empty when none does."""
    before, after = own.model_dump(exclude={"method"}), other.model_dump(exclude={"method"})
    listed = ", ".join(f"{name} {before[name]} → {after[name]}" for name in before if before[name] != after[name])
    method = "" if own.method == other.method else f"instead of {own.method}"
    return " ".join(part for part in (method, listed and f"with {listed}") if part)


def print_replay(
    console: Console, run: RecordedRun, weights: Floats, own: Departure | None, reweighting: Reweighting
) -> None:
    """Prints the weights per domain beside the recorded ones, and what they are worth."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("domain")
    for column in ("mean", "final", "smallest", "largest", "recorded mean", "recorded final"):
        table.add_column(column, justify="right")
    for name, *values in rows(run, weights):
        table.add_row(escape(str(name)), *(f"{value:.4f}" for value in values))
    console.print(table)
    changed = changes(run.reweighting, reweighting)
    how = f"{reweighting.method} {changed or 'as in the run'}"
    lines = [f"\n{how}, on the losses of {run.num_steps:,} steps.", own_line(own, run.num_steps)]
    if changed:
        distance = float(np.abs(weights - run.weights).sum(axis=1).mean()) / 2
        lines.append(
            f"On average {distance:.1%} of the weight lies on other domains than in the run. Losses would have been "
            "others under these weights: this is what the controller does, not what the model would have learned."
        )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
