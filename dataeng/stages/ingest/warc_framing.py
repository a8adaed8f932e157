"""Cuts archives into records without trusting them: the exact and slower reader of WARC.

It knows the end of every gzip member and of every record, and after damage it looks for the next one. The records and
damaged regions of a file cover it without gaps: each starts where the one before ended.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dataeng.stages.ingest.archive_bytes import (
    SCAN_STEP_BYTES,
    ArchiveFile,
    MemberStream,
    PlainStream,
    Stream,
    find_bytes,
)

MAX_HEADER_BYTES = 32 << 10  # FastWARC's own limit
GZIP_MAGIC = b"\x1f\x8b\x08"

_HEADER_END = re.compile(rb"\r?\n\r?\n")
_RECORD_START = re.compile(rb"\nWARC/\d+\.\d+\r?\n[A-Za-z][A-Za-z0-9-]*[ \t]*:")
_RECORD_START_BYTES = 128  # longest match of the above, generously
_FIELD = re.compile(rb"^([^\s:]+)[ \t]*:(.*)$", re.MULTILINE)


@dataclass(slots=True)
class WarcRecord:
    """One record, or one region of the file that holds none that can be read (``record_type`` is empty then)."""

    offset: int
    """Where it starts in the file; with gzip, where its member starts."""
    number: int = 0
    """0 for the first record of a gzip member; records that share a member share ``offset``."""
    end: int = 0
    """Where the next one starts. 0 if more records follow in the same gzip member."""
    record_type: str = ""
    record_id: str = ""
    url: str = ""
    date: str = ""
    content_type: str = ""
    cut_by_crawler: str = ""
    """The header ``WARC-Truncated``: why the crawler did not keep the whole body."""
    same_as: str = ""
    """For a revisit: the earlier record that has the payload, as far as the header says."""
    block: bytes = b""
    """The record's content, at most the first ``max_block_bytes``."""
    block_bytes: int = 0
    """Length of the whole content."""
    problem: str | None = None
    """``error:corrupt``, ``error:truncated`` or ``error:not_warc``."""
    detail: str | None = None


def described(header: Iterable[tuple[bytes, bytes]], offset: int, block: bytes, block_bytes: int) -> WarcRecord:
    fields: dict[bytes, str] = {}
    for name, value in header:
        fields.setdefault(name.lower(), value.decode("utf-8", "replace").strip())
    return WarcRecord(
        offset=offset,
        record_type=fields.get(b"warc-type", "").lower() or "unknown",
        record_id=fields.get(b"warc-record-id", ""),
        url=_bare_url(fields.get(b"warc-target-uri", "")),
        date=fields.get(b"warc-date", ""),
        content_type=fields.get(b"content-type", ""),
        cut_by_crawler=fields.get(b"warc-truncated", ""),
        same_as=_revisited(fields),
        block=block,
        block_bytes=block_bytes,
    )


def _revisited(fields: dict[bytes, str]) -> str:
    """Returns URL and date of the record that a revisit refers to, else its id, else the digest of the payload."""
    date, url = fields.get(b"warc-refers-to-date", ""), _bare_url(fields.get(b"warc-refers-to-target-uri", ""))
    if date or url:
        return f"{url or _bare_url(fields.get(b'warc-target-uri', ''))} {date}".rstrip()
    return fields.get(b"warc-refers-to", "") or fields.get(b"warc-payload-digest", "")


def _bare_url(url: str) -> str:
    """Some versions of wget wrote ``<URL>``."""
    return url[1:-1] if url.startswith("<") and url.endswith(">") else url


def frame_plain(file: ArchiveFile, start: int, max_block_bytes: int) -> Iterator[WarcRecord]:
    for record in _split(PlainStream(file), start, max_block_bytes):
        if record.problem is not None:
            record.detail = f"{record.detail}; {record.end - record.offset} bytes from {record.offset} on are lost"
        yield record


def frame_gzip(file: ArchiveFile, start: int, max_block_bytes: int) -> Iterator[WarcRecord]:
    offset = start
    while offset < file.size:
        member = MemberStream(file, offset)
        last: WarcRecord | None = None
        for number, record in enumerate(_split(member, 0, max_block_bytes)):
            if last is not None:
                yield last
            record.offset, record.number, record.end = offset, number, 0
            last = record
        if member.damage is None:
            end = member.end
            assert end is not None, "a member that was split to its end without damage has an end"
            if last is None:
                last = damaged_region("error:corrupt", offset, end, "a gzip member without a record")
        else:
            # The checksum comes last, so a damaged member's last record cannot be trusted, even if it looks whole.
            end = _next_member(file, offset + 1)
            problem, what = member.damage
            last = last or WarcRecord(offset)
            last.problem = problem
            last.detail = f"{what}; {end - offset} bytes from {offset} on are lost"
        last.end = end
        yield last
        offset = end


def _split(stream: Stream, start: int, max_block_bytes: int) -> Iterator[WarcRecord]:
    """Cuts a stream into records and damaged regions; offsets and ends are positions in the stream."""
    position = start
    while True:
        begin = _skip_newlines(stream, position)
        stream.forget(begin)
        if not (head := stream.read(begin, MAX_HEADER_BYTES)):
            return
        if head.startswith(b"WARC/") and (header_end := _HEADER_END.search(head)):
            record = _read_record(stream, begin, head[: header_end.end()], max_block_bytes)
        else:
            what = "a record header without an end" if head.startswith(b"WARC/") else "no WARC record"
            end, _ = _find_record(stream, begin + 1)
            record = damaged_region("error:corrupt", begin, end, what)
        record.offset = position
        position = record.end
        yield record


def _read_record(stream: Stream, begin: int, header: bytes, max_block_bytes: int) -> WarcRecord:
    fields = _FIELD.findall(header)
    stated = next((value.decode("latin-1").strip() for name, value in fields if name.lower() == b"content-length"), "")
    length = int(stated) if stated.isascii() and stated.isdigit() and len(stated) < 16 else -1
    body = begin + len(header)
    block = stream.read(body, min(length, max_block_bytes)) if length > 0 else b""
    record = described(fields, begin, block, max(length, 0))
    if length >= 0:
        whole = len(record.block) == length or bool(stream.read(body + length - 1, 1))
        separated = _HEADER_END.match(stream.read(body + length, 4)) is not None
        after = _skip_newlines(stream, body + length)
        if whole and (separated or stream.read(after, 5) in (b"WARC/", b"")):
            record.end = after
            return record
    record.end, found = _find_record(stream, body)
    if found:
        actual = f"the next record starts {record.end - body} bytes after the header"
    else:
        actual = f"the data end {record.end - body} bytes after the header"
    truncated = length >= 0 and not found
    record.problem = "error:truncated" if truncated else "error:corrupt"
    record.detail = f"Content-Length is {stated or 'missing'}, but {actual}"
    return record


def _skip_newlines(stream: Stream, position: int) -> int:
    size = 16
    while chunk := stream.read(position, size):
        rest = chunk.lstrip(b"\r\n")
        position += len(chunk) - len(rest)
        if rest:
            break
        if size == SCAN_STEP_BYTES:
            stream.forget(position)
        size = SCAN_STEP_BYTES
    return position


def _find_record(stream: Stream, position: int) -> tuple[int, bool]:
    """Returns where the next record starts and True, or the end of the stream and False."""
    position = max(position - 1, stream.kept_from)  # from the line end before
    while chunk := stream.read(position, SCAN_STEP_BYTES):
        if match := _RECORD_START.search(chunk):
            return position + match.start() + 1, True
        if len(chunk) < SCAN_STEP_BYTES:
            return position + len(chunk), False
        position += len(chunk) - _RECORD_START_BYTES
        stream.forget(position)
    return position, False


def first_record(file: ArchiveFile, is_gzip: bool) -> int | None:
    if is_gzip:
        position = 0 if _member_starts_record(file, 0) else _next_member(file, 1)
        return position if position < file.size else None
    stream = PlainStream(file)
    position = _skip_newlines(stream, 0)
    if file.read(position, 5) == b"WARC/":
        return 0
    position, found = _find_record(stream, 1)
    if found:
        return position
    position = _next_member(file, 1)  # gzip after garbage
    return None if position == file.size else position


def _next_member(file: ArchiveFile, position: int) -> int:
    """Returns where the next gzip member that starts with a record starts, or the end of the file."""
    while (position := find_bytes(file, GZIP_MAGIC, position)) < file.size:
        if _member_starts_record(file, position):
            return position
        position += 1
    return position


def _member_starts_record(file: ArchiveFile, position: int) -> bool:
    try:
        text = zlib.decompressobj(wbits=31).decompress(file.read(position, 1024), 64)
    except zlib.error:
        return False
    return text.lstrip(b"\r\n").startswith(b"WARC/")


def damaged_region(problem: str, start: int, end: int, what: str) -> WarcRecord:
    return WarcRecord(start, end=end, problem=problem, detail=f"{what}; {end - start} bytes from {start} on are lost")
