"""Kernels for the CPU of the operation behind PyTorch's varlen attention, which has none: a plain implementation.

With them everything around the kernel is PyTorch's own, as on a GPU: its function, its autograd formula, and what its
compiler is told of shapes and dtypes.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import varlen


@cache
def register() -> None:
    """Adds the kernels, for the rest of the process."""
    varlen._varlen_attn.register_kernel("cpu")(_forward)
    varlen._varlen_attn_backward.register_kernel("cpu")(_backward)


def _forward(
    q: Tensor, k: Tensor, v: Tensor, begins: Tensor, same: Tensor, longest: int, also_longest: int,
    is_causal: bool = False, *_: Any, **__: Any,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """As picky as the kernel, which computes in half precision and writes beyond a wrong ``longest``."""
    assert q.dtype == k.dtype == v.dtype == torch.bfloat16 and begins.dtype == torch.int32
    assert torch.equal(begins, same) and longest == also_longest >= int(begins.diff().max())
    assert is_causal
    shares_hqk = _shares(q, k, begins)
    out = torch.einsum("hqk,khe->qhe", shares_hqk, _for_each_head(v, q))
    return out.to(q.dtype).contiguous(), q.new_zeros(q.shape[1], len(q)).float(), torch.zeros(2, dtype=torch.uint64)


def _backward(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor, begins: Tensor, *_: Any, **__: Any
) -> tuple[Tensor, Tensor, Tensor]:
    assert gradient.dtype == torch.bfloat16
    shares_hqk, g = _shares(q, k, begins), gradient.float()
    of_shares = torch.einsum("qhe,khe->hqk", g, _for_each_head(v, q))
    of_scores = shares_hqk * (of_shares - (of_shares * shares_hqk).sum(-1, keepdim=True)) / math.sqrt(q.shape[2])
    of_q = torch.einsum("hqk,khe->qhe", of_scores, _for_each_head(k, q))
    of_k = torch.einsum("hqk,qhe->khe", of_scores, q.float())
    of_v = torch.einsum("hqk,qhe->khe", shares_hqk, g)
    summed = (x.reshape(*k.shape[:2], -1, k.shape[2]).sum(2) for x in (of_k, of_v))
    return tuple(x.to(q.dtype).contiguous() for x in (of_q, *summed))  # type: ignore[return-value]


def _shares(q: Tensor, k: Tensor, begins: Tensor) -> Tensor:
    """Returns the softmax of the scores, float32 [H, queries, keys], of each position over its own document so far."""
    document = torch.bucketize(torch.arange(len(q)), begins[1:].long(), right=True)
    seen = (document[:, None] == document) & torch.ones(len(q), len(q), dtype=torch.bool).tril()
    scores = torch.einsum("qhe,khe->hqk", q.float(), _for_each_head(k, q)) / math.sqrt(q.shape[2])
    return scores.masked_fill(~seen, -math.inf).softmax(-1)


def _for_each_head(x: Tensor, q: Tensor) -> Tensor:
    return x.float().repeat_interleave(q.shape[1] // x.shape[1], 1)
