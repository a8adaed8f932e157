"""One step's forward and backward pass, in one piece or in several (gradient accumulation).

In one piece, a step's weights can follow from its own losses, as in Sow et al.: the losses come first, then the
weights, then the gradient. In several, only weights that are known beforehand can be used, those of the step before.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trainer.attention import documents_of
from trainer.config import TrainConfig
from trainer.cross_entropy import token_losses
from trainer.device import autocast, to_device
from trainer.loader import Batch
from trainer.loss import domain_sums, weighted_loss
from trainer.parallel import SpreadModel

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sums:
    """What a step, or a part of it, says about every domain: float64 [K] each, on the CPU.

    ``losses`` in nats and ``squares`` of the tokens' losses are summed over the labels that count, of which there are
    ``tokens``. ``row_losses`` float64 [B] are the rows' mean losses.
    """

    losses: Floats
    tokens: Floats
    squares: Floats
    row_losses: Floats

    def plus(self, other: Sums) -> Sums:
        """Returns the sums of two parts of a step."""
        return Sums(
            self.losses + other.losses,
            self.tokens + other.tokens,
            self.squares + other.squares,
            np.concatenate([self.row_losses, other.row_losses]),
        )

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
    """The losses of some rows, with what is needed for their gradient. ``model`` is called as `Decoder` is."""

    def __init__(
        self, model: nn.Module, batch: Batch, config: TrainConfig, device: torch.device, num_domains: int
    ) -> None:
        tokens_bt = batch.tokens_bt.to(device, non_blocking=True).long()
        self.is_label_n = batch.labels_bt.to(device, non_blocking=True).flatten()
        self.domains_n = to_device(batch.domains_b, device).repeat_interleave(config.sequence_length)
        documents = documents_of(batch.documents_bt[:, :-1], device) if config.document_mask else None
        labels_n = tokens_bt[:, 1:].flatten()

        def losses(hidden_btd: Tensor, output_weight: Tensor) -> Tensor:
            return token_losses(hidden_btd.flatten(0, 1), output_weight, labels_n, config.loss.chunk_tokens)

        with autocast(device):
            # The loss is the model's last act: only so far are the weights of a sharded model whole.
            self.losses_n: Tensor = model(tokens_bt[:, :-1], documents, losses)
        self.num_domains, self.num_rows = num_domains, len(tokens_bt)

    @torch.no_grad()
    def sums(self) -> Sums:
        """Returns the sums over the labels that count."""
        losses, tokens = domain_sums(self.losses_n, self.domains_n, self.num_domains, self.is_label_n)
        squares, _ = domain_sums(self.losses_n**2, self.domains_n, self.num_domains, self.is_label_n)
        counted_bt = self.is_label_n.view(self.num_rows, -1).double()
        totals_b = (self.losses_n.view(self.num_rows, -1).double() * counted_bt).sum(1)
        return Sums(losses, tokens, squares, (totals_b / counted_bt.sum(1).clamp(min=1)).cpu().numpy())

    def backward(self, multipliers: Floats, num_labels: float) -> None:
        """Adds the gradient of Σ multiplier · loss / ``num_labels``, the labels of the whole step, to the parameters'.

        Where gradients are averaged over ranks, ``num_labels`` is the labels of all, over the number of ranks.
        """
        loss = weighted_loss(self.losses_n, self.domains_n, multipliers, self.is_label_n, num_labels)
        loss.backward()  # type: ignore[no-untyped-call]


def parts_of(batch: Batch, num_parts: int) -> list[Batch]:
    """Returns a batch's rows as ``num_parts`` batches of neighbours, as even as can be; none is empty."""
    borders = np.linspace(0, len(batch.rows_b), min(num_parts, len(batch.rows_b)) + 1).astype(int).tolist()
    return [
        Batch(**{name: value[start:stop] for name, value in vars(batch).items()}) for start, stop in pairwise(borders)
    ]


def label_counts(batch: Batch, num_domains: int) -> Floats:
    """Returns the labels that count of each domain, float64 [K], without computing anything else."""
    per_row = batch.labels_bt.sum(1, dtype=torch.int64).numpy()
    return np.bincount(batch.domains_b.numpy(), weights=per_row, minlength=num_domains).astype(np.float64)


def accumulate(spread: SpreadModel, batch: Batch, config: TrainConfig, multipliers: Floats, num_labels: float) -> Sums:
    """Computes a step's gradient in ``config.accumulate`` parts; returns this rank's sums.

    Each part's loss is divided by the labels of the whole step (see `Forward.backward`), so that the gradient is that
    of one piece.
    """
    parts = parts_of(batch, config.accumulate)
    total = None
    for number, part in enumerate(parts, 1):
        with spread.part(is_last=number == len(parts)):
            forward = Forward(spread.forward, part, config, spread.ranks.device, len(multipliers))
            forward.backward(multipliers, num_labels)
        sums = forward.sums()
        total = sums if total is None else total.plus(sums)
    assert total is not None, "a step has rows"
    return total
