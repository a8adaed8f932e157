"""Tokens of Parquet packs: any window is what a plain array gives; files that are something else are refused."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.errors import FormatError
from dataeng.formats.megatron_index import token_offsets
from dataeng.formats.parquet_tokens import GroupCache, ParquetTokens, document_offsets
from tests.formats.pack_files import document_table, list_column, parquet_bytes

Lists = list[list[int]]


def write(path: Path, documents: Lists, dtype: str = "uint16", rows_per_group: int = 2) -> Path:
    table = document_table(0, documents).append_column("tokens", list_column(documents, dtype))
    path.write_bytes(parquet_bytes(table, rows_per_group))
    return path


def opened(path: Path, dtype: str = "uint16", cache_bytes: int = 1 << 20) -> ParquetTokens:
    return ParquetTokens(path, document_offsets(path)[1], dtype, GroupCache(cache_bytes))


lists = st.lists(st.lists(st.integers(0, 60_000), max_size=5), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(lists, st.integers(1, 4), st.sampled_from(["uint16", "int32"]), st.sampled_from([0, 20, 10_000]), st.data())
def test_windows_and_single_tokens_are_those_of_an_array(
    tmp_path_factory: pytest.TempPathFactory, documents: Lists, group: int, dtype: str, cache: int, data: Any
) -> None:
    path = write(tmp_path_factory.getbasetemp() / "windows.parquet", documents, dtype, group)
    expected = np.array([token for document in documents for token in document], dtype)
    tokens = opened(path, dtype, cache)
    lengths, offsets = document_offsets(path)
    assert lengths.tolist() == [len(document) for document in documents] and offsets[-1] == len(tokens)
    assert len(tokens) == len(expected) and tokens.shape == expected.shape and tokens.dtype == expected.dtype
    for _ in range(5):
        start, stop = (data.draw(st.none() | st.integers(-3, len(expected) + 3)) for _ in range(2))
        step = data.draw(st.sampled_from([None, 1, 2, -1]))
        assert tokens[start:stop:step].tolist() == expected[start:stop:step].tolist()
    assert tokens[:].dtype == np.dtype(dtype)
    if len(expected):
        index = data.draw(st.lists(st.integers(-len(expected), len(expected) - 1), max_size=8))
        assert tokens[np.array(index, np.int64)].tolist() == expected[index].tolist()
        assert all(tokens[i] == expected[i] for i in index)


@pytest.mark.parametrize("index", [5, -6, [0, 5], slice(None)])
def test_outside_is_an_error_as_with_an_array(tmp_path: Path, index: Any) -> None:
    tokens = opened(write(tmp_path / "x.parquet", [[1, 2], [3, 4, 5]]))
    if index == slice(None):
        with pytest.raises(IndexError, match=r"tokens 3 to 6 of .*x\.parquet, which has 5"):
            tokens.read(3, 3)
    else:
        with pytest.raises(IndexError, match=r"a token outside the 5 of .*x\.parquet"):
            tokens[np.array(index)]


def test_a_window_reads_the_groups_that_it_touches_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = opened(write(tmp_path / "x.parquet", [[i] * 10 for i in range(20)]), cache_bytes=100)
    read: list[int] = []
    whole = ParquetTokens._read_group
    monkeypatch.setattr(ParquetTokens, "_read_group", lambda self, g: (read.append(g), whole(self, g))[1])
    assert tokens[39:61].tolist() == [3] + [4] * 10 + [5] * 10 + [6] and read == [1, 2, 3]
    assert tokens[50:70].tolist() == [5] * 10 + [6] * 10 and read == [1, 2, 3]  # two of 40 bytes each are kept
    assert tokens[25] == 2 and read == [1, 2, 3, 1]
    assert tokens[69] == 6 and read == [1, 2, 3, 1]  # the one before was used longer ago, and had to go
    assert tokens[49] == 4 and read == [1, 2, 3, 1, 2]


def test_threads_may_read_at_once(tmp_path: Path) -> None:
    documents = [[i] * 50 for i in range(200)]
    tokens = opened(write(tmp_path / "x.parquet", documents), cache_bytes=500)
    expected = np.array(documents, "uint16").ravel()
    wrong: list[int] = []

    def read(seed: int) -> None:
        for start in np.random.default_rng(seed).integers(0, len(expected) - 300, 60):
            if not np.array_equal(tokens[start : start + 300], expected[start : start + 300]):
                wrong.append(int(start))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_files_that_are_no_packs(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    with pytest.raises(FormatError, match=r"cannot read .*x\.parquet: No such file or directory"):
        document_offsets(path)
    whole = write(path, [[1, 2], [3]]).read_bytes()
    for size in (0, 3, 12, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError, match=r"x\.parquet is not a whole Parquet file"):
            document_offsets(path)
    pq.write_table(pa.table({"text": ["a"]}), path)
    with pytest.raises(FormatError, match=r"has no column 'num_tokens' \(it has text\)"):
        document_offsets(path)
    with pytest.raises(FormatError, match=r"has no list column 'tokens' \(it has text\)"):
        ParquetTokens(path, np.array([0, 1]), "uint16", GroupCache())
    pq.write_table(pa.table({"num_tokens": pa.array([1, None], pa.int32())}), path)
    with pytest.raises(FormatError, match="'num_tokens' has numbers that are no lengths"):
        document_offsets(path)


def test_rows_type_and_lengths_must_be_the_pack_s(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", [[1, 2], [3]])
    with pytest.raises(FormatError, match="'tokens' holds uint16, the pack int32"):
        opened(path, "int32")
    with pytest.raises(FormatError, match=r"x\.parquet has 2 rows; the pack has 3 documents there"):
        ParquetTokens(path, np.array([0, 1, 2, 3]), "uint16", GroupCache())
    tokens = ParquetTokens(path, token_offsets(np.array([2, 2], np.int32)), "uint16", GroupCache())
    with pytest.raises(FormatError, match="row group 0 has 3 values in 'tokens'; its documents have 4 tokens"):
        tokens[0:2]


def test_damage_inside_a_row_group_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", [[i] * 100 for i in range(100)], rows_per_group=50)
    data = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(1).column(9)
    assert column.path_in_schema.startswith("tokens")
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + 8] = b"\xff" * 8
    path.write_bytes(data)
    tokens = opened(path)
    assert tokens[0:2].tolist() == [0, 0]
    with pytest.raises(FormatError, match=r"cannot read row group 1 of .*x\.parquet"):
        tokens[5000:5002]
