"""What is said of a folder that is no training run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataeng.errors import FormatError
from dataeng.formats.training_run import read_description

DESCRIBED = {"config": {}, "domains": ["web"]}


def told(folder: Path) -> str:
    with pytest.raises(FormatError) as caught:
        read_description(folder)
    return str(caught.value).removeprefix(f"{folder} is no training run: ")


def test_a_description_is_read(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(json.dumps(DESCRIBED))
    assert read_description(tmp_path) == DESCRIBED


def test_other_folders_are_called_what_they_are_and_runs_near_them_named(tmp_path: Path) -> None:
    pipeline = tmp_path / "runs" / "cc"
    assert told(pipeline) == "there is no such folder."
    pipeline.mkdir(parents=True)
    assert told(pipeline) == "it has no training.json."
    (pipeline / "run.json").write_text("{}")
    assert told(pipeline / "run.json") == "it is a file."
    assert told(pipeline).startswith("it is a pipeline's, and nobody has trained on it yet")
    runs = [pipeline / "training" / name for name in ("a", "b")]
    for run in runs:
        (run / "checkpoints" / "step-1").mkdir(parents=True)
        (run / "training.json").write_text(json.dumps(DESCRIBED))
    named = f"{runs[0]}, {runs[1]}."
    assert told(pipeline) == f"it is a pipeline's, and holds {named}"
    assert told(pipeline / "training") == told(tmp_path / "runs") == f"it holds {named}"
    for inside in ("checkpoints", "checkpoints/step-1"):
        assert told(runs[0] / inside) == f"it lies in one, {runs[0]}."
    for number in range(6):
        (pipeline / "training" / f"c{number}").mkdir()
        (pipeline / "training" / f"c{number}" / "training.json").write_text("{}")
    assert told(pipeline).endswith(f"{pipeline / 'training' / 'c2'} and 3 more.")
