"""The command of sequence packing, `dataeng packing`: what each way of making rows of documents costs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def packing(
    path: Annotated[Path, typer.Argument(help="A pack, a run folder (all its packs), or mix.json.", metavar="PACKS")],
    sequence_length: Annotated[int, typer.Option(help="Tokens per row, labels apart.", min=1)] = 2048,
    output: Annotated[str, typer.Option("--format", help="table, csv or json (one object a line).")] = "table",
) -> None:
    """Compare the ways of packing documents into rows: padding, documents cut, tokens left out."""
    from dataeng.errors import ConfigError, nearest
    from dataeng.report.rows import packing_waste, print_packing
    from dataeng.report.terminal import console

    if output not in ("table", "csv", "json"):
        raise ConfigError(f"unknown format '{output}'{nearest(output, ('table', 'csv', 'json'))}")
    waste = packing_waste(path, sequence_length)
    if output == "table":
        print_packing(console(), waste, sequence_length)
    else:
        sys.stdout.write(waste.write_csv() if output == "csv" else waste.write_ndjson())
