"""The controller on losses whose weights are computed by hand, and its corner cases."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.errors import FormatError
from dataeng.formats.reweighting import NEEDS_REFERENCE, Method, Reweighting
from dataeng.mixture.methods import scale_losses
from dataeng.mixture.reweighting import Controller

THIRDS = np.full(3, 1 / 3)
METHODS = [method for method in get_args(Method) if method != "none"]


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


def controller_of(method: str, num_domains: int, seed: int = 0, **constants: Any) -> Controller:
    """A controller over any number of domains with shares, references and bytes of their own."""
    random = np.random.default_rng(seed)
    names = [f"d{i}" for i in range(num_domains)]
    shares = random.dirichlet(np.ones(num_domains))
    reference = dict(zip(names, random.uniform(0.5, 3, num_domains).tolist(), strict=True))
    return Controller(
        Reweighting(method=method, reference=reference, **constants),  # type: ignore[arg-type]
        shares,
        names=names,
        bytes_per_token=random.uniform(1, 6, num_domains),
    )


@settings(max_examples=80, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    num_domains=st.sampled_from([1, 2, 3, 17, 200]),
    losses=st.lists(st.sampled_from([0.0, 1e-30, 1e-3, 2.0, 30.0, 1e4]), min_size=1, max_size=5),
    equal=st.booleans(),
    absent=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    constants=st.fixed_dictionaries(
        {
            "signal": st.sampled_from(["raw", "excess", "relative", "bits-per-byte"]),
            "r": st.sampled_from([5e-324, 1e-4, 1.0, 1e9, math.inf]),
            "r_start": st.sampled_from([None, 5e-324, 1e300]),
            "anneal_steps": st.integers(0, 3),
            "noise_floor": st.sampled_from([0.0, 2.0]),
            "trust_region": st.sampled_from([None, 0.1]),
            "stale_steps": st.sampled_from([None, 1]),
            "prior": st.sampled_from(["uniform", "shares"]),
            "ema": st.sampled_from([0.0, 0.99]),
            "smallest_part": st.sampled_from([0.0, 0.5]),  # of an even share
            "largest_parts": st.sampled_from([math.inf, 2.0]),
        }
    ),
    seed=st.integers(0, 5),
)
def test_no_losses_and_no_constants_make_weights_that_are_none(
    method: str,
    num_domains: int,
    losses: list[float],
    equal: bool,
    absent: float,
    constants: dict[str, Any],
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    smallest = constants.pop("smallest_part") / num_domains
    largest = min(1.0, constants.pop("largest_parts") / num_domains)
    control = controller_of(method, num_domains, seed, smallest=smallest, largest=largest, **constants)
    for step in range(8):
        counts = random.integers(1, 50, num_domains) * (random.random(num_domains) >= absent).astype(float)
        mean = np.full(num_domains, losses[step % len(losses)]) if equal else random.choice(losses, num_domains)
        weights = control.update(mean * counts, counts, mean**2 * counts)
        assert np.isfinite(weights).all() and weights.min() >= 0
        assert weights.sum() == pytest.approx(1, abs=1e-9)
        assert np.array_equal(weights, control.weights)
        json.dumps(control.state(), allow_nan=False)
        if control.current is not None:
            inside = control.current[control.weighted]
            part = control.shares[control.weighted].sum()
            assert inside.min() >= min(smallest / part, 1 / len(inside)) - 1e-12
            assert inside.max() <= max(largest / part, 1 / len(inside)) + 1e-12
    assert control.learned_weights().sum() == pytest.approx(1, abs=1e-9)


def test_a_cap_holds_where_the_softmax_rounds_all_others_to_zero() -> None:
    """What is cut off is shared by the others, which are equal to the last digit that there is."""
    assert weights_of([1.0, 2.0, 3.0], r=5e-324, largest=0.5) == pytest.approx([0.25, 0.25, 0.5])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("signal", ["raw", "relative"])
def test_losses_of_zero_are_losses(method: str, signal: str) -> None:
    """A domain that is known by heart, from its first step on."""
    control = controller_of(method, 3, signal=signal)
    counts = np.array([10.0, 10.0, 10.0])
    for sums in ([0.0, 0.0, 0.0], [0.0, 0.0, 5.0]):
        assert np.isfinite(control.update(np.array(sums), counts)).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_sums_that_are_not_finite_are_refused_and_leave_nothing_behind(bad: float, where: int) -> None:
    control, counts = controller_of("sow-identity", 3, ema=0.9), np.full(3, 10.0)
    sums = [np.array([20.0, 30.0, 40.0]), counts, np.array([60.0, 90.0, 160.0])]
    control.update(*sums)
    before = json.dumps(control.state())
    sums[where] = np.array([20.0, bad, 40.0])
    with pytest.raises(ValueError, match=r"sums of step 2 are not finite: \[20.0, (nan|inf), 40.0\]"):
        control.update(*sums)
    assert json.dumps(control.state()) == before


@pytest.mark.parametrize("method", NEEDS_REFERENCE)
def test_equal_excess_losses_give_equal_weights(method: str) -> None:
    control, counts = controller_of(method, 4), np.full(4, 10.0)
    assert control.update((control.reference + 0.5) * counts, counts) == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("method", ["sow-identity", "sow-linupper", "sow-quadratic", "sow-extremes"])
def test_r_towards_zero_takes_the_best(method: str) -> None:
    control, counts = controller_of(method, 4, r=5e-324), np.full(4, 10.0)
    weights = control.update(np.array([2.0, 3.0, 3.5, 4.0]) * counts, counts)
    expected = {
        "sow-identity": [0, 0, 0, 1],
        "sow-linupper": [0, 1 / 3, 1 / 3, 1 / 3],
        "sow-quadratic": [0, 1, 0, 0],
        "sow-extremes": [0.5, 0, 0, 0.5],
    }
    assert weights.tolist() == pytest.approx(expected[method])


@settings(max_examples=40, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    losses=st.lists(st.lists(st.floats(0.01, 30), min_size=4, max_size=4), min_size=2, max_size=6),
    region=st.floats(0.01, 2),
    interval=st.integers(1, 2),
)
def test_no_method_leaves_the_trust_region(
    method: str, losses: list[list[float]], region: float, interval: int
) -> None:
    control = controller_of(method, 4, trust_region=region, interval=interval, ema=0.5)
    before, counts = control.shares, np.full(4, 10.0)
    for values in losses:
        weights = control.update(np.array(values) * counts, counts)
        assert np.abs(np.log(weights / before)).max() <= region + 1e-9
        before = weights


@settings(max_examples=25, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    num_ranks=st.sampled_from([1, 2, 3, 8, 64]),
    num_domains=st.sampled_from([1, 3, 12]),
    seed=st.integers(0, 1000),
)
def test_how_tokens_are_cut_over_ranks_changes_nothing_but_rounding(
    method: str, num_ranks: int, num_domains: int, seed: int
) -> None:
    """Every rank sums its own tokens' losses in any order; all of them then see the sum of the sums, and agree."""
    random = np.random.default_rng(seed)
    constants = {"ema": 0.9, "noise_floor": 1.0, "trust_region": 0.5, "smallest": 0.2 / num_domains}
    one = controller_of(method, num_domains, seed, **constants)
    ranks = [controller_of(method, num_domains, seed, **constants) for _ in range(2)]
    for _ in range(6):
        domains = random.integers(0, num_domains, 200)
        losses = random.uniform(0.5, 8, 200).astype(np.float32).astype(np.float64)
        rank_of = random.integers(0, num_ranks, 200)  # some may have none

        def sums(chosen: Any, domains: Any = domains, losses: Any = losses) -> Any:
            powers = (losses, np.ones(200), losses**2)
            return np.array([np.bincount(domains[chosen], p[chosen], num_domains) for p in powers])

        expected = one.update(*sums(np.arange(200)))
        parts = [sums(random.permutation(np.flatnonzero(rank_of == rank))) for rank in range(num_ranks)]
        reduced = np.sum([parts[i] for i in random.permutation(num_ranks)], axis=0)
        first, second = (control.update(*reduced) for control in ranks)
        assert first.tolist() == second.tolist()
        np.testing.assert_allclose(first, expected, rtol=1e-9, atol=1e-12)


@given(
    st.sampled_from(["none", "sow-identity", "odm", "ado"]),
    st.integers(0, 3),
    st.integers(1, 4),
    st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 2), min_size=3, max_size=3)), min_size=1, max_size=12),
)
def test_weights_move_only_in_updates_that_are_due(
    method: str, warmup_steps: int, interval: int, steps: list[tuple[bool, list[int]]]
) -> None:
    """What a trainer relies on that wants a step's weights before its losses; and updates are due as documented."""
    options = Reweighting(method=method, warmup_steps=warmup_steps, interval=interval, ema=0.5)
    controller = Controller(options, np.array([0.5, 0.3, 0.2]))
    for number, (frozen, tokens) in enumerate(steps):
        before, is_due = controller.weights.tolist(), controller.is_due(frozen)
        counts = np.array(tokens, np.float64)
        applied = controller.update(counts * (1 + number + np.arange(3)), counts, frozen=frozen)
        assert is_due or controller.weights.tolist() == before == applied.tolist()
        if method != "none" and not frozen and number >= warmup_steps:
            assert is_due or (number - warmup_steps) % interval
        else:
            assert not is_due
