"""Packs: reading what was written, from .bin and from Parquet alone; manifests; places of tokens."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.errors import FormatError
from dataeng.formats.pack import Pack, Place, load_manifest
from dataeng.formats.pack_verification import verify_pack
from tests.formats.pack_files import ALL, EOS, write_pack
from tests.formats.test_megatron_index import BY_HAND, LAST_LENGTH

DOCUMENTS = [[[5, 6, EOS], [7, EOS]], [[EOS], [8, 9, 10, EOS]]]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.lists(st.integers(1, 99), max_size=6), max_size=5), max_size=3),
    st.sampled_from(["uint16", "int32"]),
)
def test_pack_round_trip(tmp_path_factory: pytest.TempPathFactory, shards: list[list[list[int]]], dtype: str) -> None:
    folder = tmp_path_factory.mktemp("pack")
    shards = [[[*document, EOS] for document in documents] for documents in shards]
    manifest = write_pack(folder, shards, dtype)
    pack = Pack(folder)
    assert pack.manifest == manifest == load_manifest(folder)
    found = [[shard.document(i).tolist() for i in range(len(shard.lengths))] for shard in pack.shards]
    assert found == shards and verify_pack(folder) == []
    assert all(shard.tokens.dtype == np.dtype(dtype) for shard in pack.shards)


@pytest.mark.parametrize("position", LAST_LENGTH)
def test_a_flipped_byte_in_the_last_length_does_not_fit_the_tokens(tmp_path: Path, position: int) -> None:
    write_pack(tmp_path, [[[5, 6, EOS], [EOS]]])
    assert (tmp_path / "00000.idx").read_bytes() == BY_HAND
    for flip in (0x01, 0x80, 0xFF):
        data = bytearray(BY_HAND)
        data[position] ^= flip
        (tmp_path / "00000.idx").write_bytes(data)
        with pytest.raises(FormatError, match=r"00000\.(bin has 8 bytes; its index describes|idx: document offsets)"):
            Pack(tmp_path)


def test_counts_of_a_shard_are_checked_on_opening(tmp_path: Path) -> None:
    write_pack(tmp_path, DOCUMENTS)
    value = json.loads((tmp_path / "pack.json").read_text())
    value["shards"][1]["num_documents"] = 1
    (tmp_path / "pack.json").write_text(json.dumps(value))
    with pytest.raises(FormatError, match=r"00001: index holds 2 documents and 5 tokens, pack\.json says 1 and 5"):
        Pack(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format_version: Input should be 1"),
        ({"dtype": "uint8"}, "dtype: Input should be 'uint16' or 'int32'"),
        ({"vocab_size": 0}, "vocab_size: Input should be greater than 0"),
        ({"num_tokens": -1}, "num_tokens: "),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
        ({"shards": [{}]}, r"shards\.0\.name: Field required"),
    ],
)
def test_a_manifest_is_checked_field_by_field(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_pack(tmp_path, DOCUMENTS)
    value = json.loads((tmp_path / "pack.json").read_text())
    (tmp_path / "pack.json").write_text(json.dumps({**value, **change}))
    with pytest.raises(FormatError, match=f"is not a pack manifest: {message}"):
        load_manifest(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_a_manifest_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pack.json").write_bytes(content)
    with pytest.raises(FormatError, match="is not a pack manifest"):
        load_manifest(tmp_path)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"no pack at {tmp_path}: cannot read .*No such file"):
        Pack(tmp_path)


def test_a_shard_without_tokens_files_says_how_to_get_them(tmp_path: Path) -> None:
    write_pack(tmp_path, DOCUMENTS, kinds=("docs", "idx"))
    with pytest.raises(FormatError, match=r"00000 has neither \.bin and \.idx nor \.parquet \(only docs, idx\)"):
        Pack(tmp_path)


@pytest.mark.parametrize("name", ["../00000.bin", "/etc/passwd", "a/b", "..", ".", "", ".hidden", "x\n"])
def test_files_of_a_pack_are_in_its_folder(tmp_path: Path, name: str) -> None:
    write_pack(tmp_path, DOCUMENTS)
    value = json.loads((tmp_path / "pack.json").read_text())
    value["shards"][0]["files"]["bin"]["name"] = name
    (tmp_path / "pack.json").write_text(json.dumps(value))
    with pytest.raises(FormatError, match=r"shards\.0\.files\.bin\.name: String should match pattern"):
        load_manifest(tmp_path)


MASKS = [[[0, 1, 1], [0, 1]], [[1], [0, 0, 1, 1]]]


@pytest.mark.parametrize("dtype", ["uint16", "int32"])
@pytest.mark.parametrize("masks", [None, MASKS])
def test_parquet_alone_is_read_like_the_binary_pair(
    tmp_path: Path, dtype: str, masks: list[list[list[int]]] | None
) -> None:
    kinds = ("parquet", "docs")
    write_pack(tmp_path / "binary", DOCUMENTS, dtype, ("bin", "idx", *(["mask"] if masks else [])), masks)
    write_pack(tmp_path / "parquet", DOCUMENTS, dtype, kinds, masks)
    for one, other in zip(Pack(tmp_path / "binary").shards, Pack(tmp_path / "parquet").shards, strict=True):
        assert one.lengths.tolist() == other.lengths.tolist() and one.offsets.tolist() == other.offsets.tolist()
        assert one.lengths.dtype == other.lengths.dtype and one.offsets.dtype == other.offsets.dtype
        assert len(one.tokens) == len(other.tokens) and other.tokens.dtype == one.tokens.dtype == np.dtype(dtype)
        assert one.tokens[:].tolist() == other.tokens[:].tolist()
        assert one.document(1).tolist() == other.document(1).tolist()
        assert (one.mask is None) == (other.mask is None) == (masks is None)
        if one.mask is not None and other.mask is not None:
            assert one.mask[:].tolist() == other.mask[:].tolist() and other.mask[:].dtype == np.uint8
        assert (one.path.suffix, other.path.suffix) == (".bin", ".parquet")


def test_a_mask_beside_parquet_alone(tmp_path: Path) -> None:
    write_pack(tmp_path, DOCUMENTS, kinds=("parquet", "mask"), masks=MASKS)
    masks = [shard.mask for shard in Pack(tmp_path).shards]
    assert [mask[:].tolist() for mask in masks if mask is not None] == [[0, 1, 1, 0, 1], [1, 0, 0, 1, 1]]


def test_a_mask_that_is_too_short(tmp_path: Path) -> None:
    write_pack(tmp_path, DOCUMENTS, kinds=("bin", "idx", "mask"), masks=MASKS)
    (tmp_path / "00001.mask").write_bytes(b"\1\1\1\1")
    with pytest.raises(FormatError, match=r"00001\.mask has 4 bytes; a mask of 5 tokens needs 5"):
        Pack(tmp_path)


@settings(max_examples=30, deadline=None)
@given(shards=st.lists(st.lists(st.lists(st.integers(1, 99), max_size=3), max_size=4), min_size=1, max_size=3))
def test_every_token_has_its_place(tmp_path_factory: pytest.TempPathFactory, shards: list[list[list[int]]]) -> None:
    folder = tmp_path_factory.mktemp("places")
    write_pack(folder, shards)  # documents may be empty here: no token is theirs
    pack = Pack(folder)
    expected = [
        Place(s, d, p) for s, documents in enumerate(shards) for d, doc in enumerate(documents) for p in range(len(doc))
    ]
    assert [pack.locate(offset) for offset in range(len(expected))] == expected
    assert pack.starts.tolist() == [sum(len(d) for s in shards[:i] for d in s) for i in range(len(shards) + 1)]
    for outside in (-1, len(expected)):
        with pytest.raises(FormatError, match=f"token {outside} is not in .*, which has {len(expected)} tokens"):
            pack.locate(outside)


@pytest.mark.parametrize("kinds", [("bin", "idx"), ("parquet",)])
def test_a_shard_can_go_to_another_process(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    write_pack(tmp_path, DOCUMENTS, kinds=kinds)
    shard = Pack(tmp_path).shards[1]
    assert shard.tokens[1:4].tolist() == [8, 9, 10]
    assert pickle.loads(pickle.dumps(shard)).tokens[1:4].tolist() == [8, 9, 10]


def test_all_kinds_of_files_together(tmp_path: Path) -> None:
    manifest = write_pack(tmp_path, DOCUMENTS, kinds=(*ALL, "mask"), masks=MASKS)
    assert [sorted(shard.files) for shard in manifest.shards] == [["bin", "docs", "idx", "mask", "parquet"]] * 2
    assert isinstance(Pack(tmp_path).shards[0].tokens, np.memmap) and verify_pack(tmp_path) == []
