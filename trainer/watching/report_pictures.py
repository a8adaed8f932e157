"""The curves of a training report, as SVG elements: losses, weights, gradients, speed, with incidents marked."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Curves of more points are thinned by medians of neighbours: a page should open at once.
MAX_POINTS = 600
#: Lines are means over this part of the run, with the steps themselves paler behind them.
SMOOTHED_PART = 1 / 50
#: The first part of a run, whose high losses do not set the scale.
START_PART = 0.03
#: Ten colours that are told apart also where red and green are not (Observable's); more domains than that share them.
COLOURS = (
    "#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0"
)  # fmt: skip
INK, SOFT, ALARM = "#1c2430", "#8a94a3", "#d03535"
HELD_OUT_STYLE: dict[str, Any] = {"linestyle": (0, (4, 2)), "marker": "o", "markersize": 3.2, "linewidth": 1.3}

Draw = Callable[["Axes"], None]
Keys = list[tuple[str, str]]  # names with their colours


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Curves with what to look for in them. ``keys`` are names and colours; ``wide`` ones have a row of their own."""

    title: str
    caption: str
    svg: str
    keys: Keys = field(default_factory=list)
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a run wrote: the tables of `trainer.watching.metrics`, and the steps of its incidents."""

    domains: pl.DataFrame
    steps: pl.DataFrame
    validation: pl.DataFrame
    incidents: list[int]

    @property
    def names(self) -> list[str]:
        """Domains that are trained on, then those that are only held out."""
        return list(dict.fromkeys([*self.domains["domain"].to_list(), *self.validation["domain"].to_list()]))

    @property
    def colours(self) -> dict[str, str]:
        """One colour for each domain, the same in all pictures."""
        return dict(zip(self.names, cycle(COLOURS), strict=False))


def draw_pictures(measured: Measured) -> list[Picture]:
    """Returns the pictures of what was measured; what was not has none."""
    steps, incidents = measured.steps, measured.incidents
    trained = [(name, measured.colours[name]) for name in measured.domains["domain"].unique(maintain_order=True)]

    def per_domain(column: str) -> Draw:
        def draw(axes: Axes) -> None:
            for name, colour in trained:
                _curve(axes, measured.domains.filter(pl.col("domain") == name), column, colour, smoothed=False)

        return draw

    def of_steps(column: str, scale: Literal["linear", "log", "percent"], smoothed: bool = False) -> Draw:
        def draw(axes: Axes) -> None:
            _curve(axes, steps, column, COLOURS[0], smoothed)
            if scale == "log":
                _logarithmic(axes)
            else:
                axes.set_ylim(bottom=0)
            if scale == "percent":
                axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")

        return draw

    pictures = [_losses_of_domains(measured), _losses(measured)]
    plain: list[tuple[str, str, Draw, Keys]] = [
        ("Weight by domain", "The controller's weights on the domains' losses.", per_domain("weight"), trained),
        ("Share by domain", "Of the labels, as planned; shares move with stages, and with feedback by sampling.",
         per_domain("share"), trained),
        ("Epochs by domain", "How often each domain has been read.", per_domain("epochs"), trained),
        ("Gradient norm", "Before clipping, logarithmic. Spikes here come before spikes of the loss.",
         of_steps("gradient_norm", "log"), []),
        ("Update ratio", "How far a step moves the weights, ‖Δw‖ / ‖w‖, logarithmic. About 0.001 is usual.",
         of_steps("update_ratio", "log"), []),
        ("Learning rate", "Of the step.", of_steps("learning_rate", "linear"), []),
        ("Speed", "Labels per second.", of_steps("tokens_per_second", "linear", smoothed=True), []),
        ("Model FLOPs utilization", "Which part of the hardware's peak the model's own arithmetic takes.",
         of_steps("mfu", "percent", smoothed=True), []),
    ]  # fmt: skip
    column_of = {"Update ratio": "update_ratio", "Model FLOPs utilization": "mfu"}
    for title, caption, draw, keys in plain:
        if title in column_of and steps[column_of[title]].null_count() == len(steps):
            continue
        pictures.append(Picture(title=title, caption=caption, svg=_svg(draw, title, incidents), keys=keys))
    return pictures


def _losses_of_domains(measured: Measured) -> Picture:
    """The picture that matters most: every domain as it is trained on, and as it is held out."""
    validated = not measured.validation.is_empty()

    def draw(axes: Axes) -> None:
        for name, colour in measured.colours.items():
            _curve(axes, measured.domains.filter(pl.col("domain") == name), "loss", colour)
            held_out = measured.validation.filter(pl.col("domain") == name)
            axes.plot(held_out["step"].to_list(), held_out["loss"].to_list(), color=colour, **HELD_OUT_STYLE)
        _scale_after_start(axes, measured.domains, measured.validation)

    caption = "Nats per token, unweighted, so that runs can be compared."
    caption += " Solid: trained on. Dashed with dots: held out." if validated else ""
    return Picture(
        title="Loss by domain",
        caption=caption,
        svg=_svg(draw, "Loss by domain", measured.incidents, wide=True),
        keys=list(measured.colours.items()),
        wide=True,
    )


def _losses(measured: Measured) -> Picture:
    held_out = measured.validation.group_by("step").agg(pl.col("loss").mean()).sort("step")
    keys = [("all tokens", COLOURS[0]), ("as weighted", COLOURS[1])]
    keys += [("held out, mean of domains", INK)] if len(held_out) else []

    def draw(axes: Axes) -> None:
        _curve(axes, measured.steps, "weighted_loss", COLOURS[1])
        _curve(axes, measured.steps, "loss", COLOURS[0])
        axes.plot(held_out["step"].to_list(), held_out["loss"].to_list(), color=INK, **HELD_OUT_STYLE)
        _scale_after_start(axes, measured.steps, held_out)

    return Picture(
        title="Loss",
        caption="Over all tokens of a step; and as the weights have it, which is what is trained on.",
        svg=_svg(draw, "Loss", measured.incidents),
        keys=keys,
    )


def _curve(axes: Axes, rows: pl.DataFrame, column: str, colour: str, smoothed: bool = True) -> None:
    """Draws a column over steps; noisy ones as a mean of neighbours over the values themselves."""
    rows = rows.drop_nulls(column)
    rows = rows.filter(pl.col(column).is_finite())
    window = max(1, round(len(rows) * SMOOTHED_PART))
    line = rows[column]
    if smoothed and window > 1:
        axes.plot(*thinned(rows["step"], line), color=colour, linewidth=0.7, alpha=0.25)
        line = line.rolling_mean(window, min_samples=1, center=True)
    marker = "o" if len(rows) == 1 else None  # a single point is no line
    axes.plot(*thinned(rows["step"], line), color=colour, linewidth=1.6, marker=marker, solid_capstyle="round")


def _scale_after_start(axes: Axes, *tables: pl.DataFrame) -> None:
    """Cuts off the top that only the start of a run needs."""
    last = max((int(table["step"].max() or 0) for table in tables if len(table)), default=0)  # type: ignore[arg-type]
    late = [table.filter(pl.col("step") > START_PART * last)["loss"].drop_nulls() for table in tables]
    values = np.concatenate([series.to_numpy() for series in late])
    values = values[np.isfinite(values)]
    if len(values):
        low, high = float(values.min()), float(values.max())
        margin = 0.05 * (high - low) or 0.05
        axes.set_ylim(low - margin, high + margin)


def _logarithmic(axes: Axes) -> None:
    """Makes the scale logarithmic, with plain numbers at 1, 2 and 5 of every power of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def thinned(x: pl.Series, y: pl.Series) -> tuple[Sequence[float], Sequence[float]]:
    """Returns the points, or the medians of runs of neighbours where there are more than `MAX_POINTS`."""
    xs, ys = x.to_numpy().astype(float), y.to_numpy().astype(float)
    if len(xs) <= MAX_POINTS:
        return xs.tolist(), ys.tolist()
    borders = np.linspace(0, len(xs), MAX_POINTS + 1).astype(int)
    parts = [slice(a, b) for a, b in pairwise(borders.tolist()) if b > a]
    return [float(np.median(xs[p])) for p in parts], [float(np.median(ys[p])) for p in parts]


def _svg(draw: Draw, title: str, incidents: list[int], wide: bool = False) -> str:
    """Returns a picture as an SVG element. The object interface leaves matplotlib's global state alone."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(11.0, 3.9) if wide else (5.4, 2.6), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    for step in incidents:
        axes.axvline(step, color=ALARM, linewidth=0.8, alpha=0.55)
    draw(axes)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8 if wide else 6, integer=True))
    axes.set_xlabel("step", fontsize=8, color=SOFT, loc="right", labelpad=1)
    axes.tick_params(labelsize=8, colors=SOFT, length=0)
    axes.margins(x=0.01)
    axes.grid(axis="y", color="#e4e8ed", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#cbd2da")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Title": title})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
