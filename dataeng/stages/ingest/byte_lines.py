"""Lines of plain, gzip and zstd files, read in blocks, as far as a damaged file goes."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

BLOCK_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class DamagedInputError(Exception):
    """The rest of a compressed file cannot be read. ``reason`` is ``error:truncated`` or ``error:corrupt``."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def decompressed_blocks(path: Path) -> Iterator[bytes]:
    """Yields a file's content in blocks of at most a MiB or so, undoing gzip and zstd, told by their first bytes.

    Raises:
      DamagedInputError: after everything readable was yielded.
      OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        if head.startswith(GZIP_MAGIC):
            yield from _gunzip(file)
        elif head == ZSTD_MAGIC:
            yield from _unzstd(file)
        else:
            while block := file.read(BLOCK_BYTES):
                yield block


def _gunzip(file: BinaryIO) -> Iterator[bytes]:
    rest = file.read(BLOCK_BYTES)
    while rest:  # one turn per gzip member
        inflater = zlib.decompressobj(wbits=31)
        while not inflater.eof:
            data = inflater.unconsumed_tail or rest or file.read(BLOCK_BYTES)
            rest = b""
            if not data:
                raise DamagedInputError("error:truncated", f"the gzip data end early, at byte {file.tell()}")
            try:
                block = inflater.decompress(data, BLOCK_BYTES)
            except zlib.error as error:
                raise DamagedInputError("error:corrupt", f"gzip, at or before byte {file.tell()}: {error}") from error
            if block:
                yield block
        rest = (inflater.unused_data or file.read(BLOCK_BYTES)).lstrip(b"\0")  # tapes pad with zeros


def _unzstd(file: BinaryIO) -> Iterator[bytes]:
    import pyarrow as pa

    with pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd") as stream:
        while True:
            try:
                block = stream.read(BLOCK_BYTES)
            except OSError as error:
                reason = "error:truncated" if "runcated" in str(error) else "error:corrupt"
                raise DamagedInputError(reason, f"zstd: {error}") from error
            if not block:
                return
            yield block


def lines_of(blocks: Iterable[bytes], max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """Yields line numbers, from 1, and lines without their ends; None for a line longer than ``max_bytes``.

    If ``blocks`` raises, the unfinished line before the damage is not yielded.
    """
    number = 1
    parts: list[bytes] = []
    size = 0
    for block in blocks:
        first, *others = block.split(b"\n")
        size += len(first)
        parts = [*parts, first] if size <= max_bytes else []
        for line in others:
            yield number, b"".join(parts) if size <= max_bytes else None
            number += 1
            size = len(line)
            parts = [line] if size <= max_bytes else []
    if size:
        yield number, b"".join(parts) if size <= max_bytes else None
