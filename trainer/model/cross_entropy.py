"""Next-token cross-entropy from hidden states, without ever holding all logits: neither forward nor backward.

N tokens with hidden states [N, D], output weights [V, D]. The logits [N, V] of a step are often its largest tensor (16
rows of 2,048 tokens and a vocabulary of 128,256: 17 GB in float32). Here at most ``chunk_tokens`` rows of them exist at
a time, in one of two ways:

- `token_losses` keeps one number per token and makes each chunk's logits a second time in the backward pass: the
  gradient of every token may depend on anything, even on the losses themselves. Four matrix products instead of three,
  but for those chunks whose logits there is room to keep (``kept_bytes``).
- `weighted_token_losses` knows each token's weight beforehand and makes the gradient together with the loss, in three.

Both sum in float32 (float64 for float64 input) whatever autocast says, and give no loss and no gradient to tokens whose
label is `IGNORED`. With ``compiled``, what is done to a chunk's logits is one kernel instead of several passes over
them (torch.compile). After the idea in Liger Kernel (Hsu et al., arXiv 2410.10989) and Cut Cross-Entropy (Wijmans et
al., arXiv 2411.09009).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

#: The label of a token that is context only: PyTorch's and Hugging Face's own number for it.
IGNORED = -100
#: Tensor cores want rows of logits that begin at multiples of 16 bytes, and are fastest at multiples of 128 numbers.
VOCABULARY_MULTIPLE = 128
CPU_CHUNK_TOKENS = 256  # their logits stay in a cache
GPU_CHUNK_BYTES = 1 << 30  # of float32 logits: large products keep a GPU busy


def default_chunk_tokens(vocab_size: int, device: torch.device) -> int:
    """Returns how many rows of logits exist at a time unless a person says otherwise; a power of two."""
    if device.type != "cuda":
        return CPU_CHUNK_TOKENS
    return 1 << max(8, (GPU_CHUNK_BYTES // (4 * vocab_size)).bit_length() - 1)


def default_kept_bytes(device: torch.device) -> int:
    """Returns how many bytes of logits may wait for the backward pass: 1/16 of a GPU's memory, 256 MiB on CPUs."""
    if device.type != "cuda":
        return 1 << 28
    return int(torch.cuda.get_device_properties(device).total_memory // 16)


def token_losses(
    hidden_nd: Tensor,
    output_weight: Tensor,
    labels_n: Tensor,
    chunk_tokens: int,
    *,
    kept_bytes: int = 0,
    compiled: bool = False,
) -> Tensor:
    """Returns the cross-entropy [N] of each label in nats, float32; 0 where the label is `IGNORED`.

    Differentiable once in the hidden states and the weights. The logits of as many chunks as fit into ``kept_bytes``
    are kept for the backward pass, which changes no number.
    """
    kept_bytes = kept_bytes if torch.is_grad_enabled() else 0
    losses: Tensor = _TokenLosses.apply(  # type: ignore[no-untyped-call]
        hidden_nd, output_weight, labels_n, chunk_tokens, kept_bytes, compiled
    )
    return losses


def weighted_token_losses(
    hidden_nd: Tensor,
    output_weight: Tensor,
    labels_n: Tensor,
    weights_n: Tensor,
    chunk_tokens: int,
    *,
    compiled: bool = False,
) -> tuple[Tensor, Tensor]:
    """Returns Σ weights · losses, differentiable once, and the unweighted losses [N], which are not.

    No gradient flows into ``weights_n`` (float[N]). The gradients, [N, D] and [V, D], are computed here and now, if at
    all: in evaluation under ``torch.no_grad`` they are not.
    """
    total, losses = _WeightedTokenLosses.apply(  # type: ignore[no-untyped-call]
        hidden_nd, output_weight, labels_n, weights_n.detach(), chunk_tokens, torch.is_grad_enabled(), compiled
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


def _chunk_losses(logits_cv: Tensor, labels_c: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns the losses and the log of the sum of exponentials, both [C] in ``dtype``, of one chunk's logits."""
    logits_cv = logits_cv.to(dtype)
    log_sums = torch.logsumexp(logits_cv, dim=-1)
    chosen = logits_cv.gather(1, labels_c.clamp(min=0)[:, None]).squeeze(1)
    return torch.where(labels_c == IGNORED, 0.0, log_sums - chosen), log_sums


def _chunk_gradient(logits_cv: Tensor, log_sums_c: Tensor, labels_c: Tensor, scale_c: Tensor) -> Tensor:
    """Returns scale · (softmax - one-hot of the label) in the logits' dtype; the logits may be overwritten."""
    scale_c = torch.where(labels_c == IGNORED, 0.0, scale_c)
    gradient_cv = logits_cv.to(log_sums_c.dtype).sub_(log_sums_c[:, None]).exp_().mul_(scale_c[:, None])
    return gradient_cv.scatter_add_(1, labels_c.clamp(min=0)[:, None], -scale_c[:, None]).to(logits_cv.dtype)


def _chunk_gradient_in_one(logits_cv: Tensor, log_sums_c: Tensor, labels_c: Tensor, scale_c: Tensor) -> Tensor:
    """As `_chunk_gradient`, of operations on single elements only, which a compiler makes one pass of."""
    scale_c = torch.where(labels_c == IGNORED, 0.0, scale_c)
    is_label = torch.arange(logits_cv.shape[1], device=labels_c.device) == labels_c[:, None]
    softmax_cv = (logits_cv.to(log_sums_c.dtype) - log_sums_c[:, None]).exp()
    return ((softmax_cv - is_label.to(softmax_cv.dtype)) * scale_c[:, None]).to(logits_cv.dtype)


@lru_cache
def _functions(compiled: bool) -> tuple[Callable[..., tuple[Tensor, Tensor]], Callable[..., Tensor]]:
    if not compiled:
        return _chunk_losses, _chunk_gradient
    return torch.compile(_chunk_losses), torch.compile(_chunk_gradient_in_one)


class _Output:
    """The output weights in the dtype that is multiplied in, and the logits that they give."""

    def __init__(self, weight_vd: Tensor, dtype: torch.dtype, multiple: int | None = None) -> None:
        if multiple is None:
            multiple = VOCABULARY_MULTIPLE if weight_vd.is_cuda else 1
        self.dtype, self.vocab_size = dtype, len(weight_vd)
        self.weight = weight_vd.to(dtype)
        if missing := -self.vocab_size % multiple:
            self.weight = F.pad(self.weight, (0, 0, 0, missing))

    def logits(self, hidden_cd: Tensor) -> Tensor:
        """Returns [C, V], or more columns up to the multiple: of these every softmax and every gradient is 0."""
        logits_cv = F.linear(hidden_cd, self.weight)
        if len(self.weight) > self.vocab_size:
            logits_cv[:, self.vocab_size :] = -torch.inf
        return logits_cv


class _Gradients:
    """Collects the gradients of the hidden states and of the weights, chunk by chunk."""

    def __init__(self, hidden_nd: Tensor, weight_vd: Tensor, wanted: tuple[bool, bool], output: _Output) -> None:
        self.output, self.dtype = output, weight_vd.dtype
        self.hidden = torch.empty_like(hidden_nd) if wanted[0] else None
        # Never summed in less than float32, though the weights (those of shards) may have come in bfloat16.
        total = torch.promote_types(self.dtype, torch.float32)
        shape = output.weight.shape
        self.weight = torch.zeros(shape, dtype=total, device=weight_vd.device) if wanted[1] else None

    def add(self, tokens: slice, gradient_cv: Tensor, hidden_cd: Tensor) -> None:
        """``gradient_cv`` and ``hidden_cd`` are in the dtype that is multiplied in."""
        if self.hidden is not None:
            self.hidden[tokens] = gradient_cv @ self.output.weight
        if self.weight is not None:
            if self.weight.dtype == gradient_cv.dtype:
                self.weight.addmm_(gradient_cv.T, hidden_cd)
            else:
                self.weight += gradient_cv.T @ hidden_cd

    def of_weight(self) -> Tensor | None:
        """Returns the weights' gradient, [V, D] in the dtype that they came in."""
        return None if self.weight is None else self.weight[: self.output.vocab_size].to(self.dtype)


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_nd: Tensor,
        weight_vd: Tensor,
        labels_n: Tensor,
        chunk_tokens: int,
        kept_bytes: int,
        compiled: bool,
    ) -> Tensor:
        ctx.dtype, ctx.chunk_tokens, ctx.compiled = _compute_dtype(hidden_nd), chunk_tokens, compiled
        ctx.kept = {}  # start of a chunk -> its logits
        total = _sum_dtype(hidden_nd)
        losses_n, log_sums_n = (torch.empty(len(labels_n), dtype=total, device=hidden_nd.device) for _ in range(2))
        chunk_losses, _ = _functions(compiled)
        with torch.autocast(hidden_nd.device.type, enabled=False):
            output = _Output(weight_vd, ctx.dtype)
            for tokens in _chunks(len(labels_n), chunk_tokens):
                logits = output.logits(hidden_nd[tokens].to(ctx.dtype))
                losses_n[tokens], log_sums_n[tokens] = chunk_losses(logits, labels_n[tokens], total)
                kept_bytes -= logits.numel() * logits.itemsize
                if kept_bytes >= 0:
                    ctx.kept[tokens.start] = logits
        ctx.save_for_backward(hidden_nd, weight_vd, labels_n, log_sums_n)
        return losses_n

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale_n: Tensor) -> tuple[Tensor | None, ...]:
        hidden_nd, weight_vd, labels_n, log_sums_n = ctx.saved_tensors
        _, chunk_gradient = _functions(ctx.compiled)
        with torch.autocast(hidden_nd.device.type, enabled=False):
            output = _Output(weight_vd, ctx.dtype)
            gradients = _Gradients(hidden_nd, weight_vd, ctx.needs_input_grad[:2], output)
            for tokens in _chunks(len(labels_n), ctx.chunk_tokens):
                hidden = hidden_nd[tokens].to(ctx.dtype)
                # Taken out, because they are overwritten; a second backward pass (retain_graph) makes them again.
                logits = ctx.kept.pop(tokens.start, None)
                logits = output.logits(hidden) if logits is None else logits
                gradient = chunk_gradient(logits, log_sums_n[tokens], labels_n[tokens], scale_n[tokens])
                gradients.add(tokens, gradient, hidden)
        return gradients.hidden, gradients.of_weight(), None, None, None, None


class _WeightedTokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_nd: Tensor,
        weight_vd: Tensor,
        labels_n: Tensor,
        weights_n: Tensor,
        chunk_tokens: int,
        with_gradient: bool,
        compiled: bool,
    ) -> tuple[Tensor, Tensor]:
        dtype, total = _compute_dtype(hidden_nd), _sum_dtype(hidden_nd)
        weights_n = weights_n.to(total)
        losses_n = torch.empty(len(labels_n), dtype=total, device=hidden_nd.device)
        wanted = ctx.needs_input_grad[:2] if with_gradient else (False, False)
        chunk_losses, chunk_gradient = _functions(compiled)
        with torch.autocast(hidden_nd.device.type, enabled=False):
            output = _Output(weight_vd, dtype)
            gradients = _Gradients(hidden_nd, weight_vd, wanted, output)
            for tokens in _chunks(len(labels_n), chunk_tokens):
                hidden, labels = hidden_nd[tokens].to(dtype), labels_n[tokens]
                logits = output.logits(hidden)
                losses_n[tokens], log_sums = chunk_losses(logits, labels, total)
                if any(wanted):
                    gradients.add(tokens, chunk_gradient(logits, log_sums, labels, weights_n[tokens]), hidden)
        ctx.save_for_backward(gradients.hidden, gradients.of_weight())
        ctx.mark_non_differentiable(losses_n)
        return (losses_n * weights_n).sum(), losses_n

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        # Out of place: with retain_graph the same gradients are scaled again.
        hidden, weight = (None if gradient is None else gradient * scale for gradient in ctx.saved_tensors)
        return hidden, weight, None, None, None, None, None
