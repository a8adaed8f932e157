"""Packs: the layout of Megatron's index by hand, damage of every kind, and round trips."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.errors import FormatError
from dataeng.formats.atomic import sha256_file
from dataeng.formats.pack import (
    Pack,
    PackManifest,
    Shard,
    ShardFile,
    idx_bytes,
    load_manifest,
    read_idx,
    token_dtype,
    verify_pack,
    write_manifest,
)

# Two documents of three and one tokens of two bytes each, written out field by field.
BY_HAND = bytes.fromhex(
    "4d4d494449445800 00"  # MMIDIDX\0\0
    "0100000000000000"  # version 1
    "08"  # dtype code 8: uint16
    "0200000000000000"  # sequences
    "0300000000000000"  # entries of the document index
    "03000000 01000000"  # lengths
    "0000000000000000 0600000000000000"  # byte offsets
    "0000000000000000 0100000000000000 0200000000000000"  # document starts
)
EOS = 0


def test_index_by_hand(tmp_path: Path) -> None:
    assert idx_bytes(np.array([3, 1], np.int32), "uint16") == BY_HAND
    (tmp_path / "x.idx").write_bytes(BY_HAND)
    lengths, offsets = read_idx(tmp_path / "x.idx", "uint16")
    assert lengths.tolist() == [3, 1] and offsets.tolist() == [0, 3, 4]
    assert lengths.dtype == np.int32 and offsets.dtype == np.int64


def test_index_of_four_byte_tokens_differs_in_code_and_offsets() -> None:
    assert idx_bytes(np.array([3, 1], np.int32), "int32") == BY_HAND[:17] + b"\x04" + BY_HAND[18:42] + struct.pack(
        "<qq", 0, 12
    ) + BY_HAND[58:]  # fmt: skip


def test_index_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.idx").write_bytes(idx_bytes(np.zeros(0, np.int32), "int32"))
    lengths, offsets = read_idx(tmp_path / "x.idx", "int32")
    assert len(lengths) == 0 and offsets.tolist() == [0]


def test_offsets_beyond_two_gigabytes(tmp_path: Path) -> None:
    big = np.array([2**31 - 1, 2**31 - 1, 5], np.int32)
    (tmp_path / "x.idx").write_bytes(idx_bytes(big, "int32"))
    assert read_idx(tmp_path / "x.idx")[1].tolist() == [0, 2**31 - 1, 2**32 - 2, 2**32 + 3]
    assert struct.unpack_from("<qqq", idx_bytes(big, "int32"), 34 + 12) == (0, 4 * (2**31 - 1), 4 * (2**32 - 2))


def test_the_dtype_follows_megatron_s_rule() -> None:
    assert [token_dtype(size) for size in (1, 65_499, 65_500, 65_536, 200_000)] == ["uint16"] * 2 + ["int32"] * 3


@given(st.lists(st.integers(0, 2**31 - 1), max_size=50), st.sampled_from(["uint16", "int32"]))
def test_index_round_trip(tmp_path_factory: pytest.TempPathFactory, lengths: list[int], dtype: str) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.idx"
    path.write_bytes(idx_bytes(np.array(lengths, np.int32), dtype))
    found, offsets = read_idx(path, dtype)
    assert found.tolist() == lengths and offsets.tolist() == [sum(lengths[:i]) for i in range(len(lengths) + 1)]


@pytest.mark.parametrize("size", range(len(BY_HAND)))
def test_a_truncated_index_is_refused_at_every_length(tmp_path: Path, size: int) -> None:
    (tmp_path / "x.idx").write_bytes(BY_HAND[:size])
    with pytest.raises(FormatError, match=r"x\.idx"):
        read_idx(tmp_path / "x.idx")


LAST_LENGTH = range(34 + 4, 34 + 8)  # nothing in the index contradicts it; the size of .bin does, see below


@pytest.mark.parametrize("position", sorted({*range(len(BY_HAND))} - {*LAST_LENGTH}))
def test_no_flipped_byte_passes(tmp_path: Path, position: int) -> None:
    for flip in (0x01, 0x80, 0xFF):
        data = bytearray(BY_HAND)
        data[position] ^= flip
        (tmp_path / "x.idx").write_bytes(data)
        with pytest.raises(FormatError, match=r"x\.idx"):
            read_idx(tmp_path / "x.idx", "uint16")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a Megatron index"),
        (b"PAR1" + bytes(100), "is not a Megatron index: it starts with b'PAR1"),
        (BY_HAND + b"\0", "has 83 bytes; 2 documents need 82"),
        (BY_HAND[:9] + struct.pack("<Q", 2) + BY_HAND[17:], "version 2, dtype code 8; expected version 1"),
        (BY_HAND[:17] + b"\x05" + BY_HAND[18:], "dtype code 5"),
        (BY_HAND[:18] + struct.pack("<QQ", 2**60, 2**60) + BY_HAND[34:], "documents need"),
        (idx_bytes(np.array([3, -1, 4], np.int32), "uint16"), "the index is damaged"),
    ],
)
def test_foreign_and_hostile_indexes(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x.idx").write_bytes(data)
    with pytest.raises(FormatError, match=message):
        read_idx(tmp_path / "x.idx")


def test_an_index_of_the_other_dtype_or_none_at_all(tmp_path: Path) -> None:
    (tmp_path / "x.idx").write_bytes(BY_HAND)
    with pytest.raises(FormatError, match="dtype code 8; expected version 1 and dtype int32"):
        read_idx(tmp_path / "x.idx", "int32")
    with pytest.raises(FormatError, match=r"No such file or directory\. The pack is incomplete"):
        read_idx(tmp_path / "y.idx")


def write_pack(folder: Path, shards: list[list[list[int]]], dtype: str = "uint16", **changes: Any) -> PackManifest:
    """Writes a pack of the given documents, token by token."""
    folder.mkdir(exist_ok=True)
    described = []
    for number, documents in enumerate(shards):
        lengths = np.array([len(document) for document in documents], np.int32)
        tokens = np.array([token for document in documents for token in document], dtype)
        content = {"bin": tokens.tobytes(), "idx": idx_bytes(lengths, dtype)}
        files = {}
        for kind, data in content.items():
            (folder / f"{number:05d}.{kind}").write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            files[kind] = ShardFile(name=f"{number:05d}.{kind}", size_bytes=len(data), sha256=digest)
        described.append(Shard(name=f"{number:05d}", num_documents=len(lengths), num_tokens=len(tokens), files=files))
    value = {
        "domain": "web",
        "dtype": dtype,
        "tokenizer_sha256": "0" * 64,
        "tokenizer": "../tokenizer.json",
        "vocab_size": 100,
        "eos_id": EOS,
        "num_documents": sum(shard.num_documents for shard in described),
        "num_tokens": sum(shard.num_tokens for shard in described),
        "text_bytes": 1000,
        "shards": described,
    }
    manifest = PackManifest(**{**value, **changes})
    assert write_manifest(folder, manifest) == sha256_file(folder / "pack.json")
    return manifest


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


@pytest.mark.parametrize("kind", ["bin", "idx"])
def test_missing_short_and_altered_files(tmp_path: Path, kind: str) -> None:
    def damaged(damage: Any) -> list[str]:
        write_pack(tmp_path, DOCUMENTS)
        path = tmp_path / f"00001.{kind}"
        damage(path)
        return verify_pack(tmp_path)

    assert damaged(Path.unlink) == [f"{tmp_path}/00001.{kind} is missing"]
    with pytest.raises(FormatError, match="The pack is incomplete"):
        Pack(tmp_path)
    (problem,) = damaged(lambda path: path.write_bytes(path.read_bytes()[:-2]))
    assert f"00001.{kind} has" in problem and "expected" in problem
    with pytest.raises(FormatError, match=rf"00001\.{kind} has \d+ bytes"):
        Pack(tmp_path)
    (problem,) = damaged(lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x7f"))
    assert problem == f"{tmp_path}/00001.{kind} was altered: its SHA-256 is not the manifest's"


@pytest.mark.parametrize(
    ("documents", "changes", "problem"),
    [
        ([[[5, 100, EOS]]], {}, "00000: token id 100 ≥ vocabulary 100"),
        ([[[5, -1, EOS]]], {"dtype": "int32"}, "00000: token id -1 < 0"),
        ([[[5, EOS], [6, 7]]], {}, "00000: a document does not end with EOS (0)"),
        ([[[5, EOS], []]], {}, "00000: a document does not end with EOS (0)"),  # nothing, after another's EOS
        ([[[], [5, EOS]]], {}, "00000: a document does not end with EOS (0)"),
        (DOCUMENTS, {"num_tokens": 11}, "pack.json: num_tokens is 11, its shards have 10"),
        (DOCUMENTS, {"num_documents": 3}, "pack.json: num_documents is 3, its shards have 4"),
    ],
)
def test_content_that_contradicts_the_manifest(
    tmp_path: Path, documents: list[list[list[int]]], changes: dict[str, Any], problem: str
) -> None:
    write_pack(tmp_path, documents, **changes)
    assert verify_pack(tmp_path) == [f"{tmp_path}/{problem}"]


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
    manifest = write_pack(tmp_path, DOCUMENTS)
    bare = manifest.model_copy(update={"shards": [s.model_copy(update={"files": {}}) for s in manifest.shards]})
    write_manifest(tmp_path, bare)
    with pytest.raises(FormatError, match=r"has no \.bin and \.idx"):
        Pack(tmp_path)
