"""What ``dataeng remove`` takes from and shows to a person."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dataeng.engine.takedown import Takedown
from dataeng.errors import ConfigError, InputError
from dataeng.report.visible import visible

FILE_SUFFIXES = (".txt", ".csv", ".parquet")
HOST = re.compile(r"(?:\*?\.)?[^\s/:@*.][^\s/:@*]*|[0-9a-f]*:[0-9a-f]*:[0-9a-f:.]*", re.IGNORECASE)  # or IPv6
NAMES_SHOWN = 5


def read_values(options: Sequence[str], column: str) -> list[str]:
    """Returns what the options ``--ids`` or ``--hosts`` name: each is a value itself, or a file of values.

    A file is a text file with one value a line (empty lines and lines that begin with ``#`` are skipped), or Parquet or
    CSV with the column ``column`` (or a single one).

    Raises:
      ConfigError: something that looks like a file is not there, or has no such column.
      InputError: a file cannot be read, or is empty.
    """
    values: list[str] = []
    for option in options:
        path = Path(option)
        if path.is_file():
            found = _read_file(path, column)
            if not found:
                raise InputError(f"{path} holds no {column}s.")
            values += found
        elif "/" in option or path.suffix in FILE_SUFFIXES:
            raise ConfigError(f"--{column}s {option}: there is no such file.")
        else:
            values.append(option.strip())
    if not all(values):
        raise ConfigError(f"--{column}s: an empty {column} would match nothing.")
    if column == "host" and (wrong := next((host for host in values if not HOST.fullmatch(host)), None)):
        raise ConfigError(f"--hosts: '{wrong}' is no host; expected www.example.com, or *.example.com for all below.")
    return values


def _read_file(path: Path, column: str) -> list[str]:
    try:
        if path.suffix == ".parquet":
            table = pl.read_parquet(path, memory_map=False)
        elif path.suffix == ".csv":
            table = pl.read_csv(path, infer_schema=False)
        else:
            lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
            return [line for line in lines if line and not line.startswith("#")]
    except (OSError, UnicodeError, pl.exceptions.PolarsError) as error:
        raise InputError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
    if column not in table.columns and table.width != 1:
        raise ConfigError(f"{path} has no column '{column}' (it has {', '.join(table.columns)}).")
    chosen = table.get_column(column) if column in table.columns else table.to_series()
    return [str(value) for value in chosen.drop_nulls()]


def print_removal(console: Console, done: Takedown, dry_run: bool) -> None:
    """Prints what was removed, per pack, what was not found, and which mixtures have to follow."""
    affected = [plan for plan in done.packs if plan.shards]
    if affected:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("pack", overflow="fold")
        for column in ("documents", "of", "tokens", "of", "shards", "of", "revision"):
            table.add_column(column, justify="right")
        for plan in affected:
            table.add_row(
                Text(visible(str(plan.folder))),
                f"{plan.num_documents:,}",
                f"{plan.manifest.num_documents:,}",
                f"{plan.num_tokens:,}",
                f"{plan.manifest.num_tokens:,}",
                f"{len(plan.shards):,}",
                f"{len(plan.manifest.shards):,}",
                str(plan.manifest.revision + 1),
            )
        console.print(table)
    documents = sum(plan.num_documents for plan in affected)
    verb = "would be removed" if dry_run else "removed"
    console.print(f"{documents:,} documents {verb} from {len(affected)} of {len(done.packs)} packs.", highlight=False)
    for line in _notes(done, dry_run):
        console.print(Text(visible(line)), soft_wrap=True)


def _notes(done: Takedown, dry_run: bool) -> list[str]:
    lines = []
    if done.ids_removed_before:
        lines.append(f"{done.ids_removed_before:,} of {done.num_ids:,} ids were removed before.")
    if done.ids_unknown:
        listed = ", ".join(done.ids_unknown[:NAMES_SHOWN]) + (" …" if len(done.ids_unknown) > NAMES_SHOWN else "")
        lines.append(f"{len(done.ids_unknown):,} of {done.num_ids:,} ids are in none of these packs: {listed}")
    lines += [f"mixture {'to be updated' if dry_run else 'updated'}: {path}" for path in done.mixtures]
    lines += [f"out of date: the mixture {path} names these packs; add --mixture {path}" for path in done.stale]
    if not dry_run and any(plan.shards for plan in done.packs):
        lines.append("Tables of the run (documents/, rejects/), exports and trained models still hold what they held.")
    return lines
