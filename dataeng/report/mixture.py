"""What ``dataeng mix`` shows to a person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dataeng.formats.mixture import MixtureManifest
from dataeng.formats.pack import MANIFEST_NAME
from dataeng.mixture.plan import MixtureRow, mixture_table, stage_tables
from dataeng.mixture.recipes import RECIPES
from dataeng.report.mixture_preview import PreviewRow, by_stage

# Beyond four passes repeated tokens lose their worth (Muennighoff et al., arXiv 2305.16264). A cap of 4 is not beyond.
MANY_EPOCHS = 4.0
ROUNDING = 0.05
LANGUAGES_SHOWN = 6  # of each domain; the rest is one line


def print_mixture(console: Console, manifest: MixtureManifest, budget: int) -> None:
    """Prints weights, tokens and epochs per domain, for the whole run and for each stage, and what to beware of.

    Raises `ConfigError` when the epoch caps allow fewer tokens than ``budget``.
    """
    rows = mixture_table(manifest, budget)
    console.print(_domain_table(rows))
    for stage, (name, stage_rows) in zip(manifest.schedule, stage_tables(manifest, budget), strict=True):
        drawn = sum(row.tokens_drawn for row in stage_rows)
        console.print(
            f"\nstage {escape(name)}, up to {stage.until:.0%}: {drawn:,} tokens", highlight=False, soft_wrap=True
        )
        console.print(_domain_table([row for row in stage_rows if row.weight or row.share]))
    policy = manifest.policy
    how = policy.name if policy.temperature is None else f"{policy.name} {policy.temperature:g}"
    if policy.max_epochs is not None:
        how += f" {policy.max_epochs:g}"
    if policy.note:
        how += f" ({escape(policy.note)})"
    console.print(f"\npolicy {how}; table for {budget:,} training tokens.", highlight=False, soft_wrap=True)
    for line in _remarks(manifest, rows):
        console.print(line, highlight=False, soft_wrap=True)


def _domain_table(rows: Iterable[MixtureRow]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("domain")
    for column in ("documents", "tokens", "weight", "share", "tokens drawn", "epochs"):
        table.add_column(column, justify="right")
    for row in rows:
        many = row.epochs > MANY_EPOCHS + ROUNDING
        table.add_row(
            escape(row.domain),
            f"{row.num_documents:,}",
            f"{row.num_tokens:,}",
            f"{row.weight:.4f}",
            f"{row.share:.4f}",
            f"{row.tokens_drawn:,}",
            f"[yellow]{row.epochs:.2f}[/]" if many else f"{row.epochs:.2f}",
        )
    return table


def _remarks(manifest: MixtureManifest, rows: Sequence[MixtureRow]) -> list[str]:
    lines = []
    for name, domain in manifest.domains.items():
        if domain.order is not None:
            direction = "the largest first" if domain.order.descending else "the smallest first"
            lines.append(f"'{escape(name)}' is read in the order of {escape(domain.order.by)}, {direction}.")
        if not domain.reweighted:
            lines.append(f"the weight of '{escape(name)}' is fixed: losses never move it.")
    for row in rows:
        if row.epochs > MANY_EPOCHS + ROUNDING:
            lines.append(
                f"[yellow]warning:[/] '{escape(row.domain)}' would be repeated {row.epochs:.1f} times; "
                f"beyond {MANY_EPOCHS:g} repeated tokens help little. Lower its weight, or set --max-epochs."
            )
    return lines


def print_preview(console: Console, rows: Sequence[PreviewRow], budget: int) -> None:
    """Prints what a budget contains by domain and language, for the whole run and for each stage."""
    for stage, of_stage in by_stage(rows).items():
        where = f"stage {escape(stage)}" if stage != rows[0].stage else f"{budget:,} tokens"
        console.print(f"\nwhat {where} will contain", highlight=False, soft_wrap=True)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("domain", "language"):
            table.add_column(column)
        for column in ("documents", "of", "tokens drawn", "share", "epochs"):
            table.add_column(column, justify="right")
        total = sum(row.tokens_drawn for row in of_stage)
        for domain in dict.fromkeys(row.domain for row in of_stage):
            for row in _shortened([row for row in of_stage if row.domain == domain]):
                table.add_row(
                    escape(row.domain),
                    escape(row.language or "–"),
                    f"{row.documents_drawn:,}",
                    f"{row.num_documents:,}",
                    f"{row.tokens_drawn:,}",
                    f"{row.tokens_drawn / total:.4f}",
                    f"{row.epochs:.2f}",
                )
        console.print(table)


def _shortened(rows: Sequence[PreviewRow]) -> list[PreviewRow]:
    """Returns the largest languages of a domain, and all others as one row."""
    if len(rows) <= LANGUAGES_SHOWN + 1:
        return list(rows)
    ordered = sorted(rows, key=lambda row: -row.tokens_drawn)
    others = ordered[LANGUAGES_SHOWN:]
    tokens, drawn = sum(row.num_tokens for row in others), sum(row.tokens_drawn for row in others)
    together = PreviewRow(
        others[0].stage,
        others[0].domain,
        f"{len(others)} others",
        sum(row.num_documents for row in others),
        tokens,
        sum(row.documents_drawn for row in others),
        drawn,
        drawn / tokens,
    )
    return [*ordered[:LANGUAGES_SHOWN], together]


def preview_columns(rows: Sequence[PreviewRow]) -> tuple[list[str], list[tuple[object, ...]]]:
    """Returns the preview as columns and rows, for CSV and JSON."""
    return [field.name for field in fields(PreviewRow)], [astuple(row) for row in rows]


def packs_are_here(manifest: MixtureManifest, path: Path) -> bool:
    """Whether any pack of the manifest lies where it says. A manifest can be read far away from its packs."""
    return any((path.parent / pack / MANIFEST_NAME).exists() for d in manifest.domains.values() for pack in d.packs)


def print_recipes(console: Console) -> None:
    """Prints the published tables."""
    for recipe in RECIPES.values():
        console.print(f"[bold]{recipe.name}[/]: {escape(recipe.source)}", highlight=False, soft_wrap=True)
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("part")
        table.add_column("percent", justify="right")
        table.add_column("epochs there", justify="right")
        table.add_column("domains that fit")
        for part in recipe.parts:
            table.add_row(part.name, f"{part.percent:g}", f"{part.epochs:g}", ", ".join((part.name, *part.aliases)))
        console.print(table)
        console.print()
