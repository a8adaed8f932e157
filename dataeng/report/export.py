"""What ``dataeng export`` shows a person: what was written of every domain, and how a reader is pointed at it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dataeng.exports.export import FORMATS, Exported
from dataeng.report.terminal import size


def print_export(console: Console, exported: Exported, output: Path) -> None:
    """Prints a table with one line a domain, and the lines for the reader's configuration."""
    manifest = exported.manifest
    if not exported.written:
        console.print(f"nothing to do: {output} holds this export already.", highlight=False, markup=False)
    reader = FORMATS[manifest.format].reader
    console.print(f"{output}: {reader}", highlight=False, markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("domain")
    rows = any(domain.num_rows is not None for domain in manifest.domains.values())
    for column in ("weight", "documents", "tokens", *(("rows", "left out") if rows else ()), "files", "size"):
        table.add_column(column, justify="right")
    for name, domain in manifest.domains.items():
        cells = [f"{domain.weight:.4f}", f"{domain.num_documents:,}", f"{domain.num_tokens:,}"]
        if domain.num_rows is not None:
            cells += [f"{domain.num_rows:,}", f"{domain.num_tokens_left_out:,}"]
        total = sum(file.size_bytes for file in domain.files)
        table.add_row(escape(name), *cells, f"{len(domain.files):,}", size(total))
    console.print(table)
    console.print()
    for line in exported.lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
