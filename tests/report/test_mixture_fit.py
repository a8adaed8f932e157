"""What `dataeng mix fit` takes and prints."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from dataeng.errors import ConfigError
from dataeng.mixture.fit.fit import FittedMixture
from dataeng.mixture.fit.quality import Quality
from dataeng.mixture.fit.runs import ProxyRuns
from dataeng.report import mixture_fit

FITTED = FittedMixture(
    method="olmix",
    kl=0.05,
    domains=("code", "[b]web"),
    targets=("all",),
    weights=np.array([1.0, 0.0]),
    prior=np.array([0.25, 0.75]),
    limits=np.array([np.inf, 0.5]),
    lowest=np.array([0.1, 0.2]),
    highest=np.array([0.8, 0.9]),
    predicted=np.array([2.0]),
    predicted_at_prior=np.array([2.5]),
    qualities=[Quality(0.9, 0.95, 0.125)],
    num_runs=20,
    warnings=["few [i]runs"],
)


def test_targets() -> None:
    assert mixture_fit.parse_targets([]) is None
    assert mixture_fit.parse_targets(["code", "loss.web=2.5"]) == {"code": 1.0, "web": 2.5}
    with pytest.raises(ConfigError, match="--target code=much: expected LOSS or LOSS=NUMBER"):
        mixture_fit.parse_targets(["code=much"])
    with pytest.raises(ConfigError, match=r"--target loss\.code=2: 'code' is given twice"):
        mixture_fit.parse_targets(["code", "loss.code=2"])


def test_methods() -> None:
    assert mixture_fit.parse_method("regmix") == "regmix"
    with pytest.raises(ConfigError, match="--method olmx is unknown; did you mean 'olmix'"):
        mixture_fit.parse_method("olmx")


def test_runs_and_packs_have_the_same_domains() -> None:
    runs = ProxyRuns(("code", "web"), ("all",), np.ones((1, 2)) / 2, np.ones((1, 1)))
    mixture_fit.check_domains(runs, {"code": 1, "web": 2}, Path("runs.csv"))
    with pytest.raises(
        ConfigError,
        match=r"runs.csv has .* code, web, .* qa, web: the packs have no code and the runs have no weight of qa",
    ):
        mixture_fit.check_domains(runs, {"qa": 1, "web": 2}, Path("runs.csv"))


def test_limits_are_epochs_of_the_budget() -> None:
    tokens = {"code": 100, "web": 900}
    assert mixture_fit.limits({}, tokens, 1000) == {}
    assert mixture_fit.limits({"code": 4}, tokens, 1000) == {"code": 0.4}
    with pytest.raises(ConfigError, match=r"epoch cap is given for 'cod', .* did you mean 'code'"):
        mixture_fit.limits({"cod": 4}, tokens, 1000)
    with pytest.raises(ConfigError, match="the epoch cap of domain 'code' is 0"):
        mixture_fit.limits({"code": 0}, tokens, 1000)
    with pytest.raises(ConfigError, match=r"the epoch caps allow 1,000 tokens in all, 2,000 are asked for"):
        mixture_fit.limits({"code": 1, "web": 1}, tokens, 2000)


def test_what_the_manifest_says() -> None:
    weights = mixture_fit.manifest_weights(FITTED)
    assert weights["[b]web"] == pytest.approx(1e-6) and sum(weights.values()) == pytest.approx(1)
    policy = mixture_fit.policy(FITTED, Path("a/runs.csv"), 1000)
    assert policy.name == "fitted" and policy.token_budget == 1000
    assert policy.note == "olmix on 20 runs of runs.csv, λ 0.05, held-out R² at least 0.900 over 1 losses"


def test_rows_for_other_programs() -> None:
    rows = [dict(zip(mixture_fit.COLUMNS, row, strict=True)) for row in mixture_fit.rows(FITTED)]
    assert [(row["kind"], row["name"], row["prior"], row["fitted"]) for row in rows] == [
        ("weight", "code", 0.25, 1.0), ("weight", "[b]web", 0.75, 0.0), ("loss", "all", 2.5, 2.0)
    ]  # fmt: skip
    assert [row["limit"] for row in rows] == [None, 0.5, None] and rows[2]["spearman"] == 0.95


def test_the_tables() -> None:
    console = Console(file=io.StringIO(), width=120)
    mixture_fit.print_fit(console, FITTED)
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert lines[1].split() == ["code", "0.2500", "1.0000", "0.100", "to", "0.800", "–"]
    assert lines[2].split() == ["[b]web", "0.7500", "0.0000", "0.200", "to", "0.900", "0.5000"]
    assert lines[5].split() == ["all", "2.5000", "2.0000", "0.900", "0.950", "0.1250"]
    assert lines[-2:] == ["olmix on 20 runs, KL penalty 0.05.", "warning: few [i]runs"]
