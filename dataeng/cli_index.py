"""The commands of dedup indexes, `dataeng index …`: a part of the command line, as thin as the rest of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

index_app = typer.Typer(help="Look at, check and merge dedup indexes.", no_args_is_help=True)
IndexFolder = Annotated[Path, typer.Argument(help="The folder of a dedup index.", metavar="INDEX")]


@index_app.command("show")
def index_show(path: IndexFolder) -> None:
    """Print the method, its parameters, and the segments of an index."""
    from dataeng.report.dedup_index import print_index
    from dataeng.report.terminal import console

    print_index(console(), path)


@index_app.command("verify")
def index_verify(path: IndexFolder) -> None:
    """Hash every file of an index."""
    from dataeng.report.dedup_index import verify_index
    from dataeng.report.terminal import console

    verify_index(console(), path)


@index_app.command("merge")
def index_merge(
    paths: Annotated[list[Path], typer.Argument(help="Folders of dedup indexes.", metavar="INDEX…")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of the new index.")],
    compact: Annotated[
        str | None, typer.Option(help="Rewrite all segments as one of this name.", metavar="SEGMENT")
    ] = None,
) -> None:
    """Make one index of several, or of one with many segments. The old ones stay as they are."""
    from dataeng.report.dedup_index import print_index
    from dataeng.report.terminal import console
    from dataeng.stages.dedup.index_merging import merge_indexes

    print_index(console(), output, merge_indexes(paths, output, compact))
