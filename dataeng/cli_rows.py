"""The command of sequence packing, `dataeng packing`: what each way of making rows of documents costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

rows_app = typer.Typer()


@rows_app.command("packing")
def packing(
    path: Annotated[Path, typer.Argument(help="A pack, a run folder (all its packs), or mix.json.", metavar="PACKS")],
    sequence_length: Annotated[int, typer.Option(help="Tokens per row, labels apart.", min=1)] = 2048,
    output: Annotated[str, typer.Option("--format", help="table, csv or json (one object a line).")] = "table",
) -> None:
    """Compare the ways of packing documents into rows: padding, documents cut, tokens left out."""
    from dataeng.report.rows import packing_waste, print_packing
    from dataeng.report.terminal import console, print_frame

    waste = packing_waste(path, sequence_length)
    if output == "table":
        print_packing(console(), waste, sequence_length)
    else:
        print_frame(waste, output)
