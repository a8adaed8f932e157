"""The rows of a mixture: packs opened and checked, documents packed into rows, shares of tokens into shares of rows.

All shards of all packs of a domain, in the manifest's order, are one sequence of documents. `dataeng.packing` says
which of them make up a row of L + 1 tokens, L inputs and their L next-token labels. Memory maps only; nothing is
copied before a row is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dataeng.errors import ConfigError, FormatError
from dataeng.formats.atomic import sha256_file
from dataeng.formats.mixture import Domain, MixtureManifest, check_pack_hashes
from dataeng.formats.pack import MANIFEST_NAME, Pack
from dataeng.mixture.schedule import planned_stages, stage_ends, stages_of
from dataeng.packing.order import document_order
from dataeng.packing.reading import RowBatch, RowReader, RowSource
from dataeng.packing.rows import pack_rows
from trainer.data.sampler import MixtureSampler, SampledDomain, SampledStage

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Packs below this many bytes are verified at every start: seconds of hashing. Larger ones only when asked for.
VERIFIED_BYTES = 4_000_000_000
ROUNDING = 1e-6  # of a row


class MixtureRows:
    """All domains of a manifest, opened and checked, packed into rows of ``sequence_length`` + 1 tokens.

    ``packing`` None is the manifest's. Raises `FormatError` for packs that are not the manifest's, for a domain of
    fewer tokens than one row (unless rows are packed by best fit), and for a curriculum's column that is not there.
    """

    def __init__(
        self, manifest: MixtureManifest, manifest_path: Path, sequence_length: int, packing: str | None = None
    ) -> None:
        self.manifest, self.sequence_length = manifest, sequence_length
        self.packing = manifest.packing if packing is None else packing
        self.names = list(manifest.domains)
        self.packs = {
            name: _open_packs(name, domain, manifest, manifest_path) for name, domain in manifest.domains.items()
        }
        shards = {name: [shard for pack in packs for shard in pack.shards] for name, packs in self.packs.items()}
        self.tables = []
        for name, domain in manifest.domains.items():
            # Best-fit rows are filled up where documents end, so that a few questions make one, too.
            if domain.num_tokens <= sequence_length and self.packing != "best-fit":
                raise FormatError(
                    f"domain '{name}' has {domain.num_tokens:,} tokens, too few for one row of "
                    f"{sequence_length:,} + 1; use --sequence-length {max(1, domain.num_tokens - 1)} or less."
                )
            order = None if domain.order is None else document_order(shards[name], domain.order)
            lengths = [shard.lengths for shard in shards[name]]
            self.tables.append(pack_rows(self.packing, lengths, sequence_length, order))
        first = next(pack for packs in self.packs.values() for pack in packs)
        self.reader = RowReader(
            list(shards.values()), self.tables, sequence_length, manifest.vocab_size, first.manifest.eos_id
        )
        self.num_rows = [table.num_rows for table in self.tables]
        self.num_labels = self.reader.num_labels()  # in one epoch
        for name, labels in zip(self.names, self.num_labels, strict=True):
            if labels == 0:
                raise FormatError(f"domain '{name}' has no token that counts as a label: its masks leave out all.")
        self.max_rows: list[int | None] = [
            None if domain.max_epochs is None else math.floor(domain.max_epochs * num_rows)
            for domain, num_rows in zip(manifest.domains.values(), self.num_rows, strict=True)
        ]

    def pack_hashes(self) -> dict[str, list[str]]:
        """Returns, by domain, the SHA-256 of every pack's ``pack.json``, which holds that of every file."""
        return {
            name: [sha256_file(pack.folder / MANIFEST_NAME) for pack in packs] for name, packs in self.packs.items()
        }

    def bytes_per_token(self) -> Floats:
        """Returns, by domain, how many bytes of text a token stands for."""
        manifests = [[pack.manifest for pack in packs] for packs in self.packs.values()]
        return np.array([sum(m.text_bytes for m in ms) / sum(m.num_tokens for m in ms) for ms in manifests])

    def verify(
        self,
        always: bool | None = None,
        rank: int = 0,
        num_ranks: int = 1,
        file_done: Callable[[], object] = lambda: None,
    ) -> None:
        """Compares the SHA-256 of the files that are read with ``pack.json``; raises `FormatError` naming the file.

        ``always`` None verifies only when all of them together are below `VERIFIED_BYTES`. Of several ranks each takes
        its part of the files, and calls ``file_done`` after every one.
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
        files.sort(key=lambda found: -found[1].size_bytes)  # each rank gets large and small ones
        for path, file in files[rank::num_ranks]:
            if sha256_file(path) != file.sha256:
                raise FormatError(
                    f"{path} was altered: its SHA-256 is not the one in {MANIFEST_NAME}. Restore the file, or rebuild "
                    "the pack with `dataeng run` and mix again with `dataeng mix`."
                )
            file_done()

    def row_shares(self, weights: Sequence[float] | Floats) -> Floats:
        """Returns the shares of rows that give the domains these shares of tokens: rows hold unlike much padding."""
        waste = [table.waste for table in self.tables]
        tokens_per_row = np.array([(w.num_slots - w.padding) / w.num_rows for w in waste])
        shares = np.asarray(weights, np.float64) / tokens_per_row
        return np.asarray(shares / shares.sum())

    def row_shares_for_labels(self, label_shares: Floats) -> Floats:
        """Returns the shares of rows that give the domains these shares of labels; the inverse of `label_shares`."""
        shares = np.asarray(label_shares) * np.array(self.num_rows) / np.array(self.num_labels)
        return np.asarray(shares / shares.sum())

    def label_shares(self, row_shares: Sequence[float] | Floats) -> Floats:
        """Returns the expected shares of labels where rows have these shares: what losses are weighted by."""
        labels_per_row = np.array(self.num_labels) / np.array(self.num_rows)
        labels = np.asarray(row_shares, np.float64) * labels_per_row
        return np.asarray(labels / labels.sum())

    def planned_stages(self, total: int) -> list[SampledStage]:
        """Returns the stages of a run of ``total`` rows: the manifest's weights as far as epoch caps allow.

        Raises `ConfigError` when the caps allow fewer rows than that.
        """
        allowed = np.array([math.inf if rows is None else float(rows) for rows in self.max_rows])
        if allowed.sum() < total:
            listed = ", ".join(f"{name} {rows:,.0f}" for name, rows in zip(self.names, allowed.tolist(), strict=True))
            raise ConfigError(
                f"{total:,} rows are asked for, but the epoch caps exhaust all domains after {allowed.sum():,.0f} "
                f"({listed}). Lower --steps or --batch-size, or raise max_epochs in the manifest."
            )
        wanted = [(until, self.row_shares(weights)) for until, weights in stages_of(self.manifest)]
        planned = planned_stages(wanted, allowed, total, [stage.name for stage in self.manifest.schedule])
        if len(planned) == 1:
            return [SampledStage(shares=tuple(planned[0][1].tolist()))]
        ends = stage_ends(planned, total)
        draws = np.diff([0, *ends])[:, None] * np.stack([shares for _, shares in planned])
        later = draws[::-1].cumsum(axis=0)[::-1] - draws  # what the stages behind each one draw
        limits = np.where(np.isfinite(allowed), np.maximum(np.floor(allowed - later + ROUNDING), 0), -1).astype(int)
        return [
            SampledStage(until_row=end, shares=tuple(shares.tolist()), max_rows=tuple(most))
            for end, (_, shares), most in zip([*ends[:-1], None], planned, limits.tolist(), strict=True)
        ]

    def sampler(self, stages: Sequence[SampledStage], seed: int) -> MixtureSampler:
        """Returns the sampler of these rows, at its beginning."""
        domains = [
            SampledDomain(name=name, num_rows=rows, max_rows=cap, shuffled=domain.order is None)
            for (name, domain), rows, cap in zip(
                self.manifest.domains.items(), self.num_rows, self.max_rows, strict=True
            )
        ]
        return MixtureSampler(domains, stages, seed)

    def batch(self, domains: Ints, rows: Ints) -> RowBatch:
        """Returns the rows for pairs of domain and row index; see `RowReader.read`."""
        return self.reader.read(domains, rows)

    def sources(self, domain: int, row: int) -> list[RowSource]:
        """Returns the documents of a row: pack, shard, row of docs.parquet, and which of its tokens."""
        return self.reader.sources(domain, row)


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
    check_pack_hashes(name, domain, manifest_path)
    return packs
