"""What a person sees in a terminal: the plan, live progress, the funnel, and a document's story."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from numbers import Number
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from dataeng.engine.records import TaskRecord
from dataeng.engine.reuse import PhaseState
from dataeng.fingerprint import digest
from dataeng.formats.pack import folder_of
from dataeng.plan import Phase
from dataeng.report.funnel import FunnelRow
from dataeng.report.terminal_marks import marked_text, print_judgement
from dataeng.report.visible import visible

if TYPE_CHECKING:  # would bring the kernels to commands that need none
    from dataeng.report.explain import Story

PLAIN_SECONDS = 30.0  # off a terminal, at most one line of progress in so many seconds
PLAIN_WIDTH = 140
REASONS_SHOWN = 6
TEXT_SHOWN = 1500
DUPLICATES_SHOWN = 10
CELL_SHOWN = 500
NARROWEST_COLUMN = 10  # where columns would get less room than this, a row becomes a list
ROWS_SHOWN = 200
ALIKE = 8  # so many columns that begin alike are named together


def size(num_bytes: float) -> str:
    """Returns a size for people: 1.2 MB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if num_bytes < 1000 or unit == "TB":
            return f"{num_bytes:,.0f} {unit}" if unit == "B" else f"{num_bytes:,.1f} {unit}"
        num_bytes /= 1000
    raise AssertionError("unreachable")


class LiveProgress:
    """Shows what a run is doing: bars on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars: Progress | None = None
        if console.is_terminal:
            self._bars = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("[dim]{task.fields[note]}"),
                TimeElapsedColumn(),
                console=console,
            )
        self._task: TaskID | None = None
        self._num_tasks = self._done = self._documents = 0
        self._phase = ""
        self._last_line = time.monotonic()

    def __enter__(self) -> LiveProgress:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars:
            self._bars.stop()

    def phase_started(self, state: PhaseState, num_tasks: int) -> None:
        self._phase, self._num_tasks, self._done, self._documents = state.phase.name, num_tasks, len(state.done), 0
        if self._bars:
            self._task = self._bars.add_task(escape(self._phase), total=num_tasks, completed=self._done, note="")
        again = [reason for reason in state.reasons if reason != "not run yet"]
        if again:
            self.message(f"{self._phase} runs again: {'; '.join(again[:3])}")

    def task_done(self, record: TaskRecord) -> None:
        self._done += 1
        first = next(iter(record.counts.values()), None)
        self._documents += first.documents_in if first else 0
        note = f"{self._documents:,} documents" if self._documents else ""
        if self._bars and self._task is not None:
            self._bars.update(self._task, completed=self._done, note=note)
        elif time.monotonic() - self._last_line > PLAIN_SECONDS:
            self.message(f"{self._phase}: {self._done} of {self._num_tasks} tasks{', ' + note if note else ''}")

    def phase_done(self, phase: Phase, seconds: float) -> None:
        if not self._bars:
            self.message(f"{phase.name}: {self._num_tasks} tasks, {seconds:.1f} s")

    def message(self, text: str) -> None:
        self._last_line = time.monotonic()
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def console() -> Console:
    """Returns a console for standard output; where that is a file or a pipe, tables get room."""
    # emoji=False: ":warning:" in a crawled text is what the page says.
    plain = Console(emoji=False)
    return plain if plain.is_terminal else Console(width=PLAIN_WIDTH, emoji=False)


def plan_lines(states: Sequence[PhaseState]) -> Iterator[str]:
    """Yields the plan: per phase its tasks and fingerprint, whether it would run and why, and what it does."""
    width = max(len(state.phase.name) for state in states)
    for state in states:
        tasks = state.tasks
        if state.complete:
            verdict = "[green]reuse[/]"
        else:
            reused = f", reuse {len(state.done)}" if state.done else ""
            verdict = f"[yellow]run {len(state.todo)}[/]{reused}: {escape('; '.join(state.reasons[:3]))}"
        fingerprint = digest([task.fingerprint for task in tasks])[:8]
        yield f"\n[bold]{state.phase.name.ljust(width)}[/]  {len(tasks):>4} tasks  [dim]{fingerprint}[/]  {verdict}"
        yield f"  {escape(' → '.join(_stations(state.phase)))}"


def _stations(phase: Phase) -> list[str]:
    if phase.kind != "rows":
        unit = "part" if phase.kind == "visit" else "partition"
        again = ", repeated until nothing changes" if phase.repeats else ""
        name = phase.exchange.name if phase.exchange else ""
        return [f"step {phase.exchange_step + 1} of {name}, one task per {unit}{again}"]
    stations = [f"apply {phase.applies.name}"] if phase.applies else []
    stations += [step.name for step in phase.steps]
    stations += [f"emit to {phase.emits_to.name}"] if phase.emits_to else []
    return stations + [step.name for step in phase.sinks]


def funnel_table(rows: Sequence[FunnelRow]) -> Table:
    """Returns the funnel; stations that only pass documents on are left out."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for column in ("documents in", "bytes in", "kept", "bytes kept", "seconds"):
        table.add_column(column, justify="right")
    table.add_column("dropped by reason", overflow="fold")
    for row in rows:
        count = row.count
        if count.documents_in == 0:
            continue
        reasons = sorted(count.dropped.items(), key=lambda item: (-item[1][0], item[0]))
        listed = [f"{visible(reason)} {documents:,}" for reason, (documents, _) in reasons[:REASONS_SHOWN]]
        if len(reasons) > REASONS_SHOWN:
            listed.append(f"{len(reasons) - REASONS_SHOWN} more reasons")
        table.add_row(
            row.stage,
            f"{count.documents_in:,}",
            size(count.bytes_in),
            f"{count.documents_kept:,}",
            size(count.bytes_kept),
            f"{count.seconds:.1f}",
            Text(", ".join(listed) or "–"),
        )
    return table


def pack_lines(records: Mapping[str, list[TaskRecord]]) -> Iterator[str]:
    """Yields a line per domain that was packed: documents and tokens."""
    totals: dict[str, list[int]] = {}
    shards = (shard for group in records.values() for r in group for found in r.shards.values() for shard in found)
    for shard in shards:
        if "tokens" in shard and "domain" in shard:
            total = totals.setdefault(folder_of(shard), [0, 0])
            total[0] += shard["shard"]["num_documents"]
            total[1] += shard["shard"]["num_tokens"]
    if totals:
        yield ""
    for folder, (documents, tokens) in sorted(totals.items()):
        yield f"packs/{escape(folder)}: {documents:,} documents, {tokens:,} tokens"
    yield from _encoder_lines(records)


def _encoder_lines(records: Mapping[str, list[TaskRecord]]) -> Iterator[str]:
    """Yields a line for every encoder that made packs, and for every reason why a faster one did not."""
    # Every shard of a part has the account of the whole part.
    parts = [found[0] for group in records.values() for r in group for found in r.shards.values() if found]
    accounts = [part["encoding"] for part in parts if "encoding" in part]
    for name in sorted({f"{account['encoder']} {account['version']}" for account in accounts}):
        mine = [account for account in accounts if f"{account['encoder']} {account['version']}" == name]
        compared = sum(account["num_compared"] for account in mine if account["difference"] is None)
        proof = f"; {compared:,} texts compared with the reference: the same tokens" if compared else ""
        yield f"{len(mine):,} parts encoded by {escape(name)}{proof}"
    for reason in sorted({account["difference"] for account in accounts} - {None}):
        yield f"the reference encoded instead: {escape(visible(reason))}"


def print_tables(console: Console, tables: Mapping[str, str], run_dir: Path) -> None:
    """Prints every table's columns, given as ``a, b, c``; of many that begin alike only how many there are."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("table")
    table.add_column("columns", overflow="fold")
    for name, columns in tables.items():
        table.add_row(name, Text(visible(", ".join(_grouped(columns.split(", "))))))
    console.print(table)
    first = "documents" if "documents" in tables else next(iter(tables))
    hint = f'\nEvery column of a table with its type: dataeng sql {run_dir} "DESCRIBE {first}"'
    console.print(hint, markup=False, highlight=False, soft_wrap=True)


def _grouped(columns: Sequence[str]) -> list[str]:
    """Replaces columns of one prefix by ``quality_* (82 columns)``, where the first of them stands."""
    prefixes = [column.partition("_")[0] for column in columns]
    count = Counter(prefixes)
    return list(
        dict.fromkeys(
            f"{prefix}_* ({count[prefix]} columns)" if count[prefix] >= ALIKE else column
            for column, prefix in zip(columns, prefixes, strict=True)
        )
    )


def print_rows(console: Console, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints the answer to a query; of a long one the first `ROWS_SHOWN` rows, of a wide one a line per column."""
    if len(columns) * NARROWEST_COLUMN > console.width:
        for number, row in enumerate(rows[:ROWS_SHOWN], start=1):
            console.print(f"[dim]row {number}", highlight=False)
            _print_pairs(console, dict(zip(columns, row, strict=True)))
        return _print_rest(console, rows)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numbers = bool(rows) and all(isinstance(row[index], Number) for row in rows if row[index] is not None)
        table.add_column(escape(column), justify="right" if numbers else "left", overflow="fold")
    for row in rows[:ROWS_SHOWN]:
        table.add_row(*(_cell(value) for value in row))
    console.print(table)
    return _print_rest(console, rows)


def _print_rest(console: Console, rows: Sequence[Sequence[object]]) -> None:
    if not rows:
        console.print("no rows", style="dim")
    if len(rows) > ROWS_SHOWN:
        console.print(f"… the first {ROWS_SHOWN} rows; --format csv or json gives all", style="dim", highlight=False)


def _cell(value: object) -> Text:
    """Returns a value for a table. Never as markup: a text may hold "[bold]", and ends in a backslash as it likes."""
    if value is None:
        return Text("null", style="dim")
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return Text(visible(text if len(text) <= CELL_SHOWN else text[: CELL_SHOWN - 1] + "…"))


def print_story(console: Console, story: Story) -> None:
    """Prints what a run knows about one document."""
    style = "green" if story.outcome.startswith("kept") else "yellow"
    console.print(Text(visible(story.outcome), style=f"bold {style}"), soft_wrap=True)
    _print_pairs(console, story.identity)
    for judgement in story.judgements:
        print_judgement(console, judgement)
    if story.unjudged:
        console.print(Text(visible(f"\nrules cannot be shown: {story.unjudged}"), style="dim"), soft_wrap=True)
    for title, values in (("pack", story.pack), ("evidence", story.evidence), ("signals", story.signals)):
        if values:
            console.print(f"\n[bold]{title}")
            _print_pairs(console, values)
    if story.removed_for_it:
        number = len(story.removed_for_it)
        were = "1 duplicate was" if number == 1 else f"{number:,} duplicates were"
        console.print(f"\n[bold]{were} dropped in its favour", highlight=False)
        for identifier in story.removed_for_it[:DUPLICATES_SHOWN]:
            console.print(f"  {identifier}", highlight=False)
        if number > DUPLICATES_SHOWN:
            console.print(f"  and {number - DUPLICATES_SHOWN:,} more", highlight=False)
    if story.text:
        marks = next((j.marks for j in reversed(story.judgements) if j.marks is not None), None)
        title = f"text, marked: {marks.what} ({len(marks.spans):,})" if marks is not None else "text"
        shown = marked_text(story.text, marks, TEXT_SHOWN, plain=not console.is_terminal)
        console.print(Panel(shown, title=escape(title)))


def _print_pairs(console: Console, values: Mapping[str, object]) -> None:
    width = max((len(key) for key in values), default=0)
    for key, value in values.items():
        console.print(Text.assemble("  ", (key.ljust(width), "dim"), "  ", _cell(value)), soft_wrap=True)
