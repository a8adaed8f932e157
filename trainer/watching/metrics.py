"""Metrics as Parquet, in parts that appear whole, each just before the checkpoint that covers it.

    metrics/part-00000001.parquet   per step and domain: step, domain, loss, weight, multiplier, share, tokens, epochs,
                                    loss_sum, square_sum, planned_share
    steps/part-00000001.parquet     per step: step, loss, weighted_loss, gradient_norm, learning_rate, update_ratio,
                                    tokens_per_second, mfu, peak_memory_bytes, seconds, decaying, observed
    validation/part-…               per validation and held-out domain: step, domain, loss, standard_error, perplexity,
                                    bits_per_byte, tokens

A part is named by its first step. ``loss`` is nats per token, unweighted; null where a domain had no token in the step.
``update_ratio`` is null in steps where it was not measured, ``mfu`` where the device's peak is not known.
``weight`` is what the controller gave after the step's losses, ``share`` the labels' as drawn. The columns at the end
of the first two are, with ``tokens``, all that the controller saw: sums of losses and of their squares, nothing
rounded; the labels' shares as the manifest plans them; whether the learning rate was decaying; and whether it was shown
the step at all (`dataeng.mixture.replay` runs it again).
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
    "update_ratio": pl.Float64(),
    "tokens_per_second": pl.Float64(),
    "mfu": pl.Float64(),
    "peak_memory_bytes": pl.Int64(),
    "seconds": pl.Float64(),
    "decaying": pl.Boolean(),
    "observed": pl.Boolean(),
}
VALIDATION_SCHEMA: dict[str, pl.DataType] = {
    "step": pl.Int64(),
    "domain": pl.String(),
    "loss": pl.Float64(),
    "standard_error": pl.Float64(),
    "perplexity": pl.Float64(),
    "bits_per_byte": pl.Float64(),
    "tokens": pl.Int64(),
}
SCHEMAS = {"metrics": METRICS_SCHEMA, "steps": STEPS_SCHEMA, "validation": VALIDATION_SCHEMA}


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
    update_ratio: float | None = None
    """‖Δw‖ / ‖w‖, where it was measured (see `trainer.watching.update_ratio`)."""
    mfu: float | None = None
    """Of the hardware's peak (see `trainer.watching.flops`); None where that is not known."""
    peak_memory_bytes: int | None = None

    @property
    def tokens_per_second(self) -> float:
        """Labels trained on, per second of this step."""
        return sum(domain.tokens for domain in self.domains) / self.seconds


@dataclass(frozen=True, kw_only=True)
class HeldOutRecord:
    """One held-out domain in one validation; ``standard_error`` of the loss is None where a single row was read."""

    domain: str
    loss: float
    standard_error: float | None
    perplexity: float
    bits_per_byte: float
    tokens: int


@dataclass(frozen=True, kw_only=True)
class ValidationRecord:
    """Losses on held-out rows with the weights after ``step``; 0: before the first."""

    step: int
    domains: list[HeldOutRecord]

    @property
    def mean_loss(self) -> float:
        """Mean of the domains' losses, each counting the same: what the best checkpoint is chosen by."""
        return sum(domain.loss for domain in self.domains) / len(self.domains)


@dataclass(frozen=True, kw_only=True)
class DomainSummary:
    """One domain over a whole run; losses are means over the first and the last steps."""

    domain: str
    first_loss: float | None
    last_loss: float | None
    weight: float
    share: float
    epochs: float
    held_out_loss: float | None = None
    """Of the last validation, if there was one of this domain."""


class MetricsWriter:
    """Collects records and writes them as parts."""

    def __init__(self, folder: Path) -> None:
        self.folders = {table: folder / table for table in SCHEMAS}
        self.pending: list[StepRecord] = []
        self.pending_validations: list[ValidationRecord] = []

    def add(self, record: StepRecord) -> None:
        """Keeps a record until `flush`."""
        self.pending.append(record)

    def add_validation(self, record: ValidationRecord) -> None:
        """Keeps a validation until `flush`; its part is that of the steps around it."""
        self.pending_validations.append(record)

    def forget(self) -> None:
        """Drops what was not written: the run goes back."""
        self.pending.clear()
        self.pending_validations.clear()

    def flush(self) -> None:
        """Writes the pending records, all tables together."""
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
        held_out = [{"step": r.step, **vars(domain)} for r in self.pending_validations for domain in r.domains]
        tables = {"metrics": rows, "steps": steps, **({"validation": held_out} if held_out else {})}
        files = {table: AtomicFile(self.folders[table] / name) for table in tables}
        try:
            for table, file in files.items():
                buffer = io.BytesIO()
                pl.DataFrame(tables[table], SCHEMAS[table]).write_parquet(buffer)
                file.write(buffer.getbuffer())
            commit_all(files.values())
        except BaseException:
            for file in files.values():
                file.discard()
            raise
        self.forget()

    def discard_after(self, step: int) -> None:
        """Removes the parts of later steps (0: all), and what a killed process left half-written."""
        for folder in self.folders.values():
            for path in _parts(folder):
                if _first_step(path) > step:
                    fs.remove(path)
            for path in folder.glob(".part-*.tmp"):
                fs.remove(path)

    def read(self, table: str) -> pl.DataFrame:
        """Returns all written rows of ``metrics``, ``steps`` or ``validation``, in order of steps.

        Columns that an earlier version of this trainer did not write are null.
        """
        empty = pl.DataFrame(schema=SCHEMAS[table])
        parts = [pl.read_parquet(path) for path in _parts(self.folders[table])]
        return pl.concat([empty, *parts], how="diagonal")

    def best_validation(self) -> tuple[int, float] | None:
        """Returns the step whose written mean held-out loss is smallest, and that loss; None without a validation."""
        means = self.read("validation").group_by("step").agg(pl.col("loss").mean()).drop_nans("loss")
        if means.is_empty():
            return None
        step, loss = means.sort("loss", "step").row(0)
        return int(step), float(loss)

    def summary(self, names: Iterable[str]) -> list[DomainSummary]:
        """Returns each domain's beginning and end, from the written metrics; losses of steps that were finite."""
        metrics, validation = self.read("metrics"), self.read("validation")
        num_steps = metrics["step"].n_unique()
        window = max(1, min(10, num_steps // 10))
        summaries = []
        for name in names:
            rows = metrics.filter(pl.col("domain") == name)
            losses = rows.filter(pl.col("loss").is_finite())
            held_out = validation.filter(pl.col("domain") == name).tail(1)["loss"]
            summaries.append(
                DomainSummary(
                    domain=name,
                    first_loss=_mean_loss(losses.head(window)),
                    last_loss=_mean_loss(losses.tail(window)),
                    weight=_mean(rows.tail(window)["weight"]),
                    share=_mean(rows.tail(window)["share"]),
                    epochs=_mean(rows.tail(1)["epochs"]),
                    held_out_loss=float(held_out[0]) if len(held_out) else None,
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
