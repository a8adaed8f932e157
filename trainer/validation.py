"""Held-out losses while a run is going: the same rows each time, domain by domain, without a trace in the run.

Nothing of the run is read or changed but the weights: rows are read past the run's loader, no random number is drawn,
and the model is in training mode again afterwards. A run has the same losses with and without validation.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from dataeng.errors import ConfigError, FormatError
from dataeng.formats.mixture import MixtureManifest, load_mixture
from trainer.data import MixtureRows
from trainer.evaluate import DomainScore, SumOverRanks, score
from trainer.monitor import HeldOutRecord, ValidationRecord

PACKING = "best-fit"  # every document by itself, as in `trainer evaluate`


class Validation:
    """The held-out packs of a manifest, opened and checked, and what they are read with.

    Args:
      path: a mixture manifest of packs that are not trained on.
      trained: the manifest and the rows of the training, for their tokenizer and packs.
      tokens_per_domain: about how many are read of every domain.
      verify: as `MixtureRows.verify`.
      rank: of ``num_ranks`` processes, which share the rows; all of them call `run` together.

    Raises:
      ConfigError: the held-out packs were made with another tokenizer.
      FormatError: they are missing, changed, or too small for one row.
    """

    def __init__(
        self,
        path: Path,
        trained: tuple[MixtureManifest, MixtureRows],
        tokens_per_domain: int,
        device: torch.device,
        *,
        verify: bool | None = None,
        rank: int = 0,
        num_ranks: int = 1,
        sum_over_ranks: SumOverRanks | None = None,
    ) -> None:
        manifest, (training, training_rows) = load_mixture(path), trained
        if manifest.tokenizer_sha256 != training.tokenizer_sha256:
            raise ConfigError(
                f"--validate {path}: its packs were made with the tokenizer {manifest.tokenizer_sha256}, those that are "
                f"trained on with {training.tokenizer_sha256}. Tokenize the held-out documents with the same one."
            )
        try:
            self.rows = MixtureRows(manifest, path, training_rows.sequence_length, PACKING)
            if rank == 0:
                self.rows.verify(verify)
        except FormatError as error:
            raise FormatError(f"--validate {path}: {error}") from error
        self.path, self.tokens_per_domain, self.device = path, tokens_per_domain, device
        self.rank, self.num_ranks, self.sum_over_ranks = rank, num_ranks, sum_over_ranks
        self.not_held_out = _domains_in_both(self.rows, training_rows)

    @property
    def warning(self) -> str | None:
        """One line that names the domains whose packs are trained on, too; None if there are none."""
        if not self.not_held_out:
            return None
        return (
            f"note: --validate {self.path}: packs of {', '.join(self.not_held_out)} are trained on, too; their held-out "
            "loss says what is remembered, not what was learned."
        )

    def run(self, model: nn.Module, step: int) -> ValidationRecord:
        """Returns the losses of the weights after ``step``. ``model`` is called as `trainer.model.Decoder` is."""
        with _evaluating(model):
            scores = score(
                model,
                self.rows,
                self.tokens_per_domain,
                self.device,
                rank=self.rank,
                num_ranks=self.num_ranks,
                sum_over_ranks=self.sum_over_ranks,
            )
        return ValidationRecord(step=step, domains=[_record(found) for found in scores])


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _record(found: DomainScore) -> HeldOutRecord:
    error = found.standard_error
    return HeldOutRecord(
        domain=found.domain,
        loss=found.loss,
        standard_error=error if math.isfinite(error) else None,
        perplexity=found.perplexity,
        bits_per_byte=found.bits_per_byte,
        tokens=int(found.row_tokens.sum()),
    )


def _domains_in_both(held_out: MixtureRows, training: MixtureRows) -> list[str]:
    """Returns the held-out domains of which a shard, by its SHA-256, is also in any domain of the training mixture."""
    hashes = {name: _shard_hashes(held_out, name) for name in held_out.names}
    trained = set().union(*(_shard_hashes(training, name) for name in training.names))
    return [name for name, found in hashes.items() if found & trained]


def _shard_hashes(rows: MixtureRows, domain: str) -> set[str]:
    """Returns the SHA-256 of the token files: a pack's own changes when it is described anew or cut otherwise."""
    return {
        file.sha256
        for pack in rows.packs[domain]
        for shard in pack.shards
        if shard.shard.num_tokens
        for kind, file in shard.shard.files.items()
        if kind in ("bin", "parquet")
    }
