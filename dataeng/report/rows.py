"""What each way of packing documents into rows costs, for packs, runs and mixtures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dataeng.errors import FormatError
from dataeng.formats.mixture import Order, load_mixture
from dataeng.formats.pack import Pack
from dataeng.packing.order import document_order
from dataeng.packing.rows import METHODS, pack_rows
from dataeng.report.mixture_options import pack_folders
from dataeng.report.visible import visible

COLUMNS = (
    "domain",
    "packing",
    "rows",
    "documents_per_row",
    "documents_cut",
    "padding",
    "tokens_left_out",
    "labels",
)


def packing_waste(path: Path, sequence_length: int) -> pl.DataFrame:
    """Returns one row per domain and packing, with `COLUMNS`.

    documents_cut, padding, tokens_left_out and labels are shares: of documents, of token slots, of tokens, of
    predictions. ``path`` is a pack, a run folder or a mixture manifest, whose curricula are kept. Raises `FormatError`
    or `ConfigError` for anything else.
    """
    rows = []
    for name, packs, order in _domains(path):
        shards = [shard for pack in packs for shard in pack.shards]
        numbers = None if order is None else document_order(shards, order)
        for method in METHODS:
            waste = pack_rows(method, [shard.lengths for shard in shards], sequence_length, numbers).waste
            rows.append(
                (
                    name,
                    method,
                    waste.num_rows,
                    waste.documents_per_row,
                    waste.cut_share,
                    waste.padding_share,
                    waste.left_out_share,
                    waste.label_share,
                )
            )
    return pl.DataFrame(rows, schema=list(COLUMNS), orient="row")


def _domains(path: Path) -> Iterator[tuple[str, list[Pack], Order | None]]:
    if path.is_file():
        for name, domain in load_mixture(path).domains.items():
            yield name, [Pack(path.parent / folder) for folder in domain.packs], domain.order
        return
    if not path.exists():
        raise FormatError(f"there is nothing at {path}; expected a pack, a run folder or a mixture manifest.")
    for folder in pack_folders([path])[0]:
        pack = Pack(folder)
        yield pack.manifest.domain, [pack], None


def print_packing(console: Console, waste: pl.DataFrame, sequence_length: int) -> None:
    """Prints the answer of `packing_waste`, domain by domain."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("domain", "packing"):
        table.add_column(column)
    for column in ("rows", "documents/row", "documents cut", "padding", "tokens left out", "labels"):
        table.add_column(column, justify="right")
    before = None
    for domain, method, rows, documents, cut, padding, left_out, labels in waste.iter_rows():
        shown = "" if domain == before else visible(domain)
        before = domain
        shares = [f"{share:.2%}" for share in (cut, padding, left_out, labels)]
        table.add_row(Text(shown), method, f"{rows:,}", f"{documents:.1f}", *shares)
    console.print(f"rows of {sequence_length:,} inputs and as many labels", style="dim", highlight=False)
    console.print(table)
