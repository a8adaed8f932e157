"""Makes small WARC records for the tests."""

from __future__ import annotations

import gzip
import random


def http(body: bytes, status: str = "200 OK", headers: tuple[str, ...] = ("Content-Type: text/html",)) -> bytes:
    return ("\r\n".join([f"HTTP/1.1 {status}", *headers]) + "\r\n\r\n").encode() + body


def page(number: int, length: int = 3000) -> bytes:
    letters = random.Random(number)
    return b"<html><body><p>" + bytes(letters.choice(b"abcdefgh ijk") for _ in range(length)) + b"</p></body></html>"


def record(
    block: bytes,
    record_type: str = "response",
    name: str = "0",
    url: str | None = None,
    stated_length: object = None,
    content_type: str = "application/http; msgtype=response",
    extra: tuple[str, ...] = (),
) -> bytes:
    """Returns one uncompressed record; ``stated_length`` may lie."""
    lines = [
        "WARC/1.0",
        f"WARC-Type: {record_type}",
        f"WARC-Record-ID: <urn:uuid:{name}>",
        f"WARC-Target-URI: {url if url is not None else f'http://www.site.test/{name}'}",
        "WARC-Date: 2020-01-01T00:00:00Z",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(block) if stated_length is None else stated_length}",
        *extra,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + block + b"\r\n\r\n"


def pages(count: int, length: int = 3000) -> list[bytes]:
    return [record(http(page(i, length)), name=str(i)) for i in range(count)]


def members(records: list[bytes]) -> list[bytes]:
    return [gzip.compress(r, mtime=0) for r in records]


def flipped(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 0xFF
    return bytes(changed)
