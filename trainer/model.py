"""A Llama-style decoder, whole: RMSNorm, rotary positions, grouped-query attention, SwiGLU, tied embeddings.

Shapes: B rows, T positions, D = dim, H heads, K key/value heads, E = D / H. Module and parameter names are Hugging
Face Llama's (without its ``model.`` prefix), and so is the rotary layout (halves, not interleaved pairs), so that
weights can be exchanged. Weights are float32; lower precision is the business of autocast.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every PyTorch reader knows
from torch import Tensor, nn

from trainer.config import ModelConfig


class RotaryEmbedding(nn.Module):
    """Rotates pairs (x_i, x_{i+E/2}) of each head by position · theta^(-2i/E) (Su et al., arXiv 2104.09864)."""

    def __init__(self, head_dim: int, max_positions: int, theta: float) -> None:
        super().__init__()
        frequencies = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        angles = torch.outer(torch.arange(max_positions, dtype=torch.float64), frequencies)  # T, E/2
        self.register_buffer("cos", torch.cat([angles.cos()] * 2, -1).float(), persistent=False)
        self.register_buffer("sin", torch.cat([angles.sin()] * 2, -1).float(), persistent=False)
        self.cos: Tensor
        self.sin: Tensor

    def forward(self, x_bhte: Tensor) -> Tensor:
        num_positions = x_bhte.shape[-2]
        cos, sin = self.cos[:num_positions].to(x_bhte.dtype), self.sin[:num_positions].to(x_bhte.dtype)
        first, second = x_bhte.chunk(2, dim=-1)
        return x_bhte * cos + torch.cat([-second, first], dim=-1) * sin


class Attention(nn.Module):
    """Causal self-attention with H query heads that share K key/value heads (Ainslie et al., arXiv 2305.13245)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self.q_proj = nn.Linear(config.dim, config.num_heads * config.head_dim, bias=False)
        self.k_proj = nn.Linear(config.dim, config.num_kv_heads * config.head_dim, bias=False)
        self.v_proj = nn.Linear(config.dim, config.num_kv_heads * config.head_dim, bias=False)
        self.o_proj = nn.Linear(config.num_heads * config.head_dim, config.dim, bias=False)

    def forward(self, x_btd: Tensor, rotary: RotaryEmbedding) -> Tensor:
        batch, length, _ = x_btd.shape
        q = self.q_proj(x_btd).view(batch, length, self.num_heads, self.head_dim).transpose(1, 2)
        k = self.k_proj(x_btd).view(batch, length, self.num_kv_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x_btd).view(batch, length, self.num_kv_heads, self.head_dim).transpose(1, 2)
        out_bhte = F.scaled_dot_product_attention(rotary(q), rotary(k), v, is_causal=True, enable_gqa=True)
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

    def forward(self, x_btd: Tensor, rotary: RotaryEmbedding) -> Tensor:
        x_btd = x_btd + self.self_attn(self.input_layernorm(x_btd), rotary)
        return x_btd + self.mlp(self.post_attention_layernorm(x_btd))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """The model. ``forward`` gives hidden states; the loss applies ``output_weight`` piece by piece."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.dim)
        self.rotary = RotaryEmbedding(config.head_dim, config.max_positions, config.rope_theta)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.dim, eps=config.norm_epsilon)
        self.lm_head = None if config.tied_embeddings else nn.Linear(config.dim, config.vocab_size, bias=False)

    @property
    def output_weight(self) -> Tensor:
        """The matrix [vocabulary, D] that turns hidden states into logits."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def forward(self, tokens_bt: Tensor) -> Tensor:
        """Returns hidden states [B, T, D]; position t sees tokens 0..t of its own row."""
        x_btd: Tensor = self.embed_tokens(tokens_bt)
        for layer in self.layers:
            x_btd = layer(x_btd, self.rotary)
        return self.norm(x_btd)  # type: ignore[no-any-return]

    def logits(self, tokens_bt: Tensor) -> Tensor:
        """Returns logits [B, T, vocabulary]."""
        return F.linear(self(tokens_bt), self.output_weight)

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Draws all weights from one private generator: N(0, 0.02²), smaller where a layer adds to the residual.

        The residual projections use 0.02 / √(2 · layers), as in GPT-2, so that the stream's variance does not grow
        with depth. Call it on the CPU, before moving the model: every device then starts from the same weights.
        """
        generator = torch.Generator().manual_seed(seed)
        residual_std = 0.02 / math.sqrt(2 * self.config.num_layers)
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(1.0)
            else:
                std = residual_std if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
                parameter.normal_(0.0, std, generator=generator)

    def num_parameters(self) -> int:
        """Returns the number of weights, shared ones counted once."""
        return sum(parameter.numel() for parameter in self.parameters())
