"""What `dataeng mix replay` says and writes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from dataeng.errors import ConfigError
from dataeng.formats.reweighting import Reweighting
from dataeng.mixture.replay import Departure, RecordedRun, weights_table
from dataeng.report import mixture_replay

ONES = np.ones((2, 2))
RUN = RecordedRun(
    names=["code", "[b]web"],
    reweighting=Reweighting(ema=0.5),
    reweighted=np.array([True, True]),
    bytes_per_token=np.array([3.0, 4.0]),
    loss_sums=ONES,
    square_sums=ONES,
    token_counts=ONES,
    planned_shares=ONES / 2,
    weights=np.array([[0.25, 0.75], [0.5, 0.5]]),
    observed=np.array([True, True]),
    decaying=np.array([False, False]),
)
WEIGHTS = np.array([[0.5, 0.5], [0.75, 0.25]])


def shown(own: Departure | None, reweighting: Reweighting) -> list[str]:
    file = io.StringIO()
    mixture_replay.print_replay(Console(file=file, width=140), RUN, WEIGHTS, own, reweighting)
    return file.getvalue().splitlines()


def test_rows() -> None:
    assert mixture_replay.rows(RUN, WEIGHTS) == [
        ("code", 0.625, 0.75, 0.5, 0.75, 0.375, 0.5),
        ("[b]web", 0.375, 0.25, 0.25, 0.5, 0.625, 0.5),
    ]
    assert len(mixture_replay.COLUMNS) == 7


def test_what_is_printed() -> None:
    lines = shown(None, Reweighting(ema=0.9, r=2, method="odm"))
    assert lines[2].split() == ["[b]web", "0.3750", "0.2500", "0.2500", "0.5000", "0.6250", "0.5000"]
    assert lines[4] == "odm instead of sow-identity with r 1.0 → 2.0, ema 0.5 → 0.9, on the losses of 2 steps."
    assert lines[5] == "The run's own constants give its recorded weights bit for bit, in all 2 steps."
    assert lines[6].startswith("On average 25.0% of the weight lies on other domains than in the run.")
    lines = shown(Departure(2, "code", 0.5, 0.75, 0.25), Reweighting(ema=0.5))
    assert lines[4] == "sow-identity as in the run, on the losses of 2 steps."
    assert "from step 2 on, where 'code' had 0.5 and gets 0.75; they differ by 0.25 at most" in lines[5]
    assert len(lines) == 6
    assert mixture_replay.changes(RUN.reweighting, Reweighting(ema=0.5, method="ado")) == "instead of sow-identity"


def test_files(tmp_path: Path) -> None:
    table = weights_table(RUN, WEIGHTS)
    for name, read in (("w.parquet", pl.read_parquet), ("w.csv", pl.read_csv)):
        mixture_replay.check_target(tmp_path / name)
        mixture_replay.write_weights(tmp_path / name, table)
        assert read(tmp_path / name).equals(table)
    with pytest.raises(ConfigError, match=r"--out w.txt: expected a name that ends in .parquet or .csv"):
        mixture_replay.check_target(Path("w.txt"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write .*file/w.csv: (Not a directory|File exists)"):
        mixture_replay.write_weights(tmp_path / "file" / "w.csv", table)
