"""The report of a real run: whole, escaped, and without anything from elsewhere."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from dataeng.errors import ConfigError, FormatError
from dataeng.formats.mixture import load_mixture
from trainer.config import TrainConfig
from trainer.loop import train
from trainer.progress import PlainWatcher
from trainer.report import MAX_POINTS, _thinned, write_report

MakeConfig = Callable[..., TrainConfig]


def test_a_report_shows_what_was_measured(make_config: MakeConfig, mixture: Path) -> None:
    config = make_config(steps=20)
    report = train(config, load_mixture(mixture), PlainWatcher(Console(quiet=True)))
    incident = {"step": 7, "what": "loss <b>9</b>", "action": "skipped"}
    (config.out / "incidents.jsonl").write_text(json.dumps(incident) + "\n")
    path = write_report(config.out)
    page = path.read_text()
    assert path == config.out / "report.html"
    for summary in report.domains:
        assert f"<td>{summary.domain}</td><td>{summary.first_loss:.3f}</td><td>{summary.last_loss:.3f}</td>" in page
    assert "finished at step 20 of 20" in page
    assert "loss &lt;b&gt;9&lt;/b&gt;" in page and "<b>9</b>" not in page
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) == 8
    for picture in pictures:
        ElementTree.fromstring(picture)
    assert not re.search(r"<script|<link|\bsrc=|url\(http", page)


def test_long_curves_are_thinned_by_medians() -> None:
    x = pl.Series(range(10_000))
    y = pl.Series([100.0 if i % 50 == 0 else 1.0 for i in range(10_000)])
    xs, ys = _thinned(x, y)
    assert len(xs) == MAX_POINTS and set(ys) == {1.0} and list(xs) == sorted(xs)
    assert _thinned(x[:5], y[:5]) == ([0, 1, 2, 3, 4], [100, 1, 1, 1, 1])


def test_folders_that_hold_no_run(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is no training run"):
        write_report(tmp_path)
    (tmp_path / "training.json").write_text("[")
    with pytest.raises(FormatError, match="is not JSON"):
        write_report(tmp_path)
    (tmp_path / "training.json").write_text("[]")
    with pytest.raises(FormatError, match="does not describe a training run"):
        write_report(tmp_path)
    (tmp_path / "training.json").write_text(json.dumps({"config": {}, "domains": []}))
    with pytest.raises(ConfigError, match="has no metrics yet"):
        write_report(tmp_path)
