"""The mixture manifest (``manifests/mix.json``): which packs, in what shares, and how the shares may move.

Written by ``dataeng mix``, read by ``trainer``, and written again by ``trainer`` with the weights it learned.
Paths are relative to the manifest's own folder. The JSON Schema is `MixtureManifest.model_json_schema()`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dataeng.errors import FormatError
from dataeng.formats.atomic import write_json
from dataeng.formats.reweighting import Reweighting


class _Strict(BaseModel):
    # A temperature of ∞ must survive JSON, which has no such number: it is written as "Infinity".
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")


class Order(_Strict):
    """A curriculum: the domain's documents in the order of one of their columns, each epoch from the start."""

    by: str = Field(min_length=1, description="A numeric column of the packs' docs.parquet, e.g. quality.word_count")
    descending: bool = Field(default=False, description="The largest values first")


class Domain(_Strict):
    """One domain of the mixture."""

    packs: list[str] = Field(min_length=1, description="Pack folders, relative to the manifest's folder")
    num_documents: int = Field(ge=0)
    num_tokens: int = Field(gt=0, description="Unique tokens in the packs")
    weight: float = Field(gt=0, le=1, description="Share of training tokens drawn from this domain")
    max_epochs: float | None = Field(default=None, gt=0, description="Never repeat the domain more often")
    order: Order | None = Field(default=None, description="A curriculum within the domain; none: shuffled")
    reweighted: bool = Field(
        default=True, description="False: losses never move its weight (question-answer pairs in the last stage)"
    )


class MixtureStage(_Strict):
    """One stage of the schedule: the weights that hold until a share of the training tokens was drawn."""

    name: str = Field(min_length=1)
    until: float = Field(gt=0, le=1, description="Progress (tokens drawn / token budget) at which the stage ends")
    weights: dict[str, float] = Field(description="One for each domain, 0 allowed; they sum to 1")


class Policy(_Strict):
    """How the weights came about, so that a person can argue with them."""

    name: Literal["natural", "temperature", "unimax", "given", "fitted", "learned"]
    temperature: float | None = Field(
        default=None, gt=0, description="p ∝ tokens^(1/temperature); 1 is natural, ∞ is uniform"
    )
    note: str = ""


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
    schedule: list[MixtureStage] = Field(
        default=[], description="Stages over training progress; a domain's weight is then its mean over them"
    )
    packing: Literal["concatenate", "best-fit", "aligned"] = Field(
        default="concatenate", description="How documents become rows (dataeng.packing)"
    )
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

    @model_validator(mode="after")
    def _stages_cover_the_run(self) -> MixtureManifest:
        before = 0.0
        for stage in self.schedule:
            if stage.weights.keys() != self.domains.keys():
                raise ValueError(
                    f"stage '{stage.name}' gives weights for {_listed(stage.weights)}; the domains are "
                    f"{_listed(self.domains)}"
                )
            total = math.fsum(stage.weights.values())
            if min(stage.weights.values()) < 0 or abs(total - 1) > 1e-6:
                weights = ", ".join(f"{name} {weight:g}" for name, weight in stage.weights.items())
                raise ValueError(
                    f"the weights of stage '{stage.name}' sum to {total:.8g}, expected 1 and none below 0 ({weights})"
                )
            if stage.until <= before:
                raise ValueError(f"stage '{stage.name}' ends at {stage.until:g}, the one before at {before:g}")
            before = stage.until
        if self.schedule and before != 1:
            raise ValueError(f"the last stage '{self.schedule[-1].name}' ends at {before:g}, expected 1")
        return self


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


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
