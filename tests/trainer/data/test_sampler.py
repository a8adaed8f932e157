"""The order of rows: shares, epochs, caps, and that it is a pure function."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataeng.errors import FormatError
from trainer.data.sampler import MixtureSampler, SampledDomain, SampledStage, rank_part


def sampler(
    num_rows: list[int],
    shares: list[float],
    caps: list[int | None] | None = None,
    seed: int = 0,
    stages: list[tuple[int | None, list[float]]] | None = None,
) -> MixtureSampler:
    domains = [
        SampledDomain(name=f"domain{i}", num_rows=rows, max_rows=cap)
        for i, (rows, cap) in enumerate(zip(num_rows, caps or [None] * len(num_rows), strict=True))
    ]
    chosen = stages or [(None, shares)]
    return MixtureSampler(domains, [SampledStage(until_row=end, shares=tuple(s)) for end, s in chosen], seed)


def slow_domains(shares: list[float], caps: list[int | None], count: int) -> list[int]:
    """The largest deficit, one row at a time; whoever is at its cap leaves its share to the others."""
    drawn, deficits, chosen = [0] * len(shares), [0.0] * len(shares), []
    for _ in range(count):
        open_ones = [s if cap is None or n < cap else 0.0 for s, cap, n in zip(shares, caps, drawn, strict=True)]
        total = 0.0
        for share in open_ones:
            total += share
        deficits = [deficit + share / total for deficit, share in zip(deficits, open_ones, strict=True)]
        best = max((i for i in range(len(shares)) if open_ones[i] > 0), key=lambda i: deficits[i])
        deficits[best] -= 1
        drawn[best] += 1
        chosen.append(best)
    return chosen


def test_the_domain_furthest_behind_comes_next() -> None:
    # With shares (.5 .25 .25): (.5 .25 .25) → a, (0 .5 .5) → b, (.5 -.25 .75) → c, (1 0 0) → a, and again.
    domains, _ = sampler([100, 100, 100], [0.5, 0.25, 0.25]).take(8)
    assert domains.tolist() == [0, 1, 2, 0, 0, 1, 2, 0]


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.integers(1, 300))
def test_every_domain_has_its_share_to_within_a_row_or_so(weights: list[float], count: int) -> None:
    shares = [weight / sum(weights) for weight in weights]
    planner = sampler([50] * len(shares), shares)
    planner.take(count)
    assert planner.drawn.sum() == count
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
    assert planner.drawn.sum() == count
    assert all(drawn <= cap for drawn, cap in zip(planner.drawn, caps, strict=True))
    planner.take(sum(caps) - count)
    assert planner.drawn.tolist() == caps
    with pytest.raises(FormatError, match="every domain has reached its epoch cap"):
        planner.take(1)


def test_a_domain_with_share_zero_is_never_drawn() -> None:
    planner = sampler([5, 5], [1.0, 0.0])
    assert np.unique(planner.take(20)[0]).tolist() == [0]


def test_state_of_other_domains_is_refused() -> None:
    with pytest.raises(FormatError, match="3 domains, expected 2"):
        sampler([5, 5], [0.5, 0.5]).load_state(sampler([5, 5, 5], [0.3, 0.3, 0.4]).state())


@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.none() | st.integers(0, 20)), min_size=1, max_size=5), st.integers(0, 60)
)
def test_planning_equals_the_slow_reference(domains: list[tuple[float, int | None]], count: int) -> None:
    shares, caps = [share for share, _ in domains], [cap for _, cap in domains]
    if None not in caps:
        count = min(count, sum(cap for cap in caps if cap is not None))
    planner = sampler([7] * len(domains), shares, caps)
    assert planner.take(count)[0].tolist() == slow_domains(shares, caps, count)


def test_a_capped_domain_leaves_its_share_in_proportion() -> None:
    planner = sampler([100] * 3, [0.5, 0.3, 0.2], [10, None, None])
    planner.take(1010)
    assert planner.drawn.tolist() == pytest.approx([10, 600, 400], abs=4)


@given(st.integers(1, 50), st.sampled_from([1, 2, 3, 4, 7]))
def test_ranks_together_take_every_row_once_in_the_same_order(count: int, num_ranks: int) -> None:
    rows = np.arange(count)
    parts = [rows[rank_part(count, rank, num_ranks)].tolist() for rank in range(num_ranks)]
    assert [row for part in parts for row in part] == rows.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_curriculum_is_read_in_its_own_order_every_epoch() -> None:
    domains = [SampledDomain(name="hard", num_rows=5, shuffled=False), SampledDomain(name="web", num_rows=5)]
    planner = MixtureSampler(domains, [SampledStage(shares=(0.5, 0.5))], 0)
    drawn, rows = planner.take(20)
    assert rows[drawn == 0].tolist() == [0, 1, 2, 3, 4] * 2
    assert rows[drawn == 1].tolist() != [0, 1, 2, 3, 4] * 2


CHANGES = st.lists(
    st.tuples(st.integers(1, 40), st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(any)), max_size=5
)


@given(CHANGES, st.lists(st.integers(0, 120), max_size=3).map(sorted), st.integers(0, 60), st.data())
def test_after_changes_of_weights_nothing_repeats_or_is_lost(
    changes: list[tuple[int, list[float]]], ends: list[int], resume_at: int, data: st.DataObject
) -> None:
    """Stages, changes within them and a resume anywhere: every domain's rows are those of its own epochs, in order."""
    num_rows = [7, 11, 29]
    rows_of = {i: sampler(num_rows, [float(i == k) for k in range(3)]).take(400)[1].tolist() for i in range(3)}
    weights = st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(any)
    stages = [(end, data.draw(weights)) for end in ends] + [(None, [0.2, 0.3, 0.5])]
    whole, resumed = (sampler(num_rows, [], stages=stages) for _ in range(2))
    taken: list[list[tuple[int, int]]] = [[], []]
    for count, shares in [*changes, (30, [0.1, 0.1, 0.8])]:
        for planner, found in zip((whole, resumed), taken, strict=True):
            found += zip(*(values.tolist() for values in planner.take(count)), strict=True)
            planner.set_shares(shares)
        if len(taken[0]) >= resume_at:
            state = json.loads(json.dumps(resumed.state()))
            resumed = sampler(num_rows, [], stages=stages)
            resumed.load_state(state)
    assert taken[0] == taken[1]
    for domain in range(3):
        rows = [row for index, row in taken[0] if index == domain]
        assert rows == rows_of[domain][: len(rows)]


def test_stages_follow_one_another_and_set_shares_last_to_the_end_of_theirs() -> None:
    planner = sampler([50, 50], [], stages=[(4, [1.0, 0.0]), (10, [0.0, 1.0]), (None, [0.5, 0.5])])
    assert planner.take(6)[0].tolist() == [0, 0, 0, 0, 1, 1]
    assert (planner.stage, planner.shares.tolist()) == (1, [0.0, 1.0])
    planner.set_shares([1.0, 0.0])
    assert planner.shares.tolist() == [1.0, 0.0]
    assert planner.take(4)[0].tolist() == [0] * 4
    assert (planner.stage, planner.shares.tolist()) == (2, [0.5, 0.5])


@pytest.mark.parametrize("shares", [[1.0], [-0.1, 1.1], [0.0, 0.0], [float("nan"), 1.0]])
def test_shares_that_are_none_are_refused(shares: list[float]) -> None:
    with pytest.raises(ValueError, match="for 2 domains"):
        sampler([5, 5], [0.5, 0.5]).set_shares(shares)


def test_a_clone_goes_on_by_itself() -> None:
    planner = sampler([50, 50], [0.5, 0.5])
    planner.take(3)
    other = planner.clone()
    expected = other.take(10)
    assert planner.num_planned == 3
    for values, others in zip(planner.take(10), expected, strict=True):
        assert values.tolist() == others.tolist()
