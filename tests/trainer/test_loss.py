"""Per-domain losses and the weighted loss, by hand, against PyTorch's own, and for bias."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dataeng.mixture.policies import capped_shares
from trainer.data.sampler import MixtureSampler, SampledDomain, SampledStage
from trainer.loss import Objective, domain_sums, loss_multipliers, row_sums


def weighted(losses: torch.Tensor, domains: torch.Tensor, multipliers: np.ndarray) -> torch.Tensor:
    """The objective of rows of one token each."""
    return (losses * Objective(multipliers, len(losses)).row_weights(domains)).sum()


def counts_of(domains: torch.Tensor, num_domains: int) -> np.ndarray:
    return domain_sums(np.ones(len(domains)), domains.numpy(), num_domains)


def test_row_and_domain_sums_by_hand() -> None:
    losses = torch.tensor([[1.0, 2.0], [4.0, 0.0], [8.0, 16.0]], requires_grad=True)
    sums = row_sums(losses)
    assert sums.tolist() == [[3.0, 4.0, 24.0], [5.0, 16.0, 320.0]]
    assert (sums.dtype, sums.requires_grad) == (torch.float64, False)
    assert domain_sums(sums[0].numpy(), np.array([2, 0, 2]), 4).tolist() == [4.0, 0.0, 27.0, 0.0]


def test_sums_of_many_small_losses_are_exact() -> None:
    """In float32 a sum of ten million stops taking in 0.1; here it is that of the float32 numbers."""
    losses = torch.full((1, 2_000_000), 0.1)
    losses[0, 0] = 1e7
    exact = 1e7 + 1_999_999 * float(losses[0, 1])
    assert row_sums(losses)[0].item() == pytest.approx(exact, rel=1e-12)


def test_planned_multipliers_are_weight_over_share_up_to_the_cap() -> None:
    weights, shares = np.array([0.2, 0.3, 0.5]), np.array([0.5, 0.45, 0.05])
    counts = np.array([5.0, 5.0, 0.0])
    found = loss_multipliers(weights, shares, counts, "planned", 4.0)
    assert found == pytest.approx([0.4, 2 / 3, 4.0])


def test_rows_of_the_next_stage_count_in_the_step_in_which_it_begins() -> None:
    shares = np.array([0.75, 0.25, 0.0])
    found = loss_multipliers(shares, shares, np.array([4.0, 2.0, 2.0]), "planned", 4.0)
    assert found.tolist() == [1.0, 1.0, 1.0]


def test_batch_multipliers_give_the_weighted_sum_of_domain_means() -> None:
    weights, shares = np.array([0.2, 0.3, 0.5]), np.array([0.4, 0.4, 0.2])
    losses, domains = torch.tensor([1.0, 3.0, 5.0, 7.0, 9.0, 2.0]), torch.tensor([0, 0, 1, 1, 1, 2])
    multipliers = loss_multipliers(weights, shares, counts_of(domains, 3), "batch", 4.0)
    assert weighted(losses, domains, multipliers).item() == pytest.approx(0.2 * 2 + 0.3 * 7 + 0.5 * 2)


def test_batch_multipliers_leave_out_absent_domains() -> None:
    losses, domains = torch.tensor([1.0, 3.0, 8.0]), torch.tensor([0, 0, 2])
    counts = counts_of(domains, 3)
    multipliers = loss_multipliers(np.array([0.2, 0.3, 0.6]), np.full(3, 1 / 3), counts, "batch", math.inf)
    assert weighted(losses, domains, multipliers).item() == pytest.approx(0.25 * 2 + 0.75 * 8)


def test_weights_that_a_softmax_rounded_to_zero_leave_a_step_without_objective() -> None:
    """Only domains of weight 0 are in it: nothing is learned, rather than not a number."""
    for normalization in ("planned", "batch"):
        found = loss_multipliers(
            np.array([0.0, 0.0, 1.0]), np.full(3, 1 / 3), np.array([5.0, 5.0, 0.0]), normalization, 4
        )
        assert found[:2].tolist() == [0.0, 0.0]


def test_weights_equal_to_shares_give_the_plain_mean() -> None:
    losses, domains = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0, 1, 0])
    shares = np.array([0.7, 0.3])
    multipliers = loss_multipliers(shares, shares, np.array([2.0, 1.0]), "planned", 4.0)
    assert weighted(losses, domains, multipliers).item() == pytest.approx(3.0)


def test_no_gradient_flows_into_the_weights() -> None:
    parameter = torch.tensor([0.5, 2.0], requires_grad=True)
    losses, domains = parameter**2, torch.tensor([0, 1])
    sums = domain_sums(row_sums(losses[:, None])[0].numpy(), domains.numpy(), 2)
    multipliers = loss_multipliers(sums / sums.sum(), np.array([0.5, 0.5]), counts_of(domains, 2), "planned", 10.0)
    (gradient,) = torch.autograd.grad(weighted(losses, domains, multipliers), [parameter])
    assert gradient.tolist() == pytest.approx([multipliers[0] * 0.5, multipliers[1] * 2.0])


def test_planned_shares_give_an_unbiased_gradient_where_batch_counts_do_not() -> None:
    """Batches of 2 tokens from two domains drawn with q = (0.9, 0.1). The target is Σ w_i ∇L_i with w = (0.4, 0.6).

    All four batches are enumerated with their probabilities, so the expectation is exact. The gradient of a token of
    domain i with respect to parameter i is 1.
    """
    shares, weights = np.array([0.9, 0.1]), np.array([0.4, 0.6])
    expected = {"planned": np.zeros(2), "batch": np.zeros(2)}
    for first in (0, 1):
        for second in (0, 1):
            probability = shares[first] * shares[second]
            domains = torch.tensor([first, second])
            for normalization in ("planned", "batch"):
                parameter = torch.zeros(2, requires_grad=True)
                losses = parameter[domains]
                multipliers = loss_multipliers(weights, shares, counts_of(domains, 2), normalization, math.inf)
                weighted(losses, domains, multipliers).backward()
                expected[normalization] += probability * parameter.grad.numpy()
    assert expected["planned"] == pytest.approx(weights)
    assert expected["batch"] != pytest.approx(weights, abs=0.1)


@pytest.mark.parametrize("rows_at_a_time", [1, 4, 64])
def test_random_draws_are_unbiased_on_average(rows_at_a_time: int) -> None:
    """Monte Carlo: rows drawn with q, of unlike numbers of labels. The mean gradient is Σ w ∇L, within its error."""
    random = np.random.default_rng(7)
    weights, row_shares = np.array([0.5, 0.2, 0.3]), np.array([0.1, 0.6, 0.3])
    labels_per_row = np.array([4, 8, 8])  # the others are padding
    shares = row_shares * labels_per_row / (row_shares * labels_per_row).sum()
    gradients = np.array([1.5, -2.0, 4.0])  # of each domain's loss
    multipliers = loss_multipliers(weights, shares, np.zeros(3), "planned", math.inf)
    found = []
    totals = []
    for _ in range(4000):
        drawn = np.bincount(random.choice(3, rows_at_a_time, p=row_shares), minlength=3)
        counts = drawn * labels_per_row
        found.append((multipliers * gradients * counts).sum())
        totals.append(counts.sum())
    # Steps of rows with unlike padding hold unlike numbers of labels: the mean is one over labels, as the loss is.
    per_step = np.array(found) / np.array(totals)
    estimate = np.average(per_step, weights=totals)
    deviation = np.sqrt(np.average((per_step - estimate) ** 2, weights=totals) / len(totals))
    assert abs(estimate - weights @ gradients) < 4 * deviation


def test_planned_multipliers_hold_their_objective_under_epoch_caps() -> None:
    """Caps shift what is drawn; multipliers follow what is drawn, and Σ w ∇L stays, over a whole run of weights."""
    capped = [SampledDomain(name="a", num_rows=40, max_rows=80), SampledDomain(name="b", num_rows=400)]
    wanted, capacities = np.array([0.5, 0.5]), np.array([80.0, math.inf])
    shares = capped_shares(wanted, capacities, 800.0)
    assert shares == pytest.approx([0.1, 0.9])
    sampler = MixtureSampler(capped, [SampledStage(shares=tuple(shares.tolist()))], 3)
    random = np.random.default_rng(3)
    gradients = np.array([2.0, -1.0])
    applied, intended = [], []
    for _ in range(100):
        counts = np.bincount(sampler.take(8)[0], minlength=2)
        weights = random.dirichlet([4.0, 4.0])
        multipliers = loss_multipliers(weights, shares, counts, "planned", math.inf)
        applied.append((multipliers * counts * gradients).sum() / counts.sum())
        intended.append(weights @ gradients)
    assert sampler.drawn.tolist() == [80, 720]
    error = np.std(np.array(applied) - intended) / 10
    assert abs(np.mean(applied) - np.mean(intended)) < 4 * error
    assert error < 0.2


def test_an_objective_without_labels_is_no_division_by_zero() -> None:
    assert Objective(np.array([2.0]), 0.0).row_weights(torch.tensor([0, 0])).tolist() == [2.0, 2.0]
