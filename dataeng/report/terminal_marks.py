"""How a judgement looks in a terminal: the table of rules, and the text with what the rule is about marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dataeng.report.visible import visible

if TYPE_CHECKING:  # would bring the kernels to commands that need none
    from dataeng.report.judgements import StepJudgement
    from dataeng.report.marks import Marks

OPEN, CLOSE = ">>", "<<"
MARK_STYLE = "black on yellow"
LEAD = 200  # characters shown before the first mark, where the text is too long to be shown from its start


def print_judgement(console: Console, judgement: StepJudgement) -> None:
    """Prints every rule of a step with what it measured; the first broken one is the document's reason."""
    console.print(Text(visible(f"\nrules of {judgement.step}"), style="bold"))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("rule", "measured", "drops if", "", "predicate"):
        table.add_column(column, justify="right" if column == "measured" else "left", overflow="fold")
    for index, outcome in enumerate(judgement.outcomes):
        first = index == judgement.first_broken
        state = "BROKEN FIRST" if first else "broken" if outcome.broken else "ok"
        limit = "off" if outcome.threshold is None else f"{outcome.operator} {outcome.threshold:g}"
        style = "bold yellow" if first else "yellow" if outcome.broken else ""
        table.add_row(
            Text(visible(outcome.rule)),
            Text("–" if outcome.value is None else f"{outcome.value:.4g}"),
            Text(limit if outcome.operator else ""),
            Text(state),
            Text(visible(outcome.drop), style="dim" if not outcome.broken else ""),
            style=style,
        )
    console.print(table)


def marked_text(text: str, marks: Marks | None, shown: int, plain: bool) -> Text:
    """Returns what is shown of a text, safe to print; marked pieces are in colour or, if ``plain``, between arrows."""
    spans = marks.spans if marks is not None else ()
    first = spans[0][0] if spans else 0
    start = max(0, first - LEAD) if first >= shown - LEAD else 0
    end = min(len(text), start + shown)
    result = Text()
    if start:
        result.append(f"{start:,} characters before …\n", style="dim")
    at = start
    for left, right in spans:
        if left >= end or right <= start:
            continue
        left, right = max(left, start), min(right, end)
        result.append(visible(text[at:left]))
        piece = visible(text[left:right])
        result.append(f"{OPEN}{piece}{CLOSE}" if plain else piece, style="" if plain else MARK_STYLE)
        at = right
    result.append(visible(text[at:end]))
    if end < len(text):
        result.append(f"\n… {len(text) - end:,} more characters")
    return result
