"""Stage `read_warc`: documents from WARC and WET files, with one row for every record and every damaged region."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
from pydantic import Field

from dataeng.document import DETAIL, IDENTITY, PAYLOAD, REASON, document_id
from dataeng.stage import Columns, InputFile, Source
from dataeng.stages.ingest.http_body import (
    BodyError,
    BodyTooLargeError,
    HttpResponse,
    decode_body,
    parse_content_type,
    parse_response,
)
from dataeng.stages.ingest.input_files import find_input_files
from dataeng.stages.ingest.urls import host_of
from dataeng.stages.ingest.warc_framing import WarcRecord
from dataeng.stages.ingest.warc_records import read_records

MIB = 1 << 20
MAX_HTTP_HEADER_BYTES = 64 << 10
TEXT_TYPES = frozenset(("text/html", "application/xhtml+xml", "text/plain"))
REDIRECTS = frozenset((301, 302, 303, 307, 308))
DOCUMENT_RECORDS = frozenset(("response", "resource", "conversion"))
KNOWN_RECORDS = frozenset(("warcinfo", "request", "metadata", "revisit", "continuation", "unknown")) | DOCUMENT_RECORDS

ADDED: dict[str, pl.DataType] = {
    PAYLOAD: pl.Binary(),
    "http_status": pl.Int32(),
    "content_type": pl.String(),
    "charset": pl.String(),
}
#: What is gathered for every record; the rest follows from it by column expressions.
GATHERED: dict[str, pl.DataType] = {
    **{name: dtype for name, dtype in IDENTITY.items() if name in ("id", "url", "source_offset", "date")},
    **ADDED,
    REASON: pl.String(),
    DETAIL: pl.String(),
}
PAYLOAD_PLACE = list(GATHERED).index(PAYLOAD)


class ReadWarc(Source):
    """Reads WARC, WARC-gzip, WARC-lz4, WARC-zstd and WET files.

    Documents are responses with status 200, resources and conversions whose type is HTML, XHTML or plain text. Their
    ``payload`` is the body without transfer and content encodings; ``charset`` is what the HTTP header says, not
    checked. Every other record is a row with a reason and no payload:

    - ``record_type:TYPE`` (``warcinfo``, ``request``, ``metadata``, ``dns`` …)
    - ``revisit``: the payload is that of an earlier record (``detail``: its URL and date, else its id, else the digest)
    - ``redirect`` (``detail`` has the target), ``http_status:CODE``, ``content_type:TYPE``, ``empty_body``
    - ``too_large``: longer than ``max_payload_bytes``; ``error:too_large_decompressed``: so only once decoded
    - ``error:http`` (no HTTP header), ``error:encoding`` (the body cannot be decoded)
    - ``error:truncated``, ``error:corrupt``: a damaged region, with its length; ``error:not_warc``: a whole file

    A body cut by the crawler (``WARC-Truncated``) is read as far as it goes.
    """

    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("fastwarc",)

    paths: tuple[str, ...] = Field(min_length=1, description="Globs, relative to the pipeline file; `sample:` too")
    batch_documents: int = Field(default=1000, ge=1, description="Most rows in a batch")
    batch_bytes: int = Field(default=32 * MIB, ge=1, description="A batch ends once it has this much payload")
    max_payload_bytes: int = Field(
        default=8 * MIB,
        ge=1,
        description="Longer bodies are dropped. This bounds memory, and the HTML parser's time, which nothing else can",
    )

    def columns(self) -> Columns:
        return Columns(adds={**IDENTITY, **ADDED})

    def files(self, base: Path) -> list[InputFile]:
        return find_input_files(self.paths, base)

    def read(self, file: InputFile) -> Iterator[pl.DataFrame]:
        rows: list[tuple[Any, ...]] = []
        size = 0
        # One Python step per record, because records have to be framed one after the other anyway. Measured on pages
        # of 20 KB: 94 µs a record, 27 of them in FastWARC; extracting the text of such a page takes 1.4 ms.
        for record in read_records(Path(file.path), self.max_payload_bytes + MAX_HTTP_HEADER_BYTES):
            row = self._row(file.name, record)
            rows.append(row)
            size += len(row[PAYLOAD_PLACE] or b"")
            if len(rows) >= self.batch_documents or size >= self.batch_bytes:
                yield self._frame(file.name, rows)
                rows, size = [], 0
        if rows:
            yield self._frame(file.name, rows)

    def _row(self, source: str, record: WarcRecord) -> tuple[Any, ...]:
        payload: bytes | None = None
        status: int | None = None
        content_type = charset = None
        reason, detail = record.problem or _record_reason(record), record.detail
        if reason == "revisit" and record.same_as:
            detail = f"same payload as {record.same_as}"
        if reason is None:
            response, is_http = _as_response(record)
            if response is None:
                reason, detail = "error:http", f"the record starts with {record.block[:32]!r}"
            else:
                status = response.status if is_http else None
                content_type, charset = response.content_type or None, response.charset
                payload, reason, detail = self._payload(record, response)
                if payload is not None and content_type is None:
                    content_type = "text/html"
        record_key = record.record_id if record.number == 0 else f"{record.record_id}#{record.number}"
        return (
            document_id(source, record.offset, record_key, record.url),
            record.url or None,
            record.offset,
            record.date or None,
            payload,
            status,
            content_type,
            charset,
            reason,
            detail,
        )

    def _frame(self, source: str, rows: list[tuple[Any, ...]]) -> pl.DataFrame:
        columns = zip(GATHERED.items(), zip(*rows, strict=True), strict=True)
        frame = pl.DataFrame([pl.Series(name, list(values), dtype) for (name, dtype), values in columns])
        return frame.with_columns(
            host_of("url").alias("host"), pl.lit(source).alias("source"), pl.lit(self.domain).alias("domain")
        ).select(*IDENTITY, *ADDED, REASON, DETAIL)

    def _payload(self, record: WarcRecord, response: HttpResponse) -> tuple[bytes | None, str | None, str | None]:
        """Returns payload, reason and detail: a payload or a reason."""
        if response.status in REDIRECTS:
            return None, "redirect", response.location or None
        if response.status != 200:
            return None, f"http_status:{response.status}", None
        if response.content_type not in TEXT_TYPES and response.content_type:
            return None, f"content_type:{response.content_type}", None
        if not response.body:
            return None, "empty_body", None
        if len(record.block) < record.block_bytes:
            return None, "too_large", f"{record.block_bytes} bytes, more than {self.max_payload_bytes}"
        complete = not record.cut_by_crawler
        try:
            body = decode_body(response, self.max_payload_bytes, complete)
        except BodyTooLargeError as error:
            encoded = bool(response.encodings) and len(response.body) <= self.max_payload_bytes
            return None, "error:too_large_decompressed" if encoded else "too_large", str(error)
        except BodyError as error:
            return None, "error:encoding", str(error)
        if not body:
            return None, "empty_body", None
        if not response.content_type and not _looks_like_html(body):
            return None, "content_type:missing", None
        return body, None, None


def _record_reason(record: WarcRecord) -> str | None:
    if record.record_type == "revisit":
        return "revisit"
    if record.record_type not in DOCUMENT_RECORDS:
        return f"record_type:{record.record_type if record.record_type in KNOWN_RECORDS else 'unknown'}"
    if record.url.startswith("dns:"):
        return "record_type:dns"
    return None


def _as_response(record: WarcRecord) -> tuple[HttpResponse | None, bool]:
    """Returns the record as an HTTP response, and whether it is one: resources and conversions are bodies only."""
    content_type, charset = parse_content_type(record.content_type)
    if record.record_type == "response" and content_type in ("application/http", "", "invalid"):
        return parse_response(record.block), True
    if record.record_type == "conversion":  # WET: the standard says UTF-8
        content_type, charset = content_type or "text/plain", charset or "utf-8"
    return HttpResponse(200, content_type, charset, "", (), False, record.block), False


def _looks_like_html(body: bytes) -> bool:
    head = body[:1024].lower()
    return b"<html" in head or b"<!doctype html" in head
