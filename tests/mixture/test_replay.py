"""A controller run again from a folder as the trainer writes it, and every way in which a folder may not be one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from dataeng.errors import ConfigError, FormatError
from dataeng.formats.reweighting import Reweighting
from dataeng.mixture.replay import changed_constants, departure, read_recorded, replay, weights_table
from dataeng.mixture.reweighting import Controller

NAMES = ["web", "code", "books"]
SHARES = [[0.5, 0.3, 0.2], [0.2, 0.8, 0.0]]  # of two stages; the second draws no books
NUM_STEPS = 40
OWN = {"ema": 0.9, "interval": 3, "warmup_steps": 2, "trust_region": 0.2, "noise_floor": 0.5}


def record(folder: Path, **constants: Any) -> list[list[float]]:
    """Writes a run of 40 steps as the trainer does, in two parts; returns the weights of every step."""
    reweighting = Reweighting(**{**OWN, **constants})
    controller = Controller(
        reweighting,
        np.array(SHARES[0]),
        names=NAMES,
        reweighted=np.array([True, True, False]),
        bytes_per_token=np.array([4.0, 3.0, 5.0]),
    )
    random = np.random.default_rng(5)
    metrics, steps, weights = [], [], []
    for step in range(1, NUM_STEPS + 1):
        shares = SHARES[step > 25]
        observed, decaying = step != 7, step > 35
        controller.shares = np.array(shares)
        counts = random.integers(0, 30, 3).astype(float) * (np.array(shares) > 0)
        sums = counts * random.uniform(1, 5, 3)
        squares = sums**2 / np.maximum(counts, 1) * 1.5
        if observed:
            controller.update(sums, counts, squares, frozen=decaying and reweighting.freeze_in_decay)
        else:
            sums = np.array([math.nan, math.inf, 1.0])
        weights.append(controller.weights.tolist())
        steps.append({"step": step, "decaying": decaying, "observed": observed, "loss": 2.0})
        metrics += [
            {
                "step": step,
                "domain": name,
                "loss_sum": sums[i],
                "square_sum": squares[i],
                "tokens": int(counts[i]),
                "planned_share": shares[i],
                "weight": weights[-1][i],
            }
            for i, name in enumerate(NAMES)
        ]
    for table, rows in (("metrics", metrics), ("steps", steps)):
        (folder / table).mkdir(parents=True)
        for first, last in ((1, 20), (21, NUM_STEPS)):
            part = pl.DataFrame([row for row in rows if first <= row["step"] <= last])
            part.write_parquet(folder / table / f"part-{first:08d}.parquet")
    described = {
        "domains": NAMES,
        "reweighted": [True, True, False],
        "bytes_per_token": [4.0, 3.0, 5.0],
        "config": {"reweighting": reweighting.model_dump()},
    }
    (folder / "training.json").write_text(json.dumps(described))
    return weights


@pytest.mark.parametrize(
    "constants",
    [
        {},
        {"method": "none"},
        {"method": "sow-extremes", "r": math.inf, "freeze_in_decay": False},
        {"method": "odm", "stale_steps": 2},
        {"method": "ado", "signal": "bits-per-byte"},
        {"method": "doremi", "reference": {"web": 2.0, "code": 1.0}, "prior": "shares"},
        {"signal": "relative", "r_start": 50.0, "anneal_steps": 9, "smallest": 0.1},
    ],
)
def test_a_run_s_own_constants_give_its_weights_bit_for_bit(tmp_path: Path, constants: dict[str, Any]) -> None:
    """Through stages, freezing, absent domains, and a step that the controller was not shown."""
    recorded = record(tmp_path, **constants)
    run = read_recorded(tmp_path)
    weights = replay(run, run.reweighting)
    assert weights.tolist() == recorded
    assert departure(run, weights) is None


def test_other_constants_give_what_a_controller_of_them_gives(tmp_path: Path) -> None:
    record(tmp_path / "one")
    expected = record(tmp_path / "other", method="sow-linupper", r=2.0, freeze_in_decay=False)
    run = read_recorded(tmp_path / "one")
    other = changed_constants(run.reweighting, "sow-linupper", ["r=2", "freeze_in_decay=false"], NAMES)
    weights = replay(run, other)
    assert weights.tolist() == expected
    found = departure(run, weights)
    assert found is not None and (found.step, found.domain) == (3, "web")  # two steps of warm-up
    assert found.replayed == weights[2, 0] != found.recorded == run.weights[2, 0]
    assert found.largest == np.abs(weights - run.weights).max()
    table = weights_table(run, weights)
    assert table.columns == ["step", "domain", "weight", "recorded_weight"] and len(table) == 3 * NUM_STEPS
    assert table.filter(step=30, domain="code").row(0) == (30, "code", weights[29, 1], run.weights[29, 1])


def test_settings() -> None:
    own = Reweighting(ema=0.5, trust_region=0.1)
    assert changed_constants(own, None, [], NAMES) == own
    changed = changed_constants(own, None, ["r=inf", "trust_region=none", "stale_steps=null", "prior=shares"], NAMES)
    assert (changed.r, changed.trust_region, changed.stale_steps, changed.prior) == (math.inf, None, None, "shares")
    changed = changed_constants(own, "doremi", ["reference.web=2.5", "reference.code=1e-1"], NAMES)
    assert (changed.method, changed.reference) == ("doremi", {"web": 2.5, "code": 0.1})
    assert changed_constants(own, None, ["method=odm"], NAMES).method == "odm"


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (None, ["r"], "--set r: expected NAME=VALUE, e.g. --set r=2"),
        (None, ["emma=0.9"], "--set emma=0.9: 'emma' is unknown; did you mean 'ema'?"),
        (None, ["feedback=both"], "--set feedback: what weights act on changes no weight of a replay"),
        (None, ["r=-1"], "--set r=-1: found -1, expected a number greater than 0"),
        (None, ["r=much"], "--set r=much: found 'much', expected a valid number"),
        ("sow", [], "--method: 'sow' is unknown; known: ado, doremi, none"),
        (None, ["signal=rawe"], "--set signal=rawe: 'rawe' is unknown; did you mean 'raw'?"),
        ("doremi", [], "method doremi needs `reference`: a loss for each domain"),
        (None, ["reference.web=nan"], "--set reference.web=nan: found 'nan', expected a finite number"),
        (None, ["reference.wep=2"], "--set reference.wep=2: the run has no domain 'wep'; did you mean 'web'?"),
    ],
)
def test_settings_that_cannot_be(method: str | None, settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        changed_constants(Reweighting(), method, settings, NAMES)
    assert message in str(caught.value)


def test_a_reference_for_another_domain_is_refused(tmp_path: Path) -> None:
    record(tmp_path)
    run = read_recorded(tmp_path)
    other = changed_constants(run.reweighting, "doremi", ["reference.code=2"], NAMES)
    with pytest.raises(ConfigError, match=r"no reference loss for domain 'web' \(there are: code\)"):
        replay(run, other)


def test_folders_that_hold_no_run(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"is no training run: it has no training.json"):
        read_recorded(tmp_path)
    record(tmp_path / "training" / "mix")
    with pytest.raises(FormatError, match=r"is no training run: it holds .*/training/mix\."):
        read_recorded(tmp_path)
    (tmp_path / "training.json").write_text("{")
    with pytest.raises(FormatError, match=r"training\.json is not JSON"):
        read_recorded(tmp_path)


def test_runs_that_tell_too_little(tmp_path: Path) -> None:
    record(tmp_path)
    path = tmp_path / "metrics" / "part-00000021.parquet"
    whole = pl.read_parquet(path)
    whole.drop("loss_sum").write_parquet(path)
    with pytest.raises(
        FormatError, match="has no loss_sum for every step: the run was recorded, in part at least, by an"
    ):
        read_recorded(tmp_path)
    whole.head(10).write_parquet(path)
    with pytest.raises(FormatError, match=r"does not hold every domain \(web, code, books\) in every step"):
        read_recorded(tmp_path)
    path.write_bytes(b"PAR1")
    with pytest.raises(FormatError, match=r"cannot read .*metrics"):
        read_recorded(tmp_path)
    (tmp_path / "steps" / "part-00000001.parquet").unlink()
    whole.write_parquet(path)
    with pytest.raises(FormatError, match="steps does not hold every step from 1 on once"):
        read_recorded(tmp_path)
    for part in (tmp_path / "metrics").iterdir():
        part.unlink()
    with pytest.raises(FormatError, match="has no metrics yet: they are written with the first checkpoint"):
        read_recorded(tmp_path)
    described = json.loads((tmp_path / "training.json").read_text())
    del described["bytes_per_token"]
    (tmp_path / "training.json").write_text(json.dumps(described))
    with pytest.raises(FormatError, match="says nothing about 'bytes_per_token': the run was recorded by an earlier"):
        read_recorded(tmp_path)
    described["config"]["reweighting"]["r"] = 0
    (tmp_path / "training.json").write_text(json.dumps({**described, "bytes_per_token": [1, 1, 1]}))
    with pytest.raises(FormatError, match=r"training.json: reweighting.r: found 0, expected a number greater than 0"):
        read_recorded(tmp_path)
