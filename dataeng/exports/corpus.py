"""What is exported: the packs of a folder, a run or a mixture, opened and checked against each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from dataeng.errors import ConfigError, FormatError
from dataeng.formats.atomic import sha256_file
from dataeng.formats.mixture import load_mixture
from dataeng.formats.pack import MANIFEST_NAME, Pack, PackManifest, PackShard, load_manifest
from dataeng.formats.pack_verification import verify_pack


@dataclass(frozen=True)
class Domain:
    """One domain: its packs in order, and the share of training tokens that a mixture gives it (None: no mixture)."""

    name: str
    packs: tuple[Pack, ...]
    weight: float | None = None

    @property
    def num_documents(self) -> int:
        return sum(pack.manifest.num_documents for pack in self.packs)

    @property
    def num_tokens(self) -> int:
        return sum(pack.manifest.num_tokens for pack in self.packs)

    def shards(self) -> Iterator[PackShard]:
        """Yields the shards of all packs that hold a document."""
        for pack in self.packs:
            yield from (shard for shard in pack.shards if len(shard.lengths))


@dataclass(frozen=True)
class Corpus:
    """All domains of one export. Their packs agree on tokenizer, vocabulary and token type."""

    domains: tuple[Domain, ...]
    vocab_size: int
    eos_id: int
    dtype: str
    tokenizer_sha256: str
    tokenizer: Path | None
    """The tokenizer's file, or None where it is not beside the packs."""
    alone: bool
    """One pack was asked for by its own folder: its files go straight into the output folder."""

    @property
    def masked(self) -> bool:
        """Whether any shard has a loss mask; those without count every token."""
        return any(shard.mask is not None for domain in self.domains for shard in domain.shards())

    def folder(self, root: Path, domain: Domain) -> Path:
        """Returns where a domain's files go."""
        return root if self.alone else root / domain.name

    def weights(self) -> dict[str, float]:
        """Returns the share of every domain: the mixture's, or else that of its tokens."""
        total = sum(domain.num_tokens for domain in self.domains)
        return {
            domain.name: domain.num_tokens / total if domain.weight is None else domain.weight
            for domain in self.domains
        }


def open_corpus(target: Path, verify: bool = True) -> Corpus:
    """Opens the packs that ``target`` stands for: a pack's folder, a run's folder, or a mixture manifest.

    Args:
      verify: hash every file of every pack; otherwise only sizes and indexes are checked.

    Raises:
      ConfigError: ``target`` holds no packs.
      FormatError: a pack is damaged, or packs differ in tokenizer, vocabulary, EOS or token type.
    """
    folders, weights, alone = _find(target)
    if verify:
        problems = [line for packs in folders.values() for folder in packs for line in verify_pack(folder)]
        if problems:
            more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
            raise FormatError(f"{problems[0]}{more}. Nothing was exported: restore or rebuild the pack.")
    domains = tuple(
        Domain(name, tuple(Pack(folder) for folder in packs), weights.get(name)) for name, packs in folders.items()
    )
    for domain in domains:
        if not domain.num_tokens:
            raise FormatError(f"the domain '{domain.name}' has no tokens; there is nothing to export.")
    manifest = _agreed([pack for domain in domains for pack in domain.packs])
    first = domains[0].packs[0].folder
    return Corpus(
        domains,
        manifest.vocab_size,
        manifest.eos_id,
        manifest.dtype,
        manifest.tokenizer_sha256,
        _tokenizer_file(first, manifest),
        alone,
    )


def _find(target: Path) -> tuple[dict[str, list[Path]], dict[str, float], bool]:
    """Returns pack folders by domain, weights by domain, and whether ``target`` is one pack itself."""
    if target.is_file():
        mixture = load_mixture(target)
        folders = {name: [target.parent / pack for pack in domain.packs] for name, domain in mixture.domains.items()}
        return folders, {name: domain.weight for name, domain in mixture.domains.items()}, False
    if (target / MANIFEST_NAME).exists():
        return {load_manifest(target).domain: [target]}, {}, True
    packs = sorted(path.parent for path in target.glob(f"packs/*/{MANIFEST_NAME}"))
    if not packs:
        raise ConfigError(
            f"{target} is neither a pack ({MANIFEST_NAME}), nor a run with packs (packs/DOMAIN/{MANIFEST_NAME}), nor a "
            "mixture manifest (a .json file)."
        )
    return {pack.name: [pack] for pack in packs}, {}, False


def _agreed(packs: list[Pack]) -> PackManifest:
    first = packs[0]
    for field in ("tokenizer_sha256", "vocab_size", "eos_id", "eos", "bos_id", "dtype"):
        for pack in packs[1:]:
            mine, other = (getattr(manifest, field) for manifest in (first.manifest, pack.manifest))
            if mine != other:
                raise FormatError(
                    f"{first.folder} and {pack.folder} do not go together: {field} is {mine} in one and {other} in the "
                    "other. Encode both with the same tokenizer."
                )
    return first.manifest


def _tokenizer_file(pack: Path, manifest: PackManifest) -> Path | None:
    path = pack / manifest.tokenizer
    if not path.is_file():
        return None
    if (found := sha256_file(path)) != manifest.tokenizer_sha256:
        raise FormatError(
            f"{path} is not the tokenizer of {pack}: its SHA-256 is {found[:12]}…, {MANIFEST_NAME} says "
            f"{manifest.tokenizer_sha256[:12]}…"
        )
    return path


def documents_file(shard: PackShard) -> Path | None:
    """Returns the path of a shard's table of documents, checked to have a row for each, or None without one."""
    if "docs" not in shard.shard.files:
        return None
    path = shard.folder / shard.shard.files["docs"].name
    rows = pq.ParquetFile(path).metadata.num_rows
    if rows != len(shard.lengths):
        raise FormatError(f"{path} has {rows} rows for {len(shard.lengths)} documents. Rebuild the pack.")
    return path


def narrowest_dtype(vocab_size: int, limit: int = 65_536) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
    """Returns little-endian uint16 for vocabularies of up to ``limit`` tokens, else uint32.

    Packs follow Megatron's rule (2 bytes below 65,500 tokens); readers that infer the type have rules of their own.
    """
    return np.dtype("<u2") if vocab_size <= limit else np.dtype("<u4")
