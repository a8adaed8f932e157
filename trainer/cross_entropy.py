"""Next-token cross-entropy from hidden states, without ever holding all logits: neither forward nor backward.

N tokens with hidden states [N, D], output weights [V, D]. The logits [N, V] of a step are often its largest tensor (16
rows of 2,048 tokens and a vocabulary of 128,256: 17 GB in float32). Here at most ``chunk_tokens`` rows of them exist at
a time, in one of two ways:

- `token_losses` keeps one number per token and makes each chunk's logits a second time in the backward pass: the
  gradient of every token may depend on anything, even on the losses themselves. Four matrix products instead of three.
- `weighted_token_losses` knows each token's weight beforehand and makes the gradient together with the loss, in three.

Both sum in float32 (float64 for float64 input) whatever autocast says, and give no loss and no gradient to tokens whose
label is `IGNORED`. After the idea in Liger Kernel (Hsu et al., arXiv 2410.10989) and Cut Cross-Entropy (Wijmans et al.,
arXiv 2411.09009).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

#: The label of a token that is context only: PyTorch's and Hugging Face's own number for it.
IGNORED = -100


def token_losses(hidden_nd: Tensor, output_weight: Tensor, labels_n: Tensor, chunk_tokens: int) -> Tensor:
    """Returns the cross-entropy [N] of each label in nats, float32; 0 where the label is `IGNORED`.

    Differentiable once in the hidden states and the weights.
    """
    losses: Tensor = _TokenLosses.apply(hidden_nd, output_weight, labels_n, chunk_tokens)  # type: ignore[no-untyped-call]
    return losses


def weighted_token_losses(
    hidden_nd: Tensor, output_weight: Tensor, labels_n: Tensor, weights_n: Tensor, chunk_tokens: int
) -> tuple[Tensor, Tensor]:
    """Returns Σ weights · losses, differentiable once, and the unweighted losses [N], which are not.

    No gradient flows into ``weights_n`` (float[N]). The gradients, [N, D] and [V, D], are computed here and now, if at
    all: in evaluation under ``torch.no_grad`` they are not.
    """
    total, losses = _WeightedTokenLosses.apply(  # type: ignore[no-untyped-call]
        hidden_nd, output_weight, labels_n, weights_n.detach(), chunk_tokens
    )
    return total, losses


def _compute_dtype(hidden_nd: Tensor) -> torch.dtype:
    kind = hidden_nd.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden_nd.dtype


def _sum_dtype(hidden_nd: Tensor) -> torch.dtype:
    return torch.promote_types(hidden_nd.dtype, torch.float32)


def _chunks(num_tokens: int, chunk_tokens: int) -> Iterator[slice]:
    for start in range(0, num_tokens, chunk_tokens):
        yield slice(start, min(start + chunk_tokens, num_tokens))


def _chunk_losses(logits_cv: Tensor, labels_c: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the losses and the log of the sum of exponentials, both [C], of one chunk's logits."""
    log_sums = torch.logsumexp(logits_cv, dim=-1)
    chosen = logits_cv.gather(1, labels_c.clamp(min=0)[:, None]).squeeze(1)
    return torch.where(labels_c == IGNORED, 0.0, log_sums - chosen), log_sums


def _chunk_gradient(logits_cv: Tensor, log_sums_c: Tensor, labels_c: Tensor, scale_c: Tensor) -> Tensor:
    """Turns one chunk's logits, in place, into scale · (softmax - one-hot of the label)."""
    scale_c = torch.where(labels_c == IGNORED, 0.0, scale_c)
    gradient_cv = logits_cv.sub_(log_sums_c[:, None]).exp_().mul_(scale_c[:, None])
    return gradient_cv.scatter_add_(1, labels_c.clamp(min=0)[:, None], -scale_c[:, None])


class _Gradients:
    """Collects the gradients of the hidden states and of the weights, chunk by chunk."""

    def __init__(self, hidden_nd: Tensor, weight_vd: Tensor, wanted: tuple[bool, bool], dtype: torch.dtype) -> None:
        self.hidden = torch.empty_like(hidden_nd) if wanted[0] else None
        self.weight = torch.zeros_like(weight_vd) if wanted[1] else None
        self.dtype = dtype

    def add(self, tokens: slice, gradient_cv: Tensor, hidden_cd: Tensor, weight_vd: Tensor) -> None:
        """``hidden_cd`` and ``weight_vd`` are in the compute dtype."""
        gradient_cv = gradient_cv.to(self.dtype)
        if self.hidden is not None:
            self.hidden[tokens] = gradient_cv @ weight_vd
        if self.weight is not None:
            if self.weight.dtype == self.dtype:
                self.weight.addmm_(gradient_cv.T, hidden_cd)
            else:
                self.weight += gradient_cv.T @ hidden_cd


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_nd: Tensor, weight_vd: Tensor, labels_n: Tensor, chunk_tokens: int) -> Tensor:
        ctx.dtype, ctx.chunk_tokens = _compute_dtype(hidden_nd), chunk_tokens
        total = _sum_dtype(hidden_nd)
        losses_n, log_sums_n = (torch.empty(len(labels_n), dtype=total, device=hidden_nd.device) for _ in range(2))
        with torch.autocast(hidden_nd.device.type, enabled=False):
            weight = weight_vd.to(ctx.dtype)
            for tokens in _chunks(len(labels_n), chunk_tokens):
                logits = F.linear(hidden_nd[tokens].to(ctx.dtype), weight).to(total)
                losses_n[tokens], log_sums_n[tokens] = _chunk_losses(logits, labels_n[tokens])
        ctx.save_for_backward(hidden_nd, weight_vd, labels_n, log_sums_n)
        return losses_n

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale_n: Tensor) -> tuple[Tensor | None, ...]:
        hidden_nd, weight_vd, labels_n, log_sums_n = ctx.saved_tensors
        gradients = _Gradients(hidden_nd, weight_vd, ctx.needs_input_grad[:2], ctx.dtype)
        with torch.autocast(hidden_nd.device.type, enabled=False):
            weight = weight_vd.to(ctx.dtype)
            for tokens in _chunks(len(labels_n), ctx.chunk_tokens):
                hidden = hidden_nd[tokens].to(ctx.dtype)
                logits = F.linear(hidden, weight).to(log_sums_n.dtype)
                gradient = _chunk_gradient(logits, log_sums_n[tokens], labels_n[tokens], scale_n[tokens])
                gradients.add(tokens, gradient, hidden, weight)
        return gradients.hidden, gradients.weight, None, None


class _WeightedTokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_nd: Tensor, weight_vd: Tensor, labels_n: Tensor, weights_n: Tensor, chunk_tokens: int
    ) -> tuple[Tensor, Tensor]:
        dtype, total = _compute_dtype(hidden_nd), _sum_dtype(hidden_nd)
        weights_n = weights_n.to(total)
        losses_n = torch.empty(len(labels_n), dtype=total, device=hidden_nd.device)
        gradients = _Gradients(hidden_nd, weight_vd, ctx.needs_input_grad[:2], dtype)
        with torch.autocast(hidden_nd.device.type, enabled=False):
            weight = weight_vd.to(dtype)
            for tokens in _chunks(len(labels_n), chunk_tokens):
                hidden, labels = hidden_nd[tokens].to(dtype), labels_n[tokens]
                logits = F.linear(hidden, weight).to(total)
                losses_n[tokens], log_sums = _chunk_losses(logits, labels)
                if any(ctx.needs_input_grad[:2]):
                    gradients.add(tokens, _chunk_gradient(logits, log_sums, labels, weights_n[tokens]), hidden, weight)
        ctx.save_for_backward(gradients.hidden, gradients.weight)
        ctx.mark_non_differentiable(losses_n)
        return (losses_n * weights_n).sum(), losses_n

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        # Out of place: with retain_graph the same gradients are scaled again.
        hidden, weight = (None if gradient is None else gradient * scale for gradient in ctx.saved_tensors)
        return hidden, weight, None, None, None
