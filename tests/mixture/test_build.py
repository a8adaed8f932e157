"""Manifests from packs: what comes out, what is refused, and what the table says."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataeng.errors import ConfigError, FormatError
from dataeng.formats.atomic import sha256_file
from dataeng.formats.mixture import Order, Policy, check_pack_hashes, load_mixture, save_mixture
from dataeng.mixture.build import build_mixture, load_pack_tokens, refreshed
from dataeng.mixture.weighting import WantedStage

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
        (
            {"policy": NATURAL, "fixed": ["qa"]},
            "a fixed weight is given for 'qa', which is no domain; known: code, web",
        ),
        ({"policy": NATURAL, "orders": {"cod": Order(by="x")}}, "a curriculum is given for 'cod', .* mean 'code'"),
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


def test_a_manifest_with_everything(write_pack: WritePack, tmp_path: Path) -> None:
    folders = [write_pack("web", [60, 30]), write_pack("code", [10])]
    path = tmp_path / "mix.json"
    wanted = [
        WantedStage("first", 0.75, NATURAL, domains=("web",)),
        WantedStage("last", 1.0, Policy(name="given"), {"web": 0.2, "code": 0.8}),
    ]
    built = build_mixture(
        folders, path, policy=Policy(name="given"), schedule=wanted, fixed=["code"], packing="best-fit"
    )
    assert [stage.weights for stage in built.schedule] == [{"code": 0.0, "web": 1.0}, {"code": 0.8, "web": 0.2}]
    assert built.domains["code"].weight == pytest.approx(0.2) and built.packing == "best-fit"
    assert (built.domains["code"].reweighted, built.domains["web"].reweighted) == (False, True)
    assert built.domains["web"].pack_sha256 == [sha256_file(folders[0] / "pack.json")]
    save_mixture(path, built)
    assert load_mixture(path) == built
    check_pack_hashes("web", built.domains["web"], path)
    unpinned = build_mixture(folders, path, policy=NATURAL, pinned=False).domains["web"]
    assert unpinned.pack_sha256 is None
    (folders[0] / "pack.json").write_text((folders[0] / "pack.json").read_text() + "\n")
    check_pack_hashes("web", unpinned, path)
    with pytest.raises(FormatError, match=r"packs/web/pack.json \(domain 'web'\) has SHA-256 .* the pack has changed"):
        check_pack_hashes("web", built.domains["web"], path)
    assert refreshed(built.domains["web"], path).pack_sha256 == [sha256_file(folders[0] / "pack.json")]


def test_a_domain_is_refreshed_when_its_packs_lost_documents(write_pack: WritePack, tmp_path: Path) -> None:
    path = tmp_path / "mix.json"
    web = build_mixture([write_pack("web", [60, 30])], path, policy=NATURAL, max_epochs=3).domains["web"]
    shutil.rmtree(tmp_path / "packs" / "web")
    folder = write_pack("web", [60])
    assert refreshed(web, path) == web.model_copy(
        update={"num_documents": 1, "num_tokens": 60, "pack_sha256": [sha256_file(folder / "pack.json")]}
    )


def test_unimax_caps_every_domain_at_its_epochs(write_pack: WritePack, tmp_path: Path) -> None:
    folders = [write_pack("web", [900]), write_pack("code", [100])]
    policy = Policy(name="unimax", max_epochs=2, token_budget=1000)
    built = build_mixture(folders, tmp_path / "mix.json", policy=policy, max_epochs={"web": 1})
    assert (built.domains["code"].weight, built.domains["web"].weight) == (0.2, 0.8)
    assert (built.domains["code"].max_epochs, built.domains["web"].max_epochs) == (2, 1)


def test_a_schedule_takes_no_weights_beside_it(write_pack: WritePack, tmp_path: Path) -> None:
    stages = [WantedStage("one", 1.0, NATURAL)]
    with pytest.raises(ConfigError, match="takes no others"):
        build_mixture(
            [write_pack("web", [9])],
            tmp_path / "mix.json",
            policy=Policy(name="given"),
            weights={"web": 1.0},
            schedule=stages,
        )


def test_tokens_by_domain(write_pack: WritePack) -> None:
    folders = [write_pack("web1", [10], "web"), write_pack("code", [20]), write_pack("web2", [10, 10], "web")]
    assert list(load_pack_tokens(folders).items()) == [("code", 20), ("web", 30)]


def test_packs_of_another_dtype_are_refused(write_pack: WritePack, tmp_path: Path) -> None:
    web, code = write_pack("web", [90]), write_pack("code", [10])
    text = (code / "pack.json").read_text()
    (code / "pack.json").write_text(text.replace('"uint16"', '"int32"'))
    with pytest.raises(FormatError, match=r"dtype is int32 in .*code \(domain 'code'\) but uint16 in .*web"):
        build_mixture([web, code], tmp_path / "mix.json", policy=NATURAL)
