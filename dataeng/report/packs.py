"""What ``dataeng packs`` shows: packs in a table, and what their verification found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dataeng.errors import ConfigError, DataengError, FormatError
from dataeng.formats.atomic import sha256_file
from dataeng.formats.mixture import MixtureManifest, load_mixture
from dataeng.formats.pack import MANIFEST_NAME, Pack, PackManifest, load_manifest
from dataeng.formats.pack_verification import PackCheck, check_pack
from dataeng.report.terminal import size
from dataeng.report.visible import visible

LANGUAGES_SHOWN = 3
CHUNK_TOKENS = 16 << 20


def packs_of(paths: Sequence[Path]) -> list[Path]:
    """Returns the pack folders that packs, runs and mixture manifests stand for, each once.

    Raises:
      ConfigError: a path is none of these.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_file():
            manifest = load_mixture(path)
            found += [path.parent / pack for domain in manifest.domains.values() for pack in domain.packs]
        elif (path / MANIFEST_NAME).exists() or path.parent.name == "packs":
            found.append(path)
        elif (path / "packs").is_dir() and any((path / "packs").iterdir()):
            found += sorted(folder for folder in (path / "packs").iterdir() if folder.is_dir())
        else:
            raise ConfigError(
                f"{path} is no pack ({MANIFEST_NAME}), no run with packs (packs/DOMAIN), and no mixture manifest."
            )
    named: dict[Path, Path] = {}
    for folder in found:
        named.setdefault(folder.resolve(), folder)
    return list(named.values())


def print_verification(console: Console, paths: Sequence[Path], tokenizer: Path | None = None) -> None:
    """Checks packs, and mixtures against theirs, and prints a line for each and then every problem.

    Raises:
      DataengError: something is wrong; after everything was checked.
    """
    num_problems = num_packs = 0
    for folder in packs_of(paths):
        check = check_pack(folder, tokenizer)
        num_packs += 1
        num_problems += _print_check(console, check)
    for path in [path for path in paths if path.is_file()]:
        problems = mixture_problems(path)
        verdict = _counted(len(problems), "problem") if problems else "fits its packs"
        console.print(Text(f"{visible(str(path))}: {verdict}", style="red" if problems else "green"), soft_wrap=True)
        _print_lines(console, problems)
        num_problems += len(problems)
    if num_problems:
        raise DataengError(
            f"{_counted(num_problems, 'problem')} in {_counted(num_packs, 'pack')}. Restore these files, or write the "
            "packs again (dataeng run)."
        )


def _print_check(console: Console, check: PackCheck) -> int:
    manifest = check.manifest
    what = ""
    if manifest is not None:
        what = f"{_counted(manifest.num_documents, 'document')}, {_counted(manifest.num_tokens, 'token')}, "
        what += f"{_counted(len(manifest.shards), 'shard')}, "
    what += f"{_counted(check.num_files, 'file')}, {size(check.num_bytes)}"
    verdict = _counted(len(check.problems), "problem") if check.problems else "ok"
    line = Text(f"{visible(str(check.folder))}: {what}: ")
    console.print(line + Text(verdict, style="red" if check.problems else "green"), soft_wrap=True)
    _print_lines(console, check.problems)
    _print_lines(console, [f"not checked: {reason}" for reason in check.unchecked])
    return len(check.problems)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _print_lines(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(Text(f"  {visible(line)}"), soft_wrap=True)


def mixture_problems(path: Path) -> list[str]:
    """Returns what a mixture manifest says of its packs and they do not: tokenizer, vocabulary, domain, totals."""
    mixture = load_mixture(path)
    problems: list[str] = []
    first: tuple[Path, PackManifest] | None = None
    for name, domain in mixture.domains.items():
        manifests: list[PackManifest] = []
        for relative in domain.packs:
            folder = path.parent / relative
            try:
                manifest = load_manifest(folder)
            except FormatError as error:
                problems.append(f"domain '{name}': {error}")
                continue
            manifests.append(manifest)
            first = first or (folder, manifest)
            problems += [f"domain '{name}': {line}" for line in _misfits(name, folder, manifest, mixture, first)]
        if len(manifests) < len(domain.packs):
            continue
        for total in ("num_documents", "num_tokens"):
            found, stated = sum(getattr(manifest, total) for manifest in manifests), getattr(domain, total)
            if found != stated:
                problems.append(f"domain '{name}': {total} is {stated:,}, its packs have {found:,}; mix again")
        for relative, stated_hash in zip(domain.packs, domain.pack_sha256 or [], strict=False):
            if sha256_file(path.parent / relative / MANIFEST_NAME) != stated_hash:
                problems.append(f"domain '{name}': {path.parent / relative} is not the pack that was mixed (SHA-256)")
    return problems


def _misfits(
    name: str, folder: Path, manifest: PackManifest, mixture: MixtureManifest, first: tuple[Path, PackManifest]
) -> Iterator[str]:
    for field in ("tokenizer_sha256", "vocab_size"):
        found, stated = getattr(manifest, field), getattr(mixture, field)
        if found != stated:
            yield f"{folder} has {field} {found}, the mixture {stated}: another tokenizer made it"
    for field in ("dtype", "eos_id", "eos", "bos_id"):
        found, stated = getattr(manifest, field), getattr(first[1], field)
        if found != stated:
            yield f"{folder} has {field} {found}, {first[0]} has {stated}; one mixture needs one"
    if manifest.domain != name:
        yield f"{folder} is of domain '{manifest.domain}'"


def print_packs(console: Console, paths: Sequence[Path]) -> None:
    """Prints a table of packs: documents, tokens, bytes per token, type, files, masks, languages."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("pack", overflow="fold")
    for column in ("documents", "tokens", "bytes/token"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("type", "files", "trained on", "languages"):
        table.add_column(column, overflow="fold")
    table.add_column("revision", justify="right")
    for folder in packs_of(paths):
        pack = Pack(folder)
        manifest = pack.manifest
        per_token = manifest.text_bytes / manifest.num_tokens if manifest.num_tokens else 0.0
        kinds = sorted({kind for shard in manifest.shards for kind in shard.files})
        table.add_row(
            Text(visible(str(folder))),
            f"{manifest.num_documents:,}",
            f"{manifest.num_tokens:,}",
            f"{per_token:.2f}",
            manifest.dtype,
            " ".join(kinds),
            trained_share(pack),
            Text(visible(", ".join(f"{language} {share:.0%}" for language, share in languages(pack)) or "–")),
            str(manifest.revision),
        )
    console.print(table)


def trained_share(pack: Pack) -> str:
    """Returns the share of tokens that a mask leaves as labels; "all" without masks."""
    if all(shard.mask is None for shard in pack.shards):
        return "all"
    trained = 0
    for shard in pack.shards:
        for start in range(0, len(shard.tokens), CHUNK_TOKENS):
            stop = min(start + CHUNK_TOKENS, len(shard.tokens))
            trained += stop - start if shard.mask is None else int(np.count_nonzero(shard.mask[start:stop]))
    return f"{trained / max(1, pack.manifest.num_tokens):.1%}"


def languages(pack: Pack) -> list[tuple[str, float]]:
    """Returns the languages with most tokens, and their shares of the pack's tokens."""
    files = [
        shard.folder / shard.shard.files[kind].name
        for shard in pack.shards
        for kind in [next((kind for kind in ("docs", "parquet") if kind in shard.shard.files), None)]
        if kind is not None
    ]
    tables = [pl.scan_parquet(file) for file in files]
    tables = [table for table in tables if {"language", "num_tokens"} <= set(table.collect_schema().names())]
    if not tables or not pack.manifest.num_tokens:
        return []
    counted = pl.concat(
        [table.select(pl.col("language").cast(pl.String), pl.col("num_tokens").cast(pl.Int64)) for table in tables]
    )
    totals = counted.drop_nulls().group_by("language").sum().sort("num_tokens", "language", descending=[True, False])
    rows = totals.head(LANGUAGES_SHOWN).collect().iter_rows()
    return [(language, tokens / pack.manifest.num_tokens) for language, tokens in rows]
