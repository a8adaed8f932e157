"""Positioned access to the bytes of an archive file: as they are, or inflated gzip member by gzip member."""

from __future__ import annotations

import os
import zlib
from typing import BinaryIO, Protocol

INFLATE_STEP_BYTES = 16 << 10  # small, because zlib copies what is left of a step after a member's end
SCAN_STEP_BYTES = 1 << 20


class ArchiveFile:
    """Positioned reads, so that the two readers do not disturb each other."""

    def __init__(self, raw: BinaryIO) -> None:
        self.raw = raw
        self.size = os.fstat(raw.fileno()).st_size

    def read(self, position: int, size: int) -> bytes:
        return os.pread(self.raw.fileno(), size, position)


def find_bytes(file: ArchiveFile, needle: bytes, position: int) -> int:
    while chunk := file.read(position, SCAN_STEP_BYTES):
        if (found := chunk.find(needle)) >= 0:
            return position + found
        if len(chunk) < SCAN_STEP_BYTES:
            break
        position += len(chunk) - len(needle) + 1
    return file.size


class Stream(Protocol):
    """Decompressed bytes by position. Positions behind `forget` are gone."""

    @property
    def kept_from(self) -> int: ...
    def read(self, position: int, size: int) -> bytes: ...
    def forget(self, before: int) -> None: ...


class PlainStream:
    kept_from = 0

    def __init__(self, file: ArchiveFile) -> None:
        self._file = file

    def read(self, position: int, size: int) -> bytes:
        return self._file.read(position, size)

    def forget(self, before: int) -> None:
        pass


class MemberStream:
    """One gzip member, inflated as far as asked for. ``end`` is known once all of it was read."""

    def __init__(self, file: ArchiveFile, offset: int) -> None:
        self._file, self._next_input = file, offset
        self._inflater = zlib.decompressobj(wbits=31)
        self._window = bytearray()
        self.kept_from = 0
        self.end: int | None = None
        self.damage: tuple[str, str] | None = None

    def read(self, position: int, size: int) -> bytes:
        assert position >= self.kept_from, "read behind forget"
        while self.kept_from + len(self._window) < position + size and self.end is None and self.damage is None:
            self._inflate(position)
        start = position - self.kept_from
        return bytes(self._window[start : start + size])

    def forget(self, before: int) -> None:
        count = min(max(0, before - self.kept_from), len(self._window))
        del self._window[:count]
        self.kept_from += count

    def _inflate(self, wanted: int) -> None:
        data = self._inflater.unconsumed_tail
        if not data:
            data = self._file.read(self._next_input, INFLATE_STEP_BYTES)
            self._next_input += len(data)
        if not data:
            self.damage = ("error:truncated", "the file ends within a gzip member")
            return
        try:
            self._window += self._inflater.decompress(data, SCAN_STEP_BYTES)
        except zlib.error as error:
            self.damage = ("error:corrupt", str(error))
            return
        if self._inflater.eof:
            self.end = self._next_input - len(self._inflater.unused_data)
        elif len(self._window) > 2 * SCAN_STEP_BYTES and wanted > self.kept_from + len(self._window):
            self.forget(self.kept_from + len(self._window))  # skipping content that is longer than anyone wants
