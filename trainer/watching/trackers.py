"""Metrics to other programs while a run is going: TensorBoard, Weights & Biases, MLflow; each only when asked for.

The truth stays in the run folder's Parquet. Every tracker gets the same names (`scalars`), so that curves of one
program can be found again in another. None of them is imported before it is used.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from dataeng.errors import ConfigError, nearest
from dataeng.formats.atomic import write_bytes
from trainer.watching.metrics import StepRecord, ValidationRecord
from trainer.watching.progress import Watcher


def scalars(record: StepRecord) -> dict[str, float]:
    """Returns what is logged of a step: ``train/loss`` …, and for each domain ``loss/web``, ``weight/web`` …"""
    values = {
        "train/loss": record.loss,
        "train/weighted_loss": record.weighted_loss,
        "train/gradient_norm": record.gradient_norm,
        "train/learning_rate": record.learning_rate,
        "train/tokens_per_second": record.tokens_per_second,
    }
    for name in ("update_ratio", "mfu", "peak_memory_bytes"):  # each where it was measured
        value = getattr(record, name)
        if value is not None:
            values[f"train/{name}"] = float(value)
    for domain in record.domains:
        if domain.loss is not None:
            values[f"loss/{domain.domain}"] = domain.loss
        for name in ("weight", "share", "multiplier", "tokens", "epochs"):
            values[f"{name}/{domain.domain}"] = float(getattr(domain, name))
    return values


def held_out_scalars(record: ValidationRecord) -> dict[str, float]:
    """Returns what is logged of a validation: ``held_out/loss``, their mean, and ``held_out_loss/web`` … by domain."""
    values = {"held_out/loss": record.mean_loss}
    for domain in record.domains:
        for name in ("loss", "perplexity", "bits_per_byte"):
            values[f"held_out_{name}/{domain.domain}"] = getattr(domain, name)
    return values


class TensorBoard:
    """Event files in ``<run>/tensorboard``; steps that a resumed run makes again replace those of before."""

    def __init__(self, out: Path, config: dict[str, Any], first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(out / "tensorboard"), purge_step=first_step)
        self.writer.add_text("config", _as_markdown(config))

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self, failed: bool) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of the project ``WANDB_PROJECT`` (default: trainer), with files in ``<run>/wandb``.

    A resumed run goes on in it, one that starts over in another: its id is in ``<run>/wandb_run_id``.
    """

    ID_NAME = "wandb_run_id"

    def __init__(self, out: Path, config: dict[str, Any], first_step: int) -> None:
        import wandb

        out.mkdir(parents=True, exist_ok=True)
        name, known = out.resolve().parts[-3:], out / self.ID_NAME
        if first_step == 1 or not known.exists():
            # Not the folder's name alone: folders elsewhere are called the same.
            slug = re.sub(r"[^A-Za-z0-9_]+", "-", "-".join(name)).strip("-")
            write_bytes(known, f"{slug}-{secrets.token_hex(4)}".encode())
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "trainer"),
            id=known.read_text(),
            name="/".join(name),
            dir=str(out),
            config=config,
            resume="allow",
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def close(self, failed: bool) -> None:
        self.run.finish(exit_code=1 if failed else 0)


class MLflow:
    """A run where ``MLFLOW_TRACKING_URI`` points (default: the folder ``mlruns`` in the run folder).

    A resumed run goes on in it: its id is in ``<run>/mlflow_run_id``.
    """

    ID_NAME = "mlflow_run_id"

    def __init__(self, out: Path, config: dict[str, Any], first_step: int) -> None:
        import mlflow

        out.mkdir(parents=True, exist_ok=True)
        if "MLFLOW_TRACKING_URI" not in os.environ:
            os.environ.setdefault(
                "MLFLOW_ALLOW_FILE_STORE", "true"
            )  # a folder needs no database; MLflow asks for consent
            mlflow.set_tracking_uri((out / "mlruns").resolve().as_uri())
        self.mlflow = mlflow
        mlflow.set_experiment("trainer")
        if first_step > 1 and self._goes_on(out / self.ID_NAME):
            return
        started = mlflow.start_run(run_name="/".join(out.resolve().parts[-3:]))
        write_bytes(out / self.ID_NAME, started.info.run_id.encode())
        flat = {name: str(value)[:500] for name, value in _flat(config).items()}
        mlflow.log_params(flat)

    def _goes_on(self, known: Path) -> bool:
        """Whether the run of before is still there, and now goes on."""
        if not known.exists():
            return False
        try:
            self.mlflow.start_run(run_id=known.read_text())
        except self.mlflow.exceptions.MlflowException:  # deleted, or on another server
            return False
        return True

    def log(self, step: int, values: dict[str, float]) -> None:
        self.mlflow.log_metrics(values, step=step)

    def close(self, failed: bool) -> None:
        self.mlflow.end_run("FAILED" if failed else "FINISHED")


TRACKERS: dict[str, Callable[[Path, dict[str, Any], int], TensorBoard | WeightsAndBiases | MLflow]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


class TrackedWatcher:
    """A watcher that also tells trackers. ``every`` thins out the steps that they get; the last one is always told."""

    def __init__(
        self, watcher: Watcher, names: Sequence[str], out: Path, config: dict[str, Any], every: int = 1
    ) -> None:
        for name in names:
            if name not in TRACKERS:
                raise ConfigError(f"--log {name} is unknown{nearest(name, TRACKERS)}")
            if name not in sys.modules and find_spec(name) is None:
                raise ConfigError(f"--log {name} needs '{name}': pip install '{name}'.")
        self.watcher, self.every, self.num_steps = watcher, every, 0
        self.names, self.out, self.config = list(dict.fromkeys(names)), out, config
        self.trackers: list[TensorBoard | WeightsAndBiases | MLflow] = []

    def note(self, message: str) -> None:
        self.watcher.note(message)

    def begin(self, first_step: int, num_steps: int) -> None:
        self.num_steps = num_steps
        for name in self.names:
            try:
                self.trackers.append(TRACKERS[name](self.out, self.config, first_step))
            except ImportError as error:
                raise ConfigError(f"--log {name} needs '{error.name}': pip install '{error.name}'.") from error
            except Exception as error:  # other people's programs: no key, no network, no server
                raise ConfigError(f"--log {name} does not start: {error or type(error).__name__}") from error
        self.watcher.begin(first_step, num_steps)

    def step(self, record: StepRecord) -> None:
        self.watcher.step(record)
        if record.step % self.every == 0 or record.step == self.num_steps:
            values = scalars(record)
            for tracker in self.trackers:
                tracker.log(record.step, values)

    def validated(self, record: ValidationRecord) -> None:
        self.watcher.validated(record)
        for tracker in self.trackers:
            tracker.log(record.step, held_out_scalars(record))

    def __enter__(self) -> TrackedWatcher:
        self.watcher.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            for tracker in self.trackers:
                tracker.close(failed=kind is not None)
        finally:
            self.watcher.__exit__(kind, error, traceback)


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested mappings as one, with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _as_markdown(config: dict[str, Any]) -> str:
    rows = "\n".join(f"| {name} | {value} |" for name, value in _flat(config).items())
    return f"| option | value |\n|---|---|\n{rows}"
