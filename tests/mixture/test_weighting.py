"""From policies and stages to weights by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataeng.errors import ConfigError
from dataeng.formats.mixture import MixtureStage, Policy
from dataeng.mixture.weighting import WantedStage, mean_weights, policy_weights, schedule_stages
from tests.formats.test_mixture import manifest

TOKENS = {"code": 100, "qa": 10, "web": 900}
NATURAL = Policy(name="natural")


def stage(name: str, until: float, weights: dict[str, float]) -> WantedStage:
    return WantedStage(name, until, Policy(name="given"), weights)


def test_policies() -> None:
    assert policy_weights(NATURAL, {"a": 30, "b": 10}) == pytest.approx({"a": 0.75, "b": 0.25})
    unimax = Policy(name="unimax", max_epochs=2, token_budget=900)
    assert policy_weights(unimax, {"a": 1000, "b": 50, "c": 150}) == pytest.approx(
        {"a": 500 / 900, "b": 100 / 900, "c": 300 / 900}
    )
    fitted = policy_weights(Policy(name="fitted"), {"a": 1, "b": 1}, {"b": 0.25, "a": 0.75})
    assert fitted == {"a": 0.75, "b": 0.25}


@pytest.mark.parametrize("policy", [Policy(name="unimax", max_epochs=2), Policy(name="unimax", token_budget=2)])
def test_unimax_needs_both_numbers(policy: Policy) -> None:
    with pytest.raises(ConfigError, match="needs a number of epochs and a token budget"):
        policy_weights(policy, TOKENS)


def test_stages_of_policies_and_weights() -> None:
    wanted = [
        WantedStage("balanced", 0.7, Policy(name="temperature", temperature=2.0), domains=("code", "web")),
        WantedStage("unimax", 0.9, Policy(name="unimax", max_epochs=1)),
        stage("annealing", 1.0, {"web": 0.5, "qa": 0.5, "code": 0.0}),
    ]
    balanced, unimax, annealing = schedule_stages(wanted, TOKENS, 1000)
    assert balanced.weights == pytest.approx({"code": 0.25, "qa": 0.0, "web": 0.75})
    # UniMax has its stage's part, 200 of 1000: 10 of qa, then 95 each.
    assert unimax.weights == pytest.approx({"code": 95 / 200, "qa": 10 / 200, "web": 95 / 200})
    assert annealing == MixtureStage(name="annealing", until=1.0, weights={"code": 0.0, "qa": 0.5, "web": 0.5})
    means = mean_weights([balanced, unimax, annealing])
    assert means["qa"] == pytest.approx(0.2 * 0.05 + 0.1 * 0.5) and sum(means.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([stage("a", 0.5, {"web": 1})], "the last stage, 'a', ends at 0.5; expected 1"),
        ([stage("a", 1.5, {"web": 1})], "stage 'a' ends at 1.5; expected a progress above 0 .* at most 1"),
        (
            [stage("a", 0.5, {"web": 1}), stage("b", 0.5, {"web": 1})],
            "'b' ends at 0.5; expected a progress above 0.5",
        ),
        ([stage("a", 1, {"wep": 1})], "stage 'a' names 'wep', which is no domain of the packs; did you mean 'web'"),
        ([stage("a", 1, {"web": 0.5})], "stage 'a': the given weights sum to 0.5, expected 1"),
        ([stage("a", 1, {"web": 1.5, "code": -0.5})], "stage 'a': the weight of domain 'code' is -0.5"),
        ([stage("a", 1, {"web": 0.5, "code": 0.5})], "no stage draws from domain 'qa'"),
        ([stage("a", 0.5, {"web": 1}), stage("a", 1, {"code": 0.5, "qa": 0.5})], "different names: a, a"),
        ([stage("all", 1, {"web": 0.5, "code": 0.25, "qa": 0.25})], "no stage can be called 'all'"),
        ([WantedStage("a", 1, NATURAL, domains=("cod",))], "names 'cod', .*did you mean 'code'"),
        ([WantedStage("a", 1, Policy(name="unimax", max_epochs=1))], "stage 'a': policy 'unimax' needs"),
    ],
)
def test_wrong_stages_are_named(stages: list[WantedStage], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        schedule_stages(stages, TOKENS, None)


@given(st.lists(st.tuples(st.integers(1, 20), st.lists(st.floats(0.01, 1), min_size=3, max_size=3)), min_size=1))
def test_any_stages_make_a_manifest_s_weights(rows: list[tuple[int, list[float]]]) -> None:
    total, ends = sum(length for length, _ in rows), []
    for length, _ in rows:
        ends.append((ends[-1] if ends else 0) + length)
    wanted = [
        stage(str(i), end / total, {name: w / sum(weights) for name, w in zip(TOKENS, weights, strict=True)})
        for i, (end, (_, weights)) in enumerate(zip(ends, rows, strict=True))
    ]
    stages = schedule_stages(wanted, TOKENS, None)
    made: Any = manifest(mean_weights(stages), schedule=stages)  # checks sums and means
    assert sum(domain.weight for domain in made.domains.values()) == pytest.approx(1)
