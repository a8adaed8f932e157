"""What a person may ask for, as the command line hands it on; `trainer.config` makes a run's configuration of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.model.presets import MATRICES

#: Of a run that is told neither --steps nor --tokens: enough to see losses fall.
DEFAULT_STEPS = 300


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a person may ask for. None means: the preset's value, the manifest's, or a derived one."""

    mixture: Path
    out: Path | None = None
    save_mixture: Path | None = None
    preset: str | None = None
    steps: int | None = None
    tokens: str | None = None
    batch_size: int | None = None
    sequence_length: int | None = None
    packing: str | None = None
    learning_rate: float | None = None
    seed: int = 0
    reweighting: str | None = None
    normalization: str = "planned"
    device: str | None = None
    threads: int | None = None
    compile: bool = False
    parallel: str = "ddp"
    replicas: int = 1
    resume: bool = True
    resume_from: int | None = None
    checkpoint_every: int | None = None
    keep_checkpoints: int = 2
    verify_packs: bool | None = None
    optimizer: str = "adamw"
    weight_decay: float = 0.1
    schedule: str = "wsd"
    decay: str = "linear"
    final_factor: float = 0.0
    warmup_steps: int | None = None
    decay_steps: int | None = None
    batch_ramp: tuple[int, int] | None = None
    document_mask: bool = True
    accumulate: int = 1
    on_spike: str = "skip"
    spike_threshold: float = 6.0
    background_checkpoints: bool = False
    init_from: Path | None = None
    rope_theta: float | None = None
    rope_scaling: str | None = None
    qk_norm: bool = False
    tied_embeddings: bool | None = None
    recompute_every: int = 0
    lora: int | None = None
    lora_alpha: float | None = None
    lora_targets: str = ", ".join(MATRICES)
    validate: Path | None = None
    validate_every: int | None = None
    validate_tokens: int = 50_000
    update_ratio_every: int = 50
    peak_flops: float | None = None
