"""torchtitan's module, run with recording stand-ins for the classes it configures, and its source on real packs."""

from __future__ import annotations

import sys
from dataclasses import dataclass, make_dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dataeng.formats.pack import Pack
from dataeng.mixture.handover.blend import Blend
from dataeng.mixture.handover.torchtitan import hand_over


@pytest.fixture
def module(staged: Blend, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The module's names. torchtitan itself needs its own PyTorch; these are its constructors' keywords."""

    class Configurable:
        @dataclass(kw_only=True)
        class Config:
            pass

    class SampleProcessor(Configurable):
        @dataclass(kw_only=True)
        class Config(Configurable.Config):
            pass

    def keywords(name: str, *fields: str) -> type:
        return make_dataclass(name, fields, kw_only=True)

    data: Any = ModuleType("torchtitan.components.data")
    data.RandomAccessDataSource = type("RandomAccessDataSource", (), {})
    data.SampleProcessor = SampleProcessor
    data.ConcatThenSplitPackingConfig = keywords("ConcatThenSplitPackingConfig", "dataset")
    data.DatasetMixConfig = keywords("DatasetMixConfig", "datasets")
    data.SingleDatasetConfig = keywords("SingleDatasetConfig", "source", "processor", "post_filters")
    data.TextSequence = keywords("TextSequence", "input_ids", "labels")
    data.WeightedDataset = keywords("WeightedDataset", "dataset", "weight")
    data.GrainDataLoader = SimpleNamespace(Config=keywords("Config", "dataset", "seed", "shuffle", "repeat"))
    loss: Any = ModuleType("torchtitan.components.loss")
    loss.IGNORE_INDEX = -100
    config: Any = ModuleType("torchtitan.config")
    config.Configurable = Configurable
    for name, stand_in in (
        ("torchtitan", ModuleType("torchtitan")),
        ("torchtitan.components", ModuleType("torchtitan.components")),
        ("torchtitan.components.data", data),
        ("torchtitan.components.loss", loss),
        ("torchtitan.config", config),
    ):
        monkeypatch.setitem(sys.modules, name, stand_in)
    made = ModuleType("handed_over")
    monkeypatch.setitem(sys.modules, "handed_over", made)
    exec(compile(hand_over(staged), "handed_over.py", "exec"), made.__dict__)
    return SimpleNamespace(**made.__dict__)


def test_stages_are_mixes_of_packed_children(module: SimpleNamespace) -> None:
    assert module.STAGES == {
        "balanced": (15, {"code": 0.5, "web": 0.5}),
        "the last": (20, {"code": 0.25, "qa": 0.75}),
    }
    loader = module.dataloader("the last", seed=7)
    assert loader.seed == 7 and loader.shuffle and loader.repeat
    assert [child.weight for child in loader.dataset.datasets] == [0.25, 0.75]
    for child in loader.dataset.datasets:
        assert type(child.dataset).__name__ == "ConcatThenSplitPackingConfig"  # weights count rows, not documents
        assert type(child.dataset.dataset.processor) is module.NextTokens.Config


def test_the_source_reads_every_document_of_all_packs(module: SimpleNamespace, staged: Blend) -> None:
    prefixes, masked = module.PACKS["web"]
    assert masked == (False, True)
    source = module.PackSource(
        module.PackSource.Config(prefixes=prefixes, masked=masked), dataset_iteration_policy=None
    )
    assert isinstance(source, sys.modules["torchtitan.components.data"].RandomAccessDataSource)
    shards = [shard for folder, _ in staged.packs("web") for shard in Pack(folder).shards]
    expected = [
        (shard.document(i), None if shard.mask is None else shard.mask[shard.offsets[i] : shard.offsets[i + 1]])
        for shard in shards
        for i in range(len(shard.lengths))
    ]
    assert len(source) == len(expected) == 3
    process = module.NextTokens(module.NextTokens.Config(), context=None)
    for index, (tokens, mask) in enumerate(expected):
        found, found_mask = source[index]
        assert found.dtype == np.int64 and (found == tokens).all()
        assert (found_mask is None) == (mask is None)
        sample = process((found, found_mask), None)
        labels = tokens[1:] if mask is None else np.where(mask[1:] != 0, tokens[1:].astype(np.int64), -100)
        assert (sample.input_ids == tokens[:-1]).all() and (sample.labels == labels).all()
    assert process((np.array([3]), None), None) is None


def test_notes(staged: Blend) -> None:
    text = hand_over(staged)
    assert "Curricula are not handed over: qa will be shuffled." in text and "exclude_from_loading" in text
    assert max(len(line) for line in text.splitlines() if "packs" not in line) <= 200
