"""The one way a file comes to be: written beside its target, flushed, renamed, folder flushed.

Everything that `dataeng` and `trainer` commit goes through `AtomicFile`, and every primitive call goes through
`fs`, one small object, so that a test can make each single call fail in turn.

    write to  .name.<token>.tmp  ─► fsync file ─► rename ─► fsync folder

A name that exists is therefore whole. Whether it is the *right* file is for a manifest to say, by SHA-256.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

READ_SIZE = 1 << 20
Bytes = bytes | bytearray | memoryview


class FileSystem:
    """The primitive calls behind every commit."""

    def create(self, path: Path) -> BinaryIO:
        self._make_folder(path.parent)
        return path.open("xb")

    def _make_folder(self, folder: Path) -> None:
        """Makes a folder that is there after a power failure, too: its entry in the folder above is flushed."""
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        self.sync_folder(folder.parent)

    def write(self, file: BinaryIO, data: Bytes) -> int:
        return file.write(data)

    def sync(self, file: BinaryIO) -> None:
        file.flush()
        os.fsync(file.fileno())

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def sync_folder(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)


fs = FileSystem()


class AtomicFile(io.RawIOBase):
    """A new file that becomes visible under its final name only by `commit`.

    Counts bytes and computes SHA-256 while writing. Only sequential writes; `tell` works, `seek` does not.
    """

    def __init__(self, target: Path) -> None:
        super().__init__()
        self.target = target
        self._temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
        self._file: BinaryIO | None = fs.create(self._temporary)
        self._hash = hashlib.sha256()
        self.size_bytes = 0
        self._durable = self._discarded = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        if self._discarded:  # Arrow's writers write their footer even when they are thrown away
            return memoryview(data).nbytes
        if self._file is None:
            raise ValueError(f"{self.target} is already finished")
        view = memoryview(data).cast("B")
        fs.write(self._file, view)
        self._hash.update(view)
        self.size_bytes += len(view)
        return len(view)

    def tell(self) -> int:
        return self.size_bytes

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def finish(self) -> None:
        """Makes the content durable under the temporary name. Safe to call twice."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                fs.sync(file)
            finally:
                file.close()
            self._durable = True

    def commit(self) -> None:
        """Makes the file visible. The caller flushes the folder (see `commit_all`)."""
        self.finish()
        if not self._durable:
            raise ValueError(f"{self.target} was discarded or could not be flushed")
        fs.rename(self._temporary, self.target)

    def discard(self) -> None:
        """Removes the temporary file. What is written from here on goes nowhere."""
        self._discarded = True
        if self._file is not None:
            file, self._file = self._file, None
            with suppress(OSError):  # closing flushes, which fails again where writing has failed
                file.close()
        fs.remove(self._temporary)

    def close(self) -> None:
        """Ends writing without making anything visible (writers like Arrow's call it)."""
        if not self.closed and self._file is not None:
            self._file.flush()


def commit_all(files: Iterable[AtomicFile]) -> None:
    """Makes a group of files durable, then visible, then flushes every folder that was touched."""
    files = list(files)
    for file in files:
        file.finish()
    for file in files:
        file.commit()
    for folder in sorted({file.target.parent for file in files}):
        fs.sync_folder(folder)


def write_bytes(path: Path, data: Bytes) -> str:
    """Writes a whole file atomically and returns its SHA-256."""
    file = AtomicFile(path)
    try:
        file.write(data)
        commit_all([file])
    except BaseException:
        with suppress(OSError):
            file.discard()
        raise
    return file.sha256


def write_json(path: Path, value: Any) -> str:
    """Writes ``value`` as indented JSON, atomically, and returns the file's SHA-256."""
    return write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Reads a JSON file; raises `OSError` or `ValueError`."""
    return json.loads(path.read_bytes())


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(READ_SIZE):
            digest.update(chunk)
    return digest.hexdigest()
