"""Manifests from packs: what comes out, what is refused, and what the table says."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataeng.errors import ConfigError, FormatError
from dataeng.formats.mixture import Policy, load_mixture, save_mixture
from dataeng.mixture.build import build_mixture, mixture_table

WritePack = Callable[..., Path]
NATURAL = Policy(name="natural")


def test_a_manifest_from_packs(write_pack: WritePack, tmp_path: Path) -> None:
    folders = [write_pack("web", [60, 30]), write_pack("code", [10])]
    path = tmp_path / "manifests" / "mix.json"
    built = build_mixture(folders, path, policy=NATURAL, max_epochs={"code": 4}, run=tmp_path)
    assert built.run == ".."
    assert list(built.domains) == ["code", "web"]
    web, code = built.domains["web"], built.domains["code"]
    assert (web.packs, web.num_documents, web.num_tokens, web.max_epochs) == (["../packs/web"], 2, 90, None)
    assert (code.packs, code.num_documents, code.num_tokens, code.max_epochs) == (["../packs/code"], 1, 10, 4)
    assert (web.weight, code.weight) == (pytest.approx(0.9), pytest.approx(0.1))
    save_mixture(path, built)
    assert load_mixture(path) == built


def test_packs_of_one_domain_are_merged(write_pack: WritePack, tmp_path: Path) -> None:
    folders = [write_pack("web1", [10], "web"), write_pack("code", [20]), write_pack("web2", [10, 10], "web")]
    web = build_mixture(folders, tmp_path / "mix.json", policy=NATURAL).domains["web"]
    assert (web.packs, web.num_documents, web.num_tokens) == (["packs/web1", "packs/web2"], 3, 30)
    assert web.weight == pytest.approx(0.6)


def test_temperature_survives_the_file_even_if_infinite(write_pack: WritePack, tmp_path: Path) -> None:
    folders = [write_pack("web", [900]), write_pack("code", [100])]
    for temperature, expected in ((2.0, 0.75), (math.inf, 0.5)):
        policy = Policy(name="temperature", temperature=temperature)
        built = build_mixture(folders, tmp_path / "mix.json", policy=policy)
        save_mixture(tmp_path / "mix.json", built)
        loaded = load_mixture(tmp_path / "mix.json")
        assert loaded.domains["web"].weight == pytest.approx(expected)
        assert loaded.policy.temperature == temperature


def test_given_weights(write_pack: WritePack, tmp_path: Path) -> None:
    folders = [write_pack("web", [900]), write_pack("code", [100])]
    policy = Policy(name="given")
    built = build_mixture(folders, tmp_path / "mix.json", policy=policy, weights={"web": 0.2, "code": 0.8})
    assert (built.domains["web"].weight, built.domains["code"].weight) == (0.2, 0.8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy": Policy(name="given")}, "'given' needs a weight for each of the domains code, web"),
        ({"policy": NATURAL, "weights": {"web": 1.0}}, "'natural' takes no weights"),
        ({"policy": Policy(name="temperature")}, "needs a temperature"),
        ({"policy": Policy(name="learned")}, "what a training run writes"),
        ({"policy": NATURAL, "max_epochs": 0}, "epoch cap of domain 'code' is 0"),
        ({"policy": NATURAL, "max_epochs": {"wep": 2}}, "did you mean 'web'"),
        ({"policy": Policy(name="temperature", temperature=1e-4)}, "leaves domain 'code' .10 tokens. a weight of 0"),
    ],
)
def test_wrong_choices_are_named(
    write_pack: WritePack, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    folders = [write_pack("web", [90]), write_pack("code", [10])]
    with pytest.raises(ConfigError, match=message):
        build_mixture(folders, tmp_path / "mix.json", **arguments)


def test_packs_that_do_not_fit_together_are_refused(write_pack: WritePack, tmp_path: Path) -> None:
    web, code = write_pack("web", [90]), write_pack("code", [10], tokenizer="u" * 64)
    with pytest.raises(FormatError, match=r"tokenizer_sha256 is u+ in .*code \(domain 'code'\) but t+ in .*web"):
        build_mixture([web, code], tmp_path / "mix.json", policy=NATURAL)
    with pytest.raises(FormatError, match="given twice"):
        build_mixture([web, tmp_path / "packs" / ".." / "packs" / "web"], tmp_path / "mix.json", policy=NATURAL)
    with pytest.raises(FormatError, match="domain 'empty' has 0 tokens"):
        build_mixture([web, write_pack("empty", [])], tmp_path / "mix.json", policy=NATURAL)
    with pytest.raises(FormatError, match="no pack at"):
        build_mixture([tmp_path / "nowhere"], tmp_path / "mix.json", policy=NATURAL)
    with pytest.raises(ConfigError, match="at least one pack"):
        build_mixture([], tmp_path / "mix.json", policy=NATURAL)


def test_the_table_of_a_budget(write_pack: WritePack, tmp_path: Path) -> None:
    folders = [write_pack("web", [900]), write_pack("code", [100])]
    policy = Policy(name="temperature", temperature=math.inf)
    built = build_mixture(folders, tmp_path / "mix.json", policy=policy, max_epochs={"code": 2})
    code, web = mixture_table(built, 1000)
    # Half of 1000 would be 5 epochs of code; two are allowed, the web takes the rest.
    assert (code.domain, code.weight, code.share, code.tokens_drawn, code.epochs) == ("code", 0.5, 0.2, 200, 2.0)
    assert (web.domain, web.weight, web.share, web.tokens_drawn) == ("web", 0.5, 0.8, 800)
    assert web.epochs == pytest.approx(800 / 900)
    with pytest.raises(ConfigError, match="token budget is 0"):
        mixture_table(built, 0)
