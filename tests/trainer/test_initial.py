"""Compiled runs: one graph for all layers, whatever the documents of a batch are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.distributed.fsdp import fully_shard

from tests.trainer import varlen_on_cpu
from trainer.config import TrainConfig
from trainer.device import reproducible
from trainer.initial import compile_layers, initial_model
from trainer.model import attention
from trainer.model.attention import Documents
from trainer.model.decoder import Decoder
from trainer.model.presets import ModelConfig

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture
def compiler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounterWithBackend]:
    """Counts graphs; traces forward and backward without generating code, which would take minutes."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(getattr(request, "param", "aot_eager"))
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


def with_boundaries(*lengths: int) -> Documents:
    return attention.with_boundaries(Documents(layout(*lengths)))


def test_attention_for_gpus_is_compiled_once_for_any_documents(
    make_config: MakeConfig, compiler: CompileCounterWithBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's varlen attention in compiled layers equals the mask; a second graph is for any number of documents."""
    varlen_on_cpu.register()
    monkeypatch.setattr(attention, "BOUNDARY_MULTIPLE", 4)
    config = make_config(compile=True, qk_norm=True, recompute_every=2)
    config = replace(config, model=replace(config.model, num_layers=2))
    compiled, plain = initial_model(config), initial_model(replace(config, compile=False))
    sizes = set()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Dynamo")  # of what it does not follow
        for lengths in ((32,), (5, 9), (1, 2), (3, 4), (1, 1, 2), (16,)):
            documents = with_boundaries(*lengths)
            sizes.add((len(documents.boundaries), documents.max_length))
            found = gradients(compiled, documents, autocast=True)
            expected = gradients(plain, Documents(documents.index_bt), autocast=True)
            for value, other in zip(found, expected, strict=True):
                assert (value - other).norm() <= 0.03 * other.norm()
    assert len(sizes) == 6
    assert compiler.frame_count <= 3


@pytest.mark.parametrize("compiler", ["eager"], indirect=True)
def test_batches_of_any_size_stay_below_the_limit_of_graphs(
    compiler: CompileCounterWithBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With frozen embeddings (LoRA) as well: beyond PyTorch's limit it would go on without compiling."""
    varlen_on_cpu.register()
    monkeypatch.setattr(attention, "BOUNDARY_MULTIPLE", 4)
    shape = ModelConfig(
        vocab_size=8, dim=16, num_layers=2, num_heads=2, num_kv_heads=1, hidden_dim=16, max_positions=32
    )
    model = Decoder(shape)
    model.initialize(0)
    model.embed_tokens.weight.requires_grad_(False)
    compile_layers(model)
    for num_rows, lengths in ((4, (32,)), (4, (5, 9)), (4, (1, 2)), (2, (16,)), (3, (4,)), (1, (7,)), (6, (2,))):
        documents = attention.with_boundaries(Documents(layout(*lengths)[:1].expand(num_rows, -1)))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(torch.zeros(num_rows, 32, dtype=torch.int64), documents).float().sum().backward()
    assert compiler.frame_count <= 4 < torch._dynamo.config.recompile_limit


@pytest.mark.parametrize("compiler", ["eager"], indirect=True)
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_layers_stay_whole_where_ranks_share_the_model(
    make_config: MakeConfig, compiler: CompileCounterWithBackend, kind: str
) -> None:
    """For DDP, PyTorch would cut a layer of more than a bucket of gradients (1 MiB, the first) into several graphs."""
    config = make_config(compile=True)
    model = initial_model(replace(config, model=replace(config.model, num_layers=1, hidden_dim=1024)))
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        if kind == "ddp":
            spread: nn.Module = nn.parallel.DistributedDataParallel(model)
        else:
            fully_shard(model.layers[0])
            spread = fully_shard(model)
        with reproducible(config, torch.device("cpu")):
            spread(torch.zeros(1, 32, dtype=torch.int64)).sum().backward()
    finally:
        dist.destroy_process_group()
    assert compiler.frame_count == 1
