"""Reading in pieces: every document in one range, every token in one row, whatever the piece's size."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataeng.exports import blocks
from dataeng.exports.blocks import DocumentTable, document_ranges, mask_blocks, row_blocks, token_blocks
from dataeng.exports.corpus import Domain, open_corpus
from tests.exports.packs import Content, contents, write_pack

FEW = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def opened(tmp_path: Path, content: Content) -> Domain:
    shutil.rmtree(tmp_path / "example", ignore_errors=True)
    (domain,) = open_corpus(write_pack(tmp_path / "example" / "web", content)).domains
    return domain


def test_ranges_by_hand() -> None:
    offsets = np.array([0, 3, 4, 4, 10, 11])
    assert list(document_ranges(offsets, 4)) == [(0, 3), (3, 4), (4, 5)]  # the fourth document is longer than 4
    assert list(document_ranges(offsets, 11)) == [(0, 5)]
    assert list(document_ranges(np.array([0]), 4)) == []


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 12))
def test_ranges_cover_every_document_once(lengths: list[int], limit: int) -> None:
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    ranges = list(document_ranges(offsets, limit))
    assert [number for first, last in ranges for number in range(first, last)] == list(range(len(lengths)))
    for first, last in ranges:
        assert offsets[last] - offsets[first] <= limit or last == first + 1
        if last < len(lengths):  # and no range could have taken one more
            assert offsets[last + 1] - offsets[first] > limit


@FEW
@given(contents(), st.integers(1, 9), st.integers(1, 5))
def test_rows_are_the_tokens_cut(tmp_path: Path, content: Content, length: int, max_rows: int) -> None:
    found = list(row_blocks(opened(tmp_path, content), length, max_rows, content.masked))
    used = len(content.tokens()) // length * length
    assert [token for rows in found for token in rows.tokens.reshape(-1).tolist()] == content.tokens()[:used]
    assert all(rows.tokens.shape == (max_rows, length) for rows in found[:-1])
    masks = [value for rows in found if rows.mask is not None for value in rows.mask.reshape(-1).tolist()]
    assert masks == (content.mask()[:used] if content.masked else [])


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_blocks_are_the_tokens_and_the_mask(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_TOKENS", size)
    content = Content([[[1, 2, 3], []], [[4]]], [[[0, 1, 1, 0], [1]], None])
    tokens, mask = [], []
    for shard in opened(tmp_path, content).shards():
        pieces = list(token_blocks(shard))
        assert max(map(len, pieces)) <= size
        tokens += np.concatenate(pieces).tolist()
        mask += np.concatenate(list(mask_blocks(shard))).tolist()
    assert tokens == content.tokens() and mask == content.mask()
    first = next(opened(tmp_path, content).shards())
    assert np.concatenate(list(token_blocks(first, 1, 4))).tolist() == content.tokens()[1:4]


def test_rows_of_a_table_come_in_order(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": range(20_000), "b": ["x"] * 20_000}), path, row_group_size=3000)
    table, taken = DocumentTable(path, ["a"]), []
    for count in (1, 0, 8191, 2, 11_806):
        part = table.take(count)
        assert part.column_names == ["a"] and part.num_rows == count
        taken += part.column("a").to_pylist()
    assert taken == list(range(20_000))
