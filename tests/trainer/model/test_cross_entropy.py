"""Chunked cross-entropy against PyTorch's own, in values, gradients, precision and memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import trainer.model.cross_entropy
from trainer.model.cross_entropy import (
    IGNORED,
    default_chunk_tokens,
    default_kept_bytes,
    token_losses,
    weighted_token_losses,
)

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
GENERATOR_SEED = 0


def inputs(num_tokens: int = 7, dim: int = 5, vocab_size: int = 11, dtype: torch.dtype = torch.float64) -> Inputs:
    """Hidden states, output weights, labels of which two are ignored, weights of tokens."""
    generator = torch.Generator().manual_seed(GENERATOR_SEED)
    hidden = torch.randn(num_tokens, dim, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocab_size, dim, generator=generator, dtype=dtype, requires_grad=True)
    labels = torch.randint(vocab_size, (num_tokens,), generator=generator)
    labels[[1, 4]] = IGNORED
    return hidden, weight, labels, torch.rand(num_tokens, generator=generator, dtype=dtype)


def plain(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(hidden @ weight.T, labels, reduction="none", ignore_index=IGNORED)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("chunk_tokens", [1, 3, 7, 100])
def test_losses_and_gradients_equal_plain_cross_entropy(chunk_tokens: int, dtype: torch.dtype) -> None:
    hidden, weight, labels, scale = inputs(dtype=dtype)
    expected = plain(hidden, weight, labels)
    gradients = torch.autograd.grad((expected * scale).sum(), [hidden, weight])
    found = token_losses(hidden, weight, labels, chunk_tokens)
    torch.testing.assert_close(found, expected)
    for gradient, other in zip(torch.autograd.grad((found * scale).sum(), [hidden, weight]), gradients, strict=True):
        torch.testing.assert_close(gradient, other)
    total, losses = weighted_token_losses(hidden, weight, labels, scale, chunk_tokens)
    torch.testing.assert_close(losses, expected.detach())
    torch.testing.assert_close(total, (expected * scale).sum())
    for gradient, other in zip(torch.autograd.grad(total / 3, [hidden, weight]), gradients, strict=True):
        torch.testing.assert_close(gradient, other / 3)
    assert not losses.requires_grad
    assert losses[[1, 4]].tolist() == [0, 0]


def test_the_gradient_is_that_of_small_differences() -> None:
    hidden, weight, labels, scale = inputs()
    assert torch.autograd.gradcheck(lambda h, w: token_losses(h, w, labels, 2).square() * scale, (hidden, weight))
    assert torch.autograd.gradcheck(lambda h, w: weighted_token_losses(h, w, labels, scale, 2)[0], (hidden, weight))


def test_weights_may_follow_from_the_losses() -> None:
    """Same-step reweighting: what a token weighs is known only after all losses are, and enters the backward pass."""
    hidden, weight, labels, _ = inputs()
    found = token_losses(hidden, weight, labels, 3)
    expected = plain(hidden, weight, labels)
    pairs = [(losses * losses.detach().softmax(0)).sum() for losses in (found, expected)]
    for gradient, other in zip(*(torch.autograd.grad(loss, [hidden, weight]) for loss in pairs), strict=True):
        torch.testing.assert_close(gradient, other)


@pytest.mark.parametrize("which", [0, 1])
def test_what_needs_no_gradient_gets_none(which: int) -> None:
    hidden, weight, labels, scale = inputs()
    frozen = [hidden, weight][which].requires_grad_(False)
    token_losses(hidden, weight, labels, 3).sum().backward()
    weighted_token_losses(hidden, weight, labels, scale, 3)[0].backward()
    assert frozen.grad is None
    assert [hidden, weight][1 - which].grad is not None
    with torch.no_grad():
        assert not weighted_token_losses(hidden, weight, labels, scale, 3)[0].requires_grad


class Products(TorchDispatchMode):
    """Counts products of matrices."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm_)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("kept_chunks", "products"), [(0, 12), (1, 11), (2, 10), (99, 9)])
def test_kept_logits_save_a_product_and_change_no_bit(kept_chunks: int, products: int) -> None:
    """Of three chunks one product each forward; backward two, and a third where logits are made again."""
    hidden, weight, labels, scale = inputs(num_tokens=9, dtype=torch.float32)

    def gradients(kept_bytes: int) -> tuple[torch.Tensor, ...]:
        losses = token_losses(hidden, weight, labels, 3, kept_bytes=kept_bytes)
        first = torch.autograd.grad(losses, [hidden, weight], scale, retain_graph=True)
        second = torch.autograd.grad(losses, [hidden, weight], scale)  # kept ones are gone: made again
        return losses, *first, *second

    expected = gradients(0)
    with Products() as counted:
        found = gradients(kept_chunks * 3 * 11 * 4)
    assert counted.count == products + 9
    assert all(map(torch.equal, found, expected))


def test_without_gradients_nothing_is_kept_and_none_are_computed() -> None:
    hidden, weight, labels, scale = inputs(num_tokens=9)
    with torch.no_grad(), Products() as counted:
        losses = token_losses(hidden, weight, labels, 3, kept_bytes=1 << 20)
        total, _ = weighted_token_losses(hidden, weight, labels, scale, 3)
    assert counted.count == 6
    assert not losses.requires_grad and not total.requires_grad


def both_ways(options: dict[str, Any]) -> list[torch.Tensor]:
    hidden, weight, labels, scale = inputs(dtype=torch.float32)
    losses = token_losses(hidden, weight, labels, 3, kept_bytes=100, **options)
    total, same_losses = weighted_token_losses(hidden, weight, labels, scale, 3, **options)
    gradients = torch.autograd.grad(losses, [hidden, weight], scale), torch.autograd.grad(total, [hidden, weight])
    return [losses, same_losses, *gradients[0], *gradients[1]]


def test_a_vocabulary_filled_up_to_a_multiple_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done on GPUs, whose products want even widths: 11 columns become 16."""
    expected = both_ways({})
    real = trainer.model.cross_entropy._Output
    monkeypatch.setattr("trainer.model.cross_entropy._Output", lambda weight, dtype: real(weight, dtype, multiple=8))
    widths: list[int] = []
    logsumexp = torch.logsumexp
    monkeypatch.setattr(torch, "logsumexp", lambda x, dim: widths.append(x.shape[1]) or logsumexp(x, dim=dim))
    found = both_ways({})
    assert set(widths) == {16}
    for value, other in zip(found, expected, strict=True):
        assert value.shape == other.shape
        torch.testing.assert_close(value, other)


def test_compiled_chunks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a compiler that traces and generates no code, which would take it half a minute."""
    expected = both_ways({})
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compiled(function, backend="aot_eager", fullgraph=True))
    trainer.model.cross_entropy._functions.cache_clear()
    try:
        found = both_ways({"compiled": True})
    finally:
        trainer.model.cross_entropy._functions.cache_clear()
    for value, other in zip(found, expected, strict=True):
        torch.testing.assert_close(value, other)


def test_weights_in_bfloat16_get_a_gradient_summed_in_float32() -> None:
    """A thousand equal contributions: in bfloat16 a sum stops growing once it is some hundred times what is added."""
    hidden = torch.full((1024, 1), 0.5, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    labels = torch.zeros(1024, dtype=torch.int64)
    token_losses(hidden, weight, labels, 1).sum().backward()
    assert weight.grad.dtype == torch.bfloat16
    assert weight.grad.flatten().tolist() == [-256.0, 256.0]  # 1024 tokens, softmax - one-hot = ∓ 0.5, hidden 0.5


def test_sizes_by_default() -> None:
    assert default_chunk_tokens(50_304, torch.device("cpu")) == 256
    assert default_chunk_tokens(50_304, torch.device("cuda")) == 4096
    assert default_chunk_tokens(128_256, torch.device("cuda")) == 2048
    assert default_chunk_tokens(10_000_000, torch.device("cuda")) == 256
    assert default_kept_bytes(torch.device("cpu")) == 1 << 28


def test_only_ignored_labels_and_no_tokens_at_all() -> None:
    hidden, weight, labels, scale = inputs()
    total, losses = weighted_token_losses(hidden, weight, torch.full_like(labels, IGNORED), scale, 3)
    total.backward()
    assert not losses.any() and not weight.grad.any() and not hidden.grad.any()
    assert token_losses(hidden[:0], weight, labels[:0], 3).shape == (0,)


def test_extreme_logits_stay_finite() -> None:
    hidden, weight, labels, scale = inputs(dtype=torch.float32)
    with torch.no_grad():
        hidden *= 1e4
    total, losses = weighted_token_losses(hidden, weight, labels, scale, 3)
    total.backward()
    torch.testing.assert_close(losses, plain(hidden, weight, labels).detach())
    assert hidden.grad.isfinite().all() and weight.grad.isfinite().all()


@pytest.mark.parametrize("function", [token_losses, weighted_token_losses])
def test_autocast_multiplies_in_bfloat16_and_sums_in_float32(function: Callable[..., Any]) -> None:
    hidden, weight, labels, scale = inputs(64, 32, 50, torch.float32)
    extra = () if function is token_losses else (scale,)
    results = []
    for enabled in (False, True):
        hidden.grad = weight.grad = None
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled), Recorder() as recorder:
            out = function(hidden, weight, labels, *extra, 16)
        losses = out if function is token_losses else out[1]
        (out * scale if function is token_losses else out[0]).sum().backward()
        assert losses.dtype == hidden.grad.dtype == weight.grad.dtype == torch.float32
        assert (torch.bfloat16 in recorder.dtypes) == enabled
        results.append((losses.detach(), hidden.grad, weight.grad))
    for exact, rounded in zip(*results, strict=True):
        assert not torch.equal(exact, rounded)
        assert (exact - rounded).norm() < 0.02 * exact.norm()


class Recorder(TorchDispatchMode):
    """Notes the dtypes of all results, and of the largest how many numbers it holds; weights' own size is left out."""

    def __init__(self, ignore: torch.Size | None = None) -> None:
        super().__init__()
        self.largest, self.ignore, self.dtypes = 0, ignore, set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(value, torch.Tensor) and value.shape != self.ignore:
                self.largest = max(self.largest, value.numel())
                self.dtypes.add(value.dtype)
        return out


@pytest.mark.parametrize("function", [token_losses, weighted_token_losses, plain])
def test_no_tensor_is_larger_than_one_chunk_of_logits(function: Callable[..., Any]) -> None:
    """Forward and backward; the plain computation, run likewise, does make all logits."""
    num_tokens, dim, vocab_size, chunk_tokens = 96, 4, 1000, 8
    hidden, weight, labels, scale = inputs(num_tokens, dim, vocab_size, torch.float32)
    extra = {token_losses: (chunk_tokens,), weighted_token_losses: (scale, chunk_tokens), plain: ()}[function]
    with Recorder(ignore=weight.shape) as recorder:
        out = function(hidden, weight, labels, *extra)
        (out[0] if isinstance(out, tuple) else out).sum().backward()
    assert recorder.largest == (num_tokens if function is plain else chunk_tokens) * vocab_size


@pytest.mark.parametrize("function", [token_losses, weighted_token_losses])
def test_what_is_kept_for_the_backward_pass_does_not_grow_with_the_vocabulary(function: Callable[..., Any]) -> None:
    hidden, weight, labels, scale = inputs(96, 4, 1000, torch.float32)
    saved: list[torch.Size] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        function(hidden, weight, labels, *(() if function is token_losses else (scale,)), 8)
    assert set(saved) <= {hidden.shape, weight.shape, labels.shape}


def test_deterministic_mode_is_respected() -> None:
    hidden, weight, labels, scale = inputs(64, 8, 40, torch.float32)
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (
            torch.autograd.grad((token_losses(hidden, weight, labels, 16) * scale).sum(), [hidden, weight])
            for _ in range(2)
        )
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, first, second))
