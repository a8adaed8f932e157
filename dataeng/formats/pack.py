"""Packs: tokenized documents of one domain, as Megatron's ``.bin/.idx`` pair and as Parquet.

A pack is a folder with shards and, written last, ``pack.json``::

    packs/web/
      00000.bin           tokens, little-endian, headerless; every document ends with EOS
      00000.idx           Megatron index: see `idx_bytes`
      00000.docs.parquet  row i: document i's id, url, source, language, tokens …
      00000.parquet       (optional) the same rows with a `tokens` list column
      00000.mask          (optional) one byte a token of .bin: 1 where it counts as a label, 0 where it only is context
      pack.json           tokenizer, dtype, counts and SHA-256 of everything above

Megatron's reader takes `NAME` as a path prefix, so peers read the shards as they are. Layout of ``.idx`` after
Megatron-LM, ``megatron/core/datasets/indexed_dataset.py``.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dataeng.errors import FormatError
from dataeng.formats.atomic import sha256_file, write_json

MAGIC = b"MMIDIDX\x00\x00"
DTYPE_CODES: dict[str, int] = {"uint16": 8, "int32": 4}
LARGEST_UINT16_VOCABULARY = 65_500  # Megatron's own rule for choosing the 2-byte type
MANIFEST_NAME = "pack.json"
PACK_FORMAT_VERSION = 1


def token_dtype(vocab_size: int) -> Literal["uint16", "int32"]:
    """Returns the narrowest Megatron dtype that holds every token id of a vocabulary."""
    return "uint16" if vocab_size < LARGEST_UINT16_VOCABULARY else "int32"


def idx_bytes(lengths: npt.NDArray[np.int32], dtype: str) -> bytes:
    """Returns a Megatron ``.idx`` file for documents of the given lengths (in tokens).

    Layout, little-endian: 9-byte magic, u64 version = 1, u8 dtype code, u64 number of sequences S, u64 length of
    the document index D = S + 1, i32[S] lengths, i64[S] byte offsets into ``.bin``, i64[D] document starts.
    """
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


class ShardFile(BaseModel):
    """One file of a shard, as committed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    size_bytes: int = Field(ge=0)
    sha256: str


class Shard(BaseModel):
    """One shard: ``bin``, ``idx``, ``docs``, perhaps ``parquet`` and ``mask``, with the same documents in one order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    num_documents: int = Field(ge=0)
    num_tokens: int = Field(ge=0)
    files: dict[str, ShardFile]


class PackManifest(BaseModel):
    """``pack.json``: written last, and the only truth about what is in the pack."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    domain: str
    dtype: Literal["uint16", "int32"]
    tokenizer_sha256: str
    tokenizer: str = Field(description="Path of tokenizer.json (or .model), relative to this file's folder")
    vocab_size: int = Field(gt=0)
    eos_id: int = Field(ge=0)
    eos: Literal["append", "none"] = Field(default="append", description="none: documents end without EOS")
    bos_id: int | None = Field(default=None, ge=0, description="The token that begins every document, if one does")
    objective: dict[str, Any] | None = Field(default=None, description="What was made of the documents' text")
    num_documents: int = Field(ge=0)
    num_tokens: int = Field(ge=0)
    text_bytes: int = Field(ge=0)
    shards: list[Shard]


class PackShard:
    """Read access to one shard, by memory map. Tokens come as ``uint16`` or ``int32`` arrays, without copying."""

    def __init__(self, folder: Path, shard: Shard, dtype: str) -> None:
        self.folder, self.shard, self.name = folder, shard, shard.name
        if not {"idx", "bin"} <= shard.files.keys():
            raise FormatError(
                f"{folder / shard.name} has no .bin and .idx (only {', '.join(sorted(shard.files))}); "
                "write it again with 'megatron' among write_packs.formats."
            )
        idx_path, bin_path = (folder / shard.files[kind].name for kind in ("idx", "bin"))
        self.lengths, self.offsets = read_idx(idx_path, dtype)  # int32[documents], int64[documents + 1] in tokens
        expected = int(self.offsets[-1]) * np.dtype(dtype).itemsize
        found = _size(bin_path)
        if found != expected:
            raise FormatError(
                f"{bin_path} has {found} bytes; its index describes {expected}. Restore or rebuild the pack."
            )
        self.tokens: npt.NDArray[Any] = (
            np.memmap(bin_path, dtype=np.dtype(dtype).newbyteorder("<"), mode="r") if expected else np.zeros(0, dtype)
        )
        self.mask = self._open_mask()  # uint8[tokens], 1 where a token is trained on; None: everywhere

    def _open_mask(self) -> npt.NDArray[np.uint8] | None:
        if "mask" not in self.shard.files:
            return None
        path, expected = self.folder / self.shard.files["mask"].name, len(self.tokens)
        if (found := _size(path)) != expected:
            raise FormatError(
                f"{path} has {found} bytes; a mask of {expected} tokens needs {expected}. Rebuild the pack."
            )
        return np.memmap(path, dtype=np.uint8, mode="r") if expected else np.zeros(0, np.uint8)

    def document(self, index: int) -> npt.NDArray[Any]:
        """Returns the tokens of one document, EOS included."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


class Pack:
    """A pack opened for reading: the manifest and its shards. Sizes are checked; `verify_pack` checks content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = load_manifest(folder)
        self.shards = [PackShard(folder, shard, self.manifest.dtype) for shard in self.manifest.shards]
        for shard in self.shards:
            counts = (len(shard.lengths), int(shard.offsets[-1]))
            if counts != (shard.shard.num_documents, shard.shard.num_tokens):
                raise FormatError(
                    f"{folder / shard.name}: index holds {counts[0]} documents and {counts[1]} tokens, "
                    f"{MANIFEST_NAME} says {shard.shard.num_documents} and {shard.shard.num_tokens}."
                )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror}. The pack is incomplete.") from error


def load_manifest(folder: Path) -> PackManifest:
    """Reads and checks a pack's manifest."""
    path = folder / MANIFEST_NAME
    try:
        return PackManifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise FormatError(f"no pack at {folder}: cannot read {path} ({error.strerror}).") from error
    except ValidationError as error:
        raise FormatError(f"{path} is not a pack manifest: {_first_problem(error)}") from error


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "file"
    return f"{where}: {first['msg']}"


def write_manifest(folder: Path, manifest: PackManifest) -> str:
    """Writes ``pack.json`` atomically and returns its SHA-256."""
    return write_json(folder / MANIFEST_NAME, json.loads(manifest.model_dump_json()))


def read_idx(path: Path, dtype: str | None = None) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Reads a Megatron ``.idx``: lengths int32[S] and token offsets int64[S + 1].

    Every bound is checked; a truncated or foreign file raises `FormatError`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror}. The pack is incomplete.") from error
    if len(data) < 34 or data[:9] != MAGIC:
        raise FormatError(f"{path} is not a Megatron index: it starts with {data[:9]!r}, expected {MAGIC!r}.")
    version, code, num, num_documents = struct.unpack_from("<QBQQ", data, 9)
    names = {code: name for name, code in DTYPE_CODES.items()}
    if version != 1 or code not in names or (dtype is not None and names[code] != dtype):
        raise FormatError(
            f"{path}: version {version}, dtype code {code}; expected version 1 and dtype {dtype or names}."
        )
    if len(data) != 34 + 12 * num + 8 * num_documents:
        raise FormatError(f"{path} has {len(data)} bytes; {num} documents need {34 + 12 * num + 8 * num_documents}.")
    lengths = np.frombuffer(data, "<i4", num, 34).astype(np.int32)
    pointers = np.frombuffer(data, "<i8", num, 34 + 4 * num)
    offsets = np.zeros(num + 1, np.int64)
    np.cumsum(lengths, dtype=np.int64, out=offsets[1:])
    if (lengths < 0).any() or not np.array_equal(pointers, offsets[:-1] * np.dtype(names[code]).itemsize):
        raise FormatError(f"{path}: document offsets do not follow from document lengths; the index is damaged.")
    if not np.array_equal(np.frombuffer(data, "<i8", num_documents, 34 + 12 * num), np.arange(num + 1)):
        raise FormatError(f"{path}: its documents are not one sequence each, as they are in a pack.")
    return lengths, offsets


def verify_pack(folder: Path) -> list[str]:
    """Checks every file of a pack against its manifest, and every token id against the vocabulary.

    Returns a list of problems, empty when the pack is whole.
    """
    manifest = load_manifest(folder)
    problems = []
    for shard in manifest.shards:
        for file in shard.files.values():
            path = folder / file.name
            if not path.exists():
                problems.append(f"{path} is missing")
            elif path.stat().st_size != file.size_bytes:
                problems.append(f"{path} has {path.stat().st_size} bytes, expected {file.size_bytes}")
            elif sha256_file(path) != file.sha256:
                problems.append(f"{path} was altered: its SHA-256 is not the manifest's")
    if problems or not all({"bin", "idx"} <= shard.files.keys() for shard in manifest.shards):
        return problems  # a pack in Parquet alone has no more to check
    for total in ("num_documents", "num_tokens"):
        found = sum(getattr(shard, total) for shard in manifest.shards)
        if found != getattr(manifest, total):
            problems.append(f"{folder / MANIFEST_NAME}: {total} is {getattr(manifest, total)}, its shards have {found}")
    for opened in Pack(folder).shards:
        if len(opened.tokens):
            smallest, largest = int(opened.tokens.min()), int(opened.tokens.max())
            if smallest < 0 or largest >= manifest.vocab_size:
                wrong = f"{smallest} < 0" if smallest < 0 else f"{largest} ≥ vocabulary {manifest.vocab_size}"
                problems.append(f"{folder / opened.name}: token id {wrong}")
        ends = opened.offsets[1:] - 1
        if manifest.eos == "none":
            continue
        if (opened.lengths == 0).any() or not (opened.tokens[ends] == manifest.eos_id).all():
            problems.append(f"{folder / opened.name}: a document does not end with EOS ({manifest.eos_id})")
    return problems
