"""Metrics files: what is written, what a resumed run discards, and the summary."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from dataeng.errors import FormatError
from trainer.watching.metrics import (
    METRICS_SCHEMA,
    DomainRecord,
    HeldOutRecord,
    MetricsWriter,
    StepRecord,
    ValidationRecord,
)


def record(step: int, losses: dict[str, float | None], tokens: int = 10) -> StepRecord:
    return StepRecord(
        step=step,
        loss=2.0,
        weighted_loss=2.5,
        gradient_norm=1.0,
        learning_rate=0.1,
        seconds=0.5,
        decaying=step > 2,
        observed=True,
        domains=[
            DomainRecord(
                domain=name,
                loss_sum=0.0 if loss is None else loss * tokens,
                square_sum=0.0 if loss is None else loss * loss * tokens,
                tokens=0 if loss is None else tokens,
                weight=0.5,
                multiplier=1.0,
                share=0.5,
                planned_share=0.25,
                epochs=step / 10,
            )
            for name, loss in losses.items()
        ],
    )


def validation(step: int, **losses: float) -> ValidationRecord:
    return ValidationRecord(
        step=step,
        domains=[
            HeldOutRecord(domain=name, loss=loss, standard_error=None, perplexity=9.0, bits_per_byte=1.5, tokens=7)
            for name, loss in losses.items()
        ],
    )


def test_validations_go_with_the_steps_around_them(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    writer.add_validation(validation(0, web=6.0, qa=4.0))
    for step in range(1, 7):
        writer.add(record(step, {"web": 3.0}))
        if step in (2, 5):
            writer.add_validation(validation(step, web=6.0 - step, qa=4.5))
        if step % 2 == 0:
            writer.flush()
    assert sorted(p.name for p in (tmp_path / "validation").iterdir()) == [
        "part-00000001.parquet",
        "part-00000005.parquet",
    ]
    table = writer.read("validation")
    assert table["step"].to_list() == [0, 0, 2, 2, 5, 5]
    assert table["loss"].to_list() == [6.0, 4.0, 4.0, 4.5, 1.0, 4.5]
    assert writer.best_validation() == (5, 2.75)
    (web, qa, code) = writer.summary(["web", "qa", "code"])
    assert (web.held_out_loss, qa.held_out_loss, code.held_out_loss) == (1.0, 4.5, None)
    writer.discard_after(4)
    assert writer.read("validation")["step"].max() == 2
    writer.add(record(5, {"web": 3.0}))
    writer.add_validation(validation(5, web=0.0))
    writer.forget()
    writer.flush()
    assert (writer.read("validation")["step"].max(), writer.read("steps")["step"].max()) == (2, 4)
    assert writer.best_validation() == (2, 4.25)
    assert MetricsWriter(tmp_path / "none").best_validation() is None


def test_what_is_written(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    writer.flush()
    assert list(tmp_path.iterdir()) == []
    writer.add(record(1, {"web": 3.0, "code": None}))
    writer.add(record(2, {"web": 2.0, "code": 4.0}))
    writer.flush()
    writer.flush()
    writer.add(record(3, {"web": 1.0, "code": 3.0}))
    writer.flush()
    names = ["part-00000001.parquet", "part-00000003.parquet"]
    assert sorted(p.name for p in (tmp_path / "metrics").iterdir()) == names
    assert sorted(p.name for p in (tmp_path / "steps").iterdir()) == names
    metrics = pl.read_parquet(tmp_path / "metrics" / "*.parquet")
    assert metrics.columns == list(METRICS_SCHEMA)
    assert metrics.columns[:8] == ["step", "domain", "loss", "weight", "multiplier", "share", "tokens", "epochs"]
    assert metrics["step"].to_list() == [1, 1, 2, 2, 3, 3]
    assert metrics["loss"].to_list() == [3.0, None, 2.0, 4.0, 1.0, 3.0]
    assert metrics["tokens"].to_list() == [10, 0, 10, 10, 10, 10]
    assert metrics["loss_sum"].to_list() == [30.0, 0.0, 20.0, 40.0, 10.0, 30.0]
    assert metrics["square_sum"].to_list() == [90.0, 0.0, 40.0, 160.0, 10.0, 90.0]
    assert metrics["planned_share"].to_list() == [0.25] * 6
    steps = pl.read_parquet(tmp_path / "steps" / "*.parquet")
    assert steps["tokens_per_second"].to_list() == [20.0, 40.0, 40.0]
    assert steps["decaying"].to_list() == [False, False, True]


def test_a_step_that_was_not_finite_does_not_spoil_the_summary(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    for step, loss in enumerate([float("inf"), *[3.0] * 18, float("nan")], 1):
        writer.add(record(step, {"web": loss}))
    writer.flush()
    (web,) = writer.summary(["web"])
    assert (web.first_loss, web.last_loss) == (3.0, 3.0)


def test_parts_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    for step in (1, 2):
        writer.add(record(step, {"web": 3.0}))
        writer.flush()
    old = tmp_path / "metrics" / "part-00000001.parquet"
    pl.read_parquet(old).drop("loss_sum", "square_sum", "planned_share").write_parquet(old)
    assert writer.read("metrics")["loss_sum"].to_list() == [None, 30.0]
    old = tmp_path / "steps" / "part-00000001.parquet"
    pl.read_parquet(old).drop("mfu", "update_ratio", "peak_memory_bytes").write_parquet(old)
    assert writer.read("steps")["mfu"].to_list() == [None, None]
    assert writer.read("steps")["loss"].to_list() == [2.0, 2.0]


def test_parts_after_a_checkpoint_are_discarded(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    for step in (1, 2, 3):
        writer.add(record(step, {"web": 3.0}))
        writer.flush()
    (tmp_path / "metrics" / ".part-00000004.parquet.abc.tmp").write_bytes(b"half")
    writer.discard_after(2)
    assert sorted(p.name for p in (tmp_path / "metrics").iterdir()) == [
        "part-00000001.parquet",
        "part-00000002.parquet",
    ]
    assert writer.read("steps")["step"].to_list() == [1, 2]
    writer.discard_after(0)
    assert len(writer.read("metrics")) == 0


def test_a_foreign_file_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "part-mine.parquet").write_bytes(b"")
    with pytest.raises(FormatError, match=r"part-mine.parquet is not a metrics part"):
        MetricsWriter(tmp_path).discard_after(0)


def test_the_summary_weighs_by_tokens(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path)
    for step in range(1, 21):  # the window is 2 of 20 steps
        writer.add(record(step, {"web": float(30 - step), "code": None, "rare": 5.0 if step == 7 else None}, step))
    writer.flush()
    web, code, rare = writer.summary(["web", "code", "rare"])
    assert web.first_loss == pytest.approx((29 * 1 + 28 * 2) / 3)
    assert web.last_loss == pytest.approx((11 * 19 + 10 * 20) / 39)
    assert (web.weight, web.share, web.epochs) == (0.5, 0.5, 2.0)
    assert (code.first_loss, code.last_loss) == (None, None)
    assert (rare.first_loss, rare.last_loss) == (5.0, 5.0)
