from __future__ import annotations

import gzip
import io
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastwarc.stream_io import Lz4Writer, ZstdWriter
from fastwarc.warc import ArchiveIterator

from dataeng.stages.ingest import warc_records
from dataeng.stages.ingest.archive_bytes import ArchiveFile
from dataeng.stages.ingest.warc_framing import WarcRecord
from dataeng.stages.ingest.warc_records import read_records
from tests.stages.ingest.warc_files import flipped, http, members, page, pages, record

MAX_BLOCK = 8 << 20


def read(tmp_path: Path, data: bytes, max_block_bytes: int = MAX_BLOCK, same_fields: bool = True) -> list[WarcRecord]:
    """Reads ``data`` with both readers and with the careful one alone; both must say the same."""
    path = tmp_path / "file.warc.gz"
    path.write_bytes(data)
    records = list(read_records(path, max_block_bytes))
    check_covers(records, len(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warc_records, "_fast", lambda *_: iter(()))
        careful = list(read_records(path, max_block_bytes))
    if same_fields:
        assert careful == records
    places = [(r.offset, r.number, r.end, r.block, r.problem) for r in records]
    assert [(r.offset, r.number, r.end, r.block, r.problem) for r in careful] == places
    return records


def check_covers(records: list[WarcRecord], size: int) -> None:
    """Every byte of the file belongs to exactly one record or damaged region."""
    position, previous = 0, -1
    for found in records:
        assert found.offset in (position, previous)
        previous = found.offset
        position = found.end or position
    assert position == size


def names(records: list[WarcRecord]) -> list[str]:
    """Returns the record ids, with ``!`` where there is a problem and ``-`` for regions without a record."""
    ids = [(r.record_id.removeprefix("<urn:uuid:").removesuffix(">") or "-", r.problem) for r in records]
    return [name + ("!" if problem else "") for name, problem in ids]


@pytest.fixture
def six() -> list[bytes]:
    return members(pages(6))


def test_reads_every_field(tmp_path: Path) -> None:
    block = http(b"<p>x</p>")
    raw = record(block, name="a", url="<http://site.test/ü>", extra=("WARC-Truncated: length",))
    for data in (raw, gzip.compress(raw)):
        (found,) = read(tmp_path, data)
        assert found == WarcRecord(
            offset=0,
            number=0,
            end=len(data),
            record_type="response",
            record_id="<urn:uuid:a>",
            url="http://site.test/ü",
            date="2020-01-01T00:00:00Z",
            content_type="application/http; msgtype=response",
            cut_by_crawler="length",
            block=block,
            block_bytes=len(block),
        )


def test_undamaged_files(tmp_path: Path, six: list[bytes]) -> None:
    raw = pages(6)
    starts = [sum(map(len, six[:i])) for i in range(6)]
    found = read(tmp_path, b"".join(six))
    assert [r.offset for r in found] == starts and names(found) == list("012345")
    assert names(read(tmp_path, b"".join(raw))) == list("012345")
    # Whole files in one member, and two records a member: the offset is the member's, the number tells them apart.
    found = read(tmp_path, gzip.compress(b"".join(raw)))
    assert [(r.offset, r.number) for r in found] == [(0, i) for i in range(6)]
    pairs = members([raw[0] + raw[1], raw[2] + raw[3], raw[4] + raw[5]])
    assert [r.number for r in read(tmp_path, b"".join(pairs))] == [0, 1] * 3
    assert names(read(tmp_path, six[0] + pairs[1] + six[4])) == list("0234")
    # Large records in one member, where FastWARC's positions grow although they are in the middle of the member.
    found = read(tmp_path, gzip.compress(b"".join(pages(4, 200_000))))
    assert [(r.offset, r.number, len(r.block) > 200_000) for r in found] == [(0, i, True) for i in range(4)]


def test_fastwarc_is_used_where_it_can_be_trusted(tmp_path: Path, six: list[bytes]) -> None:
    path = tmp_path / "file.warc.gz"
    path.write_bytes(b"".join(six))
    with path.open("rb", buffering=0) as raw:
        file = ArchiveFile(raw)
        assert names(list(warc_records._fast(file, 0, b"\x1f\x8b", MAX_BLOCK))) == list("0123")


def test_line_feeds_only_and_odd_spacing(tmp_path: Path) -> None:
    raw = [r.replace(b"\r\n", b"\n") for r in (record(b"abc", "resource", str(i)) for i in range(3))]
    assert names(read(tmp_path, b"".join(raw))) == list("012")
    assert [r.block for r in read(tmp_path, b"".join(members(raw)))] == [b"abc"] * 3
    spaced = b"\r\n" + b"\r\n\r\n\r\n".join(pages(3))
    assert names(read(tmp_path, spaced)) == list("012")
    unterminated = b"".join(pages(2)).rstrip(b"\r\n")
    assert names(read(tmp_path, unterminated)) == list("01")


DAMAGED_MEMBERS = {
    "cut in the middle of the content": lambda m: m[:900],
    "cut in the header": lambda m: m[:60],
    "cut checksum": lambda m: m[:-6],
    "flipped byte in the content": lambda m: flipped(m, 900),
    "flipped byte in the header": lambda m: flipped(m, 40),
    "wrong checksum": lambda m: flipped(m, -6),
    "wrong length in the trailer": lambda m: flipped(m, -2),
    "no gzip at all": lambda m: flipped(m, 0),
}


@pytest.mark.parametrize("case", DAMAGED_MEMBERS)
@pytest.mark.parametrize("length", [3000, 200_000])
def test_damaged_member_costs_only_itself(tmp_path: Path, case: str, length: int) -> None:
    good = members(pages(6, length))
    for place in (0, 2, 5):
        damaged = DAMAGED_MEMBERS[case](good[place])
        data = b"".join([*good[:place], damaged, *good[place + 1 :]])
        if place == 0 and case in ("flipped byte in the header", "no gzip at all"):
            continue  # it is not even seen that this file is compressed, or where it starts: see below
        found = read(tmp_path, data)
        assert [n for n in names(found) if "!" not in n] == [str(i) for i in range(6) if i != place]
        (bad,) = (r for r in found if r.problem)
        assert bad.offset == sum(map(len, good[:place])) and bad.end - bad.offset == len(damaged)
        last = place == 5 and case.startswith("cut")
        assert bad.problem == ("error:truncated" if last else "error:corrupt")
        assert bad.detail is not None and f"{len(damaged)} bytes from {bad.offset} on are lost" in bad.detail


def test_damaged_record_keeps_its_url(tmp_path: Path, six: list[bytes]) -> None:
    found = read(tmp_path, b"".join(six)[:-300])
    assert names(found) == ["0", "1", "2", "3", "4", "5!"]
    assert found[-1].url == "http://www.site.test/5"


def test_garbage(tmp_path: Path, six: list[bytes]) -> None:
    junk = b"hello garbage " * 10
    assert names(read(tmp_path, six[0] + junk + six[1])) == ["0", "-!", "1"]
    assert names(read(tmp_path, junk + six[0] + six[1])) == ["-!", "0", "1"]
    assert names(read(tmp_path, b"".join(six) + b"\0" * 512)) == [*"012345", "-!"]
    assert names(read(tmp_path, six[0] + gzip.compress(b"junk\r\n") + six[1])) == ["0", "-!", "1"]
    assert names(read(tmp_path, six[0] + gzip.compress(b"") + six[1])) == ["0", "-!", "1"]
    raw = pages(3)
    assert names(read(tmp_path, raw[0] + b"garbage!\n" * 5 + raw[1])) == ["0", "-!", "1"]
    assert names(read(tmp_path, b"\0" * 100 + b"\n" + raw[0] + raw[1])) == ["-!", "0", "1"]
    assert names(read(tmp_path, flipped(six[0], 0) + six[1] + six[2])) == ["-!", "1", "2"]
    assert names(read(tmp_path, gzip.compress(raw[0] + b"garbage\n" + raw[1]) + six[2])) == ["0", "-!", "1", "2"]


@pytest.mark.parametrize("stated", [100, 10_000, 10**15, -5, "", "many", "９"])
def test_wrong_content_length(tmp_path: Path, stated: object) -> None:
    raw = pages(5)
    raw[1] = record(http(page(1)), name="1", stated_length=stated)
    for data in (b"".join(raw), b"".join(members(raw)), gzip.compress(b"".join(raw))):
        found = read(tmp_path, data)
        if stated == 10_000 and names(found) != ["0", "1!", "2", "3", "4"]:
            pytest.fail(f"a too large Content-Length swallowed records: {names(found)}")
        assert names(found) == ["0", "1!", "2", "3", "4"]
        assert found[1].detail is not None and "Content-Length is" in found[1].detail


def test_content_that_looks_like_a_record(tmp_path: Path) -> None:
    inner = record(http(page(7)), name="inner")
    raw = [*pages(2), record(b"<pre>\r\n\r\n" + inner + b"</pre>", "resource", "outer", content_type="text/html")]
    for data in (b"".join(raw), b"".join(members(raw))):
        assert names(read(tmp_path, data)) == ["0", "1", "outer"]


def test_longer_content_than_anyone_wants(tmp_path: Path) -> None:
    big = http(b"x" * 9_000_000)
    raw = [pages(1)[0], record(big, name="big"), pages(2)[1]]
    for data in (b"".join(raw), b"".join(members(raw)), gzip.compress(b"".join(raw))):
        found = read(tmp_path, data, max_block_bytes=5000)
        assert names(found) == ["0", "big", "1"]
        assert [(len(r.block), r.block_bytes) for r in found][1] == (5000, len(big))


def test_gzip_bomb_needs_little_memory(tmp_path: Path) -> None:
    import tracemalloc

    raw = record(http(b"\0" * 200_000_000), name="bomb")
    path = tmp_path / "bomb.warc.gz"
    path.write_bytes(b"".join(members([*pages(1), raw, *pages(2)])))
    del raw
    tracemalloc.start()
    try:
        assert names(list(read_records(path, 1 << 20))) == ["0", "bomb", "0", "1"]
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "empty"),
        (b"<html>hello</html>" * 50, "b'<html>hello"),
        (gzip.compress(b"<html>hello</html>" * 50), "b'<html>hello"),
        (gzip.compress(b""), "no WARC record"),
        (b"\x1f\x8b", "no WARC record"),
        (b"\x1f\x8b\x08" + b"\0" * 50, "no WARC record"),
        (bytes(range(256)) * 40, "no WARC record"),
        (b"WARC/1.0", "no WARC record"),
        (b"filedesc://x.arc 0.0.0.0 20080101000000 text/plain 1\n", "ARC file"),
        (gzip.compress(b"filedesc://x.arc 0.0.0.0 20080101000000 text/plain 1\n"), "ARC file"),
    ],
    ids=["nothing", "HTML", "HTML.gz", "empty.gz", "gzip magic", "gzip of 0", "all bytes", "version", "ARC", "ARC.gz"],
)
def test_not_warc(tmp_path: Path, data: bytes, what: str) -> None:
    (found,) = read(tmp_path, data)
    assert found.problem in ("error:not_warc", "error:corrupt")
    if data != b"WARC/1.0":
        assert found.problem == "error:not_warc" and found.detail is not None and what in found.detail


def test_random_damage_never_raises_and_loses_nothing(tmp_path: Path, six: list[bytes]) -> None:
    random_ = random.Random(1)
    plain, compressed = b"".join(pages(6, 300)), b"".join(members(pages(6, 300)))
    for turn in range(300):
        data = bytearray(random_.choice((plain, compressed)))
        for _ in range(random_.randint(1, 4)):
            place = random_.randrange(len(data))
            kind = random_.randrange(3)
            if kind == 0:
                data[place] = random_.randrange(256)
            elif kind == 1:
                del data[place : place + random_.randrange(40)]
            else:
                data[place:place] = random_.randbytes(random_.randrange(40))
        # What a name like `WA\xffRC-Type` means is not the same to both readers, but where the records are is.
        assert read(tmp_path, bytes(data), same_fields=False), turn


@pytest.mark.timeout(60)  # with a backtracking expression it took a second for each
def test_header_with_long_runs_of_spaces_is_parsed_in_time(tmp_path: Path) -> None:
    raw = record(b"abc", "resource", extra=("X: " + " " * 30_000 + "y",))
    assert names(read(tmp_path, b"".join([raw] * 3))) == ["0"] * 3


def framed(records: list[bytes], writer: type) -> bytes:
    frames = []
    for raw in records:
        out = io.BytesIO()
        stream = writer(out)
        stream.write(raw)
        stream.close()
        frames.append(out.getvalue())
    return b"".join(frames)


@pytest.mark.parametrize("writer", [Lz4Writer, ZstdWriter])
def test_lz4_and_zstd(tmp_path: Path, writer: type) -> None:
    def found(data: bytes) -> list[WarcRecord]:
        path = tmp_path / "file"
        path.write_bytes(data)
        records = list(read_records(path, MAX_BLOCK))
        check_covers(records, len(data))
        return records

    raw = pages(6)
    good = [framed([r], writer) for r in raw]
    assert names(found(b"".join(good))) == list("012345")
    assert names(found(framed([b"".join(raw)], writer))) == list("012345")
    damaged = names(found(b"".join([*good[:2], flipped(good[2], 12), *good[3:]])))
    assert [n for n in damaged if "!" not in n] == list("01345") and "-!" in damaged
    assert names(found(b"".join(good)[:-200]))[:5] == list("01234")
    assert names(found(b"".join(good)[:-200]))[5:] in (["5!"], ["-!"])


# Where we read more records than warcio 1.8.1, or other ones, and why.
DIFFERENCES = {
    "IAH-20080430204825-00000-blackbook-truncated.arc": (0, "ARC is not WARC: one row says so"),
    "example.arc.gz": (0, "ARC is not WARC: one row says so"),
    "anserini-segment1.warc.wet.gz": (2, "warcio refuses members with several records; the second is whole"),
    "example-bad-non-chunked.warc.gz": (6, "warcio refuses members with several records; all six are whole"),
    "example-bad.warc.gz.bad": (6, "warcio refuses members with several records; all six are whole"),
    "example-wrong-chunks.warc.gz": (2, "warcio stops at the record that is spread over two members"),
    "warcfile.warc.lz4": (50, "warcio has no lz4; the same crawl as warcfile.warc.gz, which has 50"),
}


def archives(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.glob("*/*")):
        if ".warc" in path.name or ".arc" in path.name:
            yield path


def test_record_counts_are_warcios(test_data: Path) -> None:
    crawl = test_data / "crawl"
    lines = (crawl / "collected" / "manifest.jsonl").read_text().splitlines()
    manifest = {row["file"]: row["records_read_by_warcio"] for row in map(json.loads, lines)}
    seen = 0
    for path in archives(crawl):
        found = list(read_records(path, MAX_BLOCK))
        check_covers(found, path.stat().st_size)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(warc_records, "_fast", lambda *_: iter(()))
            careful = list(read_records(path, MAX_BLOCK))
        assert careful == found or path.suffix == ".lz4", path.name
        types = Counter(r.record_type for r in found if r.record_type)
        if path.name in DIFFERENCES:
            assert types.total() == DIFFERENCES[path.name][0], path.name
        else:
            expected = manifest[path.name] if path.name in manifest else count_with_warcio(path)
            assert types == expected, path.name
        seen += 1
    assert seen == len(manifest) + len(list((crawl / "recorded").glob("*.warc*")))


def count_with_warcio(path: Path) -> Counter[str]:
    from warcio.archiveiterator import ArchiveIterator as Warcio

    with path.open("rb") as file:
        return Counter(r.rec_type for r in Warcio(file))


def test_fastwarc_still_stops_without_a_word(tmp_path: Path, six: list[bytes]) -> None:
    """Pins the behaviour that the careful reader is there for. If this fails, FastWARC has improved."""

    def fastwarc(data: bytes, **options: object) -> int:
        return sum(1 for _ in ArchiveIterator(io.BytesIO(data), parse_http=False, **options))

    assert fastwarc(b"".join(six)[:-4]) == 6  # a cut checksum is not noticed
    line_feeds = [r.replace(b"\r\n", b"\n") for r in pages(3)]
    assert fastwarc(b"".join(line_feeds)) == 1
    swallowed = [record(http(page(0)), name="0", stated_length=10_000), *pages(4)]
    assert fastwarc(b"".join(swallowed), quirks_mode=True) < 4
