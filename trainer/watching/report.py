"""``trainer report RUN``: one HTML file with the curves and tables of a run, to look at and to pass on.

Pictures are SVG within the page: it needs no network and no scripts. Everything that comes from a run is escaped.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dataeng.errors import ConfigError
from dataeng.formats.atomic import write_bytes
from dataeng.formats.training_run import read_description
from trainer.recovery.session import is_held
from trainer.watching.metrics import MetricsWriter
from trainer.watching.report_pictures import Measured, draw_pictures


@dataclass(frozen=True, kw_only=True)
class HeldOutSummary:
    """One held-out domain over a run: its first, last and smallest loss, and how far the last is above training's."""

    domain: str
    first: float
    last: float
    standard_error: float | None
    best: float
    best_step: int
    gap: float | None
    perplexity: float
    bits_per_byte: float
    tokens: int


def write_report(run: Path, target: Path | None = None) -> Path:
    """Writes ``report.html`` (or ``target``) and returns its path.

    Raises `FormatError` when the folder holds no training run, and `ConfigError` when it has no finished step or a
    package for pictures is missing.
    """
    described = read_description(run)
    metrics, incidents = MetricsWriter(run), _incidents(run)
    measured = Measured(
        domains=metrics.read("metrics"),
        steps=metrics.read("steps"),
        validation=metrics.read("validation"),
        incidents=[incident["step"] for incident in incidents],
    )
    if measured.steps.is_empty():
        raise ConfigError(f"{run} has no metrics yet: they are written with the first checkpoint.")
    try:
        from jinja2 import Environment, PackageLoader, select_autoescape

        pictures = draw_pictures(measured)
    except ModuleNotFoundError as error:
        raise ConfigError(f"a report needs '{error.name}': pip install 'dataeng[report]'.") from error
    summaries = metrics.summary(described["domains"])
    environment = Environment(loader=PackageLoader("trainer"), autoescape=select_autoescape(["html"]))
    page = environment.get_template("report.html").render(
        name=run.name,
        described=described,
        facts=[_status(run, described, measured), *_facts(described, measured, metrics.best_validation())],
        summaries=summaries,
        met=_met(described, measured.domains),
        held_out=_held_out(measured.validation, {s.domain: s.last_loss for s in summaries}),
        colours=measured.colours,
        pictures=pictures,
        incidents=incidents,
        config=_flat(described["config"]),
    )
    path = run / "report.html" if target is None else target
    try:
        write_bytes(path, page.encode())
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}.") from error
    return path


def _status(run: Path, described: dict[str, Any], measured: Measured) -> tuple[str, str, str]:
    """Returns how the run stands. ``training.json`` has the step it began with, until it ends; if it was let end."""
    status, _, why = str(described["status"]).partition(": ")
    if status == "running" and not is_held(run):
        status, why = "interrupted", "the same command goes on from the last checkpoint"
    step = max(int(described["step"]), int(measured.steps["step"][-1]))
    return "status", status, f"step {step:,} of {described['num_steps']:,}" + (f"; {why}" if why else "")


def _facts(described: dict[str, Any], measured: Measured, best: tuple[int, float] | None) -> list[tuple[str, str, str]]:
    """Returns term, value and what else there is to say, for the top of the page."""
    steps = measured.steps
    seconds = float(steps["seconds"].sum())
    tokens = float((steps["tokens_per_second"] * steps["seconds"]).sum())
    last = steps.tail(max(1, min(10, len(steps) // 10)))
    facts = [
        ("parameters", _count(described["num_parameters"]), f"{described['num_parameters']:,}"),
        ("tokens", _count(tokens), f"{described['tokens_per_step']:,} a step"),
        ("speed", f"{_count(tokens / seconds)} tokens/s", f"{_duration(seconds)} in steps"),
        ("loss", f"{_mean(last['loss']):.4f}", "nats per token, in the last steps"),
    ]
    if best is not None:
        means = measured.validation.group_by("step").agg(pl.col("loss").mean()).sort("step")
        facts.append(
            ("held-out loss", f"{means['loss'][-1]:.4f}", f"mean of domains; best {best[1]:.4f} after step {best[0]:,}")
        )
    facts.append(("gradient norm", f"{_mean(last['gradient_norm']):.3f}", "before clipping, in the last steps"))
    utilization = steps.drop_nulls("mfu")
    if len(utilization):
        # Over time, as tokens over seconds are.
        used = utilization["mfu"].to_numpy() * utilization["seconds"].to_numpy()
        mean = float(used.sum() / utilization["seconds"].to_numpy().sum())
        facts.append(("MFU", f"{mean:.1%}", f"of {described['peak_flops'] / 1e12:,.4g} TFLOP/s a device"))
    memory = steps["peak_memory_bytes"].drop_nulls()
    if len(memory):
        facts.append(("peak memory", f"{int(memory[-1]) / 1e9:.2f} GB", described.get("hardware", "")))
    return facts


def _met(described: dict[str, Any], domains: pl.DataFrame) -> dict[str, tuple[float, float | None]]:
    """Returns, by domain, the part of steps with a token of it, and what drawing rows at random would have given."""
    random = {presence["domain"]: float(presence["random"]) for presence in described.get("presence", [])}
    found = domains.group_by("domain").agg((pl.col("tokens") > 0).mean().alias("met"))
    return {name: (float(met), random.get(name)) for name, met in found.iter_rows()}


def _held_out(validation: pl.DataFrame, trained: dict[str, float | None]) -> list[HeldOutSummary]:
    summaries = []
    for name in validation["domain"].unique(maintain_order=True):
        rows = validation.filter(pl.col("domain") == name).sort("step")
        last, best = rows.row(-1, named=True), rows.sort("loss", "step").row(0, named=True)
        loss = trained.get(name)
        summaries.append(
            HeldOutSummary(
                domain=name,
                first=rows["loss"][0],
                last=last["loss"],
                standard_error=last["standard_error"],
                best=best["loss"],
                best_step=best["step"],
                gap=None if loss is None else last["loss"] - loss,
                perplexity=last["perplexity"],
                bits_per_byte=last["bits_per_byte"],
                tokens=last["tokens"],
            )
        )
    return summaries


def _incidents(run: Path) -> list[dict[str, Any]]:
    """Returns what `trainer.recovery.incidents` wrote down, oldest first."""
    path = run / "incidents.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in config.items():
        rows += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", str(value))]
    return rows


def _mean(values: pl.Series) -> float:
    """Mean of what is finite: a step that was left out may not be."""
    finite = values.filter(values.is_finite())
    return float(finite.to_numpy().mean()) if len(finite) else math.nan


def _count(value: float) -> str:
    """Returns a number of things in three digits: 820 K, 1.24 B."""
    for size, unit in ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " K")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds) // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {round(seconds) % 60} s"
