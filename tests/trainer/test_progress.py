"""What is shown while a run is going, on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from trainer.monitor import DomainRecord, StepRecord
from trainer.progress import PLAIN_INTERVAL_SECONDS, LiveWatcher, PlainWatcher, Watcher


def record(step: int) -> StepRecord:
    shares = {"share": 0.5, "planned_share": 0.5}
    web = {"loss_sum": 3.25 * 64, "square_sum": 700.0, "tokens": 64, "weight": 0.75, "multiplier": 1.5, "epochs": 0.125}
    code = {"loss_sum": 0.0, "square_sum": 0.0, "tokens": 0, "weight": 0.25, "multiplier": 0.5, "epochs": 0.0}
    domains = [DomainRecord(domain="web", **web, **shares), DomainRecord(domain="[code]", **code, **shares)]
    return StepRecord(
        step=step,
        loss=3.25,
        weighted_loss=4.0,
        gradient_norm=1.5,
        learning_rate=2e-3,
        seconds=0.5,
        decaying=False,
        observed=True,
        domains=domains,
    )


def shown(make: type[PlainWatcher] | type[LiveWatcher], terminal: bool) -> str:
    file = io.StringIO()
    watcher: Watcher = make(Console(file=file, force_terminal=terminal, width=120, color_system=None))
    with watcher:
        watcher.note("resuming [somewhere]")
        watcher.begin(3, 5)
        for step in (3, 4, 5):
            watcher.step(record(step))
    return file.getvalue()


def test_plain_lines_show_the_first_and_the_last_step() -> None:
    lines = shown(PlainWatcher, terminal=False).splitlines()
    assert lines == [
        "resuming [somewhere]",
        "step 3/5  loss 3.2500  web 3.250  [code] -  gradient 1.50  lr 2.00e-03  128 tokens/s",
        "step 5/5  loss 3.2500  web 3.250  [code] -  gradient 1.50  lr 2.00e-03  128 tokens/s",
    ]


def test_plain_lines_are_seconds_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    file, now = io.StringIO(), 1000.0
    monkeypatch.setattr("trainer.progress.time.monotonic", lambda: now)
    watcher = PlainWatcher(Console(file=file))
    watcher.begin(1, 100)
    for step in range(1, 21):
        now += PLAIN_INTERVAL_SECONDS / 5
        watcher.step(record(step))
    assert [line.split()[1] for line in file.getvalue().splitlines()] == ["1/100", "6/100", "11/100", "16/100"]


def test_the_live_table_shows_every_domain() -> None:
    text = shown(LiveWatcher, terminal=True)
    assert "resuming [somewhere]" in text
    assert "step 5/5" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["web", "3.250", "0.750", "0.500", "0.12"] in rows
    assert ["[code]", "-", "0.250", "0.500", "0.00"] in rows
