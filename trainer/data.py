"""Rows of tokens from packs.

All shards of all packs of a domain, in the manifest's order, are one sequence of T tokens. Row i of a domain is
tokens [i·L, i·L + L + 1): L inputs and their L next-token labels. Rows overlap by one token, so that every token but
the first is a label exactly once per epoch; at most L tokens at the very end are left out. Memory maps only; nothing
is copied before a row is read.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dataeng.errors import ConfigError, FormatError
from dataeng.formats.atomic import sha256_file
from dataeng.formats.mixture import Domain, MixtureManifest
from dataeng.formats.pack import MANIFEST_NAME, Pack, Tokens
from dataeng.mixture.policies import capped_shares

Ints = npt.NDArray[np.int64]

#: Packs below this many bytes are verified at every start: seconds of hashing. Larger ones only when asked for.
VERIFIED_BYTES = 4_000_000_000


class DomainTokens:
    """One domain's packs as one sequence of tokens."""

    def __init__(self, name: str, packs: list[Pack]) -> None:
        self.name = name
        shards = [shard for pack in packs for shard in pack.shards if len(shard.tokens)]
        self.pieces: list[Tokens] = [shard.tokens for shard in shards]
        self.paths = [shard.path for shard in shards]
        self.starts = np.concatenate([[0], np.cumsum([len(piece) for piece in self.pieces], dtype=np.int64)])
        self.num_tokens = int(self.starts[-1])

    def read(self, start: int, count: int) -> Ints:
        """Returns ``count`` tokens from ``start``, across shard borders."""
        out = np.empty(count, np.int64)
        piece = int(np.searchsorted(self.starts, start, side="right")) - 1
        filled = 0
        while filled < count:
            offset = start + filled - int(self.starts[piece])
            part = self.pieces[piece][offset : offset + count - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)
            piece += 1
        return out

    def path_of(self, token: int) -> Path:
        """Returns the file that holds token number ``token``."""
        return self.paths[int(np.searchsorted(self.starts, token, side="right")) - 1]


class MixtureRows:
    """All domains of a manifest, opened and checked, cut into rows of ``sequence_length`` + 1 tokens."""

    def __init__(self, manifest: MixtureManifest, manifest_path: Path, sequence_length: int) -> None:
        self.vocab_size, self.sequence_length = manifest.vocab_size, sequence_length
        self.names = list(manifest.domains)
        self.packs = {
            name: _open_packs(name, domain, manifest, manifest_path) for name, domain in manifest.domains.items()
        }
        self.domains = [DomainTokens(name, packs) for name, packs in self.packs.items()]
        self.num_rows = [max(0, (domain.num_tokens - 1) // sequence_length) for domain in self.domains]
        for domain, num_rows in zip(self.domains, self.num_rows, strict=True):
            if num_rows == 0:
                raise FormatError(
                    f"domain '{domain.name}' has {domain.num_tokens:,} tokens, too few for one row of "
                    f"{sequence_length:,} + 1; use --sequence-length {max(1, domain.num_tokens - 1)} or less."
                )
        self.max_rows: list[int | None] = [
            None if domain.max_epochs is None else math.floor(domain.max_epochs * num_rows)
            for domain, num_rows in zip(manifest.domains.values(), self.num_rows, strict=True)
        ]

    def pack_hashes(self) -> dict[str, list[str]]:
        """Returns, by domain, the SHA-256 of every pack's ``pack.json``, which holds that of every file."""
        return {
            name: [sha256_file(pack.folder / MANIFEST_NAME) for pack in packs] for name, packs in self.packs.items()
        }

    def verify(self, always: bool | None = None) -> None:
        """Compares the SHA-256 of the files that are read with ``pack.json``; raises `FormatError` naming the file.

        ``always`` None verifies only when all of them together are below `VERIFIED_BYTES`.
        """
        files = [
            (pack.folder / file.name, file)
            for packs in self.packs.values()
            for pack in packs
            for shard in pack.shards
            for kind, file in shard.shard.files.items()
            if kind in ("bin", "idx", "mask") or (kind == "parquet" and "bin" not in shard.shard.files)
        ]
        total = sum(file.size_bytes for _, file in files)
        if not (total < VERIFIED_BYTES if always is None else always):
            return
        for path, file in files:
            if sha256_file(path) != file.sha256:
                raise FormatError(
                    f"{path} was altered: its SHA-256 is not the one in {MANIFEST_NAME}. Restore the file, or rebuild "
                    "the pack with `dataeng run` and mix again with `dataeng mix`."
                )

    def planned_shares(self, weights: list[float], total_rows: int) -> list[float]:
        """Returns the domains' shares of ``total_rows`` rows: the weights, as far as the epoch caps allow.

        Raises `ConfigError` when the caps of all domains together allow fewer rows.
        """
        allowed = [math.inf if rows is None else float(rows) for rows in self.max_rows]
        if sum(allowed) < total_rows:
            rows = ", ".join(f"{name} {rows:,.0f}" for name, rows in zip(self.names, allowed, strict=True))
            raise ConfigError(
                f"{total_rows:,} rows are asked for, but the epoch caps exhaust all domains after {sum(allowed):,.0f} "
                f"({rows}). Lower --steps or --batch-size, or raise max_epochs in the manifest."
            )
        return [float(share) for share in capped_shares(np.array(weights), np.array(allowed), total_rows)]

    def batch(self, domains: Ints, rows: Ints) -> Ints:
        """Returns tokens int64[B, L + 1] for pairs of domain and row index.

        Raises `FormatError` naming the file when a token id is outside the vocabulary.
        """
        length = self.sequence_length
        out = np.empty((len(rows), length + 1), np.int64)
        for i, (domain, row) in enumerate(zip(domains.tolist(), rows.tolist(), strict=True)):
            out[i] = self.domains[domain].read(row * length, length + 1)
        outside = (out < 0) | (out >= self.vocab_size)
        if outside.any():
            i, position = np.argwhere(outside)[0].tolist()
            domain = self.domains[int(domains[i])]
            path = domain.path_of(int(rows[i]) * length + position)
            raise FormatError(
                f"{path}: token id {int(out[i, position])}, vocabulary {self.vocab_size}; the pack is damaged. "
                "Restore or rebuild it."
            )
        return out


def _open_packs(name: str, domain: Domain, manifest: MixtureManifest, manifest_path: Path) -> list[Pack]:
    """Opens a domain's packs and refuses any that the manifest was not made from."""
    packs = []
    for relative in domain.packs:
        folder = manifest_path.parent / relative
        pack = Pack(folder)
        for field in ("tokenizer_sha256", "vocab_size"):
            expected, found = getattr(manifest, field), getattr(pack.manifest, field)
            if expected != found:
                raise FormatError(
                    f"pack {folder} (domain '{name}') has {field} {found}, {manifest_path} expects {expected}: it was "
                    "made with another tokenizer. Run `dataeng mix` on the present packs."
                )
        if pack.manifest.domain != name:
            raise FormatError(
                f"pack {folder} is of domain '{pack.manifest.domain}', {manifest_path} lists it under '{name}'."
            )
        packs.append(pack)
    for field in ("num_documents", "num_tokens"):
        expected, found = getattr(domain, field), sum(getattr(pack.manifest, field) for pack in packs)
        if expected != found:
            raise FormatError(
                f"the packs of domain '{name}' have changed: {field} is {found:,}, {manifest_path} expects "
                f"{expected:,}. Run `dataeng mix` on the present packs."
            )
    return packs
