"""The mixture manifest: what survives writing, and what is refused and how it is named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dataeng.errors import FormatError
from dataeng.formats.mixture import (
    Domain,
    LearnedWeights,
    MixtureManifest,
    Policy,
    Reweighting,
    load_mixture,
    relative_to_manifest,
    save_mixture,
)


def manifest(weights: dict[str, float] | None = None, **changes: Any) -> MixtureManifest:
    weights = weights or {"web": 0.7, "code": 0.3}
    value: dict[str, Any] = {
        "tokenizer_sha256": "0" * 64,
        "vocab_size": 1000,
        "domains": {
            name: Domain(packs=[f"../packs/{name}"], num_documents=3, num_tokens=100, weight=weight)
            for name, weight in weights.items()
        },
        "policy": Policy(name="natural"),
    }
    return MixtureManifest(**{**value, **changes})


def test_round_trip_of_everything(tmp_path: Path) -> None:
    full = manifest(
        run="../runs/x",
        policy=Policy(name="temperature", temperature=math.inf, note="all alike: žluť"),
        reweighting=Reweighting(r=0.5, ema=0.9, warmup_steps=10),
        history=[LearnedWeights(run="a", step=5, weights={"web": 0.6, "code": 0.4}, losses={"web": 3.5, "code": 2.25})],
    )
    save_mixture(tmp_path / "manifests" / "mix.json", full)
    assert load_mixture(tmp_path / "manifests" / "mix.json") == full
    text = (tmp_path / "manifests" / "mix.json").read_text()
    assert '"temperature": "Infinity"' in text and "žluť" in text and "max_epochs" not in text
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=40))
def test_shares_that_were_computed_are_accepted_and_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, tokens: list[int]
) -> None:
    weights = {f"d{i}": count / sum(tokens) for i, count in enumerate(tokens)}
    path = tmp_path_factory.getbasetemp() / "mix.json"
    save_mixture(path, manifest(weights))
    assert {name: domain.weight for name, domain in load_mixture(path).domains.items()} == weights


def test_weights_must_sum_to_one_and_are_shown_if_they_do_not() -> None:
    with pytest.raises(ValidationError, match=r"weights sum to 0\.9, expected 1 \(web 0\.5, code 0\.4\)"):
        manifest({"web": 0.5, "code": 0.4})


def changed(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    root: dict[str, Any] = json.loads(manifest().model_dump_json(exclude_none=True))
    node = root
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return root


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("format_version",), 2, "format_version: found 2, expected 1"),
        (("vocab_size",), 0, "vocab_size: found 0, expected a number greater than 0"),
        (("domains",), {}, "domains: Dictionary should have at least 1 item"),
        (("domains", "web", "packs"), [], r"domains\.web\.packs: List should have at least 1 item"),
        (("domains", "web", "weight"), 0, r"domains\.web\.weight: found 0, expected a number greater than 0"),
        (("domains", "web", "weight"), -0.7, r"domains\.web\.weight: "),
        (("domains", "web", "weight"), "NaN", r"domains\.web\.weight: "),
        (("domains", "web", "weight"), 0.8, "manifest: weights sum to 1.1, expected 1"),
        (("domains", "web", "num_tokens"), 0, r"domains\.web\.num_tokens: "),
        (("domains", "web", "max_epochs"), 0, r"domains\.web\.max_epochs: "),
        (("domains", "web", "wieght"), 0.7, r"domains\.web\.wieght: there is no such name; did you mean 'weight'"),
        (("policy", "name"), "magic", r"policy\.name: 'magic' is unknown; known: .*natural, .*temperature, unimax"),
        (("policy", "temperature"), 0, r"policy\.temperature: "),
        (("reweighting", "r"), 0, r"reweighting\.r: "),
        (("reweighting", "ema"), 1, r"reweighting\.ema: "),
        (("reweighting", "method"), "other", r"reweighting\.method: "),
        (("history",), [{"run": "a", "step": -1, "weights": {}, "losses": {}}], r"history\.0\.step: "),
        (("surprise",), 1, "surprise: there is no such name; known: domains, "),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, path: tuple[str, ...], value: Any, message: str) -> None:
    file = tmp_path / "mix.json"
    file.write_text(json.dumps(changed(path, value)))
    with pytest.raises(FormatError, match=rf"mix\.json: {message}"):
        load_mixture(file)


def staged(*stages: tuple[float, float, float]) -> dict[str, Any]:
    schedule = [
        {"name": f"s{i}", "until": until, "weights": {"web": web, "code": code}}
        for i, (until, web, code) in enumerate(stages)
    ]
    return {**json.loads(manifest().model_dump_json(exclude_none=True)), "schedule": schedule}


def test_a_schedule_of_stages(tmp_path: Path) -> None:
    file = tmp_path / "mix.json"
    file.write_text(json.dumps(staged((0.7, 1, 0), (0.9, 0.5, 0.5), (1, 0.2, 0.8))))
    loaded = load_mixture(file)
    assert [stage.until for stage in loaded.schedule] == [0.7, 0.9, 1]
    save_mixture(file, loaded)
    assert load_mixture(file) == loaded


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([(0.7, 1, 0)], "the last stage 's0' ends at 0.7, expected 1"),
        ([(0.7, 1, 0), (0.7, 1, 0), (1, 1, 0)], "stage 's1' ends at 0.7, the one before at 0.7"),
        (
            [(1, 0.5, 0.6)],
            r"the weights of stage 's0' sum to 1\.1, expected 1 and none below 0 \(web 0\.5, code 0\.6\)",
        ),
        ([(1, -0.5, 1.5)], "none below 0"),
        ([(1.5, 1, 0)], r"schedule\.0\.until: found 1.5, expected a number less than or equal to 1"),
    ],
)
def test_a_schedule_that_is_none(tmp_path: Path, stages: list[tuple[float, float, float]], message: str) -> None:
    file = tmp_path / "mix.json"
    file.write_text(json.dumps(staged(*stages)))
    with pytest.raises(FormatError, match=message):
        load_mixture(file)


def test_a_stage_names_every_domain(tmp_path: Path) -> None:
    file, value = tmp_path / "mix.json", staged((1, 1, 0))
    del value["schedule"][0]["weights"]["code"]
    file.write_text(json.dumps(value))
    with pytest.raises(FormatError, match="stage 's0' gives weights for web; the domains are code, web"):
        load_mixture(file)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_a_file_that_is_no_manifest(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mix.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"mix\.json: manifest: "):
        load_mixture(tmp_path / "mix.json")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"cannot read mixture manifest .*mix\.json: No such file"):
        load_mixture(tmp_path / "mix.json")


def test_paths_are_relative_to_the_manifest_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = tmp_path / "runs" / "a" / "packs" / "web"
    assert relative_to_manifest(pack, tmp_path / "manifests" / "mix.json") == "../runs/a/packs/web"
    monkeypatch.chdir(tmp_path)
    assert relative_to_manifest(Path("runs/a/packs/web"), Path("manifests/mix.json")) == "../runs/a/packs/web"
    assert relative_to_manifest(pack, pack / "mix.json") == "."
