"""HTTP responses as they lie in archives: status, headers, and the body without its transfer and content encodings.

Archives hold what servers really sent, so headers and bodies disagree. A body that is plainly not in the stated
encoding is taken as it is, because many archiving tools decode bodies and leave the headers alone.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

_STATUS_LINE = re.compile(rb"\s*HTTP/\d(?:\.\d+)?[ \t]+(\d{3})(?![0-9])[^\r\n]*(?:\r?\n|$)")
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_FIELD = re.compile(
    rb"^(content-type|content-encoding|transfer-encoding|location)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE
)
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:+-]{1,40})", re.IGNORECASE)
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,60}/[a-z0-9!#$&^_.+-]{1,60}")
MAX_ENCODINGS = 2
GZIP_MAGIC = b"\x1f\x8b"


class BodyError(Exception):
    """The body cannot be had; the message says why."""


class BodyTooLargeError(BodyError):
    """The body is longer than allowed once decoded. No more than the limit was ever held."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """Status and the headers that matter. ``body`` is the raw body, still encoded."""

    status: int
    content_type: str
    """Media type in lower case without parameters; empty if there is none, ``invalid`` if it is none."""
    charset: str | None
    location: str
    encodings: tuple[str, ...]
    """Content encodings in the order in which they were applied."""
    chunked: bool
    body: bytes


def parse_response(block: bytes) -> HttpResponse | None:
    """Returns the parts of an HTTP response, or None if ``block`` does not start with a status line."""
    status = _STATUS_LINE.match(block)
    if status is None:
        return None
    end = _HEADER_END.search(block, max(0, status.end() - 2))
    header = block[status.end() : end.start()] if end else block[status.end() :]
    fields: dict[bytes, list[bytes]] = {}
    for name, value in _FIELD.findall(header):
        fields.setdefault(name.lower(), []).append(value)
    content_type, charset = parse_content_type(_last(fields, b"content-type"))
    encodings = b",".join(fields.get(b"content-encoding", [])).decode("latin-1").lower().split(",")
    return HttpResponse(
        status=int(status[1]),
        content_type=content_type,
        charset=charset,
        location=_last(fields, b"location"),
        encodings=tuple(e for e in (e.strip() for e in encodings) if e not in ("", "identity", "none")),
        chunked=b"chunked" in b",".join(fields.get(b"transfer-encoding", [])).lower(),
        body=block[end.end() :] if end else b"",
    )


def _last(fields: dict[bytes, list[bytes]], name: bytes) -> str:
    return fields[name][-1].decode("utf-8", "replace").strip() if name in fields else ""


def parse_content_type(value: str) -> tuple[str, str | None]:
    """Returns media type and charset of a Content-Type header: ``("text/html", "utf-8")``."""
    media_type = value.partition(";")[0].strip().lower()
    charset = _CHARSET.search(value)
    if media_type and not _MEDIA_TYPE.fullmatch(media_type):
        media_type = "invalid"
    return media_type, charset[1].lower() if charset else None


def decode_body(response: HttpResponse, max_bytes: int, complete: bool = True) -> bytes:
    """Returns the body without transfer and content encodings, at most ``max_bytes`` long.

    Args:
      response: what `parse_response` gave.
      max_bytes: limit for the result and for every step on the way.
      complete: False if the crawler is known to have cut the body; what decodes of it is then returned.

    Raises:
      BodyTooLargeError: the limit was met; decoding stopped there.
      BodyError: unknown or broken encoding.
    """
    body = response.body
    if response.chunked:
        body = _join_chunks(body, complete)
    if len(response.encodings) > MAX_ENCODINGS:
        raise BodyError(f"{len(response.encodings)} nested content encodings; at most {MAX_ENCODINGS} are undone")
    for encoding in reversed(response.encodings):
        body = _decode(body, encoding, max_bytes, complete)
    if len(body) > max_bytes:
        raise BodyTooLargeError(f"{len(body)} bytes, more than {max_bytes}")
    return body


def _join_chunks(body: bytes, complete: bool) -> bytes:
    if not _CHUNK_SIZE.match(body):
        return body  # the archiving tool has joined them already
    parts: list[bytes] = []
    position = 0
    while size := _CHUNK_SIZE.match(body, position):
        length = int(size[1], 16)
        if length == 0:
            return b"".join(parts)
        parts.append(body[size.end() : size.end() + length])
        position = size.end() + length
        if position > len(body):
            break
        if body.startswith(b"\r\n", position):
            position += 2
        elif body.startswith(b"\n", position):
            position += 1
    if not complete or position == len(body):  # everything is there but the closing chunk
        return b"".join(parts)
    raise BodyError(f"chunked: no valid chunk size at byte {min(position, len(body))} of {len(body)}")


def _decode(body: bytes, encoding: str, max_bytes: int, complete: bool) -> bytes:
    if not body:
        return body
    try:
        if encoding in ("gzip", "x-gzip"):
            return _inflate(body, 31, max_bytes, complete) if body.startswith(GZIP_MAGIC) else body
        if encoding == "deflate":
            try:
                return _inflate(body, 15, max_bytes, complete)
            except zlib.error:  # many servers send deflate without the zlib header that the standard asks for
                return _inflate(body, -15, max_bytes, complete)
        if encoding in ("br", "zstd"):
            return _arrow_decompress(body, {"br": "brotli"}.get(encoding, encoding), max_bytes)
    except (zlib.error, OSError) as error:
        if body.lstrip()[:1] == b"<":
            return body
        raise BodyError(f"{encoding}: {error}") from error
    raise BodyError(f"unknown content encoding {encoding[:40]!r}")


def _inflate(body: bytes, wbits: int, max_bytes: int, complete: bool) -> bytes:
    inflater = zlib.decompressobj(wbits)
    result = inflater.decompress(body, max_bytes + 1)
    while inflater.eof and wbits == 31 and inflater.unused_data.startswith(GZIP_MAGIC) and len(result) <= max_bytes:
        inflater, rest = zlib.decompressobj(wbits), inflater.unused_data
        result += inflater.decompress(rest, max_bytes + 1 - len(result))
    if len(result) > max_bytes:
        raise BodyTooLargeError(f"{len(body)} encoded bytes decode to more than {max_bytes}")
    if complete and not inflater.eof:
        raise zlib.error(f"the data end early, after {len(result)} decoded bytes")
    return result


def _arrow_decompress(body: bytes, codec: str, max_bytes: int) -> bytes:
    import pyarrow as pa

    with pa.CompressedInputStream(pa.BufferReader(body), codec) as stream:
        result = bytes(stream.read(max_bytes + 1))
    if len(result) > max_bytes:
        raise BodyTooLargeError(f"{len(body)} encoded bytes decode to more than {max_bytes}")
    return result
