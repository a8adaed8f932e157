"""From tokens to documents, held against the obvious way: walking through all documents."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.errors import FormatError
from dataeng.formats import pack_documents
from dataeng.formats.pack import Pack
from dataeng.formats.pack_documents import PackedDocument, document_at, document_rows, documents_between, find_document
from tests.formats.pack_files import document_table, parquet_bytes, write_pack

KINDS = [("bin", "idx", "docs"), ("parquet", "docs"), ("parquet",), ("bin", "idx", "parquet")]
Shards = list[list[list[int]]]


def walked(shards: Shards) -> list[PackedDocument]:
    """The document of each token."""
    found, start = [], 0
    for number, documents in enumerate(shards):
        rows = document_table(number, documents).to_pylist()
        for index, (tokens, row) in enumerate(zip(documents, rows, strict=True)):
            found += [PackedDocument(f"{number:05d}", index, start, len(tokens), row)] * len(tokens)
            start += len(tokens)
    return found


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.lists(st.lists(st.integers(1, 9), max_size=3), max_size=5), min_size=1, max_size=3),
    st.sampled_from(KINDS),
    st.data(),
)
def test_every_token_and_window_has_its_documents(
    tmp_path_factory: pytest.TempPathFactory, shards: Shards, kinds: tuple[str, ...], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("walked")
    write_pack(folder, shards, kinds=kinds)
    pack, expected = Pack(folder), walked(shards)
    assert [document_at(pack, offset) for offset in range(len(expected))] == expected
    if expected:
        start = data.draw(st.integers(0, len(expected) - 1))
        stop = data.draw(st.integers(start + 1, len(expected)))
        unique = [d for i, d in enumerate(expected[start:stop]) if not i or d != expected[start + i - 1]]
        assert documents_between(pack, start, stop) == unique
    for start, stop in ((-1, 1), (0, len(expected) + 1), (2, 2), (3, 1)):
        with pytest.raises(FormatError, match=rf"tokens {start} to {stop} are not in"):
            documents_between(pack, start, stop)


def test_rows_are_found_in_any_row_group_and_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [[1, 2]] * 25
    write_pack(tmp_path, [documents], kinds=("bin", "idx", "docs"))
    (tmp_path / "00000.docs.parquet").write_bytes(parquet_bytes(document_table(0, documents), 7))
    monkeypatch.setattr(pack_documents, "BATCH_ROWS", 3)
    expected = document_table(0, documents).to_pylist()
    shard = Pack(tmp_path).shards[0]
    for indexes in ([0], [24], [6, 7], [13, 2, 2, 20], list(range(25)), []):
        assert document_rows(shard, indexes) == [expected[i] for i in indexes]
    with pytest.raises(FormatError, match=r"docs\.parquet has 25 rows; it lacks document 25"):
        document_rows(shard, [25])


def test_a_pack_without_rows_still_tells_the_place(tmp_path: Path) -> None:
    write_pack(tmp_path, [[[1, 2], [3]]])
    assert document_at(Pack(tmp_path), 2) == PackedDocument("00000", 1, 2, 1, {})
    with pytest.raises(FormatError, match=r"00000 has no docs\.parquet: its documents have no names"):
        find_document(Pack(tmp_path), "a")


@pytest.mark.parametrize("kinds", KINDS)
def test_documents_are_found_by_id_by_its_beginning_and_by_url(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    shards = [[[1], [2, 2]], [[3], [4]]]
    write_pack(tmp_path, shards, kinds=kinds)
    pack = Pack(tmp_path)
    wanted = walked(shards)[3]
    for name in (wanted.row["id"], wanted.row["id"][:10], wanted.row["url"]):
        assert find_document(pack, name) == [wanted]
    assert find_document(pack, "nothing like this") == []
    assert len(find_document(pack, "")) == 4


def test_damaged_rows_are_named(tmp_path: Path) -> None:
    write_pack(tmp_path, [[[1], [2]]], kinds=("bin", "idx", "docs"))
    (tmp_path / "00000.docs.parquet").write_bytes(b"PAR1")
    with pytest.raises(FormatError, match=r"00000\.docs\.parquet is not a whole Parquet file"):
        document_at(Pack(tmp_path), 0)
