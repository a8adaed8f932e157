"""The mixture manifest (``manifests/mix.json``): which packs, in what shares, and how the shares may move.

Written by ``dataeng mix``, read by ``trainer``, and written again by ``trainer`` with the weights it learned.
Paths are relative to the manifest's own folder. The JSON Schema is `MixtureManifest.model_json_schema()`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dataeng.errors import FormatError
from dataeng.formats.atomic import sha256_file, write_json
from dataeng.formats.complaints import first_complaint
from dataeng.formats.pack import MANIFEST_NAME
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
    pack_sha256: list[str] | None = Field(
        default=None, description="SHA-256 of each pack's pack.json, and so of every token; none: any pack of that size"
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
    max_epochs: float | None = Field(default=None, gt=0, description="UniMax: the epochs that no domain exceeds")
    token_budget: int | None = Field(default=None, gt=0, description="The budget that the weights were made for")
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
    revision: int = Field(default=0, ge=0, description="How often documents were taken out of its packs since")
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
            if any(other.name == stage.name for other in self.schedule if other is not stage):
                raise ValueError(f"two stages are called '{stage.name}'")
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

    @model_validator(mode="after")
    def _a_hash_for_each_pack(self) -> MixtureManifest:
        for name, domain in self.domains.items():
            if domain.pack_sha256 is not None and len(domain.pack_sha256) != len(domain.packs):
                raise ValueError(
                    f"domain '{name}' has {len(domain.packs)} packs and {len(domain.pack_sha256)} of their SHA-256"
                )
        return self


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def load_mixture(path: Path) -> MixtureManifest:
    """Reads and checks a manifest; raises `FormatError` that names the field at fault."""
    try:
        return MixtureManifest.model_validate_json(path.read_bytes())
    except IsADirectoryError as error:
        hint = f"; `dataeng mix {path}` makes a manifest of its packs" if (path / "packs").is_dir() else ""
        raise FormatError(f"{path} is a folder; expected a mixture manifest, a file{hint}.") from error
    except OSError as error:
        raise FormatError(f"cannot read mixture manifest {path}: {error.strerror}.") from error
    except ValidationError as error:
        where, what = first_complaint(error, MixtureManifest)
        raise FormatError(f"{path}: {where or 'manifest'}: {what}") from error


def json_schema() -> str:
    """Returns the JSON Schema (draft 2020-12) of a manifest, as JSON text."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | MixtureManifest.model_json_schema()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def save_mixture(path: Path, manifest: MixtureManifest) -> None:
    """Writes a manifest atomically."""
    write_json(path, json.loads(manifest.model_dump_json(exclude_none=True)))


def pack_hashes(folders: Sequence[Path]) -> list[str]:
    """Returns the SHA-256 of each pack's ``pack.json``, which holds that of every file of the pack."""
    return [sha256_file(folder / MANIFEST_NAME) for folder in folders]


def check_pack_hashes(name: str, domain: Domain, manifest_path: Path) -> None:
    """Raises `FormatError` if a pack of the domain is not the one that the manifest was made from."""
    if domain.pack_sha256 is None:
        return
    folders = [manifest_path.parent / pack for pack in domain.packs]
    for folder, found, expected in zip(folders, pack_hashes(folders), domain.pack_sha256, strict=True):
        if found != expected:
            raise FormatError(
                f"{folder / MANIFEST_NAME} (domain '{name}') has SHA-256 {found}, {manifest_path} expects {expected}: "
                "the pack has changed. Run `dataeng mix` on the present packs."
            )


def relative_to_manifest(target: Path, manifest_path: Path) -> str:
    """Returns ``target`` as it is written in a manifest at ``manifest_path``: relative, with forward slashes."""
    return Path(os.path.relpath(target.resolve(), manifest_path.resolve().parent)).as_posix()
