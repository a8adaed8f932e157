"""One step against plain cross-entropy over all logits: gradients and sums, weights known before the losses or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import trainer.step
from trainer.config import TrainConfig
from trainer.data.loader import Batch
from trainer.initial import initial_model
from trainer.loss import Objective
from trainer.model.attention import Documents
from trainer.model.decoder import Decoder
from trainer.parallel.ranks import Ranks
from trainer.parallel.spread import SpreadModel
from trainer.step import Forward, Sums, accumulate, label_counts, parts_of

MakeConfig = Callable[..., TrainConfig]
CPU = torch.device("cpu")
LENGTH, NUM_DOMAINS = 64, 4
MULTIPLIERS = np.array([0.5, 3.0, 1.0, 2.0])


@pytest.fixture
def config(make_config: MakeConfig) -> TrainConfig:
    config = make_config()
    return replace(config, loss=replace(config.loss, chunk_tokens=48))


def make_batch() -> Batch:
    """Five rows of three domains (the last but one is absent), of two documents each; a row without any label."""
    generator = torch.Generator().manual_seed(1)
    labels = (torch.rand(5, LENGTH, generator=generator) < 0.8).to(torch.uint8)
    labels[3] = 0
    return Batch(
        tokens_bt=torch.randint(257, (5, LENGTH + 1), generator=generator, dtype=torch.int32),
        labels_bt=labels,
        num_labels_b=labels.sum(1, dtype=torch.int64),
        documents=Documents((torch.arange(LENGTH) // 40).expand(5, -1)),
        domains_b=torch.tensor([3, 0, 3, 1, 0]),
        rows_b=torch.arange(5),
    )


def plain(model: Decoder, batch: Batch) -> tuple[torch.Tensor, Sums]:
    """The objective, and the sums of domains by loops."""
    logits = model.logits(batch.tokens_bt[:, :-1].long(), batch.documents)
    losses_bt = F.cross_entropy(logits.transpose(1, 2), batch.tokens_bt[:, 1:].long(), reduction="none")
    counted = batch.labels_bt.bool()
    sums = np.zeros((3, NUM_DOMAINS))
    row_losses = []
    total = torch.zeros(())
    for row, domain in enumerate(batch.domains_b.tolist()):
        losses = losses_bt[row][counted[row]]
        total = total + losses.sum() * MULTIPLIERS[domain]
        values = losses.detach().double()
        sums[:, domain] += [values.sum(), len(values), values.square().sum()]
        row_losses.append(values.mean() if len(values) else 0.0)
    return total / counted.sum(), Sums(*sums, np.array(row_losses))


def gradients(model: Decoder) -> list[torch.Tensor]:
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    return found


def assert_same_sums(found: Sums, expected: Sums) -> None:
    for name, values in vars(expected).items():
        np.testing.assert_allclose(vars(found)[name], values, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("known", [False, True])
def test_gradients_and_sums_are_those_of_plain_cross_entropy(config: TrainConfig, known: bool) -> None:
    model, batch = initial_model(config), make_batch()
    total, expected = plain(model, batch)
    total.backward()
    wanted = gradients(model)
    objective = Objective(MULTIPLIERS, float(label_counts(batch, NUM_DOMAINS).sum()))
    forward = Forward(model, batch, config, CPU, objective if known else None)
    assert_same_sums(forward.sums(NUM_DOMAINS), expected)
    assert forward.sums(NUM_DOMAINS).weighted_loss(MULTIPLIERS) == pytest.approx(total.item(), rel=1e-5)
    forward.backward(objective)
    for value, other in zip(gradients(model), wanted, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("num_parts", [1, 2, 3, 9])
def test_parts_of_a_step_add_up(config: TrainConfig, num_parts: int) -> None:
    model, batch = initial_model(config), make_batch()
    total, expected = plain(model, batch)
    total.backward()
    wanted = gradients(model)
    objective = Objective(MULTIPLIERS, float(label_counts(batch, NUM_DOMAINS).sum()))
    in_parts = replace(config, accumulate=num_parts)
    assert_same_sums(accumulate(SpreadModel(model, "ddp", Ranks(CPU)), batch, in_parts, objective), expected)
    for value, other in zip(gradients(model), wanted, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-6)


def test_parts_are_the_rows_in_order() -> None:
    batch = make_batch()
    for num_parts, sizes in ((2, [2, 3]), (4, [1, 1, 1, 2]), (7, [1] * 5)):
        parts = parts_of(batch, num_parts)
        assert [len(part.rows_b) for part in parts] == sizes
        assert torch.equal(torch.cat([part.documents.index_bt for part in parts]), batch.documents.index_bt)
        for name in ("tokens_bt", "labels_bt", "num_labels_b", "domains_b", "rows_b"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))


@pytest.mark.parametrize(("known", "wanted"), [(False, "token_losses"), (True, "weighted_token_losses")])
def test_weights_that_are_known_save_a_product(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, known: bool, wanted: str
) -> None:
    used: list[str] = []
    for name in ("token_losses", "weighted_token_losses"):
        real = getattr(trainer.step, name)
        monkeypatch.setattr(
            trainer.step, name, lambda *a, name=name, real=real, **o: used.append(name) or real(*a, **o)
        )
    Forward(initial_model(config), make_batch(), config, CPU, Objective(MULTIPLIERS, 100.0) if known else None)
    assert used == [wanted]
