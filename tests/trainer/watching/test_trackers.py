"""Each tracker's own reader finds what was logged."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dataeng.errors import ConfigError
from trainer.watching.metrics import DomainRecord, HeldOutRecord, StepRecord, ValidationRecord
from trainer.watching.progress import PlainWatcher
from trainer.watching.trackers import TrackedWatcher, held_out_scalars, scalars

CONFIG = {"seed": 3, "model": {"dim": 128}}


def record(step: int) -> StepRecord:
    shares = {"share": 0.5, "planned_share": 0.5}
    web = {"loss_sum": 35.0 - step, "square_sum": 99.0, "tokens": 10, "weight": 0.6, "multiplier": 1.2, "epochs": 0.1}
    code = {"loss_sum": 0.0, "square_sum": 0.0, "tokens": 0, "weight": 0.4, "multiplier": 0.8, "epochs": 0.2}
    return StepRecord(
        step=step,
        loss=3.0,
        weighted_loss=3.1,
        gradient_norm=0.5,
        learning_rate=1e-3,
        seconds=0.5,
        decaying=False,
        observed=True,
        domains=[DomainRecord(domain="web", **web, **shares), DomainRecord(domain="code", **code, **shares)],
        mfu=0.4,
        peak_memory_bytes=1_500_000,
        update_ratio=1e-3 if step == 4 else None,
    )


def validation(step: int) -> ValidationRecord:
    losses = {"web": 3.5 - step / 10, "verse": 4.0}
    return ValidationRecord(
        step=step,
        domains=[
            HeldOutRecord(domain=name, loss=loss, standard_error=None, perplexity=20.0, bits_per_byte=1.5, tokens=9)
            for name, loss in losses.items()
        ],
    )


def run(out: Path, *names: str, every: int = 1, first: int = 1, last: int = 5) -> None:
    with TrackedWatcher(PlainWatcher(Console(quiet=True)), names, out, CONFIG, every) as watcher:
        watcher.begin(first, 5)
        for step in range(first, last + 1):
            watcher.step(record(step))
            if step == 3:
                watcher.validated(validation(step))


def test_what_is_logged() -> None:
    values = scalars(record(1))
    assert values["train/loss"] == 3.0 and values["train/tokens_per_second"] == 20
    assert values["loss/web"] == 3.4 and "loss/code" not in values and values["weight/code"] == 0.4
    assert (values["train/mfu"], values["train/peak_memory_bytes"]) == (0.4, 1_500_000)
    assert "train/update_ratio" not in values and scalars(record(4))["train/update_ratio"] == 1e-3
    assert held_out_scalars(validation(5)) == {
        "held_out/loss": 3.5,
        "held_out_loss/web": 3.0,
        "held_out_perplexity/web": 20.0,
        "held_out_bits_per_byte/web": 1.5,
        "held_out_loss/verse": 4.0,
        "held_out_perplexity/verse": 20.0,
        "held_out_bits_per_byte/verse": 1.5,
    }


def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, "tensorboard", every=2)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = events.Scalars("loss/web")
    assert [(e.step, pytest.approx(e.value)) for e in found] == [(s, 3.5 - s / 10) for s in (2, 4, 5)]
    assert [(e.step, pytest.approx(e.value)) for e in events.Scalars("held_out/loss")] == [(3, 3.6)]


def test_tensorboard_has_a_step_once_that_a_resumed_run_made_again(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, "tensorboard", last=4)  # killed after step 4, whose last checkpoint is of step 2
    run(tmp_path, "tensorboard", first=3)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("loss/web")] == [1, 2, 3, 4, 5]


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run(tmp_path / "run", "mlflow")
    client = mlflow.MlflowClient((tmp_path / "run" / "mlruns").as_uri())
    (experiment,) = [e for e in client.search_experiments() if e.name == "trainer"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED" and found.data.params["model.dim"] == "128"
    assert [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, "loss/web")] == [
        (s, pytest.approx(3.5 - s / 10)) for s in range(1, 6)
    ]


def test_a_resumed_run_goes_on_in_its_mlflow_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run(tmp_path / "run", "mlflow", last=2)
    run(tmp_path / "run", "mlflow", first=3)
    client = mlflow.MlflowClient((tmp_path / "run" / "mlruns").as_uri())
    (experiment,) = [e for e in client.search_experiments() if e.name == "trainer"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert [m.step for m in client.get_metric_history(found.info.run_id, "loss/web")] == [1, 2, 3, 4, 5]
    client.delete_run(found.info.run_id)
    run(tmp_path / "run", "mlflow", first=5)  # it is gone: another one begins
    (found,) = client.search_runs([experiment.experiment_id])
    assert [m.step for m in client.get_metric_history(found.info.run_id, "loss/web")] == [5]


class FakeRun:
    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.exit_code: int | None = None

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


def test_weights_and_biases_by_its_interface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its service is a process and a network connection: here only the calls are looked at."""
    made: dict[str, Any] = {}
    fake = FakeRun()

    class Module:
        @staticmethod
        def init(**options: Any) -> FakeRun:
            made.update(options)
            return fake

    monkeypatch.setitem(sys.modules, "wandb", Module)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    out = tmp_path / "cc" / "training" / "mix"
    run(out, "wandb", every=5)
    assert (made["project"], made["name"], made["resume"]) == ("mine", "cc/training/mix", "allow")
    first = made["id"]
    assert re.fullmatch(r"cc-training-mix-[0-9a-f]{8}", first)
    assert made["config"] == CONFIG
    assert [(step, values.get("loss/web")) for step, values in fake.logged] == [(3, None), (5, 3.0)]
    assert fake.logged[0][1] == held_out_scalars(validation(3))
    assert fake.exit_code == 0
    run(out, "wandb", first=5)
    assert made["id"] == first
    run(out, "wandb")  # it starts over: the old one has these steps already, and would take no others
    assert made["id"] != first
    with pytest.raises(RuntimeError), TrackedWatcher(PlainWatcher(Console(quiet=True)), ["wandb"], tmp_path, {}) as w:
        w.begin(1, 5)
        raise RuntimeError
    assert fake.exit_code == 1


def test_unknown_and_missing_trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--log tensorbord is unknown; did you mean 'tensorboard'"):
        run(tmp_path, "tensorbord")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="--log wandb needs 'wandb': pip install 'wandb'"):
        run(tmp_path, "wandb")

    class Module:
        @staticmethod
        def init(**values: object) -> None:
            raise RuntimeError("No API key configured.")

    monkeypatch.setitem(sys.modules, "wandb", Module)
    with pytest.raises(ConfigError, match=r"--log wandb does not start: No API key configured\."):
        run(tmp_path, "wandb")
