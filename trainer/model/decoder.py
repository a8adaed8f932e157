"""A Llama- or Qwen-style decoder, whole: RMSNorm, rotary positions, grouped-query attention, SwiGLU, tied embeddings.

Shapes: B rows, T positions, D = dim, H heads, K key/value heads, E = head size. Module and parameter names are Hugging
Face Llama's (without its ``model.`` prefix), and so is the rotary layout (halves, not interleaved pairs), so that
weights can be exchanged (`trainer.huggingface.config`). Weights are float32, and lower precision is the business of
autocast: the optimizer always works on the full-precision weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every PyTorch reader knows
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainer.model.attention import Documents, attend, uses_varlen
from trainer.model.presets import ModelConfig
from trainer.model.rotary import rotary_tables, rotate

Tables = tuple[Tensor, Tensor]
Head = Callable[[Tensor, Tensor], Any]


class Attention(nn.Module):
    """Causal self-attention with H query heads that share K key/value heads (Ainslie et al., arXiv 2305.13245)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = size = config.head_dim
        self.q_proj = nn.Linear(config.dim, config.num_heads * size, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.dim, config.num_kv_heads * size, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.dim, config.num_kv_heads * size, bias=config.qkv_bias)
        self.o_proj = nn.Linear(config.num_heads * size, config.dim, bias=False)
        # Qwen3's: over each head, so that no score can outgrow the others (Dehghani et al., arXiv 2302.05442).
        self.q_norm = nn.RMSNorm(size, eps=config.norm_epsilon) if config.qk_norm else None
        self.k_norm = nn.RMSNorm(size, eps=config.norm_epsilon) if config.qk_norm else None

    def forward(
        self, x_btd: Tensor, rotary: Tables, documents: Documents | None = None, mask: Tensor | None = None
    ) -> Tensor:
        batch, length, _ = x_btd.shape
        q, k, v = (
            project(x_btd).view(batch, length, -1, self.head_dim) for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.q_norm is not None and self.k_norm is not None:
            # Under autocast in the weights' own precision, as the other norms.
            exact = self.q_norm.weight.dtype
            q, k = self.q_norm(q.to(exact)).to(v.dtype), self.k_norm(k.to(exact)).to(v.dtype)
        q, k = rotate(q.transpose(1, 2), rotary), rotate(k.transpose(1, 2), rotary)
        out_bhte = attend(q, k, v.transpose(1, 2), documents, mask)
        return self.o_proj(out_bhte.transpose(1, 2).reshape(batch, length, -1))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """SwiGLU (Shazeer, arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.dim, config.hidden_dim, bias=False)
        self.up_proj = nn.Linear(config.dim, config.hidden_dim, bias=False)
        self.down_proj = nn.Linear(config.hidden_dim, config.dim, bias=False)

    def forward(self, x_btd: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_btd)) * self.up_proj(x_btd))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Attention, then feed-forward, each on a normalized copy and added back."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.dim, eps=config.norm_epsilon)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.dim, eps=config.norm_epsilon)
        self.mlp = FeedForward(config)

    def forward(
        self, x_btd: Tensor, rotary: Tables, documents: Documents | None = None, mask: Tensor | None = None
    ) -> Tensor:
        x_btd = x_btd + self.self_attn(self.input_layernorm(x_btd), rotary, documents, mask)
        return x_btd + self.mlp(self.post_attention_layernorm(x_btd))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """The model. ``forward`` gives hidden states; the loss applies ``output_weight`` piece by piece.

    ``recompute_every`` n > 0 keeps, of every n-th layer, only its input for the backward pass, and computes the rest
    again there (activation checkpointing): 1 for all layers, the least memory and about a third more computing.
    """

    def __init__(self, config: ModelConfig, recompute_every: int = 0) -> None:
        super().__init__()
        self.config, self.recompute_every = config, recompute_every
        self.embed_tokens = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.dim, eps=config.norm_epsilon)
        self.lm_head = None if config.tied_embeddings else nn.Linear(config.dim, config.vocab_size, bias=False)

    @property
    def output_weight(self) -> Tensor:
        """The matrix [vocabulary, D] that turns hidden states into logits."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def forward(self, tokens_bt: Tensor, documents: Documents | None = None, head: Head | None = None) -> Any:
        """Returns hidden states [B, T, D], or what ``head(hidden_btd, output_weight)`` makes of them.

        Position t sees tokens 0..t of its own row; with ``documents``, those of its own document, in which positions
        are counted from 0: a document's hidden states are then the same as in a row of its own. A loss that is computed
        as ``head`` works also where parameters are whole only during the forward pass (FSDP).
        """
        x_btd: Tensor = self.embed_tokens(tokens_bt)
        length = tokens_bt.shape[1]
        if documents is None:
            positions, mask = torch.arange(length, device=tokens_bt.device)[None], None
        else:
            positions = documents.positions()
            varlen = uses_varlen(documents, _compute_dtype(x_btd), self.config.head_dim)
            mask = None if varlen else documents.mask()
        rotary = rotary_tables(self.config, positions, length)
        recompute = self.recompute_every if torch.is_grad_enabled() else 0
        for i, layer in enumerate(self.layers):
            if recompute and i % recompute == 0:
                # No layer draws random numbers, so there is no generator to restore.
                x_btd = checkpoint(layer, x_btd, rotary, documents, mask, use_reentrant=False, preserve_rng_state=False)
            else:
                x_btd = layer(x_btd, rotary, documents, mask)
        hidden_btd = self.norm(x_btd)
        return hidden_btd if head is None else head(hidden_btd, self.output_weight)

    def logits(self, tokens_bt: Tensor, documents: Documents | None = None) -> Tensor:
        """Returns logits [B, T, vocabulary]."""
        return F.linear(self(tokens_bt, documents), self.output_weight)

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Draws all weights from one private generator: N(0, 0.02²), smaller where a layer adds to the residual.

        The residual projections use 0.02 / √(2 · layers), as in GPT-2, so that the stream's variance does not grow
        with depth. Call it on the CPU, before moving the model: every device then starts from the same weights.
        """
        generator = torch.Generator().manual_seed(seed)
        residual_std = 0.02 / math.sqrt(2 * self.config.num_layers)
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                parameter.zero_()
            elif parameter.ndim < 2:
                parameter.fill_(1.0)
            else:
                std = residual_std if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
                parameter.normal_(0.0, std, generator=generator)

    def num_parameters(self) -> int:
        """Returns the number of weights, shared ones counted once."""
        return sum(parameter.numel() for parameter in self.parameters())


def _compute_dtype(x: Tensor) -> torch.dtype:
    """What matrices are multiplied in: autocast's dtype where it is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
