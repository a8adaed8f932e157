"""One step's forward and backward pass, in one piece or in several (gradient accumulation).

A step's weights can follow from its own losses, as in Sow et al.: in one piece, the losses come first, then the
weights, then the gradient. Where the weights are known beforehand (in several pieces they have to be: those of the step
before), the gradient of the output weights is computed along with the losses, which saves a product of matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.data.loader import Batch
from trainer.device import OnItsWay, autocast, to_device
from trainer.loss import Objective, domain_sums, row_sums
from trainer.model.cross_entropy import (
    IGNORED,
    default_chunk_tokens,
    default_kept_bytes,
    token_losses,
    weighted_token_losses,
)
from trainer.parallel.spread import SpreadModel

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sums:
    """What a step says about every domain: float64 [K] each, on the CPU.

    ``losses`` in nats and ``squares`` of the tokens' losses are summed over the labels that count, of which there are
    ``tokens``. ``row_losses`` float64 [B] are the rows' mean losses.
    """

    losses: Floats
    tokens: Floats
    squares: Floats
    row_losses: Floats

    @property
    def finite(self) -> npt.NDArray[np.bool_]:
        """Which domains' sums are finite, bool [K]; squares overflow before losses do."""
        return np.asarray(np.isfinite(self.losses) & np.isfinite(self.squares))

    @property
    def mean_loss(self) -> float:
        """The step's loss in nats per token; 0 without any label."""
        return float(self.losses.sum() / max(1.0, self.tokens.sum()))

    def weighted_loss(self, multipliers: Floats) -> float:
        """Returns the loss that is trained on; see `trainer.loss`."""
        return float((multipliers * self.losses).sum() / max(1.0, self.tokens.sum()))


class Forward:
    """The losses of some rows, with what is needed for their gradient. ``model`` is called as `Decoder` is.

    ``objective`` is given where it is known before the losses are.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Batch,
        config: TrainConfig,
        device: torch.device,
        objective: Objective | None = None,
    ) -> None:
        self.batch, self.device, self.objective = batch, device, objective
        tokens_bt = batch.tokens_bt.to(device, non_blocking=True).long()
        is_label_bt = batch.labels_bt.to(device, non_blocking=True) == 1
        labels_n = torch.where(is_label_bt, tokens_bt[:, 1:], IGNORED).flatten()
        weights_n = None if objective is None else self._weights(objective)
        documents = batch.documents.to(device) if config.document_mask else None

        def losses(hidden_btd: Tensor, output_weight: Tensor) -> Any:
            return _losses(hidden_btd.flatten(0, 1), output_weight, labels_n, weights_n, config)

        with autocast(device):
            # The loss is the model's last act: only so far are the weights of a sharded model whole.
            self.losses_n, self.total = model(tokens_bt[:, :-1], documents, losses)
        self.row_sums = OnItsWay(row_sums(self.losses_n.view(is_label_bt.shape)))

    def backward(self, objective: Objective) -> None:
        """Adds the gradient of the objective (the one known beforehand, if one was) to the parameters'."""
        if self.total is not None:
            assert objective is self.objective, "known beforehand"
            self.total.backward()
        else:
            self.losses_n.backward(self._weights(objective))

    def _weights(self, objective: Objective) -> Tensor:
        """Returns what each token's loss counts in the objective, float32 [N]."""
        weights_b = to_device(objective.row_weights(self.batch.domains_b), self.device)
        return weights_b[:, None].expand(self.batch.labels_bt.shape).flatten()

    def sums(self, num_domains: int) -> Sums:
        """Returns the sums over the labels that count; waits for the losses."""
        return sums_of([(self.batch, self.row_sums)], num_domains)


def _losses(
    hidden_nd: Tensor, output_weight: Tensor, labels_n: Tensor, weights_n: Tensor | None, config: TrainConfig
) -> tuple[Tensor, Tensor | None]:
    """Returns the tokens' losses [N], and where their weights are known Σ weights · losses, which has the gradient."""
    device = hidden_nd.device
    chunk_tokens, kept_bytes = config.loss.chunk_tokens, config.loss.kept_bytes
    if chunk_tokens is None:
        chunk_tokens = default_chunk_tokens(len(output_weight), device)
    if weights_n is not None:
        total, losses_n = weighted_token_losses(
            hidden_nd, output_weight, labels_n, weights_n, chunk_tokens, compiled=config.compile
        )
        return losses_n, total
    if kept_bytes is None:
        kept_bytes = default_kept_bytes(device)
    losses_n = token_losses(
        hidden_nd, output_weight, labels_n, chunk_tokens, kept_bytes=kept_bytes, compiled=config.compile
    )
    return losses_n, None


def sums_of(parts: Sequence[tuple[Batch, OnItsWay]], num_domains: int) -> Sums:
    """Returns the sums of a step's parts, from the sums of their rows."""
    domains_b = np.concatenate([batch.domains_b.numpy() for batch, _ in parts])
    counts_b = np.concatenate([batch.num_labels_b.numpy() for batch, _ in parts])
    losses_b, squares_b = np.concatenate([found.wait() for _, found in parts], axis=1)
    return Sums(
        losses=domain_sums(losses_b, domains_b, num_domains),
        tokens=domain_sums(counts_b, domains_b, num_domains),
        squares=domain_sums(squares_b, domains_b, num_domains),
        row_losses=losses_b / np.maximum(counts_b, 1),
    )


def parts_of(batch: Batch, num_parts: int) -> list[Batch]:
    """Returns a batch's rows as ``num_parts`` batches of neighbours, as even as can be; none is empty."""
    if num_parts == 1:
        return [batch]
    borders = np.linspace(0, len(batch.rows_b), min(num_parts, len(batch.rows_b)) + 1).astype(int).tolist()
    return [batch.part(start, stop) for start, stop in pairwise(borders)]


def label_counts(batch: Batch, num_domains: int) -> Floats:
    """Returns the labels that count of each domain, float64 [K], without computing anything else."""
    return domain_sums(batch.num_labels_b.numpy(), batch.domains_b.numpy(), num_domains)


def accumulate(spread: SpreadModel, batch: Batch, config: TrainConfig, objective: Objective) -> Sums:
    """Computes a step's gradient in ``config.accumulate`` parts; returns this rank's sums.

    The objective is that of the whole step (each loss is divided by all of its labels), so that the gradient is that
    of one piece.
    """
    batches = parts_of(batch, config.accumulate)
    parts = []
    for number, part in enumerate(batches, 1):
        with spread.part(is_last=number == len(batches)):
            forward = Forward(spread.forward, part, config, spread.ranks.device, objective)
            forward.backward(objective)
        parts.append((part, forward.row_sums))
    return sums_of(parts, len(objective.multipliers))
