"""What decides the numbers of a run, and everything about it as JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from dataeng.formats.mixture import MixtureManifest
from trainer.config import TrainConfig
from trainer.options import Options

#: What is compared as a whole.
WHOLES = {
    "tokenizer_sha256": "the tokenizer",
    "init_from_sha256": "the model of --init-from",
    "model.rope_scaling": "--rope-scaling",
}
#: Options that are not called like what they decide.
OPTIONS = {
    "optimizer.name": "--optimizer",
    "schedule.name": "--schedule",
    "schedule.ramp_start": "--batch-ramp (rows)",
    "schedule.ramp_steps": "--batch-ramp (steps)",
    "lora.rank": "--lora",
    "lora.alpha": "--lora-alpha",
    "lora.targets": "--lora-targets",
    "reweighting.method": "--reweighting",
}
LONGEST = 40


def identity(config: TrainConfig, manifest: MixtureManifest, pack_hashes: dict[str, list[str]]) -> dict[str, Any]:
    """Returns, as one flat mapping, everything that decides the numbers of a run; a checkpoint fits only the same.

    ``pack_hashes`` holds, by domain, the SHA-256 of every ``pack.json``, and so of every token.
    Paths, device, threads, ranks, what is measured and how often to save are not in it: they may change between a run
    and its resumption.
    """
    values: dict[str, Any] = {
        "steps": config.num_steps,
        "batch_size": config.batch_size,
        "sequence_length": config.sequence_length,
        "packing": config.packing,
        "document_mask": config.document_mask,
        "accumulate": config.accumulate,
        "on_spike": config.on_spike,
        "spike_threshold": config.spike_threshold,
        "seed": config.seed,
        "tokenizer_sha256": manifest.tokenizer_sha256,
        "init_from_sha256": config.init_from_sha256,
    }
    if config.lora is not None:
        targets = ", ".join(sorted(config.lora.targets))
        values.update({"lora.rank": config.lora.rank, "lora.alpha": config.lora.alpha, "lora.targets": targets})
    for prefix, section in (
        ("model", asdict(config.model)),
        ("optimizer", asdict(config.optimizer)),
        ("schedule", asdict(config.schedule)),
        ("loss", asdict(config.loss)),
        ("reweighting", config.reweighting.model_dump()),
    ):
        values.update({f"{prefix}.{name}": value for name, value in section.items()})
    values["domains"] = ", ".join(manifest.domains)
    for name, domain in manifest.domains.items():
        for field in ("num_documents", "num_tokens", "weight", "max_epochs"):
            values[f"domains.{name}.{field}"] = getattr(domain, field)
        values[f"domains.{name}.order"] = None if domain.order is None else domain.order.model_dump()
        values[f"domains.{name}.pack_sha256"] = ", ".join(pack_hashes[name])
        if not domain.reweighted:  # where losses move the weight nothing is said: nor did earlier versions
            values[f"domains.{name}.reweighted"] = False
    for stage in manifest.schedule:
        values[f"stages.{stage.name}"] = stage.model_dump()
    return values


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Says in a few words each what differs between two identities: ``--batch-size 2 → 4``, ``the packs of web``.

    Options are called as on the command line; of hashes and of whole sections nobody wants to read the values.
    """
    missing = object()
    names = list(dict.fromkeys([*now, *before]))
    differing = [name for name in names if before.get(name, missing) != now.get(name, missing)]
    repacked = {name.split(".")[1] for name in differing if name.endswith(".pack_sha256")}
    told = []
    for name in differing:
        section, _, rest = name.partition(".")
        domain, _, field = rest.rpartition(".")
        if name in WHOLES or section == "stages":
            told.append(WHOLES.get(name, f"the mixture's stage '{rest}'"))
        elif section == "domains" and field == "pack_sha256":
            told.append(f"the packs of {domain}" if before.get(name) and now.get(name) else f"the domain {domain}")
        elif section != "domains" or domain not in repacked:
            told.append(f"{_called(name)} {_short(before.get(name))} → {_short(now.get(name))}")
    return list(dict.fromkeys(told))


def _called(name: str) -> str:
    """Returns what a person writes to change a value: an option, or its name in the manifest."""
    field = name.rpartition(".")[2]
    return OPTIONS.get(name, f"--{field.replace('_', '-')}" if field in Options.__dataclass_fields__ else name)


def _short(value: Any) -> str:
    text = "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def as_json(config: TrainConfig) -> dict[str, Any]:
    """Returns the configuration as JSON values, for ``training.json``."""
    values: dict[str, Any] = _with_paths_as_text(asdict(config))
    values["reweighting"] = config.reweighting.model_dump()
    return values


def _with_paths_as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_paths_as_text(part) for name, part in value.items()}
    return str(value) if isinstance(value, Path) else value
