"""What every trainer is told, before it is put into its words: stages, shares of tokens, and where the tokens are.

Shares are those after epoch caps at the given budget: other trainers know no caps, but in these shares and with this
budget nothing is read more often. They are shares of tokens. Every trainer here mixes rows of one length, in which a
share of rows is a share of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dataeng.errors import ConfigError
from dataeng.formats.mixture import MixtureManifest
from dataeng.formats.pack import PackManifest, load_manifest
from dataeng.mixture.plan import planned_shares


@dataclass(frozen=True)
class BlendStage:
    """One stage. Domains that are not drawn are not in ``shares``."""

    name: str
    first_step: int  # from 1
    last_step: int
    until: float
    shares: dict[str, float]


@dataclass(frozen=True)
class Blend:
    """A mixture at a budget."""

    manifest: MixtureManifest
    manifest_path: Path
    token_budget: int
    sequence_length: int
    batch_size: int  # rows a step, over all devices
    num_steps: int
    stages: list[BlendStage]

    def packs(self, domain: str) -> list[tuple[Path, PackManifest]]:
        """Returns a domain's packs, folder (absolute) and manifest."""
        folders = [(self.manifest_path.parent / pack).resolve() for pack in self.manifest.domains[domain].packs]
        return [(folder, load_manifest(folder)) for folder in folders]

    def masked_domains(self) -> list[str]:
        """Returns the domains of which some tokens are context only."""
        return [
            name
            for name in self.manifest.domains
            if any("mask" in shard.files for _, pack in self.packs(name) for shard in pack.shards)
        ]

    def caveats(self) -> list[str]:
        """Returns what the manifest says and the other trainer does not do."""
        lines = []
        ordered = [name for name, domain in self.manifest.domains.items() if domain.order is not None]
        if ordered:
            lines.append(f"curricula are not handed over: {', '.join(ordered)} will be shuffled")
        if self.manifest.packing != "concatenate":
            lines.append(f"the manifest's packing, {self.manifest.packing}, is not handed over")
        return lines


def blend(
    manifest: MixtureManifest, manifest_path: Path, token_budget: int, sequence_length: int, batch_size: int
) -> Blend:
    """Returns a mixture's stages in steps of ``batch_size`` rows of ``sequence_length`` tokens.

    Raises `ConfigError` when the budget is too small for every stage to have a step, or the epoch caps for the budget.
    """
    for name, value in (("--sequence-length", sequence_length), ("--batch-size", batch_size)):
        if value < 1:
            raise ConfigError(f"{name} is {value}; expected at least 1.")
    planned = planned_shares(manifest, token_budget)
    num_steps = token_budget // (sequence_length * batch_size)
    names = [stage.name for stage in manifest.schedule] or ["all"]
    stages: list[BlendStage] = []
    before = 0
    for name, (until, shares) in zip(names, planned, strict=True):
        end = round(until * num_steps)
        if end <= before:
            raise ConfigError(
                f"{token_budget:,} tokens are {num_steps:,} steps of {batch_size:,} rows of {sequence_length:,}: "
                f"stage '{name}' has none. Give more --tokens, or a smaller --batch-size."
            )
        drawn = {domain: float(s) for domain, s in zip(manifest.domains, shares, strict=True) if s > 0}
        stages.append(BlendStage(name, before + 1, end, until, drawn))
        before = end
    return Blend(manifest, manifest_path, token_budget, sequence_length, batch_size, num_steps, stages)
