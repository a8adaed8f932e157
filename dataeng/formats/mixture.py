"""The mixture manifest (``manifests/mix.json``): which packs, in what shares, and how the shares may move.

Written by ``dataeng mix``, read by ``trainer``, and written again by ``trainer`` with the weights it learned.
Paths are relative to the manifest's own folder. The JSON Schema is `MixtureManifest.model_json_schema()`.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dataeng.errors import FormatError
from dataeng.formats.atomic import write_json


class _Strict(BaseModel):
    # A temperature of ∞ must survive JSON, which has no such number: it is written as "Infinity".
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")


class Domain(_Strict):
    """One domain of the mixture."""

    packs: list[str] = Field(min_length=1, description="Pack folders, relative to the manifest's folder")
    num_documents: int = Field(ge=0)
    num_tokens: int = Field(gt=0, description="Unique tokens in the packs")
    weight: float = Field(gt=0, le=1, description="Share of training tokens drawn from this domain")
    max_epochs: float | None = Field(default=None, gt=0, description="Never repeat the domain more often")


class Policy(_Strict):
    """How the weights came about, so that a person can argue with them."""

    name: Literal["natural", "temperature", "given", "learned"]
    temperature: float | None = Field(
        default=None, gt=0, description="p ∝ tokens^(1/temperature); 1 is natural, ∞ is uniform"
    )
    note: str = ""


class Reweighting(_Strict):
    """How the trainer turns per-domain losses into weights on them.

    The recipe of Sow et al. (arXiv 2502.06733), per domain: losses are scaled into [-1, 1] by their smallest and
    largest, ``softmax(h / r)`` gives the weights (detached), and the weighted domain losses are summed.
    """

    method: Literal["none", "sow-identity"] = "sow-identity"
    r: float = Field(default=1.0, gt=0, description="Softmax temperature; larger is flatter")
    floor: float = Field(default=1e-6, gt=0, description="Smallest range (nats) that losses are scaled by")
    ema: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the old value in the averaged loss; 0 is same-step"
    )
    warmup_steps: int = Field(default=0, ge=0, description="Steps with equal treatment before weights apply")


class LearnedWeights(_Strict):
    """One entry of the history: what a training run ended with."""

    run: str
    step: int = Field(ge=0)
    weights: dict[str, float]
    losses: dict[str, float]


class MixtureManifest(_Strict):
    """``mix.json``."""

    format_version: Literal[1] = 1
    run: str | None = Field(default=None, description="Run folder of the packs, relative to the manifest's folder")
    tokenizer_sha256: str
    vocab_size: int = Field(gt=0)
    domains: dict[str, Domain] = Field(min_length=1)
    policy: Policy
    reweighting: Reweighting = Reweighting()
    history: list[LearnedWeights] = []

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> MixtureManifest:
        total = math.fsum(domain.weight for domain in self.domains.values())
        if abs(total - 1) > 1e-6:
            weights = ", ".join(f"{name} {domain.weight:g}" for name, domain in self.domains.items())
            raise ValueError(f"weights sum to {total:.8g}, expected 1 ({weights})")
        return self


def load_mixture(path: Path) -> MixtureManifest:
    """Reads and checks a manifest; raises `FormatError` that names the field at fault."""
    try:
        return MixtureManifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise FormatError(f"cannot read mixture manifest {path}: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise FormatError(f"{path}: {where}: {first['msg']}") from error


def save_mixture(path: Path, manifest: MixtureManifest) -> None:
    """Writes a manifest atomically."""
    write_json(path, json.loads(manifest.model_dump_json(exclude_none=True)))


def relative_to_manifest(target: Path, manifest_path: Path) -> str:
    """Returns ``target`` as it is written in a manifest at ``manifest_path``: relative, with forward slashes."""
    return Path(os.path.relpath(target.resolve(), manifest_path.resolve().parent)).as_posix()
