"""What makes two runs the same, and a configuration as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dataeng.formats.mixture import load_mixture
from trainer.config import TrainConfig
from trainer.identity import as_json, identity

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


def test_as_json_is_json(make_config: MakeConfig) -> None:
    config = replace(make_config(validate=Path("c/d.json"), validate_tokens=7), out=Path("a/b"))
    values = json.loads(json.dumps(as_json(config)))
    assert (values["out"], values["model"]["dim"], values["reweighting"]["ema"]) == ("a/b", 128, 0.5)
    assert values["validation"] == {"mixture": "c/d.json", "every": 30, "tokens": 7}
