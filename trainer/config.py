"""What a training run is: frozen values, derived once by `derive_config` from the command line and the manifest.

Nothing here imports PyTorch, so that ``trainer --help`` and a wrong option answer at once.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError

from dataeng.errors import ConfigError, nearest
from dataeng.formats.complaints import first_complaint
from dataeng.formats.mixture import MixtureManifest
from dataeng.formats.reweighting import Method, Reweighting
from dataeng.formats.token_count import parse_tokens
from dataeng.packing.rows import Method as Packing
from dataeng.packing.rows import checked_method
from trainer.huggingface.config import fingerprint
from trainer.model.presets import PRESETS, LoraConfig, ModelConfig
from trainer.model_options import derive_lora, derive_model, derive_preset, derive_sequence_length
from trainer.options import DEFAULT_STEPS, Options

Normalization = Literal["planned", "batch"]
OptimizerName = Literal["adamw", "adafactor", "lion", "muon"]
Schedule = Literal["wsd", "cosine", "linear", "constant"]
OnSpike = Literal["skip", "roll-back", "stop"]
Parallelism = Literal["ddp", "zero1", "zero2", "zero3"]
Decay = Literal["linear", "cosine", "1-sqrt", "exponential"]


#: A preset's learning rate is AdamW's. Lion's steps are all of one size (its authors: 3 to 10 times less); Adafactor's
#: rate is relative to the size of the weights, which begin at 0.02.
RATE_FACTORS = {"lion": 0.2, "adafactor": 20.0}


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate's way (see `trainer.optimizer.schedule`), and the batch's."""

    warmup_steps: int
    decay_steps: int
    name: Schedule = "wsd"
    decay: Decay = "linear"
    final_factor: float = 0.0
    ramp_start: int = 1
    ramp_steps: int = 0


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Which optimizer (see `trainer.optimizer.optimizers`), and its constants."""

    learning_rate: float
    name: OptimizerName = "adamw"
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    max_gradient_norm: float = 1.0


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """How domain weights enter the loss (see `trainer.loss`)."""

    normalization: Normalization = "planned"
    max_multiplier: float = 4.0
    chunk_tokens: int | None = None
    """Rows of logits that exist at a time; None: as suits the device (see `trainer.model.cross_entropy`)."""
    kept_bytes: int | None = None
    """Of logits that may wait for the backward pass instead of being made again; None: likewise."""


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Held-out packs, how often they are read, and how much of every domain (see `trainer.evaluation.validation`)."""

    mixture: Path
    every: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything about one run, resolved. `trainer.identity` has the part that decides its numbers."""

    mixture: Path
    out: Path
    save_mixture: Path
    preset: str
    model: ModelConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    loss: LossConfig
    reweighting: Reweighting
    num_steps: int
    batch_size: int
    sequence_length: int
    packing: Packing
    seed: int
    device: str | None
    threads: int | None
    compile: bool
    parallel: Parallelism
    replicas: int
    resume: bool
    resume_from: int | None
    checkpoint_every: int
    keep_checkpoints: int
    verify_packs: bool | None
    document_mask: bool
    accumulate: int
    on_spike: OnSpike
    spike_threshold: float
    background_checkpoints: bool
    init_from: Path | None
    init_from_sha256: str | None
    recompute_every: int
    lora: LoraConfig | None
    validation: ValidationConfig | None
    update_ratio_every: int
    peak_flops: float | None

    @property
    def way_on(self) -> str:
        """Which command goes on from this run's last checkpoint; the same one would discard or repeat steps."""
        if not self.resume:
            return "the same command without --no-resume"
        return "the same command" if self.resume_from is None else "the same command without --resume-from"

    @property
    def tokens_per_step(self) -> int:
        """Labels per optimizer step."""
        return self.batch_size * self.sequence_length


def derive_config(options: Options, manifest: MixtureManifest) -> TrainConfig:
    """Returns the resolved configuration; every derived value is derived here.

    Raises `ConfigError` that names the option, its value and what is possible.
    """
    preset_name = derive_preset(options)
    preset = PRESETS[preset_name]
    batch_size = preset.batch_size if options.batch_size is None else options.batch_size
    sequence_length = derive_sequence_length(options, preset)
    learning_rate = options.learning_rate
    if learning_rate is None:
        learning_rate = preset.learning_rate * RATE_FACTORS.get(options.optimizer, 1.0)
    steps = _steps(options, batch_size, sequence_length)
    checkpoint_every = options.checkpoint_every
    if checkpoint_every is None:
        checkpoint_every = max(1, min(1000, math.ceil(steps / 4)))
    _check_ranges(options, steps, batch_size, sequence_length, learning_rate, checkpoint_every)
    out = default_out(options.mixture, manifest) if options.out is None else options.out
    save_mixture = out / "mix.json" if options.save_mixture is None else options.save_mixture
    if save_mixture.is_dir():
        raise ConfigError(f"--save-mixture {save_mixture} is a folder; name a file.")
    if save_mixture.resolve() == options.mixture.resolve():
        raise ConfigError(
            f"{options.mixture}, which this run trains on, would be replaced by what it learns: give it another --out "
            "or --save-mixture."
        )
    return TrainConfig(
        mixture=options.mixture,
        out=out,
        save_mixture=save_mixture,
        preset=preset_name,
        model=derive_model(options, preset, manifest, sequence_length),
        optimizer=OptimizerConfig(
            learning_rate=learning_rate,
            name=_choice("--optimizer", options.optimizer, OptimizerName),
            weight_decay=options.weight_decay,
        ),
        schedule=_schedule(options, steps, batch_size),
        loss=LossConfig(normalization=_choice("--normalization", options.normalization, Normalization)),
        reweighting=_reweighting(options.reweighting, manifest.reweighting),
        num_steps=steps,
        batch_size=batch_size,
        sequence_length=sequence_length,
        packing=manifest.packing if options.packing is None else checked_method(options.packing),
        seed=options.seed,
        device=options.device,
        threads=options.threads,
        compile=options.compile,
        parallel=_choice("--parallel", options.parallel, Parallelism),
        replicas=options.replicas,
        resume=options.resume,
        resume_from=options.resume_from,
        checkpoint_every=checkpoint_every,
        keep_checkpoints=options.keep_checkpoints,
        verify_packs=options.verify_packs,
        document_mask=options.document_mask,
        accumulate=options.accumulate,
        on_spike=_choice("--on-spike", options.on_spike, OnSpike),
        spike_threshold=options.spike_threshold,
        background_checkpoints=options.background_checkpoints,
        init_from=options.init_from,
        init_from_sha256=None if options.init_from is None else fingerprint(options.init_from),
        recompute_every=options.recompute_every,
        lora=derive_lora(options),
        validation=_validation(options, checkpoint_every),
        update_ratio_every=options.update_ratio_every,
        peak_flops=options.peak_flops,
    )


def _validation(options: Options, checkpoint_every: int) -> ValidationConfig | None:
    """Returns what is validated, with every checkpoint unless asked otherwise; None without held-out packs."""
    every = checkpoint_every if options.validate_every is None else options.validate_every
    for name, value in {"--validate-every": every, "--validate-tokens": options.validate_tokens}.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}; expected at least 1.")
    if options.validate is None:
        if options.validate_every is not None:
            raise ConfigError("--validate-every needs --validate MANIFEST: a mixture of packs that are not trained on.")
        return None
    return ValidationConfig(mixture=options.validate, every=every, tokens=options.validate_tokens)


def _steps(options: Options, batch_size: int, sequence_length: int) -> int:
    """Returns the steps asked for, or as many as read the tokens asked for, the last batch whole."""
    if options.tokens is None:
        return DEFAULT_STEPS if options.steps is None else options.steps
    if options.steps is not None:
        raise ConfigError("--steps and --tokens both say how long to train; give one of them.")
    if options.batch_ramp is not None:
        raise ConfigError("--tokens cannot be used with --batch-ramp, under which steps differ; give --steps.")
    return math.ceil(parse_tokens(options.tokens) / max(1, batch_size * sequence_length))


def _check_ranges(
    options: Options, steps: int, batch_size: int, sequence_length: int, learning_rate: float, checkpoint_every: int
) -> None:
    for name, value in {
        "--steps": steps,
        "--batch-size": batch_size,
        "--accumulate": options.accumulate,
        "--replicas": options.replicas,
        "--sequence-length": sequence_length,
        "--checkpoint-every": checkpoint_every,
        "--keep-checkpoints": options.keep_checkpoints,
        "--threads": 1 if options.threads is None else options.threads,
        "--resume-from": 1 if options.resume_from is None else options.resume_from,
    }.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}; expected at least 1.")
    for name, value in {
        "--recompute-every": options.recompute_every,
        "--update-ratio-every": options.update_ratio_every,
    }.items():
        if value < 0:
            raise ConfigError(f"{name} is {value}; expected 0 (never) or more.")
    for name, part, whole, of_what in (
        ("--warmup-steps", options.warmup_steps, steps, "steps of the run"),
        ("--decay-steps", options.decay_steps, steps, "steps of the run"),
        ("--accumulate", options.accumulate, batch_size, "rows of a step"),
    ):
        if part is not None and part > whole:
            raise ConfigError(f"{name} is {part:,}, more than the {whole:,} {of_what}.")
    if options.peak_flops is not None and not (math.isfinite(options.peak_flops) and options.peak_flops > 0):
        raise ConfigError(f"--peak-flops is {options.peak_flops:g}; expected a number above 0, such as 989e12.")
    if not (math.isfinite(options.weight_decay) and options.weight_decay >= 0):
        raise ConfigError(f"--weight-decay is {options.weight_decay:g}; expected 0 (none) or more.")
    if not options.spike_threshold > 0:
        raise ConfigError(f"--spike-threshold is {options.spike_threshold:g}; expected a number above 0 (inf: never).")
    if options.rope_theta is not None and not (math.isfinite(options.rope_theta) and options.rope_theta > 1):
        raise ConfigError(f"--rope-theta is {options.rope_theta:g}; expected a number above 1.")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise ConfigError(f"--learning-rate is {learning_rate:g}; expected a number above 0.")
    if options.resume_from is not None and not options.resume:
        raise ConfigError("--resume-from and --no-resume contradict each other; give one of them.")


def _choice(option: str, value: str, choices: Any) -> Any:
    """Returns ``value`` if it is one of the literal type's; raises `ConfigError` naming the option otherwise."""
    if value not in get_args(choices):
        raise ConfigError(f"{option} {value} is unknown{nearest(value, get_args(choices))}")
    return value


def _schedule(options: Options, steps: int, batch_size: int) -> ScheduleConfig:
    """Returns the schedule; a twentieth of the run warms up and the last quarter decays unless asked otherwise."""
    warmup_steps = max(1, steps // 20) if options.warmup_steps is None else options.warmup_steps
    decay_steps = max(1, steps // 4) if options.decay_steps is None else options.decay_steps
    for name, value in {"--warmup-steps": warmup_steps, "--decay-steps": decay_steps}.items():
        if value < 0:
            raise ConfigError(f"{name} is {value}; expected 0 (none) or more.")
    if not 0 <= options.final_factor <= 1:
        raise ConfigError(f"--final-factor is {options.final_factor:g}; expected a number from 0 to 1.")
    ramp_start, ramp_steps = options.batch_ramp or (1, 0)
    if options.batch_ramp is not None and (ramp_steps < 1 or not 1 <= ramp_start <= batch_size):
        raise ConfigError(
            f"--batch-ramp {ramp_start} {ramp_steps}: expected a first batch of 1 to {batch_size} rows, and 1 step up."
        )
    return ScheduleConfig(
        name=_choice("--schedule", options.schedule, Schedule),
        decay=_choice("--decay", options.decay, Decay),
        final_factor=options.final_factor,
        warmup_steps=warmup_steps,
        decay_steps=decay_steps,
        ramp_start=ramp_start,
        ramp_steps=ramp_steps,
    )


def _reweighting(value: str | None, manifest: Reweighting) -> Reweighting:
    if value is None:
        return manifest
    method = _choice("--reweighting", value, Method)
    try:
        return Reweighting.model_validate({**manifest.model_dump(), "method": method})
    except ValidationError as error:
        raise ConfigError(
            f"--reweighting {value}: {first_complaint(error, Reweighting)[1]}, in the manifest."
        ) from error


def default_out(mixture: Path, manifest: MixtureManifest) -> Path:
    """Returns ``<run>/training/<manifest's stem>``; without a run, ``runs/training/<stem>``.

    A manifest with n learned rounds in its history gets ``<stem>-<n + 1>``, so that training on the learned weights
    does not meet the folder that they came from.
    """
    run = Path("runs") if manifest.run is None else Path(os.path.normpath(mixture.parent / manifest.run))
    name = f"{mixture.stem}-{len(manifest.history) + 1}" if manifest.history else mixture.stem
    return run / "training" / name
