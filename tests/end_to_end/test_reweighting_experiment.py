"""The mechanics of `tests/accuracy/reweighting.py` on a part of the sample, a few steps each; and its arithmetic."""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl
import pytest

from dataeng.formats.mixture import load_mixture
from tests.accuracy.reweighting import VARIANTS, Experiment, Settings, open_experiment
from tests.accuracy.reweighting_packs import HELD_OUT, SAMPLE_ONLY_FILES, build_packs, pack_folders
from tests.accuracy.reweighting_table import differences, domain_rows, mean_and_deviation, per_run, summary_rows

SETTINGS = Settings(steps=10, batch_size=3, sequence_length=32, vocab_size=512, held_out_tokens=64)
DOMAINS = sorted(SAMPLE_ONLY_FILES)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_packs(tmp_path_factory.mktemp("corpus"), list(SAMPLE_ONLY_FILES.items()), False, 512)


@pytest.fixture(scope="module")
def experiment(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    opened = open_experiment(tmp_path_factory.mktemp("experiment"), corpus, SETTINGS)
    opened.run(VARIANTS["sheared"], 0)
    opened.run(VARIANTS["sow-identity-static"], 0)
    return opened


def test_no_document_is_on_both_sides_and_none_is_lost(corpus: Path) -> None:
    trained, held_out = pack_folders(corpus)
    assert [path.name for path in trained] == DOMAINS
    assert [path.name for path in held_out] == [name + HELD_OUT for name in DOMAINS]
    ids = [set(pl.read_parquet(path / "*.docs.parquet")["id"]) for path in (*trained, *held_out)]
    assert len(set.union(*ids)) == sum(map(len, ids)) > 500
    assert all(max(found) < "28" for found in ids[3:]) and all(min(found) >= "28" for found in ids[:3])


def test_what_a_method_needs_is_run_before_it_and_nothing_twice(experiment: Experiment) -> None:
    results = pl.read_csv(experiment.results)
    expected = ["uniform", "sheared", "sow-identity", "sow-identity-static"]
    assert results["method"].unique(maintain_order=True).to_list() == expected
    assert results.group_by("method").len()["len"].to_list() == [3] * 4
    assert results.select(pl.col("loss").is_between(3.0, math.log(512) + 0.5).all()).item()
    before = experiment.results.read_bytes()
    for name in expected:
        experiment.run(VARIANTS[name], 0)
    assert experiment.results.read_bytes() == before
    table = {row[0]: row for row in summary_rows(results)}
    assert [table[name][2] for name in expected] == ["1", "2", "1", "2"]
    assert [row[0] for row in domain_rows(results)][3:] == expected[1:]


def test_references_are_the_baselines_and_static_weights_what_was_learned(experiment: Experiment) -> None:
    metrics = pl.read_parquet(experiment.folder / "runs" / "uniform" / "0" / "metrics" / "*.parquet")
    late = metrics.filter(pl.col("step") > 8, pl.col("loss").is_not_null())
    reference = load_mixture(experiment.folder / "manifests" / "sheared-0.json").reweighting.reference
    assert reference is not None
    for name in DOMAINS:
        rows = late.filter(pl.col("domain") == name)
        assert reference[name] == pytest.approx((rows["loss"] * rows["tokens"]).sum() / rows["tokens"].sum())
    learned = load_mixture(experiment.folder / "runs" / "sow-identity" / "0" / "mix.json")
    static = load_mixture(experiment.folder / "manifests" / "sow-identity-static-0.json")
    assert static.reweighting.method == "none"
    for name in DOMAINS:
        assert static.domains[name].weight == pytest.approx(learned.domains[name].weight)
    assert len({domain.weight for domain in static.domains.values()}) > 1


def test_results_of_other_settings_are_not_mixed(experiment: Experiment, corpus: Path) -> None:
    with pytest.raises(SystemExit, match="other settings"):
        open_experiment(experiment.folder, corpus, Settings(steps=11))
    open_experiment(experiment.folder, corpus, SETTINGS)


def test_differences_are_paired_by_seed() -> None:
    losses = {
        ("uniform", 0): (1.0, 3.0),
        ("odm", 0): (1.5, 2.5),
        ("uniform", 1): (2.0, 5.0),
        ("odm", 1): (2.25, 4.25),
        ("natural", 1): (1.0, 6.5),
        ("ado-natural", 1): (1.5, 6.5),
        ("ado-natural", 0): (0.0, 0.0),  # without its baseline at this seed
    }
    bases = {"natural": "natural", "ado-natural": "natural"}
    results = pl.DataFrame(
        [
            {
                "method": method,
                "base": bases.get(method, "uniform"),
                "seed": seed,
                "runs": 1,
                "domain": domain,
                "loss": loss,
                "tokens": n,
            }
            for (method, seed), found in losses.items()
            for domain, loss, n in zip(("web", "code"), found, (300, 100), strict=True)
        ]
    )
    runs = per_run(results)
    assert runs.filter(pl.col("method") == "uniform")["by_tokens"].to_list() == [1.5, 2.75]
    assert runs.filter(pl.col("method") == "odm")["worst"].to_list() == [2.5, 4.25]
    assert differences(runs, "mean")["odm"] == (-0.125, pytest.approx(0.125), 2)  # 0 and -0.25
    assert differences(runs, "worst")["odm"] == (-0.625, pytest.approx(0.125), 2)
    assert differences(runs, "mean")["natural"][::2] == (0.25, 1)  # to uniform
    assert differences(runs, "mean")["ado-natural"][::2] == (0.25, 1)  # to natural
    assert "uniform" not in differences(runs, "mean")
    assert mean_and_deviation([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))
    assert math.isnan(mean_and_deviation([1.0])[1])
    rows = {row[0]: row[1:] for row in domain_rows(results)}
    assert rows["odm"] == ["+0.375", "-0.625"]
    assert rows["natural"] == ["-1.000", "+1.500"]
    assert rows["ado-natural"] == ["+0.500", "+0.000"]
