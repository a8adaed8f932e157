"""Curricula: documents sorted by a column of docs.parquet."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from dataeng.errors import FormatError
from dataeng.formats.mixture import Order
from dataeng.packing.order import document_order


def shard(folder: Path, name: str, columns: dict[str, list[Any]]) -> SimpleNamespace:
    frame = pl.DataFrame(columns)
    frame.write_parquet(folder / f"{name}.docs.parquet")
    files = {"docs": SimpleNamespace(name=f"{name}.docs.parquet")}
    lengths = np.ones(frame.height, np.int32)
    return SimpleNamespace(folder=folder, name=name, lengths=lengths, shard=SimpleNamespace(files=files))


def test_documents_of_all_shards_are_sorted_together(tmp_path: Path) -> None:
    shards = [
        shard(tmp_path, "00000", {"score": [0.5, None, 0.1]}),
        shard(tmp_path, "00001", {"score": [0.3, 0.5, float("nan")]}),
    ]
    assert document_order(shards, Order(by="score")).tolist() == [2, 3, 0, 4, 1, 5]
    assert document_order(shards, Order(by="score", descending=True)).tolist() == [0, 4, 3, 2, 1, 5]


def test_whole_numbers_are_numbers(tmp_path: Path) -> None:
    shards = [shard(tmp_path, "00000", {"num_tokens": [30, 10, 20]})]
    assert document_order(shards, Order(by="num_tokens")).tolist() == [1, 2, 0]


def test_what_cannot_be_sorted_is_named(tmp_path: Path) -> None:
    one = shard(tmp_path, "00000", {"score": [0.5], "url": ["a"]})
    with pytest.raises(FormatError, match=r"00000.docs.parquet has no column 'scores'.*score"):
        document_order([one], Order(by="scores"))
    with pytest.raises(FormatError, match=r"column 'url' is String; a curriculum needs numbers"):
        document_order([one], Order(by="url"))
    one.lengths = np.ones(3, np.int32)
    with pytest.raises(FormatError, match=r"has 1 rows, its pack 3 documents"):
        document_order([one], Order(by="score"))
    (tmp_path / "00000.docs.parquet").write_bytes(b"PAR1")
    with pytest.raises(FormatError, match=r"cannot read .*00000.docs.parquet to order documents by 'score'"):
        document_order([one], Order(by="score"))
    del one.shard.files["docs"]
    with pytest.raises(FormatError, match=r"has no docs.parquet to order"):
        document_order([one], Order(by="score"))
