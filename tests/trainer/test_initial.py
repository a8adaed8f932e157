"""Compiled runs: one graph for all layers, whatever the documents of a batch are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from trainer.config import TrainConfig
from trainer.initial import initial_model
from trainer.model import attention
from trainer.model.attention import Documents
from trainer.model.decoder import Decoder

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounterWithBackend]:
    """Counts graphs; traces forward and backward without generating code, which would take minutes."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    real = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: real(module, backend=counter, fullgraph=True))
    yield counter
    torch._dynamo.reset()


def gradients(model: Decoder, documents: Documents | None, autocast: bool = False) -> list[torch.Tensor]:
    tokens = torch.randint(257, (2, 32), generator=torch.Generator().manual_seed(5))
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        model(tokens, documents).float().square().mean().backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def layout(*lengths: int) -> torch.Tensor:
    """Documents of these lengths, again and again, in each of two rows of 32 tokens."""
    numbers = torch.arange(64).repeat_interleave(torch.tensor(lengths * 64)[:64])
    return numbers[:32].expand(2, -1)


@pytest.mark.parametrize("recompute_every", [0, 2])
def test_layers_share_one_graph_that_computes_the_same(
    make_config: MakeConfig, compiler: CompileCounterWithBackend, recompute_every: int
) -> None:
    config = make_config(compile=True, recompute_every=recompute_every)
    compiled, plain = initial_model(config), initial_model(replace(config, compile=False))
    assert len(compiled.layers) > 2
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    for lengths in ((32,), (5, 9), (1, 2, 3)):
        documents = Documents(layout(*lengths))
        for value, other in zip(gradients(compiled, documents), gradients(plain, documents), strict=True):
            torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-7)
    assert compiler.frame_count == 1


def test_the_boundaries_of_documents_are_not_compiled_in(
    make_config: MakeConfig, compiler: CompileCounterWithBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU layers get as many boundaries as the batch has: a second graph is for any number of them."""

    def varlen(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, begins: torch.Tensor, *rest: object) -> torch.Tensor:
        return q + k + v * begins.diff().to(q.dtype).mean()

    monkeypatch.setattr(attention, "varlen_attention", lambda: (lambda *a, **o: varlen(*a), True))
    monkeypatch.setattr(attention, "BOUNDARY_MULTIPLE", 4)
    config = make_config(compile=True)
    shape = replace(config.model, num_kv_heads=config.model.num_heads)
    model = initial_model(replace(config, model=shape))
    sizes = set()
    for lengths in ((32,), (5, 9), (1, 2), (3, 4), (1, 1, 2), (16,)):
        documents = attention.with_boundaries(Documents(layout(*lengths)))
        sizes.add((len(documents.boundaries), documents.max_length))
        gradients(model, documents, autocast=True)
    assert len(sizes) == 6
    assert compiler.frame_count <= 3
