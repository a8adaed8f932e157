"""Runs of every kind, interrupted and with steps left out: replaying what they recorded gives their weights."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from dataeng.cli import app
from dataeng.errors import ConfigError, FormatError
from dataeng.formats.mixture import MixtureStage, load_mixture, save_mixture
from dataeng.formats.reweighting import Reweighting
from dataeng.mixture.replay import departure, read_recorded, replay
from tests.trainer.test_loop import Recorder, poison, run
from trainer.config import TrainConfig
from trainer.model.presets import ModelConfig

MakeConfig = Callable[..., TrainConfig]
SHAPE = ModelConfig(vocab_size=257, dim=16, num_layers=1, num_heads=2, num_kv_heads=1, hidden_dim=24, max_positions=64)
STAGES = [
    MixtureStage(name="first", until=0.5, weights={"code": 0.5, "prose": 0.5, "tables": 0.0}),
    MixtureStage(name="last", until=1.0, weights={"code": 0.2, "prose": 0.5, "tables": 0.3}),
]


def small_run(make_config: MakeConfig, mixture: Path, reweighting: Reweighting, **options: Any) -> TrainConfig:
    """A run of 24 steps over two stages; the learning rate decays in the last 6; the weight of prose is fixed."""
    manifest = load_mixture(mixture)
    domains = {**manifest.domains, "prose": manifest.domains["prose"].model_copy(update={"reweighted": False})}
    changed = {"reweighting": reweighting, "schedule": STAGES, "domains": domains}
    save_mixture(mixture, manifest.model_copy(update=changed))
    return replace(make_config(steps=24, batch_size=6, checkpoint_every=5, **options), model=SHAPE)


@pytest.mark.parametrize(
    ("constants", "options"),
    [
        # Weights move in steps 2, 4, 6 …; in the others, the gradient is computed with the losses.
        ({"feedback": "loss", "interval": 2, "warmup_steps": 1}, {"on_spike": "skip"}),
        ({"feedback": "sampling", "ema": 0.9, "freeze_in_decay": False}, {"accumulate": 2}),
        ({"feedback": "both", "r": 0.5, "trust_region": 0.2, "noise_floor": 1.0}, {"on_spike": "roll-back"}),
        ({"feedback": "both", "method": "odm", "signal": "bits-per-byte"}, {"packing": "best-fit"}),
    ],
)
def test_replaying_a_run_gives_its_weights_bit_for_bit(
    make_config: MakeConfig,
    mixture: Path,
    monkeypatch: pytest.MonkeyPatch,
    constants: dict[str, Any],
    options: dict[str, Any],
) -> None:
    reweighting = Reweighting(**{"warmup_steps": 2, **constants})
    config = small_run(make_config, mixture, reweighting, **options)
    if "on_spike" in options:
        run(config, stopped_after_a_spike(monkeypatch))
    else:
        run(config, Recorder(13, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert run(config).step == 24
    recorded = read_recorded(config.out)
    weights = replay(recorded, recorded.reweighting)
    assert departure(recorded, weights) is None
    assert recorded.observed.tolist() == [not ("on_spike" in options and step == 4) for step in range(1, 25)]
    assert recorded.decaying.tolist() == [step > 18 for step in range(1, 25)]
    assert recorded.planned_shares[[0, 23], 2].tolist() == [0, pytest.approx(0.3, abs=0.1)]
    # Losses had their say: not all is as planned, and what is fixed is.
    assert np.abs(weights - recorded.planned_shares)[3:, [0, 2]].max() > 0.02
    assert np.array_equal(weights[:, 1], recorded.planned_shares[:, 1])
    learned = load_mixture(config.out / "mix.json").history[-1].weights
    weighted = recorded.observed & (np.arange(24) >= reweighting.warmup_steps)
    assert weights[weighted].mean(axis=0) == pytest.approx(list(learned.values()))


def stopped_after_a_spike(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Step 4 does harm; whatever became of it, the run is stopped after step 13."""
    watcher = poison(monkeypatch, 1)
    spoil = watcher.action

    def step(record: Any) -> None:
        watcher.steps.append(record.step)
        if record.step == 3 and watcher.steps.count(3) == 1:
            spoil()
        if record.step == 13:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(watcher, "step", step)
    return watcher


def test_the_command_shows_and_writes_what_would_have_been(
    make_config: MakeConfig, mixture: Path, tmp_path: Path
) -> None:
    config = small_run(make_config, mixture, Reweighting(warmup_steps=2, feedback="both"))
    run(config)
    recorded = read_recorded(config.out)

    def call(*arguments: object) -> str:
        done = CliRunner().invoke(app, ["mix", "replay", str(config.out), *map(str, arguments)])
        assert done.exit_code == 0, done.output
        return done.stdout

    shown = call()
    assert "The run's own constants give its recorded weights bit for bit, in all 24 steps." in shown
    assert "sow-identity as in the run, on the losses of 24 steps." in shown and "others under these" not in shown
    (prose,) = (line.split() for line in shown.splitlines() if line.startswith("prose"))
    assert len(set(prose[1:])) == 1  # one number, whatever the column: its weight is fixed
    out = tmp_path / "weights.parquet"
    shown = call("--method", "sow-linupper", "--set", "r=2", "--set", "ema=0.9", "--out", out)
    assert "sow-linupper instead of sow-identity with r 1.0 → 2.0, ema 0.0 → 0.9, on the losses" in shown
    assert "Losses would have been others under these weights" in shown and f"Wrote {out}." in shown
    expected = replay(recorded, Reweighting(method="sow-linupper", r=2, ema=0.9, warmup_steps=2))
    table = pl.read_parquet(out)
    assert table["weight"].to_list() == expected.ravel().tolist()
    assert table["recorded_weight"].to_list() == recorded.weights.ravel().tolist()
    csv = tmp_path / "weights.csv"
    call("--set", "r=2", "--out", csv)
    assert pl.read_csv(csv).columns == ["step", "domain", "weight", "recorded_weight"]
    (first, *_) = map(json.loads, call("--format", "json", "--method", "none").splitlines())
    assert first["domain"] == "code" and first["mean"] == pytest.approx(recorded.planned_shares[:, 0].mean())
    assert first["recorded_final"] == recorded.weights[-1, 0]


def test_the_command_says_where_a_run_departs(make_config: MakeConfig, mixture: Path, tmp_path: Path) -> None:
    config = small_run(make_config, mixture, Reweighting(warmup_steps=2))
    run(config)
    part = config.out / "metrics" / "part-00000006.parquet"
    changed = pl.col("weight") + pl.when((pl.col("step") == 8) & (pl.col("domain") == "code")).then(0.25).otherwise(0)
    pl.read_parquet(part).with_columns(changed).write_parquet(part)
    done = CliRunner().invoke(app, ["mix", "replay", str(config.out)])
    assert done.exit_code == 0
    assert "do not quite give its recorded weights: from step 8 on, where 'code' had" in done.stdout
    assert "they differ by 0.25 at most" in done.stdout
    for arguments, message in (
        (["--out", "weights.txt"], "--out weights.txt: expected a name that ends in .parquet or .csv"),
        (["--set", "rr=1"], "--set rr=1: 'rr' is unknown"),
        (["--set", "r=-1"], "--set r=-1: found -1, expected a number greater than 0"),
        (["--set", "r=low"], "--set r=low: found 'low', expected a valid number"),
        (["--set", "signal=rawe"], "--set signal=rawe: 'rawe' is unknown; did you mean 'raw'?"),
        (["--set", "reference.coed=2"], "--set reference.coed=2: the run has no domain 'coed'; did you mean 'code'?"),
        (["--method", "sow-identiti"], "--method: 'sow-identiti' is unknown; did you mean 'sow-identity'?"),
        (["--method", "doremi"], "a loss for each domain; give it by --set reference.DOMAIN=LOSS."),
    ):
        done = CliRunner().invoke(app, ["mix", "replay", str(config.out), *arguments])
        assert isinstance(done.exception, ConfigError) and message in str(done.exception)
    done = CliRunner().invoke(app, ["mix", "replay", str(tmp_path / "nowhere")])
    assert isinstance(done.exception, FormatError) and "is no training run" in str(done.exception)
