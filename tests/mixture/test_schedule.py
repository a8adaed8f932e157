"""Stages: by hand, against the definition of what can be met, and the epoch caps whatever the weights."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.errors import ConfigError
from dataeng.formats.mixture import Domain, MixtureManifest, MixtureStage, Policy
from dataeng.mixture.policies import capped_shares
from dataeng.mixture.schedule import (
    Stage,
    mean_shares,
    planned_stages,
    rescaled_stages,
    stage_ends,
    stage_lengths,
    stages_of,
)

Floats = npt.NDArray[np.float64]
ANNEALING: list[Stage] = [
    (0.7, np.array([0.5, 0.5, 0.0])),
    (0.9, np.array([0.2, 0.6, 0.2])),
    (1.0, np.array([0.0, 0.0, 1.0])),
]
UNCAPPED = np.full(3, math.inf)


def manifest(schedule: list[MixtureStage]) -> MixtureManifest:
    domain = {"packs": ["p"], "num_documents": 1, "num_tokens": 10}
    return MixtureManifest(
        tokenizer_sha256="x",
        vocab_size=300,
        domains={"b": Domain(**domain, weight=0.75), "a": Domain(**domain, weight=0.25)},
        schedule=schedule,
        policy=Policy(name="given"),
    )


def test_stages_of_a_manifest_are_in_the_order_of_its_domains() -> None:
    stages = [
        MixtureStage(name="one", until=0.5, weights={"a": 0.5, "b": 0.5}),
        MixtureStage(name="two", until=1, weights={"a": 0, "b": 1}),
    ]
    (first_end, first), (last_end, last) = stages_of(manifest(stages))
    assert (first_end, first.tolist(), last_end, last.tolist()) == (0.5, [0.5, 0.5], 1.0, [1.0, 0.0])


def test_a_manifest_without_a_schedule_is_one_stage() -> None:
    [(until, shares)] = stages_of(manifest([]))
    assert (until, shares.tolist()) == (1.0, [0.75, 0.25])


def test_lengths_means_and_ends() -> None:
    assert stage_lengths(ANNEALING) == pytest.approx([0.7, 0.2, 0.1])
    assert mean_shares(ANNEALING) == pytest.approx([0.39, 0.47, 0.14])
    assert stage_ends(ANNEALING, 1005) == [round(703.5), round(904.5), 1005]


def test_what_was_learned_holds_in_every_stage() -> None:
    learned = np.array([0.39 * 2, 0.47, 0.14])  # the first domain twice as much as planned
    scaled = rescaled_stages(ANNEALING, learned)
    assert [until for until, _ in scaled] == [0.7, 0.9, 1.0]
    assert scaled[0][1] == pytest.approx([2 / 3, 1 / 3, 0]) and scaled[2][1] == pytest.approx([0, 0, 1])
    assert scaled[1][1] == pytest.approx(np.array([0.4, 0.6, 0.2]) / 1.2)
    [(_, single)] = rescaled_stages([(1.0, np.array([0.5, 0.5]))], np.array([0.2, 0.8]))
    assert single == pytest.approx([0.2, 0.8])


def test_without_caps_stages_stay_as_they_are() -> None:
    for stages in (ANNEALING, ANNEALING[:1]):
        planned = planned_stages(stages, UNCAPPED, 1000)
        assert [until for until, _ in planned] == [until for until, _ in stages]
        assert all((a == b).all() for (_, a), (_, b) in zip(planned, stages, strict=True))


def test_one_stage_is_water_filling() -> None:
    weights, capacities = np.array([0.5, 0.3, 0.2]), np.array([100.0, 400.0, math.inf])
    [(_, shares)] = planned_stages([(1.0, weights)], capacities, 1000)
    assert shares == pytest.approx(capped_shares(weights, capacities, 1000))


def test_a_cap_takes_from_the_stage_that_has_something_else_to_draw() -> None:
    # The last 100 of 1000 must be c; 110 are allowed, so the stage before gets 10 in 200 instead of 40. The other
    # 190 keep their ratio of 1 to 3.
    planned = planned_stages(ANNEALING, np.array([math.inf, math.inf, 110.0]), 1000)
    assert planned[0][1] == pytest.approx([0.5, 0.5, 0])
    assert planned[1][1] == pytest.approx([0.2375, 0.7125, 0.05])
    assert planned[2][1] == pytest.approx([0, 0, 1])


def test_a_capped_domain_is_drawn_less_in_every_stage_in_one_proportion() -> None:
    stages: list[Stage] = [(0.5, np.array([0.5, 0.5])), (1.0, np.array([0.1, 0.9]))]
    planned = planned_stages(stages, np.array([150.0, math.inf]), 1000)
    odds = [shares[0] / shares[1] for _, shares in planned]
    assert mean_shares(planned) == pytest.approx([0.15, 0.85])
    assert odds[0] / 1 == pytest.approx(odds[1] / (0.1 / 0.9))


def test_caps_that_leave_no_choice_at_all() -> None:
    planned = planned_stages(ANNEALING, np.array([math.inf, math.inf, 100.0]), 1000)
    assert mean_shares(planned)[2] * 1000 == pytest.approx(100)
    assert planned[2][1] == pytest.approx([0, 0, 1])


@pytest.mark.parametrize(
    ("capacities", "message"),
    [
        ([math.inf, math.inf, 99.0], "stage 'qa' draws 100 in all, .* allow 99. Raise the caps, shorten the stage"),
        ([300.0, 300.0, math.inf], "stage 'balanced' draws 700 in all, .* allow 600"),
        ([300.0, 500.0, 150.0], "the stages balanced, good, qa draw 1,000 in all, .* allow 950"),
    ],
)
def test_stages_that_cannot_be_met_are_named(capacities: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned_stages(ANNEALING, np.array(capacities), 1000, ["balanced", "good", "qa"])


def can_be_met(lengths: Floats, wanted: Floats, capacities: Floats) -> float:
    """Returns by how much the caps suffice, at worst over all sets of stages (Hall's condition): below 0 not at all."""
    stages = range(len(lengths))
    return min(
        float(capacities[(wanted[list(chosen)] > 0).any(axis=0)].sum() - lengths[list(chosen)].sum())
        for size in range(1, len(lengths) + 1)
        for chosen in combinations(stages, size)
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda k: st.tuples(
            st.lists(
                st.tuples(st.integers(1, 10), st.lists(st.integers(0, 5), min_size=k, max_size=k).filter(any)),
                min_size=1,
                max_size=4,
            ),
            st.lists(st.one_of(st.just(math.inf), st.floats(0.001, 1.2)), min_size=k, max_size=k),
        )
    )
)
def test_epoch_caps_hold_for_any_weights_and_stages(
    drawn: tuple[list[tuple[int, list[int]]], list[float]],
) -> None:
    rows, capacities = drawn[0], np.array(drawn[1])
    lengths = np.array([length for length, _ in rows]) / sum(length for length, _ in rows)
    wanted = np.array([weights for _, weights in rows], np.float64)
    wanted /= wanted.sum(axis=1, keepdims=True)
    ends = [float(end) for end in np.cumsum(lengths)[:-1]] + [1.0]
    stages = list(zip(ends, wanted, strict=True))
    spare = can_be_met(lengths, wanted, capacities)
    if spare < -1e-7:
        with pytest.raises(ConfigError, match="allow"):
            planned_stages(stages, capacities * 1e9, 1e9)
    elif spare > 1e-7:
        planned = np.stack([shares for _, shares in planned_stages(stages, capacities * 1e9, 1e9)])
        assert planned.sum(axis=1) == pytest.approx(np.ones(len(rows)))
        assert (planned[wanted == 0] == 0).all() and (planned >= 0).all()
        assert (lengths @ planned <= capacities * (1 + 1e-9) + 1e-12).all()
        free = lengths @ wanted <= capacities
        if free.all():
            assert (planned == wanted).all()
