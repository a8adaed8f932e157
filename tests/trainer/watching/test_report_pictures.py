"""Curves: thinned, smoothed, and scaled so that the end of a run can be read."""

from __future__ import annotations

import polars as pl
import pytest
from matplotlib.figure import Figure

from trainer.watching.metrics import METRICS_SCHEMA, STEPS_SCHEMA, VALIDATION_SCHEMA
from trainer.watching.report_pictures import (
    COLOURS,
    MAX_POINTS,
    Measured,
    _curve,
    _scale_after_start,
    draw_pictures,
    thinned,
)


def test_long_curves_are_thinned_by_medians() -> None:
    x = pl.Series(range(10_000))
    y = pl.Series([100.0 if i % 50 == 0 else 1.0 for i in range(10_000)])
    xs, ys = thinned(x, y)
    assert len(xs) == MAX_POINTS and set(ys) == {1.0} and list(xs) == sorted(xs)
    assert thinned(x[:5], y[:5]) == ([0, 1, 2, 3, 4], [100, 1, 1, 1, 1])


def test_noisy_curves_are_means_over_what_was_measured() -> None:
    axes = Figure().add_subplot()
    steps = pl.DataFrame({"step": range(400), "loss": [5.0 + (-1) ** i for i in range(400)]})
    steps = steps.with_columns(loss=pl.when(pl.col("step") == 200).then(float("nan")).otherwise("loss"))
    _curve(axes, steps, "loss", "black")
    pale, line = axes.lines
    assert (pale.get_alpha(), len(pale.get_xdata())) == (0.25, 399)  # type: ignore[arg-type]
    assert line.get_ydata()[100] == pytest.approx(5.0)  # type: ignore[index]
    _curve(axes, steps.head(1), "loss", "black")
    assert axes.lines[-1].get_marker() == "o"


def test_the_first_losses_do_not_set_the_scale() -> None:
    axes = Figure().add_subplot()
    train = pl.DataFrame({"step": range(1, 101), "loss": [11.0] * 3 + [3.0, *[2.0] * 96]})
    held_out = pl.DataFrame({"step": [0, 100], "loss": [11.0, 1.0]})
    _scale_after_start(axes, train, held_out)
    assert axes.get_ylim() == pytest.approx((0.9, 3.1))
    before = axes.get_ylim()
    _scale_after_start(axes, train.clear(), held_out.clear())
    assert axes.get_ylim() == before


def test_domains_keep_their_colours_and_held_out_ones_come_last() -> None:
    names = [f"d{i}" for i in range(12)]
    rows = [
        {
            "step": 1,
            "domain": n,
            "loss": 2.0,
            "weight": 0.1,
            "multiplier": 1.0,
            "share": 0.1,
            "tokens": 5,
            "epochs": 0.1,
        }
        for n in names
    ]
    held_out = {"step": 0, "domain": "verse", "loss": 3.0, "perplexity": 20.0, "bits_per_byte": 4.0, "tokens": 9}
    measured = Measured(
        domains=pl.DataFrame(rows, METRICS_SCHEMA),
        steps=pl.DataFrame([dict.fromkeys(STEPS_SCHEMA, 1)], STEPS_SCHEMA),
        validation=pl.DataFrame([held_out], VALIDATION_SCHEMA),
        incidents=[1],
    )
    assert list(measured.colours) == [*names, "verse"]
    assert measured.colours["d0"] == measured.colours["d10"] == COLOURS[0]
    first, *others = draw_pictures(measured)
    assert first.wide and first.keys == list(measured.colours.items())
    assert all(picture.svg.startswith("<svg") for picture in others)
