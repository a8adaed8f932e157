"""Takedown from packs that stand alone, and from the mixtures that name them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataeng.engine.lease import hold_lease
from dataeng.engine.takedown import stale_mixtures, take_down
from dataeng.errors import ConfigError, FormatError, LeaseError
from dataeng.formats.mixture import Domain, MixtureManifest, Policy, load_mixture, save_mixture
from dataeng.formats.pack import load_manifest
from dataeng.formats.pack_verification import verify_pack
from dataeng.formats.removal_list import removal_list
from dataeng.mixture.build import build_mixture
from tests.formats.pack_files import ALL, EOS, document_table, write_pack

WHEN = "2026-01-01T00:00:00+00:00"
SHARDS = [[[5, EOS], [6, 7, EOS], [8, EOS]], [[9, EOS]]]  # hosts: a, b, www.a; b


@pytest.fixture
def packs(tmp_path: Path) -> list[Path]:
    """Two packs of one domain, and one of another with a single document (of a.example)."""
    folders = [tmp_path / name for name in ("one", "two", "small")]
    for folder in folders[:2]:
        write_pack(folder, SHARDS, kinds=ALL)
    write_pack(folders[2], [[[3, EOS]]], kinds=ALL, domain="small")
    return folders


def mix(packs: list[Path], path: Path, pinned: bool = True) -> MixtureManifest:
    manifest = build_mixture(packs, path, policy=Policy(name="natural"), pinned=pinned)
    save_mixture(path, manifest)
    return manifest


@pytest.mark.parametrize("pinned", [False, True])
def test_mixtures_follow_their_packs_and_keep_their_weights(packs: list[Path], tmp_path: Path, pinned: bool) -> None:
    path = tmp_path / "mix.json"
    before = mix(packs, path, pinned)
    wanted = removal_list([], ["b.example"], "", WHEN)
    done = take_down(packs, wanted, [path], WHEN)
    assert [plan.num_documents for plan in done.packs] == [2, 2, 0] and done.mixtures == [path]
    after = load_mixture(path)
    assert (after.revision, after.domains["web"].num_documents, after.domains["web"].num_tokens) == (1, 4, 8)
    assert after.domains["small"] == before.domains["small"]
    assert [d.weight for d in after.domains.values()] == [d.weight for d in before.domains.values()]
    fresh = build_mixture(packs, path, policy=Policy(name="natural"), pinned=pinned)
    assert after.domains["web"].pack_sha256 == fresh.domains["web"].pack_sha256
    assert (after.domains["web"].pack_sha256 is not None) == pinned
    # A second time there is nothing to do, neither here nor there.
    done = take_down(packs, wanted, [path], WHEN)
    assert done.mixtures == [] and load_mixture(path) == after
    assert [load_manifest(pack).revision for pack in packs] == [1, 1, 0]


def test_a_mixture_that_was_not_updated_is_when_it_is_named(packs: list[Path], tmp_path: Path) -> None:
    """As after a kill between packs and mixture."""
    path = tmp_path / "mix.json"
    mix(packs, path)
    wanted = removal_list([], ["b.example"], "", WHEN)
    take_down(packs, wanted, [], WHEN)
    done = take_down(packs, wanted, [path], WHEN)
    assert sum(plan.num_documents for plan in done.packs) == 0 and done.mixtures == [path]
    assert load_mixture(path).domains["web"].num_tokens == 8


def test_a_domain_without_tokens_stops_everything_before_it_begins(packs: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "mix.json"
    before = mix(packs, path)
    wanted = removal_list([], ["a.example"], "", WHEN)
    message = r"domain 'small' of .*mix\.json would be left without tokens: all its 2 go.*Nothing was removed"
    for dry_run in (True, False):
        with pytest.raises(ConfigError, match=message):
            take_down(packs, wanted, [path], WHEN, dry_run)
    assert load_mixture(path) == before and all(load_manifest(pack).revision == 0 for pack in packs)
    done = take_down(packs, wanted, [], WHEN)
    assert [plan.num_tokens for plan in done.packs] == [2, 2, 2] and load_manifest(packs[2]).num_tokens == 0
    assert all(verify_pack(pack) == [] for pack in packs)


def test_a_dry_run_leaves_everything_as_it_is(packs: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "mix.json"
    mix(packs, path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    done = take_down(packs, removal_list([], ["b.example"], "", WHEN), [path], WHEN, dry_run=True)
    assert sum(plan.num_documents for plan in done.packs) == 4 and done.mixtures == [path]
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_ids_that_are_unknown_or_gone_already_are_told_apart(packs: list[Path]) -> None:
    ids = document_table(0, SHARDS[0]).column("id").to_pylist()
    take_down(packs[:1], removal_list(ids[:1], [], "", WHEN), [], WHEN)
    done = take_down(packs[:1], removal_list([*ids[:2], "nobody"], [], "", WHEN), [], WHEN)
    assert (done.num_ids, done.ids_removed_before, done.ids_unknown) == (3, 1, ["nobody"])
    assert [plan.num_documents for plan in done.packs] == [1]


def test_mixtures_that_were_not_named_are_found(
    packs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, near = tmp_path / "elsewhere/manifests/a.json", tmp_path / "manifests/b.json"
    for path in (here, near):
        path.parent.mkdir(parents=True)
        mix(packs[2:], path)
    mix(packs[:2], near.with_name("others.json"))
    near.with_name("not_one.json").write_text("{}")
    monkeypatch.chdir(here.parents[1])
    assert stale_mixtures(packs[2:]) == [here, near] and stale_mixtures(packs[2:], [here]) == [near]
    assert take_down(packs[2:], removal_list(["nobody"], [], "", WHEN), [], WHEN).stale == []
    done = take_down(packs[2:], removal_list([], ["a.example"], "", WHEN), [], WHEN)
    assert done.stale == [here, near]


def test_targets_and_mixtures_that_do_not_fit(packs: list[Path], tmp_path: Path) -> None:
    wanted = removal_list(["nobody"], [], "", WHEN)
    with pytest.raises(ConfigError, match=r"is neither a pack \(pack\.json\) nor a run with packs"):
        take_down([tmp_path], wanted, [], WHEN)
    path = tmp_path / "mix.json"
    mix(packs[2:], path)
    with pytest.raises(ConfigError, match=r"mix\.json has none of the packs that were given; its packs: .*small"):
        take_down(packs[:2], wanted, [path], WHEN)
    path.write_text(json.dumps({"domains": {}}))
    with pytest.raises(FormatError, match=r"mix\.json"):
        take_down(packs, wanted, [path], WHEN)
    with hold_lease(packs[1]), pytest.raises(LeaseError, match="two is in use by process"):
        take_down(packs, removal_list([], ["b.example"], "", WHEN), [], WHEN)
    assert [load_manifest(pack).revision for pack in packs] == [0, 0, 0]


def test_a_pack_given_twice_is_one(packs: list[Path]) -> None:
    done = take_down([packs[0], packs[0] / ".." / "one"], removal_list([], ["b.example"], "", WHEN), [], WHEN)
    assert len(done.packs) == 1 and load_manifest(packs[0]).revision == 1


def test_learned_weights_and_stages_stay(packs: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "mix.json"
    manifest = mix(packs, path)
    domains = {name: Domain(**{**domain.model_dump(), "weight": 0.5}) for name, domain in manifest.domains.items()}
    learned = {"run": "r", "step": 1, "weights": {"web": 0.5, "small": 0.5}, "losses": {"web": 1.0, "small": 2.0}}
    changed = {**manifest.model_dump(), "domains": domains, "history": [learned]}
    save_mixture(path, MixtureManifest.model_validate(changed))
    take_down(packs, removal_list([], ["b.example"], "", WHEN), [path], WHEN)
    after = load_mixture(path)
    assert after.domains["web"].weight == 0.5 and after.history[0].losses["small"] == 2.0
