from __future__ import annotations

import gzip
import zlib

import pyarrow as pa
import pytest

from dataeng.stages.ingest.http_body import (
    BodyError,
    BodyTooLargeError,
    decode_body,
    parse_content_type,
    parse_response,
)
from tests.stages.ingest.warc_files import http

PAGE = b"<html>" + b"hello " * 500 + b"</html>"


def decoded(body: bytes, *headers: str, max_bytes: int = 1 << 20, complete: bool = True) -> bytes:
    response = parse_response(http(body, headers=headers))
    assert response is not None
    return decode_body(response, max_bytes, complete)


def chunked(body: bytes, size: int = 100, end: bytes = b"0\r\n\r\n") -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + end


def test_header_fields() -> None:
    header = (
        "HTTP/1.1 301 Moved\r\ncontent-TYPE: Text/HTML; Charset='UTF-8'\r\nLocation: /ü\r\nX: Content-Type: a/b\r\n\r\n"
    )
    response = parse_response(header.encode() + b"abc")
    assert response is not None
    assert (response.status, response.content_type, response.charset) == (301, "text/html", "utf-8")
    assert (response.location, response.body, response.encodings, response.chunked) == ("/ü", b"abc", (), False)


@pytest.mark.parametrize(
    "block", [b"HTTP/1.0 200\r\nA: b\r\n\r\nx", b"HTTP/1.1 200 OK\nA: b\n\nx", b"\r\nHTTP/2 200\r\n\r\nx"]
)
def test_status_lines_that_are_good_enough(block: bytes) -> None:
    response = parse_response(block)
    assert response is not None and response.status == 200 and response.body == b"x"


@pytest.mark.parametrize(
    "block", [b"", b"<html>", b"HTTP/1.1 0 No", b"HTTP/1.1 2000 x", b"HTTP/1.1", b"GET / HTTP/1.1"]
)
def test_no_status_line(block: bytes) -> None:
    assert parse_response(block) is None


def test_header_without_end_has_no_body() -> None:
    response = parse_response(b"HTTP/1.1 200 OK\r\nContent-Type: text/html")
    assert response is not None and response.body == b"" and response.content_type == "text/html"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text/html", ("text/html", None)),
        ("TEXT/HTML;charset=ISO-8859-1;x=y", ("text/html", "iso-8859-1")),
        ("text/html; charset", ("text/html", None)),
        ("", ("", None)),
        ("text/html, text/html", ("invalid", None)),
        ("'><script>", ("invalid", None)),
        ("application/" + "x" * 500, ("invalid", None)),
    ],
)
def test_content_type(value: str, expected: tuple[str, str | None]) -> None:
    assert parse_content_type(value) == expected


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


ENCODED = {
    "gzip": gzip.compress(PAGE),
    "x-gzip": gzip.compress(PAGE),
    "deflate": zlib.compress(PAGE),
    "Deflate": raw_deflate(PAGE),
    "br": pa.compress(PAGE, codec="brotli", asbytes=True),
    "zstd": pa.compress(PAGE, codec="zstd", asbytes=True),
    "gzip, br": pa.compress(gzip.compress(PAGE), codec="brotli", asbytes=True),
    "identity": PAGE,
    "": PAGE,
}


@pytest.mark.parametrize("name", ENCODED)
def test_content_encodings(name: str) -> None:
    body = ENCODED[name]
    assert decoded(body, f"Content-Encoding: {name}") == PAGE
    assert decoded(chunked(body), f"Content-Encoding: {name}", "Transfer-Encoding: chunked") == PAGE
    if name not in ("identity", ""):
        assert decoded(PAGE, f"Content-Encoding: {name}") == PAGE  # the archiving tool had undone it already
        with pytest.raises(BodyTooLargeError):
            decoded(body, f"Content-Encoding: {name}", max_bytes=len(PAGE) - 1)
        assert decoded(body, f"Content-Encoding: {name}", max_bytes=len(PAGE)) == PAGE
        with pytest.raises(BodyError):
            decoded(body[: len(body) // 2], f"Content-Encoding: {name}")


def test_gzip_of_two_members() -> None:
    body = gzip.compress(b"a" * 10) + gzip.compress(b"b" * 10)
    assert decoded(body, "Content-Encoding: gzip") == b"a" * 10 + b"b" * 10


def test_bodies_that_the_crawler_cut() -> None:
    cut = gzip.compress(PAGE, 0)[:1000]
    assert PAGE.startswith(decoded(cut, "Content-Encoding: gzip", complete=False))
    assert len(decoded(cut, "Content-Encoding: gzip", complete=False)) > 900
    assert decoded(chunked(PAGE)[:1000], "Transfer-Encoding: chunked", complete=False)[:6] == b"<html>"


def test_chunks() -> None:
    def joined(body: bytes) -> bytes:
        return decoded(body, "Transfer-Encoding: chunked")

    assert joined(chunked(PAGE)) == PAGE
    assert joined(chunked(PAGE, end=b"")) == PAGE
    assert joined(chunked(PAGE).replace(b"64\r\n", b"  64;name=value\r\n")) == PAGE
    assert joined(chunked(PAGE, end=b"0\r\nTrailer: x\r\n\r\n")) == PAGE
    assert joined(PAGE) == PAGE  # joined already
    for broken in (chunked(PAGE)[:500], chunked(PAGE).replace(b"\r\n64\r\n", b"\r\nzz\r\n"), b"fffffffffffffff\r\nabc"):
        with pytest.raises(BodyError, match="chunked"):
            joined(broken)


@pytest.mark.parametrize("encoding", ["compress", "bogus", "gzip, gzip, gzip", "x" * 300])
def test_unknown_encodings(encoding: str) -> None:
    with pytest.raises(BodyError):
        decoded(b"\0abc", f"Content-Encoding: {encoding}")


@pytest.mark.parametrize("codec", ["gzip", "deflate", "br", "zstd"])
def test_bombs_stop_at_the_limit(codec: str) -> None:
    zeros = bytes(200_000_000)
    body = {
        "gzip": lambda: gzip.compress(zeros, 1),
        "deflate": lambda: zlib.compress(zeros, 1),
        "br": lambda: pa.compress(zeros, codec="brotli", asbytes=True),
        "zstd": lambda: pa.compress(zeros, codec="zstd", asbytes=True),
    }[codec]()
    import tracemalloc

    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLargeError, match="more than 1000000"):
            decoded(body, f"Content-Encoding: {codec}", max_bytes=1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
        assert pool.bytes_allocated() - before < 20_000_000
    finally:
        tracemalloc.stop()
