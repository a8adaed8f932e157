"""The decoder against a slow reference written out with plain loops, and its invariants."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trainer.config import PRESETS, ModelConfig
from trainer.model import Attention, Decoder, FeedForward, RotaryEmbedding

CONFIG = ModelConfig(
    vocab_size=50, dim=24, num_layers=2, num_heads=4, num_kv_heads=2, hidden_dim=32, max_positions=16, rope_theta=100.0
)


def random_decoder(config: ModelConfig = CONFIG, seed: int = 0) -> Decoder:
    """A decoder in float64 with weights large enough that every part matters."""
    model = Decoder(config).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.3, 0.4, generator=generator)
    return model


def rotate(x: np.ndarray, position: int, theta: float) -> np.ndarray:
    """Rotates each pair (x_i, x_{i + E/2}) by its angle, one pair at a time."""
    out, half = x.copy(), len(x) // 2
    for i in range(half):
        angle = position * theta ** (-2 * i / len(x))
        a, b = x[i], x[i + half]
        out[i], out[i + half] = a * math.cos(angle) - b * math.sin(angle), b * math.cos(angle) + a * math.sin(angle)
    return out


def norm(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    return x / math.sqrt((x**2).mean() + epsilon) * weight


def slow_logits(model: Decoder, tokens: list[int]) -> np.ndarray:
    """The whole model for one row, with loops over positions and heads."""
    config, weights = model.config, {name: value.numpy() for name, value in model.state_dict().items()}
    stream = [weights["embed_tokens.weight"][token] for token in tokens]
    for layer in range(config.num_layers):

        def w(name: str, prefix: str = f"layers.{layer}.") -> np.ndarray:
            return weights[f"{prefix}{name}.weight"]

        normed = [norm(x, w("input_layernorm"), config.norm_epsilon) for x in stream]
        heads = {
            kind: [(w(f"self_attn.{kind}_proj") @ x).reshape(-1, config.head_dim) for x in normed] for kind in "qkv"
        }
        for kind in "qk":
            heads[kind] = [np.stack([rotate(h, t, config.rope_theta) for h in x]) for t, x in enumerate(heads[kind])]
        for t in range(len(tokens)):
            outputs = []
            for head in range(config.num_heads):
                shared = head * config.num_kv_heads // config.num_heads
                scores = [
                    heads["q"][t][head] @ heads["k"][s][shared] / math.sqrt(config.head_dim) for s in range(t + 1)
                ]
                powers = np.exp(np.array(scores) - max(scores))
                outputs.append(sum(p * heads["v"][s][shared] for s, p in enumerate(powers / powers.sum())))
            stream[t] = stream[t] + w("self_attn.o_proj") @ np.concatenate(outputs)
        for t, x in enumerate(stream):
            y = norm(x, w("post_attention_layernorm"), config.norm_epsilon)
            gate = w("mlp.gate_proj") @ y
            stream[t] = x + w("mlp.down_proj") @ (gate / (1 + np.exp(-gate)) * (w("mlp.up_proj") @ y))
    head = weights["embed_tokens.weight" if config.tied_embeddings else "lm_head.weight"]
    return np.stack([head @ norm(x, weights["norm.weight"], config.norm_epsilon) for x in stream])


@pytest.mark.parametrize("tied", [True, False])
def test_logits_equal_the_slow_reference(tied: bool) -> None:
    model = random_decoder(ModelConfig(**{**vars(CONFIG), "tied_embeddings": tied}))
    rows = [[3, 1, 4, 1, 5, 9, 2], [49, 0, 7, 7, 7, 12, 30]]
    with torch.no_grad():
        logits = model.logits(torch.tensor(rows)).numpy()
    for row, found in zip(rows, logits, strict=True):
        # The rotary tables are float32, everything else float64.
        np.testing.assert_allclose(found, slow_logits(model, row), rtol=2e-4, atol=2e-4)


def test_a_position_does_not_see_later_tokens_or_other_rows() -> None:
    model = random_decoder()
    tokens = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    changed = tokens.clone()
    changed[0, 3:] = 20
    with torch.no_grad():
        before, after = model.logits(tokens), model.logits(changed)
    assert torch.equal(before[1], after[1])
    torch.testing.assert_close(before[0, :3], after[0, :3])
    assert not torch.allclose(before[0, 3], after[0, 3])


def test_rotation_keeps_lengths_and_makes_scores_relative() -> None:
    rotary = RotaryEmbedding(8, 32, 10_000.0)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    rotated_q, rotated_k = (rotary(x.expand(1, 1, 32, 8))[0, 0] for x in (q, k))
    torch.testing.assert_close(rotated_q.norm(dim=-1), q.norm().expand(32))
    scores = rotated_q @ rotated_k.T
    torch.testing.assert_close(scores[3, 1], scores[20, 18])
    torch.testing.assert_close(scores.diagonal(), (q * k).sum().expand(32), rtol=1e-4, atol=1e-5)


def test_more_key_value_heads_than_needed_change_nothing() -> None:
    """Grouped attention equals full attention whose key/value heads are repeated."""
    grouped = Attention(CONFIG).double()
    full = Attention(ModelConfig(**{**vars(CONFIG), "num_kv_heads": 4})).double()
    with torch.no_grad():
        for name in ("q_proj", "o_proj"):
            getattr(full, name).weight.copy_(getattr(grouped, name).weight)
        for name in ("k_proj", "v_proj"):
            weight = getattr(grouped, name).weight.view(2, 6, 24).repeat_interleave(2, dim=0).reshape(24, 24)
            getattr(full, name).weight.copy_(weight)
    rotary = RotaryEmbedding(6, 16, 100.0)
    x = torch.randn(2, 5, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(grouped(x, rotary), full(x, rotary))


def test_swiglu_by_hand() -> None:
    layer = FeedForward(ModelConfig(**{**vars(CONFIG), "dim": 1, "hidden_dim": 1, "num_heads": 1}))
    with torch.no_grad():
        for linear, value in ((layer.gate_proj, 2.0), (layer.up_proj, 3.0), (layer.down_proj, 5.0)):
            linear.weight.fill_(value)
        found = layer(torch.tensor([1.0])).item()
    assert found == pytest.approx(5 * 3 * 2 / (1 + math.exp(-2)))


def test_initial_weights_depend_on_the_seed_only() -> None:
    first, again, other = (Decoder(CONFIG) for _ in range(3))
    torch.manual_seed(99)
    first.initialize(1)
    torch.manual_seed(7)
    again.initialize(1)
    other.initialize(2)
    state = first.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    assert not torch.equal(other.embed_tokens.weight, first.embed_tokens.weight)


def test_the_initial_loss_is_that_of_a_uniform_guess() -> None:
    model = Decoder(CONFIG)
    model.initialize(0)
    tokens = torch.randint(50, (8, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model.logits(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(50), abs=0.05)


@pytest.mark.parametrize(("name", "millions"), [("124m", 124), ("350m", 350), ("1.3b", 1300)])
def test_presets_have_the_size_in_their_name(name: str, millions: int) -> None:
    shape = {
        k: v for k, v in vars(PRESETS[name]).items() if k not in ("sequence_length", "batch_size", "learning_rate")
    }
    with torch.device("meta"):
        model = Decoder(ModelConfig(vocab_size=50_304, max_positions=2048, **shape))
    assert model.num_parameters() / 1e6 == pytest.approx(millions, rel=0.07)
