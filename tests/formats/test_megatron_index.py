"""The layout of Megatron's index by hand, and damage of every kind."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataeng.errors import FormatError
from dataeng.formats.megatron_index import idx_bytes, read_idx, token_dtype

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


LAST_LENGTH = range(34 + 4, 34 + 8)  # nothing in the index contradicts it; the size of .bin does: test_pack


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
