"""Megatron's ``.idx``: where each document of a ``.bin`` begins and how long it is.

Layout after Megatron-LM, ``megatron/core/datasets/indexed_dataset.py``, little-endian::

    bytes          content
    9              magic, b"MMIDIDX\\0\\0"
    8              u64  version = 1
    1              u8   dtype code: 8 uint16, 4 int32
    8              u64  number of sequences S
    8              u64  entries of the document index D = S + 1
    4 · S          i32  lengths in tokens
    8 · S          i64  byte offsets into .bin
    8 · D          i64  document starts, in sequences: 0 … S, because each document is one sequence
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from dataeng.errors import FormatError

MAGIC = b"MMIDIDX\x00\x00"
DTYPE_CODES: dict[str, int] = {"uint16": 8, "int32": 4}
LARGEST_UINT16_VOCABULARY = 65_500  # Megatron's own rule for choosing the 2-byte type
HEADER_BYTES = 34


def token_dtype(vocab_size: int) -> Literal["uint16", "int32"]:
    """Returns the narrowest Megatron dtype that holds every token id of a vocabulary."""
    return "uint16" if vocab_size < LARGEST_UINT16_VOCABULARY else "int32"


def idx_bytes(lengths: npt.NDArray[np.int32], dtype: str) -> bytes:
    """Returns a Megatron ``.idx`` file for documents of the given lengths (in tokens)."""
    num = len(lengths)
    itemsize = np.dtype(dtype).itemsize
    pointers = np.zeros(num, np.int64)
    np.cumsum(lengths[:-1], dtype=np.int64, out=pointers[1:])
    return b"".join(
        [
            MAGIC,
            struct.pack("<QBQQ", 1, DTYPE_CODES[dtype], num, num + 1),
            lengths.astype("<i4").tobytes(),
            (pointers * itemsize).astype("<i8").tobytes(),
            np.arange(num + 1, dtype="<i8").tobytes(),
        ]
    )


def token_offsets(lengths: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Returns int64[S + 1]: where each document begins, in tokens, and where the last one ends."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, dtype=np.int64, out=offsets[1:])
    return offsets


def read_idx(path: Path, dtype: str | None = None) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Reads a Megatron ``.idx``: lengths int32[S] and token offsets int64[S + 1].

    Every bound is checked; a truncated or foreign file raises `FormatError`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror}. The pack is incomplete.") from error
    if len(data) < HEADER_BYTES or data[:9] != MAGIC:
        raise FormatError(f"{path} is not a Megatron index: it starts with {data[:9]!r}, expected {MAGIC!r}.")
    version, code, num, num_documents = struct.unpack_from("<QBQQ", data, 9)
    names = {code: name for name, code in DTYPE_CODES.items()}
    if version != 1 or code not in names or (dtype is not None and names[code] != dtype):
        raise FormatError(
            f"{path}: version {version}, dtype code {code}; expected version 1 and dtype {dtype or names}."
        )
    expected = HEADER_BYTES + 12 * num + 8 * num_documents
    if len(data) != expected:
        raise FormatError(f"{path} has {len(data)} bytes; {num} documents need {expected}.")
    lengths = np.frombuffer(data, "<i4", num, HEADER_BYTES).astype(np.int32)
    pointers = np.frombuffer(data, "<i8", num, HEADER_BYTES + 4 * num)
    offsets = token_offsets(lengths)
    if (lengths < 0).any() or not np.array_equal(pointers, offsets[:-1] * np.dtype(names[code]).itemsize):
        raise FormatError(f"{path}: document offsets do not follow from document lengths; the index is damaged.")
    if not np.array_equal(np.frombuffer(data, "<i8", num_documents, HEADER_BYTES + 12 * num), np.arange(num + 1)):
        raise FormatError(f"{path}: its documents are not one sequence each, as they are in a pack.")
    return lengths, offsets
