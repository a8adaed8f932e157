"""What is shown while a run is going, on a terminal and elsewhere."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from trainer.watching.metrics import DomainRecord, HeldOutRecord, StepRecord, ValidationRecord
from trainer.watching.progress import PLAIN_INTERVAL_SECONDS, SPEED_STEPS, LiveWatcher, Pace, PlainWatcher, Watcher


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
        mfu=0.4125,
        peak_memory_bytes=1_500_000_000,
    )


def validation(step: int) -> ValidationRecord:
    losses = {"web": 3.5, "[verse]": 4.0}
    return ValidationRecord(
        step=step,
        domains=[
            HeldOutRecord(domain=name, loss=loss, standard_error=0.1, perplexity=20.0, bits_per_byte=1.5, tokens=9)
            for name, loss in losses.items()
        ],
    )


def shown(make: type[PlainWatcher] | type[LiveWatcher], terminal: bool, validated: bool = True) -> str:
    file = io.StringIO()
    watcher: Watcher = make(Console(file=file, force_terminal=terminal, width=120, color_system=None))
    with watcher:
        watcher.note("resuming [somewhere]")
        watcher.begin(3, 5)
        for step in (3, 4, 5):
            watcher.step(record(step))
            if step == 4 and validated:
                watcher.validated(validation(step))
    return file.getvalue()


def test_plain_lines_show_the_first_and_the_last_step() -> None:
    lines = shown(PlainWatcher, terminal=False).splitlines()
    assert lines == [
        "resuming [somewhere]",
        "step 3/5  loss 3.2500 (web 3.250, [code] -)  gradient norm 1.50  learning rate 2.00e-03  128 tokens/s  "
        "MFU 41.2%  memory 1.50 GB  0:00:01 left",
        "held-out loss after step 4: 3.7500 (web 3.500, [verse] 4.000)",
        "step 5/5  loss 3.2500 (web 3.250, [code] -)  gradient norm 1.50  learning rate 2.00e-03  128 tokens/s  "
        "MFU 41.2%  memory 1.50 GB",
    ]


def test_plain_lines_are_seconds_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    file, now = io.StringIO(), 1000.0
    monkeypatch.setattr("trainer.watching.progress.time.monotonic", lambda: now)
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
    assert ["web", "3.250", "3.500", "0.750", "0.500", "0.12"] in rows
    assert ["[code]", "-", "-", "0.250", "0.500", "0.00"] in rows
    assert ["[verse]", "-", "4.000", "-", "-", "-"] in rows
    plain = shown(LiveWatcher, terminal=True, validated=False)
    assert ["web", "3.250", "0.750", "0.500", "0.12"] in [line.split() for line in plain.splitlines()]
    assert "held-out" not in plain
    assert "loss 3.2500   held-out 3.7500 (step 4)   gradient norm 1.50" in text
    assert "learning rate 2.00e-03   128 tokens/s   MFU 41.2%   memory 1.50 GB" in text


def test_the_pace_is_that_of_the_last_steps() -> None:
    pace = Pace()
    for step in range(1, 2 * SPEED_STEPS + 1):
        slow = step <= SPEED_STEPS
        pace.add(replace(record(step), seconds=4.0 if slow else 2.0, mfu=None if slow else 0.5, peak_memory_bytes=None))
    assert pace.speed(record(40)) == [("", "32 tokens/s"), ("MFU", "50.0%"), ("memory", "1.50 GB")]
    assert pace.speed(replace(record(40), peak_memory_bytes=None)) == [("", "32 tokens/s"), ("MFU", "50.0%")]
    assert pace.left(40, 2000) == "1:05:20"
