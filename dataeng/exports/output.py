"""Where an export goes: a folder that appears whole, by one rename, or not at all.

    .NAME.unfinished/…    everything is written here, under a lock
      └─ export.json      last: what was exported, with the SHA-256 of every file
    rename ─► NAME/

A killed export leaves the hidden folder, which the next one empties and writes anew.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dataeng.errors import ConfigError, FormatError, LeaseError
from dataeng.formats.atomic import AtomicFile, Bytes, commit_all, fs, sha256_file, write_json

EXPORT_NAME = "export.json"


class ExportedFile(BaseModel):
    """One file, as committed; its name is relative to the output folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    size_bytes: int
    sha256: str


class ExportedDomain(BaseModel):
    """What was written of one domain."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str
    weight: float
    num_documents: int
    num_tokens: int
    num_rows: int | None = None
    """Rows of ``sequence_length`` tokens, where that was asked for."""
    num_tokens_left_out: int = 0
    files: list[ExportedFile]


class ExportManifest(BaseModel):
    """``export.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    format: str
    fingerprint: str
    options: dict[str, Any]
    tokenizer_sha256: str
    vocab_size: int
    eos_id: int
    masked: bool
    domains: dict[str, ExportedDomain]
    other_files: list[ExportedFile]


class OutputFolder:
    """The files of one export, or of one domain of it, below ``root``; those that are finished are in ``files``."""

    def __init__(self, root: Path, folder: str = ".") -> None:
        self.root, self.folder = root, folder
        self.files: list[ExportedFile] = []

    @contextmanager
    def create(self, name: str) -> Iterator[AtomicFile]:
        """Opens a new file; it is finished when the block ends, and discarded when it raises."""
        file = AtomicFile(self.root / self.folder / name)
        try:
            yield file
            commit_all([file])
        except BaseException:
            with suppress(OSError):
                file.discard()
            raise
        path = (Path(self.folder) / name).as_posix()
        self.files.append(ExportedFile(name=path, size_bytes=file.size_bytes, sha256=file.sha256))

    def write(self, name: str, data: Bytes) -> None:
        """Writes a whole file."""
        with self.create(name) as file:
            file.write(data)


def find_export(output: Path, fingerprint: str, verify: bool) -> ExportManifest | None:
    """Returns the manifest of the same export at ``output``, or None where there is nothing yet.

    Raises:
      ConfigError: the folder holds something else.
      FormatError: it holds this export, but files of it are missing or were altered.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    path = output / EXPORT_NAME
    if not path.is_file():
        raise ConfigError(f"{output} is not empty and not an export. Choose another --output.")
    try:
        manifest = ExportManifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ConfigError(f"{path} is not the manifest of an export. Choose another --output.") from error
    if manifest.fingerprint != fingerprint:
        raise ConfigError(
            f"{output} holds another export ({manifest.format}, of other packs or with other options). Choose another "
            "--output, or remove the folder."
        )
    for file in [*manifest.other_files, *(file for domain in manifest.domains.values() for file in domain.files)]:
        found = output / file.name
        if (
            not found.is_file()
            or found.stat().st_size != file.size_bytes
            or (verify and sha256_file(found) != file.sha256)
        ):
            raise FormatError(f"{found} is missing or was altered. Remove {output}, and export again.")
    return manifest


@contextmanager
def unfinished_folder(output: Path) -> Iterator[Path]:
    """Yields an empty folder beside ``output`` that becomes ``output`` when the block ends.

    Raises:
      LeaseError: another process is exporting there.
    """
    output = output.absolute()
    folder = output.with_name(f".{output.name}.unfinished")
    with _locked(folder):
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        try:
            yield folder
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        fs.rename(folder, output)
        fs.sync_folder(output.parent)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, which is the folder itself: whoever finished an export has renamed it away."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise LeaseError(f"another process is exporting: it holds {folder}.") from error
            if _is_still(folder, descriptor):
                yield
                return
        finally:
            os.close(descriptor)


def _is_still(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def write_export_manifest(folder: Path, manifest: ExportManifest) -> None:
    """Writes ``export.json``, the last file of an export."""
    write_json(folder / EXPORT_NAME, manifest.model_dump(mode="json"))
