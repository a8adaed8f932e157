from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import polars as pl
import pytest

from dataeng.document import IDENTITY, document_id
from dataeng.errors import InputError
from dataeng.stages.ingest.read_warc import ReadWarc
from tests.stages.ingest.warc_files import http, members, page, pages, record


def read(folder: Path, data: bytes, **options: object) -> pl.DataFrame:
    (folder / "a.warc.gz").write_bytes(data)
    source = ReadWarc.model_validate({"paths": ["*.warc.gz"], **options})
    (file,) = source.files(folder)
    return pl.concat(list(source.read(file)))


def only(folder: Path, raw: bytes, **options: object) -> dict[str, object]:
    frame = read(folder, gzip.compress(raw), **options)
    assert frame.height == 1
    return frame.row(0, named=True)


def test_columns(tmp_path: Path) -> None:
    html = page(0)
    frame = read(
        tmp_path, b"".join(members([record(http(html, headers=("Content-Type: text/html; charset=X",)), name="0")]))
    )
    source = ReadWarc(paths=("*",))
    assert dict(frame.schema) == {**source.columns().adds, "reason": pl.String(), "detail": pl.String()}
    assert frame.columns[: len(IDENTITY)] == list(IDENTITY)
    assert frame.row(0, named=True) == {
        "id": document_id("a.warc.gz", 0, "<urn:uuid:0>", "http://www.site.test/0"),
        "url": "http://www.site.test/0",
        "host": "www.site.test",
        "source": "a.warc.gz",
        "source_offset": 0,
        "date": "2020-01-01T00:00:00Z",
        "domain": "web",
        "payload": html,
        "http_status": 200,
        "content_type": "text/html",
        "charset": "x",
        "reason": None,
        "detail": None,
    }


HTML = ("Content-Type: text/html",)
CASES: dict[str, tuple[bytes, str | None, str | None]] = {
    "warcinfo": (record(b"software: x", "warcinfo"), "record_type:warcinfo", None),
    "request": (record(b"GET / HTTP/1.1\r\n\r\n", "request"), "record_type:request", None),
    "metadata": (record(b"a: b", "metadata"), "record_type:metadata", None),
    "revisit": (record(http(b""), "revisit"), "revisit", None),
    "revisit of a date": (
        record(
            http(b""),
            "revisit",
            extra=("WARC-Refers-To-Date: 2019-05-06T07:08:09Z", "WARC-Refers-To-Target-URI: <http://a.test/b>"),
        ),
        "revisit",
        "same payload as http://a.test/b 2019-05-06T07:08:09Z",
    ),
    "revisit of this URL": (
        record(http(b""), "revisit", url="http://a.test/c", extra=("WARC-Refers-To-Date: 2019-05-06T07:08:09Z",)),
        "revisit",
        "same payload as http://a.test/c 2019-05-06T07:08:09Z",
    ),
    "revisit of a record": (
        record(http(b""), "revisit", extra=("WARC-Refers-To: <urn:uuid:9>", "WARC-Payload-Digest: sha1:ABC")),
        "revisit",
        "same payload as <urn:uuid:9>",
    ),
    "revisit of a digest": (
        record(http(b""), "revisit", extra=("WARC-Payload-Digest: sha1:ABC",)),
        "revisit",
        "same payload as sha1:ABC",
    ),
    "continuation": (record(b"abc", "continuation"), "record_type:continuation", None),
    "odd type": (record(b"abc", "<script>"), "record_type:unknown", None),
    "dns": (record(b"20080430", url="dns:a.test", content_type="text/dns"), "record_type:dns", None),
    "not found": (record(http(b"gone", "404 Not Found")), "http_status:404", None),
    "partial": (record(http(b"gone", "206 Partial Content")), "http_status:206", None),
    "redirect": (record(http(b"", "301 Moved", (*HTML, "Location: http://b.test/"))), "redirect", "http://b.test/"),
    "image": (record(http(b"\x89PNG", headers=("Content-Type: image/png",))), "content_type:image/png", None),
    "odd content type": (record(http(b"x", headers=("Content-Type: ;;\x01",))), "content_type:missing", None),
    "no content type": (record(http(b"abc", headers=())), "content_type:missing", None),
    "no body": (record(http(b"")), "empty_body", None),
    "empty chunks": (record(http(b"0\r\n\r\n", headers=(*HTML, "Transfer-Encoding: chunked"))), "empty_body", None),
    "no record content": (record(b""), "error:http", "the record starts with b''"),
    "no http": (record(b"<html>hello</html>"), "error:http", "the record starts with b'<html>hello</html>'"),
    "bad gzip": (
        record(http(gzip.compress(page(1))[:90], headers=(*HTML, "Content-Encoding: gzip"))),
        "error:encoding",
        None,
    ),
    "unknown encoding": (record(http(b"x", headers=(*HTML, "Content-Encoding: magic"))), "error:encoding", None),
    "json resource": (
        record(b"{}", "resource", content_type="application/json"),
        "content_type:application/json",
        None,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_reasons(tmp_path: Path, case: str) -> None:
    raw, reason, detail = CASES[case]
    row = only(tmp_path, raw)
    assert row["reason"] == reason and row["payload"] is None
    if detail is not None:
        assert row["detail"] == detail


def test_documents_of_other_record_types(tmp_path: Path) -> None:
    row = only(tmp_path, record(b"<p>x", "resource", content_type="text/html; charset=KOI8-R"))
    assert (row["payload"], row["content_type"], row["charset"], row["http_status"]) == (
        b"<p>x",
        "text/html",
        "koi8-r",
        None,
    )
    row = only(tmp_path, record("Grüße".encode(), "conversion", content_type="text/plain"))
    assert (row["payload"], row["content_type"], row["charset"]) == ("Grüße".encode(), "text/plain", "utf-8")
    row = only(tmp_path, record(http(b"<!DOCTYPE HTML><p>x", headers=())))
    assert (row["payload"], row["content_type"]) == (b"<!DOCTYPE HTML><p>x", "text/html")
    row = only(tmp_path, record(http(b"x", headers=("Content-Type: application/xhtml+xml",))))
    assert row["payload"] == b"x"


def test_encoded_bodies_arrive_decoded(tmp_path: Path) -> None:
    html = page(3)
    encoded = gzip.compress(html)
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(encoded), encoded)
    headers = (*HTML, "Content-Encoding: gzip", "Transfer-Encoding: chunked")
    assert only(tmp_path, record(http(body, headers=headers)))["payload"] == html


def test_limits(tmp_path: Path) -> None:
    headers = (*HTML, "Content-Encoding: gzip")
    page_of_20_mb = record(http(b"<p>hello</p>" * 1_700_000))
    row = only(tmp_path, page_of_20_mb)
    assert (row["reason"], row["payload"]) == ("too_large", None)
    row = only(tmp_path, page_of_20_mb, max_payload_bytes=21_000_000)
    assert row["reason"] is None and len(row["payload"]) == 20_400_000  # type: ignore[arg-type]
    assert only(tmp_path, record(http(b"x" * 1000)), max_payload_bytes=1000)["reason"] is None
    assert only(tmp_path, record(http(b"x" * 1001)), max_payload_bytes=1000)["reason"] == "too_large"
    bomb = record(http(gzip.compress(bytes(9_000_000)), headers=headers))
    assert only(tmp_path, bomb)["reason"] == "error:too_large_decompressed"
    image = record(http(b"x" * 9_000_000, headers=("Content-Type: image/png",)))
    assert only(tmp_path, image)["reason"] == "content_type:image/png"


def test_damage_is_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    good = members(pages(4))
    frame = read(tmp_path, good[0] + good[1][:500] + good[2] + good[3][:-50])
    assert frame["reason"].to_list() == [None, "error:corrupt", None, "error:truncated"]
    assert frame["source_offset"].to_list() == [0, len(good[0]), len(good[0]) + 500, len(good[0]) + 500 + len(good[2])]
    assert "500 bytes" in frame["detail"][1]
    assert frame["id"].n_unique() == 4


def test_files_that_are_not_warc(tmp_path: Path) -> None:
    for data in (b"", b"hello", gzip.compress(b"hello")):
        frame = read(tmp_path, data)
        assert frame["reason"].to_list() == ["error:not_warc"] and frame["url"].to_list() == [None]


def test_ids_differ_for_records_of_one_member_without_ids(tmp_path: Path) -> None:
    raw = b"".join(
        r.replace(b"<urn:uuid:1>", b"<urn:uuid:0>").replace(b"site.test/1", b"site.test/0") for r in pages(2)
    )
    frame = read(tmp_path, gzip.compress(raw))
    assert frame["source_offset"].to_list() == [0, 0] and frame["id"].n_unique() == 2


def test_batches(tmp_path: Path) -> None:
    (tmp_path / "a.warc").write_bytes(b"".join(pages(10)))

    def heights(**options: int) -> list[int]:
        source = ReadWarc.model_validate({"paths": ["a.warc"], **options})
        batches = list(source.read(source.files(tmp_path)[0]))
        assert pl.concat(batches)["url"].to_list() == [f"http://www.site.test/{i}" for i in range(10)]
        return [b.height for b in batches]

    assert heights() == [10]
    assert heights(batch_documents=4) == [4, 4, 2]
    assert heights(batch_bytes=7000) == [3, 3, 3, 1]


def test_hosts(tmp_path: Path) -> None:
    urls = [
        "http://WWW.A.test:8080/x",
        "https://user:pw@b.test?q",
        "http://[::1]:80/",
        "metadata://c.org/x",
        "urn:x",
        "http:///x",
    ]
    frame = read(tmp_path, b"".join(members([record(http(b"x"), name=str(i), url=u) for i, u in enumerate(urls)])))
    assert frame["host"].to_list() == ["www.a.test", "b.test", "::1", "c.org", None, None]
    assert frame["url"].to_list() == urls


def test_file_names(tmp_path: Path) -> None:
    for name in ("b/2.warc", "a/1.warc", "a/deep/3.warc", "a/1.txt"):
        (tmp_path / "crawl" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "crawl" / name).write_bytes(b"x" * 3)

    def found(*paths: str) -> list[str]:
        return [f.name for f in ReadWarc(paths=paths).files(tmp_path)]

    assert found("crawl/*/*.warc") == ["a/1.warc", "b/2.warc"]
    assert found("crawl/**/*.warc") == ["a/1.warc", "a/deep/3.warc", "b/2.warc"]
    assert found("crawl/a/1.warc", "crawl/a/*.warc") == ["1.warc"]
    assert found(f"{tmp_path}/crawl/b/2.warc") == ["2.warc"]
    file = ReadWarc(paths=("crawl/a/1.warc",)).files(tmp_path)[0]
    assert (Path(file.path), file.size_bytes) == (tmp_path.resolve() / "crawl/a/1.warc", 3)
    assert file.modified_ns == Path(file.path).stat().st_mtime_ns


@pytest.mark.parametrize("pattern", ["nothing/*.warc", "*.warc", "missing.warc.gz"])
def test_pattern_without_files(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(InputError) as caught:
        ReadWarc(paths=(pattern,)).files(tmp_path)
    assert pattern in str(caught.value) and str(tmp_path.resolve()) in str(caught.value)


def test_files_of_one_name_in_two_folders_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.warc").write_bytes(b"")
    with pytest.raises(InputError, match=r"would both be called 'x\.warc'"):
        ReadWarc(paths=("a/x.warc", "b/x.warc")).files(tmp_path)
    assert len(ReadWarc(paths=("*/x.warc",)).files(tmp_path)) == 2


def test_sample() -> None:
    source = ReadWarc(paths=("sample:crawl/*.warc.gz",))
    files = source.files(Path("/"))
    assert [f.name for f in files] == ["docs-00000.warc.gz", "docs-00001.warc.gz", "docs-00002.warc.gz"]
    frame = pl.concat([batch for file in files for batch in source.read(file)])
    reasons = dict(frame.group_by("reason").len().iter_rows())
    assert reasons == {
        None: 757,
        "record_type:request": 811,
        "record_type:warcinfo": 6,
        "revisit": 5,
        "redirect": 20,
        "http_status:404": 10,
        "content_type:image/svg+xml": 10,
        "content_type:image/gif": 6,
        "content_type:image/png": 1,
        "content_type:image/x-icon": 1,
        "content_type:text/css": 1,
    }
    assert frame["id"].n_unique() == frame.height == 1628
    kept = frame.filter(pl.col("reason").is_null())
    assert set(kept["host"].unique()) == {
        "docs.snake.test",
        "www.elephantdb.test",
        "www.litedb.test",
        "httpd.feather.test",
        "help.officesuite.test",
    }


def test_recorded_crawl_matches_its_truth(test_data: Path) -> None:
    """Status and payload size of every URL in the recorded crawl are those that the recorder noted."""
    lines = gzip.decompress((test_data / "crawl/recorded/truth.jsonl.gz").read_bytes())
    truth = pl.read_ndjson(lines, infer_schema_length=None)
    source = ReadWarc(paths=("crawl/recorded/local-dev-0000?.warc.gz",))
    frame = pl.concat([batch for file in source.files(test_data) for batch in source.read(file)])
    documents = frame.filter(pl.col("reason").is_null() & pl.col("http_status").is_not_null())
    joined = documents.join(truth.filter(pl.col("status") == "200"), on="url", how="left")
    assert joined["payload_sha1"].null_count() == 0
    wrong = [
        row["url"]
        for row in joined.iter_rows(named=True)
        if hashlib.sha1(row["payload"]).hexdigest() != row["payload_sha1"]
    ]
    assert wrong == []
