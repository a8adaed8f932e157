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
from trainer.recovery.session import held
from trainer.watching.progress import PlainWatcher
from trainer.watching.report import write_report

MakeConfig = Callable[..., TrainConfig]


def test_a_report_shows_what_was_measured(make_config: MakeConfig, mixture: Path) -> None:
    config = make_config(
        steps=20, validate=mixture, validate_every=5, validate_tokens=200, update_ratio_every=4, peak_flops=1e12
    )
    report = train(config, load_mixture(mixture), PlainWatcher(Console(quiet=True)))
    incident = {"step": 7, "what": "loss <b>9</b>", "action": "skipped", "documents": 3}
    (config.out / "incidents.jsonl").write_text(json.dumps(incident) + "\n")
    path = write_report(config.out)
    page = path.read_text()
    assert path == config.out / "report.html"
    text = re.sub(r"<[^>]*>", "|", page)
    validation = pl.read_parquet(config.out / "validation/*.parquet")
    for summary in report.domains:
        name, cells = summary.domain, [f"{loss:.3f}" for loss in (summary.first_loss, summary.last_loss) if loss]
        assert re.search(rf"{name}\|+{cells[0]}\|+{cells[1]}\|", text)
        losses = validation.filter(pl.col("domain") == name)["loss"]
        assert re.search(rf"{name}\|+{losses[0]:.3f}\|+{losses[-1]:.3f}\|", text)
        assert f"{losses[-1] - (summary.last_loss or 0):+.3f}|" in text  # over training
    assert "|finished||step 20 of 20|" in text
    assert "|held-out loss||" in text and "|of 1 TFLOP/s a device|" in text and " GB||the CPU|" in text
    assert "loss &lt;b&gt;9&lt;/b&gt;" in page and "<b>9</b>" not in page
    assert titles(page) == [
        "Loss by domain", "Loss", "Weight by domain", "Share by domain", "Epochs by domain", "Gradient norm",
        "Update ratio", "Learning rate", "Speed", "Model FLOPs utilization",
    ]  # fmt: skip
    for picture in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(picture)
    assert not re.search(r"<script|<link|\bsrc=|url\(http", page)


def test_a_report_says_how_a_run_stands_that_did_not_end(make_config: MakeConfig, mixture: Path) -> None:
    config = make_config(steps=2)
    train(config, load_mixture(mixture), PlainWatcher(Console(quiet=True)))
    path = config.out / "training.json"
    told = {**json.loads(path.read_text()), "step": 0}  # the step that it began with

    def standing(status: str) -> str:
        path.write_text(json.dumps({**told, "status": status}))
        text = re.sub(r"<[^>]*>", "|", write_report(config.out).read_text())
        found = re.search(r"status\|+([^|]+)\|+([^|]+)\|", text)
        assert found
        return f"{found[1]}, {found[2]}"

    assert standing("running") == "interrupted, step 2 of 2; the same command goes on from the last checkpoint"
    with held(config.out):
        assert standing("running") == "running, step 2 of 2"
    assert (
        standing("failed: cannot write to x: No space left") == "failed, step 2 of 2; cannot write to x: No space left"
    )


def titles(page: str) -> list[str]:
    return re.findall(r"<figcaption><b>(.*?)</b>", page)


def test_what_was_not_measured_is_left_out(make_config: MakeConfig, mixture: Path) -> None:
    config = make_config(steps=2, update_ratio_every=0)
    train(config, load_mixture(mixture), PlainWatcher(Console(quiet=True)))
    assert "The peak of this hardware is not known" in write_report(config.out).read_text()
    for part in (config.out / "steps").iterdir():  # as an earlier version wrote them
        pl.read_parquet(part).drop("mfu", "update_ratio", "peak_memory_bytes").write_parquet(part)
    told = json.loads((config.out / "training.json").read_text())
    for name in ("presence", "flops_per_token", "peak_flops", "hardware"):
        del told[name]
    (config.out / "training.json").write_text(json.dumps(told))
    page = write_report(config.out).read_text()
    assert not {"Update ratio", "Model FLOPs utilization"} & set(titles(page)) and len(titles(page)) == 8
    assert "Held out" not in page and "held-out loss" not in page and "How speed is counted" not in page


def test_steps_that_were_not_finite_are_left_out_of_the_facts(make_config: MakeConfig, mixture: Path) -> None:
    config = make_config(steps=2)
    train(config, load_mixture(mixture), PlainWatcher(Console(quiet=True)))
    (part,) = (config.out / "steps").iterdir()
    loss = pl.read_parquet(part)[0, "loss"]
    steps = pl.concat([pl.read_parquet(part).head(1)] * 20).with_columns(step=pl.int_range(1, 21))
    is_last = pl.col("step") == 20  # of the last two, whose means are shown
    steps.with_columns(
        loss=pl.when(is_last).then(float("nan")).otherwise("loss"),
        gradient_norm=pl.when(is_last).then(float("inf")).otherwise(0.5),
    ).write_parquet(part)
    text = re.sub(r"<[^>]*>", "|", write_report(config.out).read_text())
    assert f"|loss||{loss:.4f}||nats per token" in text and "|gradient norm||0.500|" in text


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
