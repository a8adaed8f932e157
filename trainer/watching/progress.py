"""What a person sees while a run is going: one live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from trainer.watching.metrics import DomainRecord, HeldOutRecord, StepRecord, ValidationRecord

PLAIN_INTERVAL_SECONDS = 5.0
#: Speed is shown as the mean of so many steps: single ones jump.
SPEED_STEPS = 20
Part = tuple[str, str]  # a label, perhaps empty, and a value with its unit


class Watcher(Protocol):
    """Receives what happens. Used as a context manager around the run."""

    def note(self, message: str) -> None:
        """A sentence for the person: what was found, where things are."""

    def begin(self, first_step: int, num_steps: int) -> None:
        """The first step of this process is about to run."""

    def step(self, record: StepRecord) -> None:
        """A step was done."""

    def validated(self, record: ValidationRecord) -> None:
        """Held-out losses were measured, after the step that was told last."""

    def __enter__(self) -> Watcher: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class SilentWatcher:
    """Says nothing: of several ranks the first alone speaks."""

    def note(self, message: str) -> None:
        return None

    def begin(self, first_step: int, num_steps: int) -> None:
        return None

    def step(self, record: StepRecord) -> None:
        return None

    def validated(self, record: ValidationRecord) -> None:
        return None

    def __enter__(self) -> SilentWatcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None


class PlainWatcher:
    """Lines, a few seconds apart: first and last step, and some in between; every validation."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.num_steps = 0
        self.last_line = 0.0
        self.pace = Pace()

    def note(self, message: str) -> None:
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def begin(self, first_step: int, num_steps: int) -> None:
        self.num_steps = num_steps
        self.last_line = 0.0
        self.pace = Pace()

    def step(self, record: StepRecord) -> None:
        self.pace.add(record)
        now = time.monotonic()
        if record.step < self.num_steps and now - self.last_line < PLAIN_INTERVAL_SECONDS:
            return
        self.last_line = now
        domains = ", ".join(f"{d.domain} {_loss(d.loss)}" for d in record.domains)
        parts = [("loss", f"{record.loss:.4f} ({domains})"), *_state(record), *self.pace.speed(record)]
        line = "  ".join(f"{label} {value}".strip() for label, value in parts)
        left = f"  {self.pace.left(record.step, self.num_steps)} left" if record.step < self.num_steps else ""
        self.note(f"step {record.step}/{self.num_steps}  {line}{left}")

    def validated(self, record: ValidationRecord) -> None:
        domains = ", ".join(f"{d.domain} {d.loss:.3f}" for d in record.domains)
        self.note(f"held-out loss after step {record.step}: {record.mean_loss:.4f} ({domains})")

    def __enter__(self) -> PlainWatcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None


class LiveWatcher:
    """A progress bar with a table of the domains under it, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self.bar = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=None),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self.task = self.bar.add_task("training", total=None, visible=False)
        self.live = Live(self.bar, console=console, refresh_per_second=8, transient=True)
        self.console = console
        self.pace = Pace()
        self.last: StepRecord | None = None
        self.held_out: ValidationRecord | None = None

    def note(self, message: str) -> None:
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def begin(self, first_step: int, num_steps: int) -> None:
        self.bar.update(self.task, total=num_steps, completed=first_step - 1, visible=True)
        self.pace = Pace()

    def step(self, record: StepRecord) -> None:
        self.pace.add(record)
        self.bar.update(self.task, completed=record.step)
        self.last = record
        self._draw(record)

    def validated(self, record: ValidationRecord) -> None:
        self.held_out = record
        if self.last is not None:
            self._draw(self.last)

    def _draw(self, record: StepRecord) -> None:
        """Two lines under the bar, narrow enough for 80 columns, and the domains."""
        held_out, (gradient, rate) = self.held_out, _state(record)
        first = [("loss", f"{record.loss:.4f}"), gradient]
        if held_out is not None:
            first.insert(1, ("held-out", f"{held_out.mean_loss:.4f} (step {held_out.step})"))
        lines = Text("\n").join(_line(parts) for parts in (first, [rate, *self.pace.speed(record)]))
        self.live.update(Group(self.bar, lines, Text(), _domain_table(record.domains, held_out)))

    def __enter__(self) -> LiveWatcher:
        self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.live.stop()


class Pace:
    """How fast the last steps were."""

    def __init__(self) -> None:
        self.recent: deque[StepRecord] = deque(maxlen=SPEED_STEPS)

    def add(self, record: StepRecord) -> None:
        """Counts a step."""
        self.recent.append(record)

    def speed(self, record: StepRecord) -> list[Part]:
        """Returns speed, MFU where it is known, and memory."""
        seconds = sum(r.seconds for r in self.recent)
        tokens = sum(r.tokens_per_second * r.seconds for r in self.recent)
        parts = [("", f"{tokens / seconds:,.0f} tokens/s")]
        known = [(r.mfu, r.seconds) for r in self.recent if r.mfu is not None]
        if known:
            parts.append(("MFU", f"{sum(mfu * s for mfu, s in known) / sum(s for _, s in known):.1%}"))
        if record.peak_memory_bytes is not None:
            parts.append(("memory", f"{record.peak_memory_bytes / 1e9:.2f} GB"))
        return parts

    def left(self, step: int, num_steps: int) -> str:
        """Returns how long the steps that are left will take, at the pace of the last ones, as 1:05:20."""
        seconds = round((num_steps - step) * sum(r.seconds for r in self.recent) / len(self.recent))
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _state(record: StepRecord) -> list[Part]:
    return [("gradient norm", f"{record.gradient_norm:.2f}"), ("learning rate", f"{record.learning_rate:.2e}")]


def _line(parts: list[Part]) -> Text:
    """Values with paler labels before them."""
    return Text("   ").join(Text.assemble((f"{label} " if label else "", "dim"), value) for label, value in parts)


def _domain_table(domains: list[DomainRecord], validation: ValidationRecord | None) -> RenderableType:
    """One row a domain; those that are only held out come last."""
    held_out: dict[str, HeldOutRecord] = {} if validation is None else {d.domain: d for d in validation.domains}
    table = Table(box=None, padding=(0, 2), pad_edge=False, collapse_padding=True)
    table.add_column("domain")
    for column in ("loss", *(["held-out"] if held_out else []), "weight", "share", "epochs"):
        table.add_column(column, justify="right")
    for d in domains:
        scored = held_out.pop(d.domain, None)
        middle = [] if validation is None else ["-" if scored is None else f"{scored.loss:.3f}"]
        table.add_row(Text(d.domain), _loss(d.loss), *middle, f"{d.weight:.3f}", f"{d.share:.3f}", f"{d.epochs:.2f}")
    for name, only in held_out.items():
        table.add_row(Text(name), "-", f"{only.loss:.3f}", "-", "-", "-")
    return table


def _loss(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.3f}"
