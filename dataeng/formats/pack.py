"""Packs: tokenized documents of one domain, as Megatron's ``.bin/.idx`` pair and as Parquet.

A pack is a folder with shards and, written last, ``pack.json``::

    packs/web/
      00000.bin           tokens, little-endian, headerless; see the manifest for what ends a document
      00000.idx           Megatron index: see `megatron_index`
      00000.docs.parquet  row i: document i's id, url, source, language, tokens …
      00000.parquet       (optional) the same rows with a `tokens` list column, and a `mask` one where there is a mask
      00000.mask          (optional) one byte a token of .bin: 1 where it counts as a label, 0 where it only is context
      pack.json           tokenizer, dtype, counts and SHA-256 of everything above

Held-out documents of a domain are a pack of their own, ``packs/web.held-out/`` (no domain's name has a dot).

Megatron's reader takes `NAME` as a path prefix, so peers read the shards as they are. A pack in Parquet alone is read
through the same `Pack` and `PackShard`. Where documents were taken out later (`pack_removal`), shards have new names,
``00000.r1.bin`` …: a shard's name is always the part of its files' names before the kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dataeng.errors import FormatError
from dataeng.formats.atomic import write_json
from dataeng.formats.megatron_index import idx_bytes, read_idx, token_dtype
from dataeng.formats.parquet_tokens import GroupCache, ParquetTokens, document_offsets, open_parquet

__all__ = ["Pack", "PackManifest", "PackShard", "Shard", "ShardFile", "idx_bytes", "read_idx", "token_dtype"]

MANIFEST_NAME = "pack.json"
HELD_OUT_SUFFIX = ".held-out"
FILE_NAME = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$"

Tokens: TypeAlias = "npt.NDArray[Any] | ParquetTokens"
"""A flat sequence of tokens (or of a mask): a memory map, or row groups that are decoded where they are read."""


def pack_folder(domain: str, held_out: bool = False) -> str:
    """Returns the folder of a domain's pack, within a run's ``packs``."""
    return f"{domain}{HELD_OUT_SUFFIX}" if held_out else domain


def folder_of(described: Mapping[str, Any]) -> str:
    """Returns the same of a shard as a task's record describes it."""
    return pack_folder(described["domain"], described.get("held_out", False))


class ShardFile(BaseModel):
    """One file of a shard, as committed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=FILE_NAME, description="In the pack's own folder: files are removed by this name")
    size_bytes: int = Field(ge=0)
    sha256: str


class Shard(BaseModel):
    """One shard: ``bin``, ``idx``, ``docs``, perhaps ``parquet`` and ``mask``, with the same documents in one order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=FILE_NAME)
    num_documents: int = Field(ge=0)
    num_tokens: int = Field(ge=0)
    files: dict[str, ShardFile]


class PackManifest(BaseModel):
    """``pack.json``: written last, and the only truth about what is in the pack."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    domain: str
    held_out: bool = Field(default=False, description="Documents to measure models on, which none is trained on")
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
    revision: int = Field(default=0, ge=0, description="How often documents were taken out of the finished pack")
    removed: ShardFile | None = Field(default=None, description="Parquet: the documents that were taken out, no text")


class PackShard:
    """Read access to one shard.

    ``tokens`` is flat: from ``.bin`` a memory map of ``uint16`` or ``int32``, from Parquet alone a `ParquetTokens`,
    which is sliced in the same way. ``lengths`` is int32[documents], ``offsets`` int64[documents + 1], both in tokens.
    ``mask`` is None where every token is trained on, else uint8[tokens], 1 where one is.
    """

    def __init__(self, folder: Path, shard: Shard, dtype: str, cache: GroupCache | None = None) -> None:
        self.folder, self.shard, self.name, self.dtype = folder, shard, shard.name, dtype
        self._cache = cache or GroupCache()
        self.tokens: Tokens
        if {"idx", "bin"} <= shard.files.keys():
            self.path = folder / shard.files["bin"].name
            self.lengths, self.offsets = read_idx(folder / shard.files["idx"].name, dtype)
            self.tokens = self._map_tokens()
        elif "parquet" in shard.files:
            self.path = folder / shard.files["parquet"].name
            self.lengths, self.offsets = document_offsets(self.path)
            self.tokens = ParquetTokens(self.path, self.offsets, dtype, self._cache)
        else:
            raise FormatError(
                f"{folder / shard.name} has neither .bin and .idx nor .parquet (only "
                f"{', '.join(sorted(shard.files)) or 'nothing'}); write it again with write_packs.formats."
            )
        self.mask = self._open_mask()

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes: they open the files themselves; a memory map would be sent with all its tokens."""
        return PackShard, (self.folder, self.shard, self.dtype)

    def _map_tokens(self) -> npt.NDArray[Any]:
        dtype = np.dtype(self.dtype).newbyteorder("<")
        expected = int(self.offsets[-1]) * dtype.itemsize
        if (found := _size(self.path)) != expected:
            raise FormatError(
                f"{self.path} has {found} bytes; its index describes {expected}. Restore or rebuild the pack."
            )
        return np.memmap(self.path, dtype, mode="r") if expected else np.zeros(0, dtype)

    def _open_mask(self) -> Tokens | None:
        if "mask" not in self.shard.files:
            if not isinstance(self.tokens, ParquetTokens) or "mask" not in open_parquet(self.path).schema_arrow.names:
                return None
            return ParquetTokens(self.path, self.offsets, "uint8", self._cache, column="mask")
        path, expected = self.folder / self.shard.files["mask"].name, len(self.tokens)
        if (found := _size(path)) != expected:
            raise FormatError(
                f"{path} has {found} bytes; a mask of {expected} tokens needs {expected}. Rebuild the pack."
            )
        return np.memmap(path, dtype=np.uint8, mode="r") if expected else np.zeros(0, np.uint8)

    def document(self, index: int) -> npt.NDArray[Any]:
        """Returns the tokens of one document, EOS included."""
        return self.tokens[int(self.offsets[index]) : int(self.offsets[index + 1])]


class Place(NamedTuple):
    """Where a token of a pack is."""

    shard: int
    """Index into `Pack.shards`."""
    document: int
    """Index of the document in the shard, and of its row in ``docs.parquet``."""
    position: int
    """Index of the token in the document."""


class Pack:
    """A pack opened for reading: the manifest and its shards. Sizes are checked; `verify_pack` checks content.

    All shards' tokens, one shard after the other, are the pack's tokens; shard i begins at ``starts[i]``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = load_manifest(folder)
        cache = GroupCache()
        self.shards = [PackShard(folder, shard, self.manifest.dtype, cache) for shard in self.manifest.shards]
        for shard in self.shards:
            counts = (len(shard.lengths), int(shard.offsets[-1]))
            if counts != (shard.shard.num_documents, shard.shard.num_tokens):
                raise FormatError(
                    f"{folder / shard.name}: index holds {counts[0]} documents and {counts[1]} tokens, "
                    f"{MANIFEST_NAME} says {shard.shard.num_documents} and {shard.shard.num_tokens}."
                )
        self.starts = np.concatenate([[0], np.cumsum([len(shard.tokens) for shard in self.shards], dtype=np.int64)])

    def locate(self, offset: int) -> Place:
        """Returns the place of token number ``offset`` of the pack; raises `FormatError` where there is none."""
        if not 0 <= offset < int(self.starts[-1]):
            raise FormatError(f"token {offset:,} is not in {self.folder}, which has {int(self.starts[-1]):,} tokens.")
        number = int(np.searchsorted(self.starts, offset, side="right")) - 1
        within, shard = offset - int(self.starts[number]), self.shards[number]
        document = int(np.searchsorted(shard.offsets, within, side="right")) - 1
        return Place(number, document, within - int(shard.offsets[document]))


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
