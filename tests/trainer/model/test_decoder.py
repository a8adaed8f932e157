"""The decoder against a slow reference written out with plain loops, and its invariants."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trainer.model.attention import documents_of
from trainer.model.decoder import Attention, Decoder, FeedForward
from trainer.model.presets import ModelConfig
from trainer.model.rotary import rotary_tables

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
    rotary = rotary_tables(CONFIG, torch.arange(5)[None], 5)
    x = torch.randn(2, 5, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(grouped(x, rotary), full(x, rotary))


def test_swiglu_by_hand() -> None:
    layer = FeedForward(ModelConfig(**{**vars(CONFIG), "dim": 2, "hidden_dim": 1, "num_heads": 1, "num_kv_heads": 1}))
    with torch.no_grad():
        for linear, value in ((layer.gate_proj, 2.0), (layer.up_proj, 3.0), (layer.down_proj, 5.0)):
            linear.weight.fill_(value)
        found = layer(torch.tensor([0.25, 0.75])).tolist()
    assert found == pytest.approx([5 * 3 * 2 / (1 + math.exp(-2))] * 2)


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


DOCUMENTS = [[0, 0, 0, 1, 1, 2, 2, 2, 2, 2], [0, 1, 1, 1, 1, 1, 1, 1, -1, -1]]


@pytest.mark.parametrize("variant", [{}, {"qk_norm": True, "head_size": 8}, {"qkv_bias": True}])
def test_a_packed_document_is_computed_as_if_it_were_alone(variant: dict[str, object]) -> None:
    model = random_decoder(ModelConfig(**{**vars(CONFIG), **variant}))
    tokens = torch.randint(50, (2, 10), generator=torch.Generator().manual_seed(3))
    index = torch.tensor(DOCUMENTS)
    with torch.no_grad():
        packed = model(tokens, documents_of(index, torch.device("cpu")))
        for row, numbers in enumerate(DOCUMENTS):
            for number in {n for n in numbers if n >= 0}:
                chosen = index[row] == number
                alone = model(tokens[row, chosen][None])[0]
                torch.testing.assert_close(packed[row, chosen], alone)
    assert packed.isfinite().all()


def test_without_documents_a_row_is_one_document() -> None:
    model, tokens = random_decoder(), torch.arange(20).view(2, 10)
    whole = documents_of(torch.zeros(2, 10, dtype=torch.int64), torch.device("cpu"))
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), model(tokens, whole))


def gradients(model: Decoder, documents: bool) -> dict[str, torch.Tensor]:
    tokens = torch.randint(50, (2, 10), generator=torch.Generator().manual_seed(5))
    found = documents_of(torch.tensor(DOCUMENTS), torch.device("cpu")) if documents else None
    model.zero_grad()
    model(tokens, found).square().mean().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("every", [1, 2])
def test_recomputed_layers_give_the_same_gradients(every: int, documents: bool) -> None:
    model = Decoder(CONFIG)
    model.initialize(0)
    calls: list[int] = []
    for layer in model.layers:
        layer.self_attn.register_forward_hook(lambda *_: calls.append(1))
    expected = gradients(model, documents)
    assert len(calls) == 2
    model.recompute_every = every
    found = gradients(model, documents)
    assert len(calls) == 2 + 2 + 2 // every  # so many layers ran twice
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.parametrize(("backend", "every", "documents"), [("eager", 0, False), ("aot_eager", 1, True)])
def test_the_model_compiles_as_one_graph(backend: str, every: int, documents: bool) -> None:
    """``aot_eager`` traces forward and backward as the compiler would, without its minutes of code generation."""
    shape = ModelConfig(**{**vars(CONFIG), "num_layers": 1, "qk_norm": documents})
    plain, compiled = Decoder(shape), Decoder(shape, recompute_every=every)
    for model in (plain, compiled):
        model.initialize(0)
    compiled.compile(backend=backend, fullgraph=True)
    expected, found = gradients(plain, documents), gradients(compiled, documents)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-7)


def test_autocast_computes_in_bfloat16_and_keeps_float32_weights() -> None:
    model = Decoder(ModelConfig(**{**vars(CONFIG), "qk_norm": True}))
    model.initialize(0)
    seen: list[torch.dtype] = []
    model.layers[0].mlp.down_proj.register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))
    tokens = torch.arange(20).view(2, 10)
    expected = model(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(tokens)
        found.square().mean().backward()
    assert seen == [torch.float32, torch.bfloat16]
    assert {p.dtype for p in model.parameters()} == {p.grad.dtype for p in model.parameters()} == {torch.float32}
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)


def test_a_head_is_applied_within_the_forward_pass() -> None:
    model = random_decoder()
    tokens = torch.arange(10).view(1, 10)
    with torch.no_grad():
        found = model(tokens, head=lambda hidden, weight: hidden @ weight.T)
        assert torch.equal(found, model.logits(tokens))


def test_a_model_from_the_meta_device_is_whole_once_it_has_weights() -> None:
    model = random_decoder()
    with torch.device("meta"):
        empty = Decoder(CONFIG)
    empty.to_empty(device="cpu").double().load_state_dict(model.state_dict())
    tokens = torch.arange(10).view(1, 10)
    with torch.no_grad():
        assert torch.equal(empty(tokens), model(tokens))


def test_biases_start_at_zero() -> None:
    model = Decoder(ModelConfig(**{**vars(CONFIG), "qkv_bias": True}))
    model.initialize(0)
    found = {name: parameter for name, parameter in model.named_parameters() if name.endswith(".bias")}
    assert len(found) == 6
    assert all(not parameter.any() for parameter in found.values())
