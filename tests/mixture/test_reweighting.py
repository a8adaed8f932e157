"""The controller on losses whose weights are computed by hand, and its corner cases."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataeng.errors import FormatError
from dataeng.formats.reweighting import Reweighting
from dataeng.mixture.methods import scale_losses
from dataeng.mixture.reweighting import Controller

THIRDS = np.full(3, 1 / 3)


def weights_of(losses: list[float], shares: list[float] | None = None, **constants: float) -> list[float]:
    controller = Controller(Reweighting(**constants), np.array(shares or [1 / len(losses)] * len(losses)))
    return [float(w) for w in controller.update(np.array(losses) * 10, np.full(len(losses), 10.0))]


def test_losses_are_scaled_between_minus_one_and_one() -> None:
    assert scale_losses(np.array([2.0, 3.0, 4.0]), 1e-6).tolist() == [-1.0, 0.0, 1.0]
    assert scale_losses(np.array([2.0, 3.5, 4.0]), 1e-6).tolist() == [-1.0, 0.5, 1.0]


def test_weights_by_hand() -> None:
    total = math.exp(-1) + 1 + math.e
    assert weights_of([2.0, 3.0, 4.0]) == pytest.approx([math.exp(-1) / total, 1 / total, math.e / total])


def test_r_sets_the_spread_whatever_the_losses() -> None:
    for losses in ([1.0, 9.0, 3.0], [2.0, 2.001, 2.0005]):
        assert max(weights_of(losses, r=0.5)) / min(weights_of(losses, r=0.5)) == pytest.approx(math.exp(2 / 0.5))


def test_one_domain_has_weight_one() -> None:
    assert weights_of([3.7]) == [1.0]


def test_equal_losses_give_equal_weights() -> None:
    assert weights_of([3.0, 3.0, 3.0]) == pytest.approx([1 / 3] * 3)


def test_the_floor_keeps_noise_small() -> None:
    # A range of 1e-3 under a floor of 0.1 gives h = ±0.01, not ±1.
    weights = weights_of([2.0, 2.001], floor=0.1)
    assert weights[1] / weights[0] == pytest.approx(math.exp(0.02))


def test_large_r_is_uniform_and_small_r_does_not_overflow() -> None:
    assert weights_of([1.0, 2.0, 9.0], r=1e9) == pytest.approx([1 / 3] * 3, abs=1e-8)
    assert weights_of([1.0, 2.0, 9.0], r=math.inf) == pytest.approx([1 / 3] * 3)
    assert weights_of([1.0, 2.0, 9.0], r=1e-4) == [0.0, 0.0, 1.0]


def test_an_absent_domain_keeps_its_last_loss() -> None:
    controller = Controller(Reweighting(), THIRDS)
    first = controller.update(np.array([20.0, 30.0, 40.0]), np.array([10.0, 10.0, 10.0]))
    second = controller.update(np.array([20.0, 0.0, 40.0]), np.array([10.0, 0.0, 10.0]))
    assert second.tolist() == first.tolist()


def test_an_unseen_domain_keeps_its_share() -> None:
    controller = Controller(Reweighting(), np.array([0.5, 0.3, 0.2]))
    weights = controller.update(np.array([0.0, 30.0, 40.0]), np.array([0.0, 10.0, 10.0]))
    assert weights[0] == 0.5
    assert weights[1:].tolist() == pytest.approx([0.5 / (1 + math.e**2), 0.5 / (1 + math.e**-2)])


def test_no_domain_seen_gives_the_shares() -> None:
    controller = Controller(Reweighting(), THIRDS)
    assert controller.update(np.zeros(3), np.zeros(3)).tolist() == THIRDS.tolist()


def test_method_none_and_warmup_give_the_shares() -> None:
    shares = np.array([0.7, 0.3])
    for reweighting in (Reweighting(method="none"), Reweighting(warmup_steps=1)):
        controller = Controller(reweighting, shares)
        assert controller.update(np.array([10.0, 50.0]), np.array([10.0, 10.0])).tolist() == [0.7, 0.3]
        assert controller.learned_weights().tolist() == [0.7, 0.3]
    assert controller.update(np.array([10.0, 50.0]), np.array([10.0, 10.0])).tolist() != [0.7, 0.3]


def test_losses_are_averaged_by_evidence() -> None:
    controller = Controller(Reweighting(ema=0.5), np.array([0.5, 0.5]))
    controller.update(np.array([100.0, 10.0]), np.array([100.0, 10.0]))
    controller.update(np.array([30.0, 10.0]), np.array([10.0, 10.0]))
    # (0.5 · 100 + 30) nats over (0.5 · 100 + 10) tokens
    assert controller.loss_sums[0] / controller.token_counts[0] == pytest.approx(80 / 60)


def test_learned_weights_are_the_mean_over_weighted_steps() -> None:
    controller = Controller(Reweighting(warmup_steps=1), np.array([0.5, 0.5]))
    tokens = np.array([10.0, 10.0])
    controller.update(np.array([10.0, 90.0]), tokens)
    applied = [controller.update(np.array(losses), tokens) for losses in ([10.0, 20.0], [10.0, 20.0], [20.0, 10.0])]
    assert controller.learned_weights() == pytest.approx(np.mean(applied, axis=0))


@given(st.lists(st.lists(st.floats(0.01, 20), min_size=3, max_size=3), min_size=1, max_size=6), st.integers(0, 5))
def test_state_survives_json_exactly(losses: list[list[float]], cut: int) -> None:
    reweighting, tokens = Reweighting(ema=0.9, warmup_steps=1), np.array([5.0, 3.0, 0.0])
    unbroken, broken = Controller(reweighting, THIRDS), Controller(reweighting, THIRDS)
    expected = [unbroken.update(np.array(step) * tokens, tokens).tolist() for step in losses]
    found = []
    for i, step in enumerate(losses):
        if i == cut:
            state = json.loads(json.dumps(broken.state()))
            broken = Controller(reweighting, THIRDS)
            broken.load_state(state)
        found.append(broken.update(np.array(step) * tokens, tokens).tolist())
    assert found == expected
    assert np.isfinite(found).all()


def test_state_of_other_domains_is_refused() -> None:
    with pytest.raises(FormatError, match="3 domains, expected 2"):
        Controller(Reweighting(), np.array([0.5, 0.5])).load_state(Controller(Reweighting(), THIRDS).state())
