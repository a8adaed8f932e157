"""What ``dataeng mix`` takes from and shows to a person."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dataeng.errors import ConfigError, FormatError
from dataeng.formats.mixture import MixtureManifest, Policy, load_mixture
from dataeng.formats.pack import MANIFEST_NAME
from dataeng.mixture.build import MixtureRow

MANY_EPOCHS = 4.0  # beyond four passes repeated tokens lose their worth (Muennighoff et al., arXiv 2305.16264)
UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


def refuse_to_lose_history(path: Path, force: bool) -> None:
    """Raises `ConfigError` if ``path`` is a manifest with learned weights, unless ``force``."""
    if force or not path.exists():
        return
    try:
        learned = len(load_mixture(path).history)
    except FormatError:
        return  # not a manifest of ours, or a damaged one: nothing learned is lost with it
    if learned:
        raise ConfigError(f"{path} holds the weights of {learned} training runs; choose another --output, or --force.")


def pack_folders(folders: Sequence[Path]) -> tuple[list[Path], Path | None]:
    """Returns the packs that run or pack folders stand for, and the run folder if they all come from one.

    Raises:
      ConfigError: a folder holds no packs.
    """
    packs: list[Path] = []
    runs: list[Path] = []
    for folder in folders:
        if (folder / MANIFEST_NAME).exists():
            packs.append(folder)
            continue
        found = sorted(path.parent for path in folder.glob(f"packs/*/{MANIFEST_NAME}"))
        if not found:
            raise ConfigError(f"{folder} has no packs (packs/DOMAIN/{MANIFEST_NAME}). Run a pipeline first.")
        packs += found
        runs.append(folder)
    return packs, runs[0] if len(runs) == 1 == len(folders) else None


def choose_policy(temperature: float | None, weights: dict[str, float] | None) -> Policy:
    """Returns the policy that the options ask for; without any, the natural one."""
    if weights is not None:
        if temperature is not None:
            raise ConfigError("--temperature and --weight exclude each other: give one of them.")
        return Policy(name="given")
    if temperature is None:
        return Policy(name="natural")
    if not temperature > 0:
        raise ConfigError(f"--temperature {temperature:g}: expected a number above 0 (1 is natural, inf is uniform).")
    return Policy(name="temperature", temperature=temperature)


def parse_weights(options: Sequence[str]) -> dict[str, float]:
    """Parses ``DOMAIN=WEIGHT`` options."""
    weights: dict[str, float] = {}
    for option in options:
        domain, separator, number = option.partition("=")
        if domain in weights:
            raise ConfigError(f"--weight {option}: '{domain}' has a weight of {weights[domain]:g} already.")
        try:
            weights[domain] = float(number)
        except ValueError:
            separator = ""
        if not separator:
            raise ConfigError(f"--weight {option}: expected DOMAIN=NUMBER, e.g. --weight code=0.2")
    return weights


def parse_tokens(text: str) -> int:
    """Parses a number of tokens: ``500000``, ``500k``, ``1.5B``."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kmbt]?)", text.strip().lower())
    if not match:
        raise ConfigError(f"--tokens {text}: expected a number such as 500000, 500k, 20M or 1.5B.")
    return round(float(match[1]) * UNITS[match[2]])


def print_mixture(
    console: Console, manifest: MixtureManifest, rows: Sequence[MixtureRow], budget: int, path: Path
) -> None:
    """Prints weights, tokens and epochs per domain."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("domain")
    for column in ("documents", "tokens", "weight", "share", "tokens drawn", "epochs"):
        table.add_column(column, justify="right")
    for row in rows:
        many = row.epochs > MANY_EPOCHS
        table.add_row(
            escape(row.domain),
            f"{row.num_documents:,}",
            f"{row.num_tokens:,}",
            f"{row.weight:.4f}",
            f"{row.share:.4f}",
            f"{row.tokens_drawn:,}",
            f"[yellow]{row.epochs:.2f}[/]" if many else f"{row.epochs:.2f}",
        )
    console.print(table)
    policy = manifest.policy
    how = policy.name if policy.temperature is None else f"{policy.name} {policy.temperature:g}"
    console.print(
        f"\npolicy {how}; table for {budget:,} training tokens. Wrote {escape(str(path))}.",
        highlight=False,
        soft_wrap=True,
    )
    for row in rows:
        if row.epochs > MANY_EPOCHS:
            console.print(
                f"[yellow]warning:[/] '{escape(row.domain)}' would be repeated {row.epochs:.1f} times; "
                f"beyond {MANY_EPOCHS:g} repeated tokens help little. Lower its weight, or set --max-epochs.",
                highlight=False,
                soft_wrap=True,
            )
