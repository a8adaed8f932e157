"""Which trainers there are, and which exports fit them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataeng.errors import ConfigError, FormatError
from dataeng.mixture.handover.blend import Blend
from dataeng.mixture.handover.hand_over import hand_over


def call(staged: Blend, trainer: str, root: Path | None = None) -> str:
    return hand_over(staged.manifest, staged.manifest_path, trainer, 1_600, 10, 8, root)


def test_every_trainer(staged: Blend, tmp_path: Path) -> None:
    assert "--data-path" in call(staged, "megatron")
    assert "WeightedDataset" in call(staged, "torchtitan")
    assert "data_stages:" in call(staged, "nanotron", tmp_path / "ds")
    assert "train_loader:" in call(staged, "llm-foundry", tmp_path / "mds")


def test_what_is_missing_is_said_with_the_command(staged: Blend, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"nanotron reads an export; run `dataeng export .* --to datatrove --output DIR"
    ):
        call(staged, "nanotron")
    with pytest.raises(ConfigError, match=r"--to mds --sequence-length 10 --output DIR` and give --root DIR"):
        call(staged, "llm-foundry")
    with pytest.raises(ConfigError, match="torchtitan reads the packs where they are; leave out --root"):
        call(staged, "torchtitan", tmp_path)
    with pytest.raises(ConfigError, match="unknown trainer 'megatorn'; did you mean 'megatron'"):
        call(staged, "megatorn")


def test_an_export_that_is_there_is_compared(staged: Blend, tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    path.write_text(json.dumps({"format": "datatrove", "domains": {"code": {}, "qa": {}, "web": {}}}))
    assert "data_stages:" in call(staged, "nanotron", tmp_path)
    with pytest.raises(ConfigError, match="holds an export of the format 'datatrove', llm-foundry reads 'mds'"):
        call(staged, "llm-foundry", tmp_path)
    path.write_text(json.dumps({"format": "datatrove", "domains": {"code": {}}}))
    with pytest.raises(ConfigError, match="has no domain qa, web; it has code"):
        call(staged, "nanotron", tmp_path)
    for text in ("{", "[]", '{"format": "datatrove", "domains": 3}'):
        path.write_text(text)
        with pytest.raises(FormatError, match=r"export.json is not the manifest of an export"):
            call(staged, "nanotron", tmp_path)
