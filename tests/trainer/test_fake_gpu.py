"""A training step on a GPU that does not exist: devices, dtypes, shapes, and what the CPU waits for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from dataeng.formats.mixture import load_mixture
from tests.trainer.fake_gpu import GPU, Event, Watch, engine_in_python, fake_gpu, memory_is_pinned
from trainer.config import TrainConfig
from trainer.evaluation.held_out import score
from trainer.model.decoder import Decoder
from trainer.model.lora import add_lora
from trainer.model.presets import LoraConfig
from trainer.optimizer.optimizers import Optimizers
from trainer.parallel.ranks import Ranks
from trainer.run import Run
from trainer.watching.progress import SilentWatcher

MakeConfig = Callable[..., TrainConfig]
VARLEN = "torch_attn._varlen_attn"
NORM = "a number is read: spread.py: norm = float(whole(nn.utils.clip_grad_norm_(self.model.parameters(), max_norm)))"


def fake_model(config: TrainConfig) -> Decoder:
    with GPU:
        model = Decoder(config.model, config.recompute_every)
        if config.lora is not None:
            add_lora(model, config.lora, 0)
    return model


@pytest.fixture
def take_step(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Watch, Run]]:
    """Returns ``take_step(**options)``: one whole step of a run with a single layer."""
    monkeypatch.setattr("trainer.run.initial_model", fake_model)

    def take(
        capability: tuple[int, int] = (9, 0), lora: LoraConfig | None = None, **options: object
    ) -> tuple[Watch, Run]:
        if lora is not None:
            import peft  # noqa: F401 - makes a tensor at import, which is not to be a fake
        config = make_config(device="cpu", **{"update_ratio_every": 0, "sequence_length": 32, **options})
        config = replace(config, model=replace(config.model, num_layers=1), lora=lora)
        with fake_gpu(capability):
            run = Run(config, load_mixture(config.mixture), Ranks(GPU))
            Event.waits = 0
            with memory_is_pinned(), run.loader, run.saver, Watch() as watch:
                run.train_step(1, SilentWatcher())
        return watch, run

    return take


def is_float32(optimizer: Optimizers) -> bool:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments = [
        value
        for part in optimizer.parts
        for state in part.state.values()
        for name, value in state.items()
        if name != "step"
    ]
    held = [*parameters, *(p.grad for p in parameters), *moments]
    return {(x.dtype, x.device) for x in held} == {(torch.float32, GPU)} and len(held) > 2 * len(parameters)


@pytest.mark.parametrize(
    ("options", "uses_varlen", "num_events"),
    [
        ({}, True, 1),
        (
            {
                "qk_norm": True, "rope_scaling": "yarn:4", "tied_embeddings": False, "recompute_every": 1,
                "accumulate": 2, "optimizer": "muon",
            },
            True,
            2,
        ),
        ({"capability": (7, 5), "optimizer": "lion", "reweighting": "none"}, False, 1),
        ({"document_mask": False}, False, 1),
        ({"lora": LoraConfig(rank=2, alpha=4.0, targets=("q_proj", "up_proj"))}, True, 1),
    ],
    ids=["plain", "all-options", "old-gpu", "no-documents", "lora"],
)  # fmt: skip
def test_a_step_computes_in_bfloat16_and_waits_for_losses_and_norm_only(
    take_step: Callable[..., tuple[Watch, Run]], options: dict[str, object], uses_varlen: bool, num_events: int
) -> None:
    watch, run = take_step(**options)
    assert watch.waits == [NORM]
    assert Event.waits == num_events  # one for each part, all of them after the last part was given to the GPU
    assert (VARLEN in watch.operations) == (f"{VARLEN}_backward" in watch.operations) == uses_varlen
    if uses_varlen:
        ((*inputs, begins, same),) = watch.dtypes[VARLEN]
        assert set(inputs) == {torch.bfloat16} and begins == same == torch.int32
    for product in ("aten.mm", "aten.addmm"):
        assert {dtype for dtypes in watch.dtypes[product] for dtype in dtypes} <= {torch.bfloat16}, product
    assert watch.operations["aten.mm"] > 14
    assert is_float32(run.optimizer)


def test_the_update_ratio_reads_two_numbers_more(take_step: Callable[..., tuple[Watch, Run]]) -> None:
    watch, _ = take_step(update_ratio_every=1)
    norm, *others = watch.waits
    assert norm == NORM
    assert others == 2 * ["a number is read: update_ratio.py: return float(norms.double().square().sum())"]


def test_held_out_losses(take_step: Callable[..., tuple[Watch, Run]]) -> None:
    _, run = take_step()
    with fake_gpu(), torch.no_grad(), Watch() as watch:
        assert len(score(run.model, run.rows, 100, GPU)) == 3
    assert watch.operations[VARLEN] > 0


def test_faults_are_found() -> None:
    with fake_gpu(), Watch() as watch:
        one = torch.ones(2, device=GPU)
        with pytest.raises(RuntimeError, match="same device"):
            one + torch.ones(2)
        float(one.sum())
        one.cpu()
        torch.ones(2).to(GPU)
        torch.ones(2).to(GPU, non_blocking=True)
    assert [what.partition(":")[0] for what in watch.waits] == [
        "a number is read", "aten._to_copy ['cuda', 'cpu']", "aten._to_copy ['cpu', 'cuda']"
    ]  # fmt: skip


@pytest.mark.parametrize("recompute_every", [0, 1])
def test_the_engine_in_python_does_what_the_engine_does(make_config: MakeConfig, recompute_every: int) -> None:
    shape = replace(make_config(qk_norm=True).model, num_layers=2)
    model = Decoder(shape, recompute_every)
    model.initialize(0)
    tokens = torch.arange(16).view(2, 8)
    found = []
    for engine in (None, engine_in_python):
        model.zero_grad()
        loss = model(tokens).square().mean() + model.norm.weight.sum()
        if engine is None:
            loss.backward()
        else:
            with engine():
                loss.backward()
        found.append([parameter.grad for parameter in model.parameters()])
    for value, other in zip(*found, strict=True):
        torch.testing.assert_close(value, other)
