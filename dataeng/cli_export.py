"""The command `dataeng export`: a part of the command line, as thin as the rest of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    target: Annotated[Path, typer.Argument(help="A pack's or a run's folder, or a mixture manifest.")],
    to: Annotated[
        str,
        typer.Option(help="datatrove, huggingface, litdata, llmc, llmc-llama3, mds, megatron, olmo.", metavar="FORMAT"),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.", metavar="DIR")],
    sequence_length: Annotated[
        int | None,
        typer.Option(help="Rows of N tokens, documents concatenated (huggingface, litdata, mds).", min=1, metavar="N"),
    ] = None,
    tokenizer_name: Annotated[
        str | None, typer.Option(help="What readers load the tokenizer by; default: the copy in DIR/tokenizer.")
    ] = None,
    drop_mask: Annotated[bool, typer.Option("--drop-mask", help="Leave loss masks out.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Hash the packs first; without, sizes and indexes are checked.")
    ] = True,
) -> None:
    """Write packs as the training libraries of others read them."""
    from dataeng.exports.export import export as run
    from dataeng.exports.layout import Options
    from dataeng.report.export import print_export
    from dataeng.report.terminal import console

    options = Options(sequence_length=sequence_length, tokenizer_name=tokenizer_name)
    print_export(console(), run(target, to, output, options, drop_mask=drop_mask, verify=verify), output)
