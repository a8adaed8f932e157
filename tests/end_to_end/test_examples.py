"""The example pipelines, each run small, and what they are for together: one mixture in stages, trained on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dataeng
from dataeng.formats.mixture import load_mixture
from dataeng.formats.pack import Pack
from dataeng.formats.pack_verification import verify_pack

from .runs import ROOT
from .runs import dataeng as command

EXAMPLES = ("web", "code", "books", "reference", "qa")
TOKENIZER = Path(dataeng.__file__).parent / "sample/tokenizer/tokenizer.json"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of all examples, each in a folder of its name."""
    folder = tmp_path_factory.mktemp("examples")
    for name in EXAMPLES:
        command("run", f"pipelines/{name}.yaml", "--set", f"run={folder / name}", "--scheduler", "inline")
    return folder


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_ends_in_a_whole_pack_of_its_domain(runs: Path, name: str) -> None:
    folder = runs / name / "packs" / name
    assert verify_pack(folder) == []
    pack = Pack(folder)
    assert pack.manifest.domain == name and pack.manifest.num_documents > 10
    tokens = np.concatenate([shard.tokens for shard in pack.shards])
    masks = [shard.mask for shard in pack.shards]
    if name == "qa":
        trained = np.concatenate([mask for mask in masks if mask is not None])
        assert len(trained) == len(tokens) and 0.1 < trained.mean() < 0.9
    else:
        assert masks == [None] * len(masks)
    vocabulary = {token["content"]: token["id"] for token in json.loads(TOKENIZER.read_bytes())["added_tokens"]}
    assert (np.isin(vocabulary["<|fim_middle|>"], tokens)) == (name == "code")


def test_the_tokenizer_of_the_package_is_what_its_pipeline_trains(tmp_path: Path) -> None:
    command("run", "pipelines/tokenizer.yaml", "--set", f"run={tmp_path / 'run'}", "--workers", "2")
    assert (tmp_path / "run/tokenizer/tokenizer.json").read_bytes() == TOKENIZER.read_bytes()


def test_examples_are_mixed_in_stages_and_trained_on(runs: Path, tmp_path: Path) -> None:
    """Balanced at first, then high quality, at last specialized text with questions and answers."""
    manifest = tmp_path / "mix.json"
    folders = [str(runs / name) for name in EXAMPLES]
    stages = ["--schedule", "manifests/examples.yaml", "--fixed", "qa", "--tokens", "20k", "-o", str(manifest)]
    printed = command("mix", *folders, *stages)
    assert all(name in printed for name in EXAMPLES)
    schedule = load_mixture(manifest).schedule
    assert [stage.until for stage in schedule] == [0.7, 0.9, 1.0]
    assert [stage.weights["qa"] > 0 for stage in schedule] == [False, False, True]
    options = ["--steps", "10", "--batch-size", "4", "--sequence-length", "64", "--device", "cpu", "--threads", "2"]
    trained = subprocess.run(
        [sys.executable, "-m", "trainer", "--mixture", str(manifest), "--out", str(tmp_path / "training"), *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert trained.returncode == 0, trained.stdout + trained.stderr
    listed = {line.split()[0]: line.split() for line in trained.stdout.splitlines() if line.split()}
    assert listed["qa"][1] != "-" and float(listed["qa"][5]) > 0, trained.stdout
