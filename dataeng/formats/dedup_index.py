"""The dedup index: what earlier runs kept, so that a new crawl is deduplicated against it without the old text.

    INDEX/
      manifest.json                     the method with its parameters, and the segments in order; replaced atomically
      .lock                             held for the moment in which the manifest is replaced
      segments/NAME-DIGEST/             what one run added; written once, never changed
        segment.json                    its entry of the manifest
        documents-00003.parquet         id, url, …, and the shingles (or the signature) of each document
        keys-00005.parquet              bucket key → document, in order of key; each file a range of keys

The manifest is the only truth: a file that it does not name does not exist. A segment's folder is named after the
content, so that adding the same one twice is adding it once. Documents are numbered within a segment: the number of
their file times 2^32 plus their row. A segment that was merged from several still knows which document came from
which of them (its *origins*).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dataeng.errors import FormatError, InputError, PlanError
from dataeng.formats.atomic import READ_SIZE, AtomicFile, commit_all, sha256_file, write_json

MANIFEST, SEGMENTS, LOCK = "manifest.json", "segments", ".lock"
SEGMENT_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
DIGEST_DIGITS = 12
ROW_BITS = 32


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class IndexFile(_Entry):
    """One file of a segment."""

    name: str
    kind: Literal["documents", "keys"]
    number: int
    """Among the files of its kind; for documents, the upper half of their numbers."""
    rows: int
    size_bytes: int
    sha256: str
    first: str
    """The first document's id, or the first key in hexadecimal (16 digits)."""
    last: str
    origin: int = 0
    """For documents: which of the segment's origins they are from."""


class Origin(_Entry):
    """What one run added, wherever it is by now."""

    name: str
    digest: str
    documents: int
    text_bytes: int
    run: str
    """The run folder that it was added from."""


class Segment(_Entry):
    """A folder of the index."""

    folder: str
    origins: tuple[Origin, ...]
    files: tuple[IndexFile, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(origin.name for origin in self.origins)

    def of_kind(self, kind: str) -> tuple[IndexFile, ...]:
        return tuple(file for file in self.files if file.kind == kind)


class Index(_Entry):
    """The manifest."""

    format_version: Literal[1] = 1
    method: str
    parameters: dict[str, Any]
    segments: tuple[Segment, ...] = ()

    @property
    def origins(self) -> tuple[Origin, ...]:
        """What runs added, in the order in which they did."""
        return tuple(origin for segment in self.segments for origin in segment.origins)


@dataclass(frozen=True)
class NewFile:
    """A file that is to become part of a segment."""

    path: Path
    kind: Literal["documents", "keys"]
    number: int
    rows: int
    sha256: str
    first: str
    last: str
    origin: int = 0


def load_index(path: Path) -> Index:
    """Reads an index's manifest.

    Raises:
      InputError: there is no index.
      FormatError: the manifest is damaged, or of another version of the format.
    """
    manifest = path / MANIFEST
    try:
        return Index.model_validate_json(manifest.read_bytes())
    except FileNotFoundError:
        raise InputError(f"there is no dedup index at {path} (no {MANIFEST} in it).") from None
    except OSError as error:
        raise InputError(f"cannot read {manifest}: {error.strerror}.") from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise FormatError(f"{manifest} is not the manifest of a dedup index: {where}: {problem['msg']}.") from error


def has_index(path: Path) -> bool:
    """Whether an index was begun there."""
    return (path / MANIFEST).exists()


def check_method(index: Index, path: Path, method: str, parameters: Mapping[str, Any]) -> None:
    """Raises a `PlanError` that names every difference unless an index was made as the caller makes keys."""
    if index.method != method:
        raise PlanError(f"the dedup index at {path} holds keys of '{index.method}', not of '{method}'; use another.")
    names = dict.fromkeys([*index.parameters, *parameters])
    differences = [
        f"{name} is {index.parameters.get(name)!r} there and {parameters.get(name)!r} here"
        for name in names
        if index.parameters.get(name) != parameters.get(name)
    ]
    if differences:
        raise PlanError(
            f"the dedup index at {path} was made with other parameters: {'; '.join(differences)}. Keys of the two "
            "cannot be compared: use the index's parameters, or another index."
        )


def content_digest(files: Sequence[NewFile], parameters: Mapping[str, Any]) -> str:
    """Returns 64 hex digits that stand for a segment's content, whatever the files' names."""
    content = [[file.kind, file.number, file.rows, file.sha256, file.origin] for file in files]
    return hashlib.sha256(json.dumps([content, dict(parameters)], sort_keys=True).encode()).hexdigest()


def publish(path: Path, index: Index, name: str, origins: Sequence[Origin], files: Sequence[NewFile]) -> Path:
    """Copies a segment's files into an index and adds it to the manifest. Doing so twice is doing it once.

    Args:
      index: the method and the parameters, for an index that is not there yet.
      name: what the segment's folder is called, besides its digest.
      origins: one, or all that were merged into it. Where an origin of the same name stands in the manifest already,
        its segment is replaced, in its place.

    Returns:
      The path of the segment's ``segment.json``.

    Raises:
      FormatError: a file is not what its SHA-256 says, or an origin is part of a merged segment.
      PlanError: the index is one of another method or of other parameters.
    """
    merged = _merged_with(path, origins)
    if merged is not None:
        return path / SEGMENTS / merged.folder / "segment.json"
    folder = f"{name}-{content_digest(files, index.parameters)[:DIGEST_DIGITS]}"
    target = path / SEGMENTS / folder
    entries = tuple(_copied(file, target) for file in files)
    segment = Segment(folder=folder, origins=tuple(origins), files=entries)
    write_json(target / "segment.json", segment.model_dump())
    with locked(path):
        current = load_index(path) if has_index(path) else index
        check_method(current, path, index.method, index.parameters)
        replaced = [other for other in current.segments if set(other.names) & set(segment.names)]
        if any(len(other.origins) > 1 for other in replaced) and replaced != [segment]:
            raise FormatError(
                f"segment '{name}' of {path} was merged with others ({', '.join(replaced[0].names)}) and cannot be "
                "replaced any more. Give the new one another name (`segment:`)."
            )
        segments = [segment if other in replaced else other for other in current.segments]
        if not replaced:
            segments.append(segment)
        updated = current.model_copy(update={"segments": tuple(segments)})
        if not has_index(path) or updated != current:
            write_json(path / MANIFEST, updated.model_dump())
    for other in replaced:
        if other.folder != folder:
            shutil.rmtree(path / SEGMENTS / other.folder, ignore_errors=True)
    return target / "segment.json"


def _merged_with(path: Path, origins: Sequence[Origin]) -> Segment | None:
    """Returns the merged segment that has just these origins among its own, if there is one."""
    wanted = {(origin.name, origin.digest) for origin in origins}
    for segment in load_index(path).segments if has_index(path) else ():
        held = {(origin.name, origin.digest) for origin in segment.origins}
        if wanted < held:
            return segment
    return None


def _copied(file: NewFile, folder: Path) -> IndexFile:
    """Copies a file into a segment's folder unless it is there; checks its SHA-256 on the way."""
    name = f"{file.kind}-{file.number:05d}.parquet"
    target = folder / name
    if not (target.exists() and sha256_file(target) == file.sha256):
        copy = AtomicFile(target)
        try:
            with file.path.open("rb") as source:
                while chunk := source.read(READ_SIZE):
                    copy.write(chunk)
            if copy.sha256 != file.sha256:
                raise FormatError(f"{file.path} is not what was committed (SHA-256); run again.")
            commit_all([copy])
        except BaseException:
            copy.discard()
            raise
    return IndexFile(
        name=name,
        kind=file.kind,
        number=file.number,
        rows=file.rows,
        size_bytes=target.stat().st_size,
        sha256=file.sha256,
        first=file.first,
        last=file.last,
        origin=file.origin,
    )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lets one process at a time replace the manifest; the lock goes with the process that holds it."""
    path.mkdir(parents=True, exist_ok=True)
    with (path / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def damages(path: Path, segments: Sequence[Segment], thorough: bool = False) -> Iterator[str]:
    """Yields what is wrong with the files of segments: missing, of another size, or (``thorough``) of another hash."""
    for segment in segments:
        name = f"segment '{', '.join(segment.names)}'"
        for file in segment.files:
            place = path / SEGMENTS / segment.folder / file.name
            try:
                size = place.stat().st_size
            except OSError:
                yield f"{name}: {place} is missing"
                continue
            if size != file.size_bytes:
                yield f"{name}: {place} has {size} bytes, expected {file.size_bytes}"
            elif thorough and sha256_file(place) != file.sha256:
                yield f"{name}: {place} is not what was committed (SHA-256)"


def strangers(path: Path, index: Index) -> list[Path]:
    """Returns folders that the manifest does not name: of runs that were stopped while they added, or still do."""
    named = {segment.folder for segment in index.segments}
    folder = path / SEGMENTS
    return sorted(entry for entry in folder.iterdir() if entry.name not in named) if folder.is_dir() else []
