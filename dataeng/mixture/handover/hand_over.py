"""One entry for all trainers: which there are, and whether what they will read is there."""

from __future__ import annotations

import json
from pathlib import Path

from dataeng.errors import ConfigError, FormatError, nearest
from dataeng.formats.mixture import MixtureManifest
from dataeng.mixture.handover import llm_foundry, megatron, nanotron, torchtitan
from dataeng.mixture.handover.blend import Blend, blend

#: Trainer → the format of `dataeng export` that it reads; None: packs alone.
EXPORT_FORMATS = {"megatron": "megatron", "nanotron": "datatrove", "torchtitan": None, "llm-foundry": "mds"}


def hand_over(
    manifest: MixtureManifest,
    manifest_path: Path,
    trainer: str,
    token_budget: int,
    sequence_length: int,
    batch_size: int,
    root: Path | None,
) -> str:
    """Returns the configuration of a trainer for a mixture at a budget, as text.

    ``root`` is where `dataeng export` wrote, or will write; an export that is there is checked.

    Raises `ConfigError` for an unknown trainer, a missing ``root``, and an export that is another one.
    """
    if trainer not in EXPORT_FORMATS:
        raise ConfigError(f"unknown trainer '{trainer}'{nearest(trainer, EXPORT_FORMATS)}")
    made = blend(manifest, manifest_path, token_budget, sequence_length, batch_size)
    export_format = EXPORT_FORMATS[trainer]
    if root is not None and export_format is None:
        raise ConfigError(f"{trainer} reads the packs where they are; leave out --root.")
    if root is not None and export_format is not None:
        _check_export(made, root, trainer, export_format)
    if trainer == "megatron":
        return megatron.hand_over(made, root)
    if trainer == "torchtitan":
        return torchtitan.hand_over(made)
    if root is None:
        command = (nanotron if trainer == "nanotron" else llm_foundry).export_command(made, Path("DIR"))
        raise ConfigError(f"{trainer} reads an export; run `{command}` and give --root DIR.")
    return nanotron.hand_over(made, root) if trainer == "nanotron" else llm_foundry.hand_over(made, root)


def _check_export(made: Blend, root: Path, trainer: str, export_format: str) -> None:
    """Compares an export that is already there with what the trainer will be told of it."""
    path = root / "export.json"
    if not path.exists():
        return
    try:
        found = json.loads(path.read_bytes())
        domains = found["domains"].keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{path} is not the manifest of an export: {error}.") from error
    if found.get("format") != export_format:
        raise ConfigError(
            f"{root} holds an export of the format '{found.get('format')}', {trainer} reads '{export_format}'."
        )
    missing = [name for name in made.manifest.domains if name not in domains]
    if missing:
        raise ConfigError(f"the export in {root} has no domain {', '.join(missing)}; it has {', '.join(domains)}.")
