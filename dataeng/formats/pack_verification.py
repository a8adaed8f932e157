"""Checks packs against their manifests: every checksum, bound and count, in a few megabytes of memory.

What is checked of a shard: each file's size and SHA-256; that ``.idx`` describes exactly ``.bin``; that every token id
is in the vocabulary; that every document ends as the manifest says; that a mask has a 0 or 1 for every token; that
``docs.parquet`` and ``.parquet`` have as many documents with as many tokens, and the latter the same tokens.
The content of a file that fails its checksum is not looked at further: it is bad, and what it holds means nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataeng.errors import FormatError
from dataeng.formats.atomic import sha256_file
from dataeng.formats.megatron_index import read_idx
from dataeng.formats.pack import MANIFEST_NAME, PackManifest, Shard, ShardFile, load_manifest
from dataeng.formats.parquet_tokens import document_offsets, list_values, open_parquet

CHUNK_BYTES = 4 << 20  # a multiple of every token's size
CHUNK_DOCUMENTS = 1 << 20


@dataclass
class PackCheck:
    """What was found out about one pack."""

    folder: Path
    manifest: PackManifest | None = None
    """None where it cannot be read; that is a problem, too."""
    problems: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    """What could not be checked because it is not there and need not be."""
    num_files: int = 0
    num_bytes: int = 0


def verify_pack(folder: Path) -> list[str]:
    """Checks every file of a pack; returns all problems, none where the pack is whole."""
    return check_pack(folder).problems


def check_pack(folder: Path, tokenizer: Path | None = None) -> PackCheck:
    """Checks every file of a pack against its manifest.

    Args:
      tokenizer: the tokenizer file, where it is not where the manifest says.
    """
    check = PackCheck(folder)
    try:
        manifest = check.manifest = load_manifest(folder)
    except FormatError as error:
        check.problems.append(str(error))
        return check
    for total in ("num_documents", "num_tokens"):
        found, stated = sum(getattr(shard, total) for shard in manifest.shards), getattr(manifest, total)
        if found != stated:
            check.problems.append(f"{folder / MANIFEST_NAME}: {total} is {stated}, its shards have {found}")
    _check_tokenizer(check, manifest, tokenizer)
    names = [file.name for shard in manifest.shards for file in shard.files.values()]
    for name in sorted({name for name in names if names.count(name) > 1}):
        check.problems.append(f"{folder / MANIFEST_NAME}: {name} is named {names.count(name)} times")
    for shard in manifest.shards:
        check.problems += _ShardCheck(check, manifest, shard).run()
    if manifest.removed is not None:
        _Hashed(check, manifest.removed).run(check.problems)
    return check


def _check_tokenizer(check: PackCheck, manifest: PackManifest, given: Path | None) -> None:
    path = given or check.folder / manifest.tokenizer
    if not path.is_file():
        target = check.unchecked if given is None else check.problems
        target.append(f"the tokenizer is not at {path}")
    elif (found := sha256_file(path)) != manifest.tokenizer_sha256:
        check.problems.append(
            f"{path} is not the tokenizer of {check.folder}: its SHA-256 is {found[:12]}…, the pack's "
            f"{manifest.tokenizer_sha256[:12]}…"
        )


class _Hashed:
    """One file, read once: is it there, as long as it should be, and what was committed?"""

    def __init__(self, check: PackCheck, file: ShardFile, dtype: str | None = None) -> None:
        self.check, self.file, self.path = check, file, check.folder / file.name
        self.dtype = np.dtype(dtype).newbyteorder("<") if dtype else None
        self.smallest, self.largest = 0, 0
        """Of the values in the file, where ``dtype`` says what they are."""

    def run(self, problems: list[str]) -> bool:
        """Returns whether the file is whole, and says what is wrong where it is not."""
        try:
            found = self.path.stat().st_size
        except OSError:
            problems.append(f"{self.path} is missing")
            return False
        if found != self.file.size_bytes:
            problems.append(f"{self.path} has {found} bytes, expected {self.file.size_bytes}")
            return False
        self.check.num_files += 1
        self.check.num_bytes += found
        if self._digest() != self.file.sha256:
            problems.append(f"{self.path} was altered: its SHA-256 is not the manifest's")
            return False
        return True

    def _digest(self) -> str:
        digest = hashlib.sha256()
        buffer = bytearray(CHUNK_BYTES)
        with self.path.open("rb") as file:
            while size := file.readinto(buffer):
                digest.update(memoryview(buffer)[:size])
                if self.dtype is not None:
                    self._look(np.frombuffer(buffer, self.dtype, size // self.dtype.itemsize))
        return digest.hexdigest()

    def _look(self, values: npt.NDArray[Any]) -> None:
        if len(values):
            self.smallest = min(self.smallest, int(values.min()))
            self.largest = max(self.largest, int(values.max()))


class _ShardCheck:
    """Checks one shard: first that files are what was committed, then that they agree with each other."""

    def __init__(self, check: PackCheck, manifest: PackManifest, shard: Shard) -> None:
        self.folder, self.manifest, self.shard = check.folder, manifest, shard
        self.where = check.folder / shard.name
        self.problems: list[str] = []
        dtypes = {"bin": manifest.dtype, "mask": "uint8"}
        self.files = {kind: _Hashed(check, file, dtypes.get(kind)) for kind, file in shard.files.items()}
        self.whole: dict[str, Path] = {}
        self.lengths: npt.NDArray[np.int32] | None = None
        self.offsets = np.zeros(1, np.int64)

    def run(self) -> list[str]:
        """Returns all problems of the shard."""
        self.whole = {kind: file.path for kind, file in self.files.items() if file.run(self.problems)}
        if not ({"bin", "idx"} <= self.files.keys() or "parquet" in self.files):
            self.problems.append(f"{self.where} has neither .bin and .idx nor .parquet")
        for step in (self._read_lengths, self._check_tokens, self._check_mask, self._check_documents, self._check_rows):
            try:
                step()
            except FormatError as error:
                self.problems.append(str(error))
        return self.problems

    def _problem(self, text: str) -> None:
        self.problems.append(f"{self.where}: {text}")

    def _read_lengths(self) -> None:
        if "idx" in self.files:
            found = read_idx(self.whole["idx"], self.manifest.dtype) if "idx" in self.whole else None
        else:
            found = document_offsets(self.whole["parquet"]) if "parquet" in self.whole else None
        if found is None:
            return
        self.lengths, self.offsets = found
        counts = (len(self.lengths), int(self.offsets[-1]))
        stated = (self.shard.num_documents, self.shard.num_tokens)
        if counts != stated:
            self._problem(
                f"its index holds {counts[0]} documents and {counts[1]} tokens, {MANIFEST_NAME} says {stated[0]} and "
                f"{stated[1]}"
            )

    def _check_tokens(self) -> None:
        if "bin" not in self.whole:
            return
        file, dtype = self.files["bin"], np.dtype(self.manifest.dtype)
        self._check_vocabulary(file.smallest, file.largest)
        if self.lengths is None:
            return
        described = int(self.offsets[-1]) * dtype.itemsize
        if file.file.size_bytes != described:
            self._problem(f".idx describes {described} bytes of .bin, which has {file.file.size_bytes}")
        elif described:
            tokens = np.memmap(file.path, dtype.newbyteorder("<"), mode="r")
            self._check_borders(_take(tokens, self.offsets[:-1]), _take(tokens, self.offsets[1:] - 1))

    def _check_vocabulary(self, smallest: int, largest: int) -> None:
        if smallest < 0:
            self._problem(f"token id {smallest} < 0")
        if largest >= self.manifest.vocab_size:
            self._problem(f"token id {largest} ≥ vocabulary {self.manifest.vocab_size}")

    def _check_borders(self, first: npt.NDArray[Any], last: npt.NDArray[Any]) -> None:
        """Checks the first and the last token of every document of the shard."""
        assert self.lengths is not None
        manifest = self.manifest
        for token, found, does in (
            (manifest.bos_id, first, "begin with BOS"),
            (manifest.eos_id if manifest.eos == "append" else None, last, "end with EOS"),
        ):
            if token is None:
                continue
            bad = np.flatnonzero((self.lengths == 0) | (found != token))
            if len(bad):
                self._problem(
                    f"{len(bad)} of {len(self.lengths)} documents do not {does} ({token}), the first of them is "
                    f"document {bad[0]}"
                )

    def _check_mask(self) -> None:
        if "mask" not in self.whole:
            return
        file = self.files["mask"]
        if file.file.size_bytes != self.shard.num_tokens:
            self._problem(f".mask has {file.file.size_bytes} bytes for {self.shard.num_tokens} tokens")
        if file.largest > 1:
            self._problem(f".mask holds a {file.largest}; expected 0 and 1 alone")

    def _check_documents(self) -> None:
        if "docs" not in self.whole:
            return
        file = open_parquet(self.whole["docs"])
        rows, path = file.metadata.num_rows, self.whole["docs"]
        if rows != self.shard.num_documents:
            self.problems.append(f"{path} has {rows} rows for {self.shard.num_documents} documents")
        elif "num_tokens" not in file.schema_arrow.names:
            self.problems.append(f"{path} has no column 'num_tokens'")
        elif self.lengths is not None and len(self.lengths) == rows:
            stated = file.read(columns=["num_tokens"]).column(0).to_numpy()
            self._same_lengths(path, stated, self.lengths, 0)

    def _same_lengths(self, path: Path, stated: npt.NDArray[Any], expected: npt.NDArray[Any], first: int) -> bool:
        differ = np.flatnonzero(stated != expected)
        if len(differ):
            number = int(differ[0])
            self.problems.append(
                f"{path}: {len(differ)} documents have another number of tokens than in the index; document "
                f"{first + number} has {stated[number]}, there {expected[number]}"
            )
        return not len(differ)

    def _check_rows(self) -> None:
        """Checks the rows of ``.parquet`` against everything else, a row group at a time."""
        if "parquet" not in self.whole:
            return
        path = self.whole["parquet"]
        if (rows := open_parquet(path).metadata.num_rows) != self.shard.num_documents:
            self.problems.append(f"{path} has {rows} rows for {self.shard.num_documents} documents")
            return
        if self.lengths is None or len(self.lengths) != rows:
            return
        tokens, mask = self._mapped("bin", self.manifest.dtype), self._mapped("mask", "uint8")
        smallest, largest, borders = 0, 0, [np.zeros((2, 0), np.int64)]
        for group in _row_groups(path):
            if not self._same_lengths(path, group.lengths, self.lengths[group.documents], group.documents.start):
                return
            begin, end = int(self.offsets[group.documents.start]), int(self.offsets[group.documents.stop])
            _same_values(path, group.tokens, tokens, begin, end, ".bin")
            if group.mask is not None:
                _same_values(path, group.mask, mask, begin, end, ".mask")
                if group.mask.max(initial=0) > 1:
                    raise FormatError(f"{path}: a mask holds a {group.mask.max()}; expected 0 and 1 alone")
            smallest = min(smallest, int(group.tokens.min(initial=0)))
            largest = max(largest, int(group.tokens.max(initial=0)))
            within = self.offsets[group.documents.start : group.documents.stop + 1] - begin
            borders.append(np.array([_take(group.tokens, within[:-1]), _take(group.tokens, within[1:] - 1)], np.int64))
        if tokens is None:  # otherwise they were those of .bin, which are checked already
            self._check_vocabulary(smallest, largest)
            self._check_borders(*np.concatenate(borders, axis=1))

    def _mapped(self, kind: str, dtype: str) -> npt.NDArray[Any] | None:
        """Returns a whole file's values, or None where there are none to compare with."""
        if kind not in self.whole or not self.files[kind].file.size_bytes:
            return None
        return np.memmap(self.whole[kind], np.dtype(dtype).newbyteorder("<"), mode="r")


@dataclass(frozen=True)
class _RowGroup:
    """One row group of a Parquet pack."""

    documents: slice
    tokens: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]
    mask: npt.NDArray[Any] | None


def _row_groups(path: Path) -> Iterator[_RowGroup]:
    """Yields a Parquet pack's row groups; raises `FormatError` where one cannot be read, or contradicts itself."""
    import pyarrow as pa

    file = open_parquet(path)
    names = set(file.schema_arrow.names)
    if missing := {"tokens", "num_tokens"} - names:
        raise FormatError(f"{path} has no column '{min(missing)}'")
    first = 0
    for number in range(file.num_row_groups):
        try:
            table = file.read_row_group(number, columns=["tokens", "num_tokens", *(names & {"mask"})])
        except (OSError, pa.ArrowException) as error:
            raise FormatError(f"cannot read row group {number} of {path}: {error}") from error
        tokens, lengths = list_values(table.column("tokens"), path)
        if not np.array_equal(lengths, table.column("num_tokens").to_numpy()):
            raise FormatError(f"{path}: in row group {number}, 'num_tokens' is not the length of 'tokens'")
        mask = None
        if "mask" in names:
            mask, masked = list_values(table.column("mask"), path)
            if not np.array_equal(lengths, masked):
                raise FormatError(f"{path}: in row group {number}, masks are not as long as documents")
        yield _RowGroup(slice(first, first + table.num_rows), tokens, lengths, mask)
        first += table.num_rows


def _take(tokens: npt.NDArray[Any], places: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Returns single tokens, a bounded number of them at a time; anything for places of documents without tokens."""
    if not len(tokens):
        return np.full(len(places), -1)
    places = places.clip(0, len(tokens) - 1)
    return np.concatenate(
        [tokens[places[i : i + CHUNK_DOCUMENTS]] for i in range(0, len(places), CHUNK_DOCUMENTS)] or [tokens[:0]]
    )


def _same_values(
    path: Path, found: npt.NDArray[Any], expected: npt.NDArray[Any] | None, begin: int, end: int, other: str
) -> None:
    if expected is not None and not np.array_equal(found, expected[begin:end]):
        raise FormatError(f"{path}: tokens {begin} to {end} differ from those of {other}")
