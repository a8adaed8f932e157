"""The commands about packs, `dataeng packs …`, `dataeng trace` and `dataeng remove`: as thin as the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

packs_app = typer.Typer(help="Look at packs, and check every byte of them.", no_args_is_help=True)
Packs = Annotated[
    list[Path], typer.Argument(help="Pack folders, run folders, or mixture manifests.", metavar="PACK|RUN|MIXTURE…")
]


@packs_app.command("show")
def packs_show(paths: Packs) -> None:
    """Print a table of packs: documents, tokens, bytes per token, files, masks, languages."""
    from dataeng.report.packs import print_packs
    from dataeng.report.terminal import console

    print_packs(console(), paths)


@packs_app.command("verify")
def packs_verify(
    paths: Packs,
    tokenizer: Annotated[
        Path | None, typer.Option(help="The tokenizer of packs that were moved away from theirs.")
    ] = None,
) -> None:
    """Check every checksum, bound and count; list all problems, and exit with 1 if there is one."""
    from dataeng.report.packs import print_verification
    from dataeng.report.terminal import console

    print_verification(console(), paths, tokenizer)


def trace(
    pack: Annotated[Path, typer.Argument(help="A pack folder, e.g. runs/cc_clean/packs/web.", metavar="PACK")],
    offset: Annotated[int | None, typer.Argument(help="The number of a token, from 0.", metavar="OFFSET")] = None,
    shard: Annotated[str | None, typer.Option(help="Count from the beginning of this shard, e.g. 00003.")] = None,
    context: Annotated[int, typer.Option(help="Tokens to show before and after.", min=0)] = 48,
    document: Annotated[
        str | None, typer.Option(help="Tell where this document (id or URL) is, instead.", metavar="ID")
    ] = None,
) -> None:
    """Tell which document, address and crawl record a token of a pack came from."""
    from dataeng.errors import ConfigError
    from dataeng.report.terminal import console
    from dataeng.report.trace import print_documents, print_trace
    from dataeng.report.trace import trace as find

    if (offset is None) == (document is None):
        raise ConfigError("give the number of a token, or --document ID (one of them).")
    if document is not None:
        print_documents(console(), pack, document)
    elif offset is not None:
        print_trace(console(), find(pack, offset, shard, context))


def remove(
    targets: Annotated[list[Path], typer.Argument(help="Run folders, or packs that stand alone.", metavar="RUN|PACK…")],
    ids: Annotated[
        list[str] | None,
        typer.Option(help="A document's id, or a file of ids: text, CSV or Parquet.", metavar="ID|FILE"),
    ] = None,
    hosts: Annotated[
        list[str] | None,
        typer.Option(help="A host (*.example.com: and all below it), or a file of hosts.", metavar="HOST|FILE"),
    ] = None,
    mixtures: Annotated[
        list[Path] | None, typer.Option("--mixture", help="A mixture manifest to update.", metavar="FILE")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "takedown",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be removed.")] = False,
) -> None:
    """Take documents out of packs for good: affected shards are rewritten, and no later run brings them back."""
    from datetime import UTC, datetime

    from dataeng.engine.takedown import take_down
    from dataeng.errors import ConfigError
    from dataeng.formats.removal_list import removal_list
    from dataeng.report.removal import print_removal, read_values
    from dataeng.report.terminal import console

    if not ids and not hosts:
        raise ConfigError("nothing to remove: give --ids or --hosts (or both).")
    when = datetime.now(UTC).isoformat(timespec="seconds")
    wanted = removal_list(read_values(ids or [], "id"), read_values(hosts or [], "host"), reason, when)
    print_removal(console(), take_down(targets, wanted, mixtures or [], when, dry_run), dry_run)
