"""``trainer report RUN``: one HTML file with the curves and tables of a run, to look at and to pass on.

Pictures are SVG within the page: it needs no network and no scripts. Everything that comes from a run is escaped.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from dataeng.errors import ConfigError, FormatError
from dataeng.formats.atomic import write_bytes
from trainer.monitor import MetricsWriter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Curves of more points are thinned by medians of neighbours: a page should open at once.
MAX_POINTS = 600


@dataclass(frozen=True)
class Picture:
    """One curve or several, with what to look for in it."""

    title: str
    caption: str
    svg: str


def write_report(run: Path, target: Path | None = None) -> Path:
    """Writes ``report.html`` (or ``target``) and returns its path.

    Raises `FormatError` when the folder holds no training run, and `ConfigError` when it has no finished step or a
    package for pictures is missing.
    """
    described = _described(run)
    metrics = MetricsWriter(run)
    domains, steps = metrics.read("metrics"), metrics.read("steps")
    if steps.is_empty():
        raise ConfigError(f"{run} has no metrics yet: they are written with the first checkpoint.")
    try:
        from jinja2 import Environment, PackageLoader, select_autoescape

        pictures = _pictures(domains, steps)
    except ModuleNotFoundError as error:
        raise ConfigError(f"a report needs '{error.name}': pip install 'dataeng[report]'.") from error
    environment = Environment(loader=PackageLoader("trainer"), autoescape=select_autoescape(["html"]))
    page = environment.get_template("report.html").render(
        name=run.name,
        described=described,
        facts=_facts(described, steps),
        summaries=metrics.summary(described["domains"]),
        pictures=pictures,
        incidents=_incidents(run),
        config=_flat(described["config"]),
    )
    path = run / "report.html" if target is None else target
    write_bytes(path, page.encode())
    return path


def _described(run: Path) -> dict[str, Any]:
    path = run / "training.json"
    try:
        described = json.loads(path.read_bytes())
    except OSError as error:
        raise FormatError(f"{run} is no training run: cannot read {path} ({error.strerror}).") from error
    except ValueError as error:
        raise FormatError(f"{path} is not JSON: {error}.") from error
    if not isinstance(described, dict) or "config" not in described or "domains" not in described:
        raise FormatError(f"{path} does not describe a training run.")
    return described


def _facts(described: dict[str, Any], steps: pl.DataFrame) -> list[tuple[str, str]]:
    seconds = float(steps["seconds"].sum())
    tokens = float((steps["tokens_per_second"] * steps["seconds"]).sum())
    last = steps.tail(max(1, min(10, len(steps) // 10)))
    return [
        ("status", f"{described['status']} at step {described['step']:,} of {described['num_steps']:,}"),
        ("parameters", f"{described['num_parameters']:,}"),
        ("tokens", f"{tokens:,.0f} ({described['tokens_per_step']:,} a step)"),
        ("time in steps", f"{seconds:,.0f} s, {tokens / seconds:,.0f} tokens/s"),
        ("loss at the end", f"{float(last['loss'].to_numpy().mean()):.4f} nats per token"),
        ("gradient norm at the end", f"{float(last['gradient_norm'].to_numpy().mean()):.3f}"),
    ]


def _incidents(run: Path) -> list[dict[str, Any]]:
    """Returns what `trainer.incidents` wrote down, oldest first."""
    path = run / "incidents.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _pictures(domains: pl.DataFrame, steps: pl.DataFrame) -> list[Picture]:
    names = domains["domain"].unique(maintain_order=True).to_list()

    def per_domain(column: str) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            for name in names:
                rows = domains.filter(pl.col("domain") == name).drop_nulls(column)
                axes.plot(*_thinned(rows["step"], rows[column]), label=name, linewidth=1.4)
            _legend(axes, len(names))

        return draw

    def of_steps(*columns: str, log: bool = False) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            for column in columns:
                rows = steps.drop_nulls(column)
                axes.plot(*_thinned(rows["step"], rows[column]), label=column.replace("_", " "), linewidth=1.4)
            if log:
                axes.set_yscale("log")
            if len(columns) > 1:
                _legend(axes, len(columns))

        return draw

    drawings = [
        ("Loss by domain", "Nats per token, unweighted, so that runs can be compared.", per_domain("loss")),
        ("Loss", "Over all tokens of a step, and as the weights have it, which is what is trained on.",
         of_steps("loss", "weighted_loss")),
        ("Weight by domain", "The controller's weights on the domains' losses.", per_domain("weight")),
        ("Share by domain", "Planned shares of labels; they move with stages, and with feedback by sampling.",
         per_domain("share")),
        ("Epochs by domain", "How often each domain has been read.", per_domain("epochs")),
        ("Gradient norm", "Before clipping, logarithmic. Spikes here come before spikes of the loss.",
         of_steps("gradient_norm", log=True)),
        ("Learning rate", "Of the step.", of_steps("learning_rate")),
        ("Speed", "Labels per second.", of_steps("tokens_per_second")),
    ]  # fmt: skip
    return [Picture(title, caption, _svg(draw, title)) for title, caption, draw in drawings]


def _thinned(x: pl.Series, y: pl.Series) -> tuple[Sequence[float], Sequence[float]]:
    """Returns the points, or the medians of runs of neighbours where there are more than `MAX_POINTS`."""
    xs, ys = x.to_numpy().astype(float), y.to_numpy().astype(float)
    if len(xs) <= MAX_POINTS:
        return xs.tolist(), ys.tolist()
    borders = np.linspace(0, len(xs), MAX_POINTS + 1).astype(int)
    parts = [slice(a, b) for a, b in pairwise(borders.tolist()) if b > a]
    return [float(np.median(xs[p])) for p in parts], [float(np.median(ys[p])) for p in parts]


def _legend(axes: Axes, num_curves: int) -> None:
    """Puts the legend above the picture, where no curve runs."""
    axes.legend(
        frameon=False, fontsize=8, ncols=min(5, num_curves), loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.1
    )


def _svg(draw: Callable[[Axes], None], title: str) -> str:
    """Returns a picture as an SVG element. The object interface leaves matplotlib's global state alone."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.1), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    draw(axes)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Title": title})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in config.items():
        rows += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", str(value))]
    return rows
