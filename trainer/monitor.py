"""Metrics as Parquet, in parts that appear whole, each just before the checkpoint that covers it.

    metrics/part-00000001.parquet   per step and domain: step, domain, loss, weight, multiplier, share, tokens, epochs,
                                    loss_sum, square_sum, planned_share
    steps/part-00000001.parquet     per step: step, loss, weighted_loss, gradient_norm, learning_rate,
                                    tokens_per_second, seconds, decaying, observed

A part is named by its first step. ``loss`` is nats per token, unweighted; null where a domain had no token.
``weight`` is what the controller gave after the step's losses, ``share`` the labels' as drawn. The columns at the end
of both are, with ``tokens``, all that the controller saw: sums of losses and of their squares, nothing rounded; the
labels' shares as the manifest plans them; whether the learning rate was decaying; and whether it was shown the step at
all (`dataeng.mixture.replay` runs it again).
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from dataeng.errors import FormatError
from dataeng.formats.atomic import AtomicFile, commit_all, fs

METRICS_SCHEMA: dict[str, pl.DataType] = {
    "step": pl.Int64(),
    "domain": pl.String(),
    "loss": pl.Float64(),
    "weight": pl.Float64(),
    "multiplier": pl.Float64(),
    "share": pl.Float64(),
    "tokens": pl.Int64(),
    "epochs": pl.Float64(),
    "loss_sum": pl.Float64(),
    "square_sum": pl.Float64(),
    "planned_share": pl.Float64(),
}
STEPS_SCHEMA: dict[str, pl.DataType] = {
    "step": pl.Int64(),
    "loss": pl.Float64(),
    "weighted_loss": pl.Float64(),
    "gradient_norm": pl.Float64(),
    "learning_rate": pl.Float64(),
    "tokens_per_second": pl.Float64(),
    "seconds": pl.Float64(),
    "decaying": pl.Boolean(),
    "observed": pl.Boolean(),
}


@dataclass(frozen=True, kw_only=True)
class DomainRecord:
    """One domain in one step; sums are over its tokens, in nats."""

    domain: str
    loss_sum: float
    square_sum: float
    tokens: int
    weight: float
    multiplier: float
    share: float
    planned_share: float
    epochs: float

    @property
    def loss(self) -> float | None:
        """Nats per token; None without any."""
        return self.loss_sum / self.tokens if self.tokens else None


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One optimizer step."""

    step: int
    loss: float
    weighted_loss: float
    gradient_norm: float
    learning_rate: float
    seconds: float
    decaying: bool
    observed: bool
    domains: list[DomainRecord]

    @property
    def tokens_per_second(self) -> float:
        """Labels trained on, per second of this step."""
        return sum(domain.tokens for domain in self.domains) / self.seconds


@dataclass(frozen=True, kw_only=True)
class DomainSummary:
    """One domain over a whole run; losses are means over the first and the last steps."""

    domain: str
    first_loss: float | None
    last_loss: float | None
    weight: float
    share: float
    epochs: float


class MetricsWriter:
    """Collects records and writes them as parts."""

    def __init__(self, folder: Path) -> None:
        self.folders = {"metrics": folder / "metrics", "steps": folder / "steps"}
        self.pending: list[StepRecord] = []

    def add(self, record: StepRecord) -> None:
        """Keeps a record until `flush`."""
        self.pending.append(record)

    def flush(self) -> None:
        """Writes the pending records, both tables together."""
        if not self.pending:
            return
        name = f"part-{self.pending[0].step:08d}.parquet"
        columns = [name for name in METRICS_SCHEMA if name != "step"]
        rows = [
            {"step": r.step, **{name: getattr(domain, name) for name in columns}}
            for r in self.pending
            for domain in r.domains
        ]
        steps = [{column: getattr(r, column) for column in STEPS_SCHEMA} for r in self.pending]
        tables = {"metrics": pl.DataFrame(rows, METRICS_SCHEMA), "steps": pl.DataFrame(steps, STEPS_SCHEMA)}
        files = {table: AtomicFile(self.folders[table] / name) for table in tables}
        try:
            for table, file in files.items():
                buffer = io.BytesIO()
                tables[table].write_parquet(buffer)
                file.write(buffer.getbuffer())
            commit_all(files.values())
        except BaseException:
            for file in files.values():
                file.discard()
            raise
        self.pending.clear()

    def discard_after(self, step: int) -> None:
        """Removes the parts of later steps (0: all), and what a killed process left half-written."""
        for folder in self.folders.values():
            for path in _parts(folder):
                if _first_step(path) > step:
                    fs.remove(path)
            for path in folder.glob(".part-*.tmp"):
                fs.remove(path)

    def read(self, table: str) -> pl.DataFrame:
        """Returns all written rows of ``metrics`` or ``steps``, in order of steps."""
        parts = _parts(self.folders[table])
        schema = {"metrics": METRICS_SCHEMA, "steps": STEPS_SCHEMA}[table]
        if not parts:
            return pl.DataFrame(schema=schema)
        return pl.concat([pl.read_parquet(path) for path in parts], how="diagonal")  # older parts have fewer columns

    def summary(self, names: Iterable[str]) -> list[DomainSummary]:
        """Returns each domain's beginning and end, from the written metrics."""
        metrics = self.read("metrics")
        num_steps = metrics["step"].n_unique()
        window = max(1, min(10, num_steps // 10))
        summaries = []
        for name in names:
            rows = metrics.filter(pl.col("domain") == name)
            losses = rows.drop_nulls("loss")
            summaries.append(
                DomainSummary(
                    domain=name,
                    first_loss=_mean_loss(losses.head(window)),
                    last_loss=_mean_loss(losses.tail(window)),
                    weight=_mean(rows.tail(window)["weight"]),
                    share=_mean(rows.tail(window)["share"]),
                    epochs=_mean(rows.tail(1)["epochs"]),
                )
            )
        return summaries


def _mean(values: pl.Series) -> float:
    return float(values.to_numpy().mean()) if len(values) else 0.0


def _mean_loss(rows: pl.DataFrame) -> float | None:
    """Mean over tokens, not over steps: a step with few tokens of a domain says less."""
    tokens = rows["tokens"].to_numpy()
    return float((rows["loss"].to_numpy() * tokens).sum() / tokens.sum()) if len(rows) else None


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"), key=_first_step)


def _first_step(path: Path) -> int:
    name = path.stem.removeprefix("part-")
    if not name.isdigit():
        raise FormatError(f"{path} is not a metrics part of this trainer; move it out of the folder.")
    return int(name)
