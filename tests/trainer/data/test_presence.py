"""Presence of domains in a step: by hand, against drawing at random, and against the rows that are really planned."""

from __future__ import annotations

import numpy as np
import pytest

from dataeng.formats.reweighting import Reweighting
from trainer.data.presence import presence_warning, presences, repetition_warning
from trainer.data.sampler import MixtureSampler, SampledDomain, SampledStage

SHARES = np.array([0.7, 0.2, 0.08, 0.02])
NAMES = ["web", "code", "books", "qa"]


def test_by_hand() -> None:
    web, code, books, qa = presences(NAMES, [SHARES], 8)
    assert (web.planned, web.steps_between, web.is_rare) == (1.0, 1, False)
    assert (code.planned, code.steps_between, code.is_rare) == (1.0, 1, False)
    assert books.planned == pytest.approx(0.64) and books.steps_between == 2 and books.is_rare
    assert qa.planned == pytest.approx(0.16) and qa.steps_between == 7
    assert qa.random == pytest.approx(1 - 0.98**8)
    assert code.random == pytest.approx(1 - 0.8**8) and code.random < 0.95  # planning is what makes it sure


def test_drawing_at_random_comes_to_the_same() -> None:
    steps = np.random.default_rng(5).choice(4, size=(20_000, 8), p=SHARES)
    for number, presence in enumerate(presences(NAMES, [SHARES], 8)):
        assert (steps == number).any(1).mean() == pytest.approx(presence.random, abs=0.01)


def test_the_sampler_comes_to_the_same() -> None:
    sampler = MixtureSampler(
        [SampledDomain(name=name, num_rows=50) for name in NAMES], [SampledStage(shares=tuple(SHARES))], seed=1
    )
    domains, _ = sampler.take(8 * 1000)
    steps = domains.reshape(1000, 8)
    for number, presence in enumerate(presences(NAMES, [SHARES], 8)):
        found = np.flatnonzero((steps == number).any(1))
        assert len(found) / 1000 == pytest.approx(presence.planned, abs=0.005)
        assert np.diff(found).max() <= presence.steps_between


def test_the_smallest_share_of_any_stage_counts_unless_there_is_none() -> None:
    stages = [np.array([1.0, 0.0, 0.0]), np.array([0.9, 0.1, 0.0]), np.array([0.5, 0.5, 0.0])]
    first, second = presences(["a", "b", "c"], stages, 4)
    assert (first.share, second.share) == (0.5, 0.1)
    assert presences(["a"], [np.array([1.0])], 1)[0].random == 1.0


def test_one_line_names_them_and_says_what_helps() -> None:
    found = presences(NAMES, [SHARES], 8)
    line = presence_warning(found, 8, Reweighting())
    assert line == (
        "note: with 8 rows a step, some domains are not in every step, and their losses are not known in between: qa "
        "in 1 of 7 (drawn at random: 15%), books in 1 of 2 (drawn at random: 49%). --batch-size 50 would put them into "
        "every step; with `ema` in the manifest's reweighting, weights would rest on more than the last row."
    )
    averaged = presence_warning(found, 8, Reweighting(ema=0.9))
    assert averaged is not None and averaged.endswith("as it is, weights go by averages over steps (ema 0.9).")
    plain = presence_warning(found, 8, Reweighting(method="none"))
    assert plain is not None and plain.endswith("--batch-size 50 would put them into every step.")
    assert presence_warning(presences(NAMES, [SHARES], 50), 50, Reweighting()) is None
    many = presences([f"d{i}" for i in range(20)], [np.full(20, 0.05)], 8)
    crowded = presence_warning(many, 8, Reweighting())
    assert crowded is not None and "d4 in 1 of 3" in crowded and "d5" not in crowded and ", and 15 more." in crowded


def test_domains_that_a_run_repeats_too_often_are_named() -> None:
    stages = [
        SampledStage(until_row=60, shares=(0.5, 0.5, 0.0)),
        SampledStage(until_row=None, shares=(0.25, 0.25, 0.5)),
    ]
    # 100 rows: 30 + 10 of a and of b, 20 of c.
    line = repetition_warning(["a", "b", "c"], stages, [4, 10, 2], 100)
    assert line is not None and line.startswith("note: this run reads a 10.0 times, c 10.0 times; beyond 4 repeated")
    assert repetition_warning(["a", "b", "c"], stages, [10, 10, 5], 100) is None
