"""Causal attention within documents: which kernel, and what it has to know about the row's documents.

Three ways to the same numbers:

- no documents: PyTorch's causal kernel (flash attention on GPUs);
- documents on a GPU in bfloat16 or float16: flash attention over rows of any length ("varlen"), whose documents lie end
  to end, so that nothing outside a document is even computed;
- documents elsewhere: a boolean block-diagonal mask, the reference that the others are compared with.

Shapes: B rows, T positions, H heads, K key/value heads, E the size of a head.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from trainer.device import to_device


def varlen_options(function: Callable[..., Any]) -> tuple[dict[str, Any], bool]:
    """Returns what PyTorch's function takes for causal attention, and whether it takes fewer key/value heads.

    2.10 says ``is_causal``, later ones ``window_size``; ``enable_gqa`` came after 2.11.
    """
    parameters = inspect.signature(function).parameters
    # A list instead of a tuple would silently not be causal.
    causal: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in parameters else {"is_causal": True}
    return causal, "enable_gqa" in parameters


#: Found out here: compiled code could not look at a function's parameters.
CAUSAL, TAKES_GROUPS = varlen_options(varlen_attn)
#: What flash attention wants: Ampere or newer, and heads of a multiple of 8 numbers, of no more than 256.
VARLEN_CAPABILITY, HEAD_MULTIPLE, LARGEST_HEAD = (8, 0), 8, 256

#: The number of documents is rounded up to a multiple of this with documents of length 0 at the end, so that a compiled
#: model meets few different shapes.
BOUNDARY_MULTIPLE = 64


@dataclass(frozen=True)
class Documents:
    """Where the documents of a batch are. Made by `documents_of` or `found_documents`, outside compiled code."""

    index_bt: Tensor
    """int[B, T]: equal and adjacent within a document; padding (-1) is a document of its own."""
    boundaries: Tensor | None = None
    """int32[S + 1], ascending: where documents begin in the B · T positions end to end, ending with B · T, repeated."""
    max_length: int = 0
    """An upper bound of a document's length in the row."""

    def to(self, device: torch.device) -> Documents:
        """Returns the same on the model's device; a GPU is not waited for."""
        boundaries = None if self.boundaries is None else to_device(self.boundaries, device)
        return Documents(self.index_bt.to(device, non_blocking=True), boundaries, self.max_length)

    def part(self, start: int, stop: int) -> Documents:
        """Returns those of some neighbouring rows, on the CPU."""
        length = self.index_bt.shape[1]
        index_bt = self.index_bt[start:stop]
        if self.boundaries is None:
            return Documents(index_bt)
        begins = self.boundaries - start * length  # every row begins with one
        return _with_begins(index_bt, begins[(begins >= 0) & (begins < (stop - start) * length)])

    def positions(self) -> Tensor:
        """Returns int64[B, T]: how far into its document every token is."""
        length = self.index_bt.shape[1]
        ramp = torch.arange(length, device=self.index_bt.device)
        return ramp - torch.where(_begins(self.index_bt), ramp, 0).cummax(dim=1).values

    def mask(self) -> Tensor:
        """Returns bool[B, 1, T, T]: whether the second position is seen from the first."""
        length = self.index_bt.shape[1]
        same = self.index_bt[:, None, :, None] == self.index_bt[:, None, None, :]
        return same & torch.ones(length, length, dtype=torch.bool, device=self.index_bt.device).tril()


def documents_of(index_bt: Tensor, device: torch.device) -> Documents:
    """Returns the `Documents` of rows whose tokens carry the number of their document, moved to ``device``."""
    return found_documents(index_bt, device).to(device)


def found_documents(index_bt: Tensor, device: torch.device) -> Documents:
    """Returns the `Documents` of rows with what a model on ``device`` wants to know, still on the CPU.

    Finding boundaries takes part of a millisecond, which a GPU need not wait for: the loader's thread does it.
    """
    if device.type != "cuda":
        return Documents(index_bt.cpu())
    index_bt = index_bt.cpu().contiguous().pin_memory()
    if torch.cuda.get_device_capability(device) < VARLEN_CAPABILITY:
        return Documents(index_bt)
    found = with_boundaries(Documents(index_bt))
    assert found.boundaries is not None
    return Documents(index_bt, found.boundaries.pin_memory(), found.max_length)


def with_boundaries(documents: Documents) -> Documents:
    """Returns the same documents with ``boundaries`` and ``max_length``, both rounded up (see `BOUNDARY_MULTIPLE`)."""
    index_bt = documents.index_bt
    return _with_begins(index_bt, _begins(index_bt).flatten().nonzero().flatten())


def _with_begins(index_bt: Tensor, begins: Tensor) -> Documents:
    batch, length = index_bt.shape
    count = -(-(len(begins) + 1) // BOUNDARY_MULTIPLE) * BOUNDARY_MULTIPLE
    boundaries = torch.full((count + 1,), batch * length, dtype=torch.int32)
    boundaries[: len(begins)] = begins
    longest = int(boundaries.diff().max())
    return Documents(index_bt, boundaries, min(length, 1 << (longest - 1).bit_length()))


def _begins(index_bt: Tensor) -> Tensor:
    begins = torch.ones_like(index_bt, dtype=torch.bool)
    begins[:, 1:] = index_bt[:, 1:] != index_bt[:, :-1]
    return begins


def attend(q_bhte: Tensor, k_bkte: Tensor, v_bkte: Tensor, documents: Documents | None, mask: Tensor | None) -> Tensor:
    """Returns softmax(q kᵀ / √E) v, [B, H, T, E], each position over its own document up to itself.

    ``mask`` is ``documents.mask()``, made once for all layers, where `uses_varlen` says no.
    """
    if documents is None:
        return F.scaled_dot_product_attention(q_bhte, k_bkte, v_bkte, is_causal=True, enable_gqa=True)
    if mask is None:
        return _varlen(q_bhte, k_bkte, v_bkte, documents)
    if q_bhte.is_cuda:  # the kernels for masks on GPUs want as many key/value heads as queries
        k_bkte, v_bkte = _repeated(k_bkte, q_bhte.shape[1]), _repeated(v_bkte, q_bhte.shape[1])
    return F.scaled_dot_product_attention(q_bhte, k_bkte, v_bkte, attn_mask=mask, enable_gqa=not q_bhte.is_cuda)


def uses_varlen(documents: Documents, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether attention over these documents, with queries of this dtype, goes through the flash kernel."""
    fits = head_dim % HEAD_MULTIPLE == 0 and head_dim <= LARGEST_HEAD
    return documents.boundaries is not None and dtype in (torch.bfloat16, torch.float16) and fits


def _repeated(x_bkte: Tensor, num_heads: int) -> Tensor:
    return x_bkte.repeat_interleave(num_heads // x_bkte.shape[1], dim=1)


def _varlen(q_bhte: Tensor, k_bkte: Tensor, v_bkte: Tensor, documents: Documents) -> Tensor:
    """Attention over documents end to end: [B, H, T, E] → [B · T, H, E] and back."""
    assert documents.boundaries is not None
    batch, num_heads, length, size = q_bhte.shape
    options = CAUSAL
    if k_bkte.shape[1] != num_heads:
        if TAKES_GROUPS:
            options = {**CAUSAL, "enable_gqa": True}
        else:
            k_bkte, v_bkte = _repeated(k_bkte, num_heads), _repeated(v_bkte, num_heads)
    q, k, v = (x.transpose(1, 2).reshape(batch * length, -1, size) for x in (q_bhte, k_bkte, v_bkte))
    bounds, longest = documents.boundaries, documents.max_length
    out = varlen_attn(q, k, v, bounds, bounds, longest, longest, **options)
    assert isinstance(out, Tensor), "a tuple comes only where it is asked for"
    return out.view(batch, length, num_heads, size).transpose(1, 2)
