"""What makes two runs the same, and a configuration as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dataeng.formats.mixture import load_mixture
from trainer.config import TrainConfig
from trainer.identity import as_json, changes, identity

MakeConfig = Callable[..., TrainConfig]


def test_identity_holds_what_decides_the_numbers_and_nothing_else(make_config: MakeConfig, mixture: Path) -> None:
    manifest = load_mixture(mixture)
    hashes = {name: ["a" * 64] for name in manifest.domains}
    same = identity(make_config(), manifest, hashes)
    elsewhere = make_config(out=Path("elsewhere"), device="cuda", checkpoint_every=7, keep_checkpoints=9, threads=2)
    assert identity(elsewhere, manifest, hashes) == same
    watched = make_config(validate=Path("held_out.json"), validate_every=3, update_ratio_every=1, peak_flops=1e12)
    assert identity(watched, manifest, hashes) == same
    for options in ({"steps": 61}, {"seed": 1}, {"learning_rate": 1.0}, {"batch_size": 5}, {"reweighting": "none"}):
        assert identity(make_config(**options), manifest, hashes) != same
    code = manifest.domains["code"].model_copy(update={"weight": 0.41})
    reweighted = manifest.model_copy(update={"domains": {**manifest.domains, "code": code}})
    assert identity(make_config(), reweighted, hashes) != same
    fixed = manifest.domains["code"].model_copy(update={"reweighted": False})
    left_alone = manifest.model_copy(update={"domains": {**manifest.domains, "code": fixed}})
    assert identity(make_config(), left_alone, hashes) != same
    assert identity(make_config(), manifest, {**hashes, "code": ["b" * 64]}) != same
    assert json.loads(json.dumps(same)) == same


def test_changes_are_told_in_a_few_words(make_config: MakeConfig, mixture: Path) -> None:
    manifest = load_mixture(mixture)
    hashes = {name: ["a" * 64] for name in manifest.domains}
    before = identity(make_config(), manifest, hashes)

    def told(hashes: dict[str, list[str]] = hashes, **options: object) -> list[str]:
        return changes(before, identity(make_config(**options), manifest, hashes))

    assert told() == []
    assert told(steps=80) == ["--steps 60 → 80", "--warmup-steps 3 → 4", "--decay-steps 15 → 20"]
    assert told(optimizer="muon", reweighting="none", qk_norm=True) == [
        "--qk-norm False → True",
        "--optimizer adamw → muon",
        "--reweighting sow-identity → none",
    ]
    assert told(learning_rate=0.1 + 0.2) == ["--learning-rate 0.0015 → 0.3"]
    assert told({**hashes, "code": ["b" * 64, "c" * 64]}) == ["the packs of code"]
    other = manifest.model_copy(update={"tokenizer_sha256": "d" * 64})
    assert changes(before, identity(make_config(), other, hashes)) == ["the tokenizer"]
    code = manifest.domains["code"].model_copy(update={"weight": 0.41})
    other = manifest.model_copy(update={"domains": {**manifest.domains, "code": code}})
    assert changes(before, identity(make_config(), other, hashes)) == ["domains.code.weight 0.4 → 0.41"]
    fewer = manifest.model_copy(update={"domains": {n: d for n, d in manifest.domains.items() if n != "tables"}})
    assert changes(before, identity(make_config(), fewer, hashes)) == [
        "domains code, prose, tables → code, prose",
        "the domain tables",
    ]


def test_as_json_is_json(make_config: MakeConfig) -> None:
    config = replace(make_config(validate=Path("c/d.json"), validate_tokens=7), out=Path("a/b"))
    values = json.loads(json.dumps(as_json(config)))
    assert (values["out"], values["model"]["dim"], values["reweighting"]["ema"]) == ("a/b", 128, 0.5)
    assert values["validation"] == {"mixture": "c/d.json", "every": 30, "tokens": 7}
