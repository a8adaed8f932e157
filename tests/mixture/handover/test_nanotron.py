"""nanotron's data stages: the fields of its own dataclasses, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from dataeng.mixture.handover.blend import Blend
from dataeng.mixture.handover.nanotron import hand_over

# ``src/nanotron/config/config.py`` at 2411b02; nanotron reads its YAML strictly.
STAGE = {"name": str, "start_training_step": int, "data": dict}
DATA = {"dataset": dict, "seed": int, "num_loading_workers": int}
NANOSET = {
    "dataset_folder": list,
    "dataset_weights": list,
    "tokenizer_name": str,
    "vocab_size": int,
    "token_size_in_bytes": int,
}


def check(node: Any, fields: dict[str, type]) -> None:
    assert {name: type(value) for name, value in node.items()} == fields


def test_stages(staged: Blend, tmp_path: Path) -> None:
    root = tmp_path / "a: b"
    text = hand_over(staged, root)
    stages = YAML(typ="safe", pure=True).load(text)["data_stages"]
    for stage in stages:
        check(stage, STAGE)
        check(stage["data"], DATA)
        check(stage["data"]["dataset"], NANOSET)
    assert [(stage["name"], stage["start_training_step"]) for stage in stages] == [("balanced", 1), ("the last", 16)]
    first = stages[0]["data"]["dataset"]
    assert first["dataset_folder"] == [f"{root}/code", f"{root}/web"] and first["dataset_weights"] == [0.5, 0.5]
    assert (first["tokenizer_name"], first["vocab_size"], first["token_size_in_bytes"]) == (f"{root}/tokenizer", 100, 2)
    assert "tokens.train_steps is 20." in text and "dataeng export" in text and "--to datatrove" in text


def test_the_tokenizer_is_the_one_that_the_metadata_names(staged: Blend, tmp_path: Path) -> None:
    (tmp_path / "out" / "code").mkdir(parents=True)
    (tmp_path / "out" / "code" / "code_00000_unshuffled.ds.metadata").write_text("org/name|2\n800\n800 T")
    stages = YAML(typ="safe", pure=True).load(hand_over(staged, tmp_path / "out"))["data_stages"]
    assert {stage["data"]["dataset"]["tokenizer_name"] for stage in stages} == {"org/name"}


@pytest.mark.parametrize(("vocab_size", "expected"), [(65_534, 2), (65_535, 4)])
def test_token_size(staged: Blend, tmp_path: Path, vocab_size: int, expected: int) -> None:
    manifest = staged.manifest.model_copy(update={"vocab_size": vocab_size})
    larger = Blend(manifest, staged.manifest_path, 1_600, 10, 8, 20, staged.stages)
    stages = YAML(typ="safe", pure=True).load(hand_over(larger, tmp_path))["data_stages"]
    assert stages[0]["data"]["dataset"]["token_size_in_bytes"] == expected
