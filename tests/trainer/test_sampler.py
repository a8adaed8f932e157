"""The order of rows: shares, epochs, caps, and that it is a pure function."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataeng.errors import FormatError
from trainer.sampler import MixtureSampler


def sampler(
    num_rows: list[int], shares: list[float], caps: list[int | None] | None = None, seed: int = 0
) -> MixtureSampler:
    names = [f"domain{i}" for i in range(len(num_rows))]
    return MixtureSampler(names, num_rows, caps or [None] * len(num_rows), shares, seed)


def test_the_domain_furthest_behind_comes_next() -> None:
    # With shares (.5 .25 .25): (.5 .25 .25) → a, (0 .5 .5) → b, (.5 -.25 .75) → c, (1 0 0) → a, and again.
    domains, _ = sampler([100, 100, 100], [0.5, 0.25, 0.25]).take(8)
    assert domains.tolist() == [0, 1, 2, 0, 0, 1, 2, 0]


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.integers(1, 300))
def test_every_domain_has_its_share_to_within_a_row_or_so(weights: list[float], count: int) -> None:
    shares = [weight / sum(weights) for weight in weights]
    planner = sampler([50] * len(shares), shares)
    planner.take(count)
    assert sum(planner.drawn) == count
    for drawn, share in zip(planner.drawn, shares, strict=True):
        assert abs(drawn - share * count) < max(1.0, len(shares) - 1)


def test_every_epoch_reads_every_row_once_in_another_order() -> None:
    planner = sampler([17, 5], [0.5, 0.5])
    domains, rows = planner.take(2 * 3 * 17)
    first = rows[domains == 0].reshape(3, 17)
    for epoch in first:
        assert sorted(epoch.tolist()) == list(range(17))
    assert len({tuple(epoch.tolist()) for epoch in first}) == 3
    assert planner.epochs() == [3.0, 51 / 5]


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 2**31))
def test_it_does_not_matter_how_the_rows_are_asked_for(first: int, second: int, seed: int) -> None:
    whole = sampler([7, 11, 3], [0.5, 0.3, 0.2], seed=seed).take(first + second)
    parts = sampler([7, 11, 3], [0.5, 0.3, 0.2], seed=seed)
    before = parts.take(first)
    resumed = sampler([7, 11, 3], [0.5, 0.3, 0.2], seed=seed)
    resumed.load_state(json.loads(json.dumps(parts.state())))
    after = resumed.take(second)
    for all_rows, head, tail in zip(whole, before, after, strict=True):
        assert all_rows.tolist() == [*head.tolist(), *tail.tolist()]


def test_another_seed_is_another_order_of_the_same_domains() -> None:
    (domains, rows), (other_domains, other_rows) = (sampler([50, 50], [0.5, 0.5], seed=s).take(40) for s in (0, 1))
    assert domains.tolist() == other_domains.tolist()
    assert rows.tolist() != other_rows.tolist()


@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.integers(1, 9), st.integers(1, 20)), min_size=1, max_size=5), st.data()
)
def test_caps_hold_for_any_weights_and_no_row_within_them_is_lost(
    domains: list[tuple[float, int, int]], data: st.DataObject
) -> None:
    total = sum(weight for weight, _, _ in domains)
    caps = [cap for _, _, cap in domains]
    planner = sampler([rows for _, rows, _ in domains], [weight / total for weight, _, _ in domains], caps)
    count = data.draw(st.integers(0, sum(caps)))
    planner.take(count)
    assert sum(planner.drawn) == count
    assert all(drawn <= cap for drawn, cap in zip(planner.drawn, caps, strict=True))
    planner.take(sum(caps) - count)
    assert planner.drawn == caps
    with pytest.raises(FormatError, match="every domain has reached its epoch cap"):
        planner.take(1)


def test_a_domain_with_share_zero_is_never_drawn() -> None:
    planner = sampler([5, 5], [1.0, 0.0])
    assert np.unique(planner.take(20)[0]).tolist() == [0]


def test_state_of_other_domains_is_refused() -> None:
    with pytest.raises(FormatError, match="3 domains, expected 2"):
        sampler([5, 5], [0.5, 0.5]).load_state(sampler([5, 5, 5], [0.3, 0.3, 0.4]).state())
