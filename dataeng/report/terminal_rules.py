"""What a person sees of rules: presets, what other thresholds would do, where two presets disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from dataeng.presets import Parameter, load_preset, preset_names
from dataeng.report.diff_presets import PresetDifference
from dataeng.report.preset_reference import needs
from dataeng.report.terminal import size
from dataeng.report.tune import KINDS, RuleChange, Tuned
from dataeng.report.visible import visible

KEPT = "kept"
DOCUMENTS_SHOWN = 20


def print_tuned(console: Console, tuned: Tuned) -> None:
    """Prints what would flip: totals per kind, then per domain, language and reasons, then examples."""
    console.print(Text(visible(f"step {tuned.step}: {'; '.join(tuned.changes) or 'nothing changed'}")), soft_wrap=True)
    console.print(
        f"{tuned.judged:,} documents judged again: {tuned.kept_before:,} kept before, {tuned.kept_after:,} after "
        f"({tuned.seconds:.2f} s, nothing was run)",
        highlight=False,
        soft_wrap=True,
    )
    if tuned.rules:
        _print_rules(console, tuned.rules)
    if tuned.flips.is_empty():
        console.print("no decision changes")
        return
    for kind in KINDS:
        rows = tuned.flips.filter(pl.col("kind") == kind)
        if rows.height:
            _print_kind(console, kind, rows)
    if tuned.flips.get_column("tokens").null_count():
        console.print("\ntokens are not known: the run has no packs", style="dim")
    elif tuned.flips.get_column("documents").sum() > tuned.flips.get_column("documents_packed").sum():
        console.print(
            "\n~ tokens of documents that are in no pack are estimated from their bytes, by the run's own ratio of "
            "tokens to bytes for each domain and language",
            style="dim",
            soft_wrap=True,
        )
    _print_examples(console, tuned)


def _print_rules(console: Console, rules: Sequence[RuleChange]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("rule, alone", "breaks before", "after", "nearest that stays", "predicate"):
        table.add_column(column, overflow="fold", justify="left" if column[0] in "rp" else "right")
    for rule in rules:
        nearest = "–" if rule.nearest is None else f"{rule.nearest:.4g}"
        predicate = Text(visible(rule.drop), style="dim")
        table.add_row(Text(visible(rule.rule)), f"{rule.breaks_before:,}", f"{rule.breaks_after:,}", nearest, predicate)
    console.print(table)


def _print_kind(console: Console, kind: str, rows: pl.DataFrame) -> None:
    total = rows.select(pl.col("documents", "bytes", "tokens", "documents_packed").sum()).row(0, named=True)
    total["tokens"] = None if rows.get_column("tokens").null_count() else total["tokens"]
    console.print(
        f"\n[bold]{kind}[/]: {total['documents']:,} documents, {size(total['bytes'])}, {_tokens(total)}",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("domain", "language", "old", "new"):
        table.add_column(column, overflow="fold")
    for column in ("documents", "bytes", "tokens"):
        table.add_column(column, justify="right")
    for row in rows.iter_rows(named=True):
        names = [visible(str(row[key] or "–")) for key in ("domain", "language")]
        table.add_row(
            *(Text(name) for name in names),
            Text(visible(row["old"] or KEPT)),
            Text(visible(row["new"] or KEPT)),
            f"{row['documents']:,}",
            size(row["bytes"]),
            _tokens(row).removesuffix(" tokens"),
        )
    console.print(table)


def _tokens(row: Mapping[str, int | None]) -> str:
    if row["tokens"] is None:
        return "? tokens"
    estimated = "~" if row["documents"] != row["documents_packed"] else ""
    return f"{estimated}{row['tokens']:,} tokens"


def _print_examples(console: Console, tuned: Tuned) -> None:
    kind = ""
    for example in tuned.examples:
        if example.kind != kind:
            kind = example.kind
            console.print(f"\n[bold]for example, {kind}")
        decision = f"{example.old or KEPT} → {example.new or KEPT}"
        console.print(Text(visible(f"{example.id}  {example.url or '–'}")), soft_wrap=True)
        detail = f"  ({example.detail})" if example.detail else ""
        console.print(Text(visible(f"  {decision}{detail}"), style="yellow"), soft_wrap=True)
        if example.text is not None:
            console.print(Text(visible("  " + " ".join(example.text.split())), style="dim"), soft_wrap=True)


def print_difference(console: Console, difference: PresetDifference, limit: int) -> None:
    """Prints how far two presets agree, and the documents that one keeps and the other drops."""
    first, second = difference.first, difference.second
    console.print(
        f"{difference.documents:,} documents with signals; {escape(first)} and {escape(second)} agree on "
        f"{difference.agreement:.1%} of them",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("documents", justify="right")
    for label, number in (
        ("both keep", difference.both_keep),
        ("both drop", difference.both_drop),
        (f"only {first} drops", difference.only_first_drops),
        (f"only {second} drops", difference.only_second_drops),
    ):
        table.add_row(Text(label), f"{number:,}")
    console.print(table)
    if difference.pairs.height:
        console.print("\n[bold]reasons that differ")
        pairs = Table(box=None, pad_edge=False, header_style="bold")
        pairs.add_column(Text(first))
        pairs.add_column(Text(second))
        pairs.add_column("documents", justify="right")
        for row in difference.pairs.iter_rows(named=True):
            pairs.add_row(Text(row["first"] or KEPT), Text(row["second"] or KEPT), f"{row['documents']:,}")
        console.print(pairs)
    shown = difference.disagreements.head(limit)
    if shown.height:
        console.print("\n[bold]documents that one keeps and the other drops")
        for row in shown.iter_rows(named=True):
            detail = row["first_detail"] or row["second_detail"] or ""
            console.print(Text(visible(f"{row['id']}  {row['url'] or '–'}")), soft_wrap=True)
            line = f"  {row['first'] or KEPT} | {row['second'] or KEPT}  ({detail})"
            console.print(Text(visible(line), style="yellow"), soft_wrap=True)
    if difference.disagreements.height > limit:
        console.print(
            f"… {difference.disagreements.height - limit:,} more; --limit, or --format csv or json, gives all",
            style="dim",
            highlight=False,
        )


def print_presets(console: Console) -> None:
    """Prints the presets that come with the package."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("preset", "rules", "source"):
        table.add_column(column, overflow="fold", justify="right" if column == "rules" else "left")
    for name in preset_names():
        preset = load_preset(name)
        table.add_row(Text(name), str(len(preset.rules)), Text(preset.source))
    console.print(table)


def print_preset(console: Console, name: str) -> None:
    """Prints one preset: its source, what it approximates, its parameters and rules."""
    preset = load_preset(name)
    console.print(Text(f"{preset.name}: {preset.source}", style="bold"), soft_wrap=True)
    console.print(Text(preset.note.strip()), soft_wrap=True)
    if preset.parameters:
        console.print("\n[bold]parameters")
    for key, value in preset.parameters.items():
        console.print(Text(f"  {preset.family}.{key} = {spelled(value)}"), soft_wrap=True)
    for alias, parameter in preset.aliases.items():
        console.print(Text(f"  {preset.family}.{alias} is another name of {parameter}"), soft_wrap=True)
    needed = needs(preset).replace("`", "")
    if needed:
        console.print(Text(f"needs {needed}"), soft_wrap=True)
    for column, hint in preset.columns.items():
        console.print(Text(f"  {column}: {hint.strip()}"), soft_wrap=True)
    console.print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("rule", "drops a document if", "note"):
        table.add_column(column, overflow="fold")
    for rule in preset.rules:
        note = rule.note if rule.source == preset.source else f"{rule.note} ({rule.source})".strip()
        table.add_row(Text(rule.name), Text(rule.drop), Text(note))
    console.print(table)


def spelled(value: Parameter) -> str:
    """Returns a parameter's value for a person."""
    if isinstance(value, Mapping):
        return ", ".join(f"{language} {spelled(number)}" for language, number in value.items())
    return "off" if value is None else f"{value:g}"
