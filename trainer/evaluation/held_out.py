"""Held-out loss of a model, domain by domain, and what changed from one model to another.

Held-out packs come as a mixture manifest of their own; a share of each domain's rows is read, the same ones for every
model, each document by itself (best-fit packing, document masks). Losses are nats per token; perplexity is their
exponential; bits per byte divides by the bytes of text that a token stands for, so that tokenizers can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dataeng.errors import ConfigError
from dataeng.formats.mixture import MixtureManifest
from trainer.data.rows import MixtureRows
from trainer.device import autocast
from trainer.huggingface.config import CONFIG_NAME, read_model_config
from trainer.huggingface.export import checkpoint_config, model_of, open_checkpoint
from trainer.huggingface.tokenizer_files import check_same_tokenizer
from trainer.huggingface.weights import load_weights
from trainer.model.attention import documents_of
from trainer.model.cross_entropy import token_losses
from trainer.model.decoder import Decoder

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
SumOverRanks = Callable[[Floats], Floats]
ROWS_AT_A_TIME = 8
CHUNK_TOKENS = 1024


@dataclass(frozen=True, kw_only=True)
class DomainScore:
    """One domain. ``row_losses`` and ``row_tokens``, float64 [R], are the rows' summed losses and label counts."""

    domain: str
    row_losses: Floats
    row_tokens: Floats
    bytes_per_token: float

    @property
    def loss(self) -> float:
        """Nats per token."""
        return float(self.row_losses.sum() / self.row_tokens.sum())

    @property
    def standard_error(self) -> float:
        """Of `loss`, from its variation between rows, of which one says little about the next."""
        return _ratio_error(self.row_losses, self.row_tokens)

    @property
    def perplexity(self) -> float:
        """Of a token."""
        return math.exp(min(self.loss, 700.0))

    @property
    def bits_per_byte(self) -> float:
        """Bits that the model needs for a byte of text."""
        return self.loss / math.log(2) / self.bytes_per_token


@dataclass(frozen=True, kw_only=True)
class DomainChange:
    """One domain before and after. ``change`` is after minus before, in nats; its error is that of paired rows."""

    domain: str
    before: DomainScore
    after: DomainScore
    change: float
    standard_error: float

    @property
    def verdict(self) -> Literal["learned", "forgot", "same"]:
        """What the change is, if it is more than two standard errors."""
        if abs(self.change) <= 2 * self.standard_error:
            return "same"
        return "forgot" if self.change > 0 else "learned"


def load_model(path: Path, manifest: MixtureManifest, mixture: Path, device: torch.device) -> Decoder:
    """Returns a model for evaluation: a run's newest checkpoint, one checkpoint, or a folder of Hugging Face's.

    Raises `ConfigError` when its tokenizer is not that of the packs.
    """
    if (path / CONFIG_NAME).exists():
        check_same_tokenizer(path, manifest, mixture)
        model = Decoder(read_model_config(path))
        load_weights(model, path)
    else:
        source = open_checkpoint(path)
        if source.tokenizer_sha256 != manifest.tokenizer_sha256:
            raise ConfigError(
                f"{source.folder} was trained with the tokenizer {source.tokenizer_sha256}; the packs of {mixture} "
                f"were made with {manifest.tokenizer_sha256}."
            )
        model = model_of(source)
    return model.to(device).eval()


def context_length(path: Path) -> int:
    """Returns how many positions the model in ``path`` was made for; beyond them, losses say little about it."""
    config = read_model_config(path) if (path / CONFIG_NAME).exists() else checkpoint_config(path)
    return config.max_positions


def held_out_rows(manifest: MixtureManifest, mixture: Path, sequence_length: int) -> MixtureRows:
    """Opens and verifies held-out packs."""
    rows = MixtureRows(manifest, mixture, sequence_length, "best-fit")
    rows.verify()
    return rows


@torch.no_grad()
def score(
    model: nn.Module,
    rows: MixtureRows,
    tokens_per_domain: int,
    device: torch.device,
    *,
    rank: int = 0,
    num_ranks: int = 1,
    sum_over_ranks: SumOverRanks | None = None,
) -> list[DomainScore]:
    """Returns the scores of every domain, on about ``tokens_per_domain`` tokens spread evenly over its rows.

    ``model`` is called as `Decoder` is. Several ranks read the rows by turns, and every rank gets the scores of all:
    ``sum_over_ranks`` adds their arrays. All call the model equally often, as shards of weights want it, with as many
    rows: what is missing is filled with rows that do not count.
    """
    chosen = [chosen_rows(count, rows.sequence_length, tokens_per_domain) for count in rows.num_rows]
    domains = np.repeat(np.arange(len(chosen)), [len(part) for part in chosen])
    places = np.concatenate(chosen)
    sums = np.zeros((2, len(places)))  # losses and counts; each row is read by one rank, the others add 0 to it
    for first in range(0, len(places), ROWS_AT_A_TIME * num_ranks):
        start = first + rank * ROWS_AT_A_TIME
        batch = np.arange(start, start + ROWS_AT_A_TIME)
        own = batch[batch < len(places)]
        read = np.minimum(batch, len(places) - 1)
        sums[:, own] = _row_sums(model, rows, domains[read], places[read], device)[:, : len(own)]
    if sum_over_ranks is not None:
        sums = sum_over_ranks(sums)
    bytes_per_token = rows.bytes_per_token().tolist()
    return [
        DomainScore(
            domain=name,
            bytes_per_token=bytes_per_token[number],
            row_losses=sums[0, domains == number],
            row_tokens=sums[1, domains == number],
        )
        for number, name in enumerate(rows.names)
    ]


def compare(before: list[DomainScore], after: list[DomainScore]) -> list[DomainChange]:
    """Returns the change of every domain; both sides were scored on the same rows."""
    return [
        DomainChange(
            domain=old.domain,
            before=old,
            after=new,
            change=new.loss - old.loss,
            standard_error=_ratio_error(new.row_losses - old.row_losses, old.row_tokens),
        )
        for old, new in zip(before, after, strict=True)
    ]


def chosen_rows(num_rows: int, sequence_length: int, tokens: int) -> npt.NDArray[np.int64]:
    """Returns the rows to read: spread evenly, as many as hold ``tokens``, all of them if there are no more."""
    count = min(num_rows, max(1, math.ceil(tokens / sequence_length)))
    return np.linspace(0, num_rows - 1, count).astype(np.int64)


def _row_sums(model: nn.Module, rows: MixtureRows, domains: Ints, places: Ints, device: torch.device) -> Floats:
    """Returns the summed losses and the label counts of rows, float64 [2, B]."""
    batch = rows.batch(domains, places)
    tokens_bt = torch.from_numpy(batch.tokens).to(device).long()
    counted_bt = torch.from_numpy(batch.labels).to(device).double()
    labels_n = tokens_bt[:, 1:].flatten()

    def losses(hidden_btd: Tensor, output_weight: Tensor) -> Tensor:
        return token_losses(hidden_btd.flatten(0, 1), output_weight, labels_n, CHUNK_TOKENS)

    documents = documents_of(torch.from_numpy(batch.documents[:, :-1]), device)
    with autocast(device):
        # The losses are the model's last act: only so far are the weights of a sharded model whole.
        losses_n: Tensor = model(tokens_bt[:, :-1], documents, losses)
    sums_b = (losses_n.view(len(domains), -1).double() * counted_bt).sum(1)
    return torch.stack([sums_b, counted_bt.sum(1)]).cpu().numpy()


def _ratio_error(sums: Floats, counts: Floats) -> float:
    """Returns the standard error of Σ sums / Σ counts over rows; ∞ for a single row, of which nothing is known."""
    num_rows = len(sums)
    if num_rows < 2:
        return math.inf
    residuals = sums - sums.sum() / counts.sum() * counts
    return float(math.sqrt(num_rows / (num_rows - 1) * (residuals**2).sum()) / counts.sum())
