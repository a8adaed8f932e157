"""LLM Foundry's train loader, one YAML document a stage."""

from __future__ import annotations

from pathlib import Path

from ruamel.yaml import YAML

from dataeng.mixture.handover.blend import Blend
from dataeng.mixture.handover.llm_foundry import hand_over

# The parameters of `StreamingTextDataset` and `streaming.Stream` that are used.
DATASET = {"streams", "epoch_size", "max_seq_len", "shuffle", "shuffle_seed"}
STREAM = {"local", "proportion"}


def test_stages(staged: Blend, tmp_path: Path) -> None:
    text = hand_over(staged, tmp_path / "out")
    first, last = YAML(typ="safe", pure=True).load_all(text)
    for document in (first, last):
        assert document["max_seq_len"] == 10 and document["global_train_batch_size"] == 8
        assert document["train_loader"]["name"] == "text" and set(document["train_loader"]["dataset"]) == DATASET
        assert all(set(stream) == STREAM for stream in document["train_loader"]["dataset"]["streams"].values())
    assert (first["max_duration"], last["max_duration"]) == ("15ba", "20ba")
    assert first["train_loader"]["dataset"]["epoch_size"] == 120 and last["train_loader"]["dataset"]["epoch_size"] == 40
    assert last["train_loader"]["dataset"]["streams"] == {
        "code": {"local": f"{tmp_path}/out/code", "proportion": 0.25},
        "qa": {"local": f"{tmp_path}/out/qa", "proportion": 0.75},
    }
    assert "load_path: the last checkpoint of the stage before" in text
    assert "--to mds --sequence-length 10" in text and "reads no loss masks: all of web becomes labels" in text
