"""What a person sees while a run is going: one live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from trainer.monitor import StepRecord

PLAIN_INTERVAL_SECONDS = 5.0


class Watcher(Protocol):
    """Receives what happens. Used as a context manager around the run."""

    def note(self, message: str) -> None:
        """A sentence for the person: what was found, where things are."""

    def begin(self, first_step: int, num_steps: int) -> None:
        """The first step of this process is about to run."""

    def step(self, record: StepRecord) -> None:
        """A step was done."""

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

    def __enter__(self) -> SilentWatcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None


class PlainWatcher:
    """Lines, a few seconds apart: first and last step, and some in between."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.num_steps = 0
        self.last_line = 0.0

    def note(self, message: str) -> None:
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def begin(self, first_step: int, num_steps: int) -> None:
        self.num_steps = num_steps
        self.last_line = 0.0

    def step(self, record: StepRecord) -> None:
        now = time.monotonic()
        if record.step < self.num_steps and now - self.last_line < PLAIN_INTERVAL_SECONDS:
            return
        self.last_line = now
        domains = "  ".join(f"{d.domain} {_loss(d.loss)}" for d in record.domains)
        self.note(
            f"step {record.step}/{self.num_steps}  loss {record.loss:.4f}  {domains}  "
            f"gradient {record.gradient_norm:.2f}  lr {record.learning_rate:.2e}  "
            f"{record.tokens_per_second:,.0f} tokens/s"
        )

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

    def note(self, message: str) -> None:
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def begin(self, first_step: int, num_steps: int) -> None:
        self.bar.update(self.task, total=num_steps, completed=first_step - 1, visible=True)

    def step(self, record: StepRecord) -> None:
        self.bar.update(self.task, completed=record.step)
        totals = Text(
            f"loss {record.loss:.4f}   gradient {record.gradient_norm:.2f}   lr {record.learning_rate:.2e}   "
            f"{record.tokens_per_second:,.0f} tokens/s"
        )
        table = Table(box=None, padding=(0, 2))
        table.add_column("domain")
        for column in ("loss", "weight", "share", "epochs"):
            table.add_column(column, justify="right")
        for d in record.domains:
            table.add_row(Text(d.domain), _loss(d.loss), f"{d.weight:.3f}", f"{d.share:.3f}", f"{d.epochs:.2f}")
        self.live.update(Group(self.bar, totals, table))

    def __enter__(self) -> LiveWatcher:
        self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.live.stop()


def _loss(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.3f}"
