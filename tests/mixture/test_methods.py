"""Every method against its published formula, written down a second time, and in the corners."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dataeng.errors import ConfigError
from dataeng.formats.reweighting import Method, Reweighting
from dataeng.mixture.reweighting import Controller

Floats = npt.NDArray[np.float64]
NAMES = ["web", "code", "books", "wiki"]
METHODS = [method for method in get_args(Method) if method != "none"]
REFERENCE = {"web": 2.0, "code": 1.0, "books": 2.5, "wiki": 1.5}


def controller(method: str, shares: list[float], reweighted: list[bool] | None = None, **constants: Any) -> Controller:
    return Controller(
        Reweighting(method=method, reference=REFERENCE, **constants),  # type: ignore[arg-type]
        np.array(shares),
        names=NAMES[: len(shares)],
        reweighted=None if reweighted is None else np.array(reweighted),
        bytes_per_token=np.array([4.0, 3.0, 4.5, 4.2][: len(shares)]),
    )


def step(control: Controller, losses: list[float], tokens: float = 10.0) -> list[float]:
    counts = np.array([0.0 if math.isnan(loss) else tokens for loss in losses])
    return [float(w) for w in control.update(np.nan_to_num(np.array(losses)) * counts, counts)]


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


QUARTERS = [0.25] * 4
LOSSES = [2.0, 3.0, 3.5, 4.0]  # h = -1, 0, 0.5, 1


@pytest.mark.parametrize(
    ("method", "f"),
    [
        ("sow-identity", [-1, 0, 0.5, 1]),
        ("sow-linupper", [0, 1, 1, 1]),
        ("sow-quadratic", [0, 1, 0.75, 0]),
        ("sow-extremes", [1, 0, 0.5, 1]),
    ],
)
def test_the_shapes_of_sow_et_al(method: str, f: list[float]) -> None:
    assert step(controller(method, QUARTERS), LOSSES) == pytest.approx(softmax(f))
    assert step(controller(method, QUARTERS, r=0.4), LOSSES) == pytest.approx(softmax([x / 0.4 for x in f]))
    shares = [0.4, 0.3, 0.2, 0.1]
    powers = [share * math.exp(x) for share, x in zip(shares, f, strict=True)]
    found = step(controller(method, shares, prior="shares"), LOSSES)
    assert found == pytest.approx([power / sum(powers) for power in powers])


def test_doremi_by_its_update() -> None:
    control = controller("doremi", QUARTERS, eta=0.5)
    alpha = np.full(4, 0.25)
    mean = np.zeros(4)
    for losses in ([2.5, 0.5, 3.5, 2.0], [2.4, 1.5, 3.0, 1.0]):
        excess = np.maximum(np.array(losses) - list(REFERENCE.values()), 0)
        alpha = alpha * np.exp(0.5 * excess)
        alpha = (1 - 1e-3) * alpha / alpha.sum() + 1e-3 / 4
        mean += alpha / 2
        assert step(control, losses) == pytest.approx(alpha.tolist())
    assert control.learned_weights() == pytest.approx(mean)


def test_sheared_llama_by_its_update() -> None:
    control = controller("sheared", [0.4, 0.3, 0.2, 0.1], prior="shares", interval=2)
    losses = [2.5, 0.5, 3.5, 2.0]
    alpha = np.array([0.4, 0.3, 0.2, 0.1]) * np.exp(np.array(losses) - list(REFERENCE.values()))
    alpha = (1 - 1e-4) * alpha / alpha.sum() + 1e-4 / 4
    assert step(control, losses) == pytest.approx(alpha.tolist())
    assert step(control, [9.0, 9.0, 9.0, 9.0]) == pytest.approx(alpha.tolist())  # every second step only


def test_odm_by_its_code() -> None:
    control = controller("odm", QUARTERS)
    rewards = np.zeros(4)
    for t, losses in enumerate(([2.0, 1.0, 3.0, 1.5], [1.5, math.nan, 2.5, 1.4], [1.4, 0.9, 2.4, 1.3]), 1):
        for i, loss in enumerate(losses):
            if not math.isnan(loss):
                rewards[i] = math.exp(loss) if t == 1 else 0.9 * rewards[i] + 0.1 * math.exp(loss)
        explore = min(1 / 4, math.sqrt(math.log(4) / (4 * t)))
        expected = (1 - 4 * explore) * rewards / rewards.sum() + explore
        assert step(control, losses) == pytest.approx(expected.tolist())


@pytest.mark.parametrize(("refit", "constants"), [(1000, {}), (40, {"refit_steps": 40})])
def test_ado_prefers_the_domain_that_still_learns(refit: int, constants: dict[str, int]) -> None:
    control = controller("ado", QUARTERS, ema=0.5, **constants)
    laws = [(1.0, 2.0, 0.3), (2.0, 0.5, 0.05), (0.5, 4.0, 0.6), (3.0, 0.0, 0.1)]
    weights: list[float] = []
    for n in range(1, refit + 100):
        weights = step(control, [e + b * n**-a for e, b, a in laws])
        if n < refit:
            assert weights == pytest.approx(QUARTERS)  # no law yet
    slopes = [max(a, 0.05) * b * refit**-a for _, b, a in laws]
    order = sorted(range(4), key=lambda i: weights[i])
    assert order == sorted(range(4), key=lambda i: slopes[i])
    assert weights[3] >= 0.009  # the floor


@pytest.mark.parametrize(("refit", "every"), [(1000, 10), (250, 2), (40, 1), (1, 1)])
def test_ado_records_a_hundred_losses_between_fits_or_all_there_are(refit: int, every: int) -> None:
    control = controller("ado", QUARTERS, refit_steps=refit)
    for _ in range(30):
        step(control, LOSSES)
    assert control.method is not None
    history = control.method.state()["history"]
    assert [h[::2] for h in history] == [list(range(every, 31, every))] * 4


def test_ado_prefers_also_among_very_many_domains() -> None:
    """A floor of 0.01 each would be all there is to give from a hundred on."""
    random, num_domains = np.random.default_rng(0), 200
    control = Controller(Reweighting(method="ado", refit_steps=8), np.full(num_domains, 1 / num_domains))
    counts, floors = np.full(num_domains, 10.0), random.uniform(1, 3, num_domains)
    for n in range(1, 20):
        losses = floors + np.where(np.arange(num_domains) < 10, 3.0 * n**-0.5, 0.0)
        weights = control.update(losses * counts, counts)
    assert weights[:10].min() > 5 * weights[10:].max() and weights.min() >= 0.4 / num_domains


@pytest.mark.parametrize("method", METHODS)
def test_one_domain_has_weight_one(method: str) -> None:
    assert step(controller(method, [1.0]), [3.7]) == [1.0]


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("doremi", "sheared")])
def test_equal_losses_give_equal_weights(method: str) -> None:
    assert step(controller(method, QUARTERS), [3.0] * 4) == pytest.approx(QUARTERS)


@pytest.mark.parametrize("method", ["sow-identity", "sow-linupper", "sow-quadratic", "sow-extremes"])
def test_r_towards_infinity_is_uniform(method: str) -> None:
    assert step(controller(method, [0.4, 0.3, 0.2, 0.1], r=math.inf), LOSSES) == pytest.approx(QUARTERS)


@settings(max_examples=60, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    losses=st.lists(
        st.lists(st.one_of(st.just(math.nan), st.floats(0.01, 30)), min_size=4, max_size=4), min_size=1, max_size=8
    ),
    constants=st.fixed_dictionaries(
        {
            "smallest": st.sampled_from([0.0, 0.05, 0.2]),
            "largest": st.sampled_from([1.0, 0.5, 0.3]),
            "interval": st.integers(1, 3),
            "stale_steps": st.sampled_from([None, 1, 5]),
            "ema": st.sampled_from([0.0, 0.9]),
            "warmup_steps": st.integers(0, 2),
            "prior": st.sampled_from(["uniform", "shares"]),
            "r": st.sampled_from([1e-3, 1.0, math.inf]),
            "r_start": st.sampled_from([None, 100.0]),
        }
    ),
    reweighted=st.lists(st.booleans(), min_size=4, max_size=4),
    cut=st.integers(0, 8),
)
def test_weights_are_a_distribution_within_bounds_and_resume_exactly(
    method: str,
    losses: list[list[float]],
    constants: dict[str, Any],
    reweighted: list[bool],
    cut: int,
) -> None:
    shares = [0.4, 0.3, 0.2, 0.1]
    whole, broken = (controller(method, shares, reweighted, **constants) for _ in range(2))
    for i, values in enumerate(losses):
        if i == cut:
            state = json.loads(json.dumps(broken.state(), allow_nan=False))
            broken = controller(method, shares, reweighted, **constants)
            broken.load_state(state)
        weights = step(whole, values)
        assert step(broken, values) == weights
        assert sum(weights) == pytest.approx(1) and min(weights) >= 0
        for weight, share, moves in zip(weights, shares, reweighted, strict=True):
            if not moves:
                assert weight == share
        known = whole.weighted
        if whole.current is not None:
            assert whole.current[known].sum() == pytest.approx(1)
            # Where the domains that losses may move have too little together, or too much, all get the same.
            even = np.array(shares)[known].sum() / known.sum()
            assert (np.array(weights)[known] >= min(constants["smallest"], even) - 1e-12).all()
            assert (np.array(weights)[known] <= max(constants["largest"], even) + 1e-12).all()


@settings(max_examples=40, deadline=None)
@given(
    losses=st.lists(st.lists(st.floats(0.01, 30), min_size=4, max_size=4), min_size=2, max_size=6),
    region=st.floats(0.01, 2),
)
def test_no_weight_leaves_the_trust_region(losses: list[list[float]], region: float) -> None:
    control = controller("sow-identity", [0.4, 0.3, 0.2, 0.1], r=0.2, trust_region=region)
    before = np.array([0.4, 0.3, 0.2, 0.1])
    for values in losses:
        weights = np.array(step(control, values))
        assert np.abs(np.log(weights / before)).max() <= region + 1e-9
        before = weights


def test_a_trust_region_is_used_to_its_border_and_the_target_is_reached() -> None:
    control = controller("sow-identity", QUARTERS, trust_region=0.1)
    first = step(control, LOSSES)
    assert np.abs(np.log(np.array(first) / 0.25)).max() == pytest.approx(0.1)
    for _ in range(40):
        last = step(control, LOSSES)
    assert last == pytest.approx(softmax([-1, 0, 0.5, 1]))


def test_floor_cap_and_trust_region_hold_at_once_and_the_nearest_weights_are_reached() -> None:
    """A floor that is mixed in anew with each update would pull weights to the middle, past any trust region."""
    constants = {"smallest": 0.1, "largest": 0.4, "trust_region": 0.05}
    control = controller("sow-identity", QUARTERS, r=0.3, **constants)
    before = np.array(QUARTERS)
    for _ in range(60):
        weights = np.array(step(control, LOSSES))
        assert weights.min() >= 0.1 - 1e-12 and weights.max() <= 0.4 + 1e-12
        assert np.abs(np.log(weights / before)).max() <= 0.05 + 1e-9
        before = weights
    # softmax([-1, 0, 0.5, 1] / 0.3): the second is so far below the third that it stays at the floor, too.
    assert weights.tolist() == pytest.approx([0.1, 0.1, 0.4, 0.4])


def test_a_floor_is_of_all_weights_also_where_one_domain_is_left_alone() -> None:
    control = controller("sow-identity", [0.2, 0.2, 0.2, 0.4], [True, True, True, False], r=0.1, smallest=0.05)
    weights = step(control, [1.0, 2.0, 3.0, 9.0])
    assert weights == pytest.approx([0.05, 0.05, 0.5, 0.4], abs=1e-4) and min(weights) >= 0.05 - 1e-12


def test_a_cap_of_an_even_share_makes_weights_even() -> None:
    assert step(controller("sow-identity", [0.5, 0.5], largest=0.5), [2.0, 3.0]) == [0.5, 0.5]


def test_one_domain_that_is_far_off_holds_no_other_back_in_a_trust_region() -> None:
    """Weights near 0 take many updates to come back; the others go their own way meanwhile."""
    control = controller("sow-identity", QUARTERS, r=0.02)
    step(control, [1.0, 3.0, 2.99, 3.0])
    control.reweighting = control.reweighting.model_copy(update={"trust_region": 0.2})
    before = control.weights
    after = np.array(step(control, [3.0, 3.0, 1.0, 1.1]))
    assert before[0] < 1e-40
    assert after[1] / before[1] == pytest.approx(math.exp(0.2))


def test_signals() -> None:
    expected = softmax([-1, 1])
    assert step(controller("sow-identity", [0.5, 0.5], signal="excess"), [2.5, 2.0]) == pytest.approx(expected)
    # 2.1 nats of 4 bytes, 2.0 of 3: more bits per byte in the second
    assert step(controller("sow-identity", [0.5, 0.5], signal="bits-per-byte"), [2.1, 2.0]) == pytest.approx(expected)
    relative = controller("sow-identity", [0.5, 0.5], signal="relative", warmup_steps=1)
    assert step(relative, [8.0, 4.0]) == [0.5, 0.5]
    assert step(relative, [6.0, 3.6]) == pytest.approx(expected)  # 0.75 and 0.9 of the start


def test_noise_widens_the_range() -> None:
    """Losses that differ by less than they vary are nearly equal."""
    control = controller("sow-identity", [0.5, 0.5], noise_floor=2)
    counts, means, deviation = np.array([100.0, 400.0]), np.array([2.0, 2.1]), 1.5
    weights = control.update(means * counts, counts, (means**2 + deviation**2) * counts)
    assert control.standard_errors() == pytest.approx([0.15, 0.075])
    assert weights[1] / weights[0] == pytest.approx(math.exp(2 * 0.1 / 0.3))


def test_the_standard_error_of_an_average_over_steps_is_how_much_it_varies() -> None:
    """Many controllers, each with its own noise: their averages differ by as much as each of them says."""
    random = np.random.default_rng(5)
    num_domains, counts, deviation = 4000, 10.0, 0.7
    control = Controller(Reweighting(ema=0.8), np.full(num_domains, 1 / num_domains))
    for _ in range(40):
        losses = random.normal(3.0, deviation, (num_domains, int(counts)))
        control.update(losses.sum(1), np.full(num_domains, counts), (losses**2).sum(1))
    assert control.standard_errors().mean() == pytest.approx(control.mean_losses().std(), rel=0.05)
    assert control.standard_errors().mean() == pytest.approx(deviation * math.sqrt(0.2 / 1.8 / counts), rel=0.05)


@pytest.mark.parametrize(
    ("signal", "unit"), [("bits-per-byte", [4 * math.log(2), 3 * math.log(2)]), ("relative", [2, 2])]
)
def test_noise_is_measured_in_the_unit_of_the_signal(signal: str, unit: list[float]) -> None:
    control = controller("sow-identity", [0.5, 0.5], noise_floor=2, signal=signal, warmup_steps=1)
    counts, deviation = np.array([100.0, 400.0]), 1.5
    for means in (np.array([2.0, 2.0]), np.array([2.0, 2.1])):
        weights = control.update(means * counts, counts, (means**2 + deviation**2) * counts)
    signals, errors = np.array([2.0, 2.1]) / unit, np.array([0.15, 0.075]) / unit
    expected = 2 * (signals[1] - signals[0]) / max(abs(signals[1] - signals[0]), 2 * errors.max())
    assert math.log(weights[1] / weights[0]) == pytest.approx(expected)


def test_r_goes_from_start_to_end() -> None:
    control = controller("sow-identity", [0.5, 0.5], r=1, r_start=100, anneal_steps=2, warmup_steps=1)
    spreads = []
    for _ in range(5):
        weights = step(control, [1.0, 2.0])
        spreads.append(math.log(weights[1] / weights[0]))
    assert spreads == pytest.approx([0, 2 / 100, 2 / 10, 2, 2], abs=1e-12)


def test_a_stale_domain_returns_to_its_share() -> None:
    control = controller("sow-identity", [0.7, 0.3], stale_steps=1)
    last = step(control, [1.0, 2.0])
    for _ in range(30):
        last = step(control, [math.nan, 2.0])
    assert last[0] == pytest.approx(0.7 * 1 / (0.7 + softmax([-1, 1])[1]))


def test_frozen_weights_stay() -> None:
    control = controller("sow-identity", QUARTERS)
    weights = step(control, LOSSES)
    counts = np.full(4, 10.0)
    assert control.update(np.array(LOSSES[::-1]) * counts, counts, frozen=True).tolist() == weights
    assert step(control, LOSSES[::-1]) == pytest.approx(weights[::-1])


def test_a_stage_of_the_schedule_may_draw_other_domains() -> None:
    control = controller("sow-identity", [0.5, 0.5, 0.0, 0.0])
    assert step(control, [2.0, 4.0, math.nan, math.nan]) == pytest.approx([*softmax([-1, 1]), 0, 0])
    control.shares = np.array([0.0, 0.6, 0.4, 0.0])
    assert control.weights.tolist() == pytest.approx([0, 0.6, 0.4, 0])
    assert step(control, [math.nan, 4.0, 2.0, math.nan]) == pytest.approx([0, *softmax([1, -1]), 0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "doremi"}, "method doremi needs `reference`"),
        ({"signal": "excess"}, "signal excess needs `reference`"),
        ({"smallest": 0.5, "largest": 0.4}, "smallest 0.5 is above largest 0.4"),
        ({"method": "sow"}, "Input should be 'none', 'sow-identity'"),
        ({"r": math.nan}, "r\n  Input should be greater than 0"),
        ({"r_start": math.inf}, "r_start\n  Input should be a finite number"),
        ({"eta": math.inf}, "eta\n  Input should be a finite number"),
        ({"reference": {"web": math.nan}}, "reference.web\n  Input should be a finite number"),
    ],
)
def test_constants_that_do_not_fit(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Reweighting(**values)


def test_what_the_controller_needs() -> None:
    with pytest.raises(ConfigError, match="no reference loss for domain 'code'"):
        Controller(Reweighting(signal="excess", reference={"web": 1.0}), np.array([0.5, 0.5]), names=NAMES[:2])
    with pytest.raises(ConfigError, match="bits-per-byte needs the bytes per token"):
        Controller(Reweighting(signal="bits-per-byte"), np.array([0.5, 0.5]))
    with pytest.raises(ConfigError, match="the packs of a domain stand for no bytes"):
        Controller(Reweighting(signal="bits-per-byte"), np.array([0.5, 0.5]), bytes_per_token=np.array([4.0, 0.0]))
    with pytest.raises(ConfigError, match=r"smallest is 0\.3: 4 domains"):
        Controller(Reweighting(smallest=0.3), np.array(QUARTERS))
    with pytest.raises(ConfigError, match=r"largest is 0\.2: 4 domains"):
        Controller(Reweighting(largest=0.2), np.array(QUARTERS))
