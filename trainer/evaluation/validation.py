"""Held-out losses while a run is going: the same rows each time, domain by domain, without a trace in the run.

Nothing of the run is read or changed but the weights: rows are read past the run's loader, no random number is drawn,
and the model is in training mode again afterwards. A run has the same losses with and without validation.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from dataeng.errors import ConfigError, FormatError
from dataeng.formats.mixture import load_mixture
from trainer.config import TrainConfig, ValidationConfig
from trainer.data.rows import MixtureRows
from trainer.evaluation.held_out import DomainScore, SumOverRanks, score
from trainer.parallel.ranks import Ranks
from trainer.watching.metrics import HeldOutRecord, ValidationRecord

PACKING = "best-fit"  # every document by itself, as in `trainer evaluate`


class Validation:
    """The held-out packs of a manifest, opened and checked, and how often they are read.

    Args:
      trained: the rows of the training, for their tokenizer, their length and their packs.
      num_steps: of the run; the last one is always validated.
      rank: of ``num_ranks`` processes, which share the rows; all of them call `run` together.
      sum_over_ranks: adds arrays of all ranks.
      file_done: called for every file of packs that was checked; see `MixtureRows.verify`.

    Raises:
      ConfigError: the held-out packs were made with another tokenizer.
      FormatError: they are missing, changed, or too small for one row.
    """

    def __init__(
        self,
        config: ValidationConfig,
        trained: MixtureRows,
        num_steps: int,
        device: torch.device,
        *,
        verify: bool | None = None,
        rank: int = 0,
        num_ranks: int = 1,
        sum_over_ranks: SumOverRanks | None = None,
        file_done: Callable[[], object] = lambda: None,
    ) -> None:
        path, manifest = config.mixture, load_mixture(config.mixture)
        if manifest.tokenizer_sha256 != trained.manifest.tokenizer_sha256:
            raise ConfigError(
                f"--validate {path}: its packs were made with the tokenizer {manifest.tokenizer_sha256}, those of the "
                f"training with {trained.manifest.tokenizer_sha256}. Tokenize the held-out documents with that one."
            )
        try:
            self.rows = MixtureRows(manifest, path, trained.sequence_length, PACKING)
            self.rows.verify(verify, rank, num_ranks, file_done)
        except FormatError as error:
            raise FormatError(f"--validate {path}: {error}") from error
        self.config, self.num_steps, self.device = config, num_steps, device
        self.rank, self.num_ranks, self.sum_over_ranks = rank, num_ranks, sum_over_ranks
        self.not_held_out = _domains_in_both(self.rows, trained)

    @property
    def warning(self) -> str | None:
        """One line that names the domains whose packs are trained on, too; None if there are none."""
        if not self.not_held_out:
            return None
        return (
            f"note: --validate {self.config.mixture}: packs of {', '.join(self.not_held_out)} are trained on, too; "
            "their held-out loss says what is remembered, not what was learned."
        )

    def is_due(self, step: int) -> bool:
        """Whether the weights after ``step`` are validated: before the first, every so often, and after the last."""
        return step % self.config.every == 0 or step == self.num_steps

    def run(self, model: nn.Module, step: int) -> ValidationRecord:
        """Returns the losses of the weights after ``step``. ``model`` is called as `Decoder` is."""
        with _evaluating(model):
            scores = score(
                model,
                self.rows,
                self.config.tokens,
                self.device,
                rank=self.rank,
                num_ranks=self.num_ranks,
                sum_over_ranks=self.sum_over_ranks,
            )
        return ValidationRecord(step=step, domains=[_record(found) for found in scores])


def open_validation(config: TrainConfig, rows: MixtureRows, ranks: Ranks) -> Validation | None:
    """Returns the validation that a run asks for, or None; raises as `Validation`."""
    if config.validation is None:
        return None
    with ranks.long_work("checking held-out packs") as file_done:
        return Validation(
            config.validation,
            rows,
            config.num_steps,
            ranks.device,
            verify=config.verify_packs,
            rank=ranks.rank,
            num_ranks=ranks.count,
            sum_over_ranks=ranks.sum,
            file_done=file_done,
        )


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        # Layers compiled for batches of another size and for no gradients would take a minute that their speed does
        # not win back, and from then on PyTorch would compile those of the training for any size of batch.
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        model.train(was_training)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # without a backward pass, weights that came together would stay together


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
