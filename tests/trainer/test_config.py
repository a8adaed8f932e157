"""Options to configuration: derived values, refusals, and what makes two runs the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataeng.errors import ConfigError
from dataeng.formats.mixture import LearnedWeights, load_mixture
from trainer.config import TrainConfig, ValidationConfig, default_out, derive_config
from trainer.huggingface.config import to_huggingface
from trainer.model.presets import PRESETS
from trainer.model_options import derive_preset, derive_sequence_length
from trainer.options import Options

MakeConfig = Callable[..., TrainConfig]


def test_none_means_the_presets_value_or_a_derived_one(mixture: Path) -> None:
    config = derive_config(Options(mixture=mixture, steps=100), load_mixture(mixture))
    preset = PRESETS["tiny"]
    assert (config.batch_size, config.sequence_length) == (preset.batch_size, preset.sequence_length)
    assert config.optimizer.learning_rate == preset.learning_rate
    assert (config.schedule.warmup_steps, config.schedule.decay_steps, config.checkpoint_every) == (5, 25, 25)
    assert (config.model.vocab_size, config.model.max_positions) == (257, preset.sequence_length)
    assert config.tokens_per_step == preset.batch_size * preset.sequence_length
    assert config.save_mixture == config.out / "mix.json"
    assert config.reweighting == load_mixture(mixture).reweighting


def test_tokens_in_place_of_steps(mixture: Path) -> None:
    def config(**options: Any) -> TrainConfig:
        return derive_config(Options(mixture=mixture, **options), load_mixture(mixture))

    assert config().num_steps == 300
    long = config(tokens="2k", batch_size=4, sequence_length=64)  # 7.8 batches
    assert (long.num_steps, long.schedule.decay_steps, long.checkpoint_every) == (8, 2, 2)
    for options, message in (
        ({"steps": 3}, "--steps and --tokens both say how long to train"),
        ({"batch_ramp": (1, 2)}, "--tokens cannot be used with --batch-ramp"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"tokens": "2 thousand"}, "--tokens 2 thousand: expected a number such as"),
    ):
        with pytest.raises(ConfigError, match=message):
            config(**{"tokens": "2k", **options})


def test_held_out_losses_come_with_checkpoints_unless_told_otherwise(make_config: MakeConfig) -> None:
    assert make_config().validation is None
    path = Path("held_out.json")
    assert make_config(validate=path).validation == ValidationConfig(mixture=path, every=30, tokens=50_000)
    often = make_config(validate=path, validate_every=5, validate_tokens=700).validation
    assert often == ValidationConfig(mixture=path, every=5, tokens=700)


def test_the_run_folder_follows_the_manifest(mixture: Path, tmp_path: Path) -> None:
    manifest = load_mixture(mixture)
    assert default_out(mixture, manifest) == tmp_path / "run" / "training" / "mix"
    assert default_out(mixture, manifest.model_copy(update={"run": None})) == Path("runs/training/mix")
    entry = LearnedWeights(run="x", step=1, weights={}, losses={})
    second = manifest.model_copy(update={"history": [entry]})
    assert default_out(mixture, second) == tmp_path / "run" / "training" / "mix-2"


def test_the_method_can_be_overridden(make_config: MakeConfig) -> None:
    assert make_config().reweighting.method == "sow-identity"
    overridden = make_config(reweighting="none").reweighting
    assert (overridden.method, overridden.ema) == ("none", 0.5)
    rates = {
        name: make_config(optimizer=name).optimizer.learning_rate for name in ("adamw", "muon", "lion", "adafactor")
    }
    assert rates == {"adamw": 1.5e-3, "muon": 1.5e-3, "lion": pytest.approx(3e-4), "adafactor": pytest.approx(0.03)}
    assert make_config(optimizer="lion", learning_rate=1e-3).optimizer.learning_rate == 1e-3
    assert make_config(normalization="batch").loss.normalization == "batch"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "tinny"}, r"--preset tinny is unknown; did you mean 'tiny'\?$"),
        ({"reweighting": "sow"}, "--reweighting sow is unknown"),
        ({"normalization": "batches"}, "did you mean 'batch'"),
        ({"steps": 0}, "--steps is 0; expected at least 1"),
        ({"weight_decay": -0.1}, r"--weight-decay is -0\.1; expected 0 \(none\) or more"),
        ({"spike_threshold": float("nan")}, "--spike-threshold is nan; expected a number above 0"),
        ({"warmup_steps": -1}, r"--warmup-steps is -1; expected 0 \(none\) or more"),
        ({"batch_size": -1}, "--batch-size is -1"),
        ({"sequence_length": 0}, "--sequence-length is 0"),
        ({"checkpoint_every": 0}, "--checkpoint-every is 0"),
        ({"keep_checkpoints": 0}, "--keep-checkpoints is 0"),
        ({"threads": 0}, "--threads is 0"),
        ({"warmup_steps": 61}, "--warmup-steps is 61, more than the 60 steps of the run"),
        ({"decay_steps": 61}, "--decay-steps is 61, more than the 60 steps of the run"),
        ({"accumulate": 5}, "--accumulate is 5, more than the 4 rows of a step"),
        ({"learning_rate": 0.0}, "--learning-rate is 0"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan"),
        ({"resume": False, "resume_from": 5}, "contradict each other"),
        ({"validate_every": 5}, "--validate-every needs --validate MANIFEST"),
        ({"validate": Path("held_out.json"), "validate_every": 0}, "--validate-every is 0"),
        ({"validate_tokens": 0}, "--validate-tokens is 0"),
        ({"lora_alpha": 8.0}, "--lora-alpha and --lora-targets need --lora RANK"),
        ({"lora_targets": "q_proj"}, "--lora-alpha and --lora-targets need --lora RANK"),
        ({"update_ratio_every": -1}, r"--update-ratio-every is -1; expected 0 \(never\) or more"),
        ({"peak_flops": 0.0}, "--peak-flops is 0; expected a number above 0"),
    ],
)
def test_wrong_options_are_named(make_config: MakeConfig, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(**options)


def test_a_model_to_start_from_is_trained_as_the_preset_nearest_in_size(tmp_path: Path) -> None:
    def options(name: str, positions: int, **given: Any) -> Options:
        folder = tmp_path / f"{name}-{positions}"
        folder.mkdir(exist_ok=True)
        shape = PRESETS[name].model(vocab_size=300, max_positions=positions)
        (folder / "config.json").write_text(json.dumps(to_huggingface(shape, "float32", 0)))
        return Options(mixture=Path("mix.json"), init_from=folder, **given)

    for name in PRESETS:
        assert derive_preset(options(name, 64)) == name
    assert derive_preset(options("8b", 64, preset="25m")) == "25m"
    assert derive_preset(Options(mixture=Path("mix.json"))) == "tiny"
    preset = PRESETS["124m"]
    assert derive_sequence_length(options("124m", 512), preset) == 512
    assert derive_sequence_length(options("124m", 4096), preset) == 1024
    assert derive_sequence_length(options("124m", 512, sequence_length=600), preset) == 600
