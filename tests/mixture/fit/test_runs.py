"""Tables of proxy runs: what is read, and what is refused by name and row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dataeng.errors import ConfigError, FormatError
from dataeng.mixture.fit.runs import read_runs

HEADER = "run,weight.web,weight.code,loss.all,loss.code\n"


def written(tmp_path: Path, text: str, name: str = "runs.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_csv_and_parquet(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + "a,0.5,0.5,3,2\nb,1,0,3.5,4\nc,0.333,0.666,2.5,1\n")
    runs = read_runs(path)
    assert (runs.domains, runs.targets, len(runs)) == (("web", "code"), ("all", "code"), 3)
    assert runs.weights[2] == pytest.approx([1 / 3, 2 / 3])  # rounded weights are scaled
    assert runs.losses.tolist() == [[3, 2], [3.5, 4], [2.5, 1]]
    pl.read_csv(path).write_parquet(tmp_path / "runs.parquet")
    again = read_runs(tmp_path / "runs.parquet")
    assert (again.weights == runs.weights).all() and (again.losses == runs.losses).all()
    assert runs.chosen(["code"]).losses.tolist() == [[2], [4], [1]]
    with pytest.raises(ConfigError, match="there is no loss 'cod' in the runs; did you mean 'code'"):
        runs.chosen(["cod"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run,loss.all\na,1\n", r"has no column weight\.DOMAIN; its columns are run, loss\.all"),
        ("weight.web,x\n1,1\n", r"has no column loss\.TARGET; its columns are weight\.web, x"),
        (HEADER, "has no runs"),
        (HEADER + "a,much,0,1,1\n", r"column 'weight\.web' holds String, expected numbers"),
        (HEADER + "a,1,0,1,1\nb,1,0,,1\n", r"'loss\.all' is no finite number in run 2\."),
        (
            HEADER + "a,1,0,1,1\n" * 3 + "b,1,0,inf,1\n" * 5,
            r"'loss\.all' is no finite number in run 4, 5, 6 and 2 more",
        ),
        (HEADER + "a,1.5,-0.5,1,1\n", r"'weight\.code' is negative in run 1\."),
        (HEADER + "a,1,0,1,1\nb,0.5,0.4,1,1\n", r"the weights sum to 0\.9, expected 1 in run 2\."),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_runs(written(tmp_path, text))


def test_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot read proxy runs"):
        read_runs(tmp_path / "nowhere.csv")
    with pytest.raises(ConfigError, match=r"are read from \.csv or \.parquet, not '\.txt'"):
        read_runs(written(tmp_path, "", "runs.txt"))
    for name in ("runs.parquet", "runs.csv"):
        with pytest.raises(FormatError, match="is not a table"):
            read_runs(written(tmp_path, "", name))


def test_published_tables_are_read() -> None:
    runs = read_runs(Path(__file__).parent / "regmix" / "train_1m.csv")
    assert runs.weights.shape == (512, 17) and np.abs(runs.weights.sum(axis=1) - 1).max() < 1e-12
