"""How clusters of duplicates and alarms look in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from dataeng.report.terminal_marks import marked_text
from dataeng.report.visible import visible

if TYPE_CHECKING:  # would bring the kernels and DuckDB to every run
    from dataeng.report.clusters import Cluster, Member

TEXT_SHOWN = 900


def print_clusters(console: Console, clusters: Sequence[Cluster]) -> None:
    """Prints clusters, largest first, each with its survivor beside the document that is least like it."""
    for number, cluster in enumerate(clusters, start=1):
        method = f", {cluster.method}" if cluster.method else ""
        least = f", least similar {cluster.least_similar:.3f}" if cluster.least_similar is not None else ""
        domains = f", {', '.join(cluster.domains)}" if cluster.domains else ""
        title = (
            f"\n[bold]{number}. {cluster.size:,} documents[/]  {escape(cluster.stage)}{method}{least}{escape(domains)}"
        )
        console.print(title, highlight=False)
        console.print(_member_table(cluster))
        if cluster.kept.text and cluster.removed and cluster.removed[0].text:
            same = cluster.kept.text == cluster.removed[0].text
            console.print(
                "the texts are the same" if same else _side_by_side(console, cluster.kept, cluster.removed[0])
            )


def _member_table(cluster: Cluster) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for justify in ("left", "left", "right", "left"):
        table.add_column(justify=justify, overflow="fold")
    table.add_row(Text("kept", style="green"), cluster.kept.id, "", Text(visible(cluster.kept.url or "")))
    for member in cluster.removed:
        through = "" if member.matched_id in (None, cluster.kept.id) else f" to {member.matched_id}"
        similarity = "" if member.similarity is None else f"{member.similarity:.3f}{through}"
        table.add_row(Text("removed", style="yellow"), member.id, similarity, Text(visible(member.url or "")))
    rest = cluster.size - 1 - len(cluster.removed)
    if rest > 0:
        table.add_row("", f"and {rest:,} more", "", "")
    return table


def _side_by_side(console: Console, kept: Member, removed: Member) -> Table:
    """The beginning of two texts, with the words marked that only one of them has."""
    from dataeng.report.clusters import differences
    from dataeng.report.marks import Marks

    assert kept.text is not None and removed.text is not None
    spans = differences(kept.text, removed.text)
    table = Table(show_lines=False, expand=True)
    for name, text, own in (("kept", kept.text, spans[0]), ("removed", removed.text, spans[1])):
        table.add_column(f"{name}: {len(text):,} characters, {len(own):,} differences", ratio=1, overflow="fold")
    plain = not console.is_terminal
    table.add_row(
        *(
            marked_text(text, Marks("differences", tuple(own)), TEXT_SHOWN, plain)
            for text, own in ((kept.text, spans[0]), (removed.text, spans[1]))
        )
    )
    return table


def alarm_lines(alarms: pl.DataFrame) -> Iterator[Text]:
    """Yields a line for every alarm."""
    for row in alarms.iter_rows(named=True):
        what = {
            "cluster": f"one cluster (kept: {row['name']}) took {row['removed']:,} documents",
            "file": f"the file {row['name']} lost {row['removed']:,} documents",
            "domain": f"the domain {row['name']} lost {row['removed']:,} documents",
        }[row["kind"]]
        share = f"{row['share']:.0%}; the limit is {row['limit']:.0%}"
        text = f"alarm: {row['stage']}: {what} of {row['documents']:,} ({share})"
        yield Text(visible(text), style="bold yellow")
