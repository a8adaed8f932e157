from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataeng.document import IDENTITY, document_id
from dataeng.errors import InputError
from dataeng.stages.ingest.read_files import ReadFiles


def read(folder: Path, name: str, data: bytes | None = None, **options: object) -> pl.DataFrame:
    if data is not None:
        (folder / name).write_bytes(data)
    source = ReadFiles.model_validate({"paths": [name], **options})
    (file,) = source.files(folder)
    return pl.concat(list(source.read(file)))


def lines(*records: object) -> bytes:
    return b"".join(json.dumps(r, ensure_ascii=False).encode() + b"\n" for r in records)


def reasons(frame: pl.DataFrame) -> list[tuple[int, str | None]]:
    return list(zip(frame["source_offset"], frame["reason"], strict=True))


def test_columns(tmp_path: Path) -> None:
    record = {"text": "Grüße", "url": "https://A.test:80/x", "date": "2020", "key": 7, "other": [1]}
    frame = read(tmp_path, "a.jsonl", lines(record), id="key", domain="code")
    assert dict(frame.schema) == {
        **ReadFiles(paths=("*",)).columns().adds,
        "reason": pl.String(),
        "detail": pl.String(),
    }
    assert frame.columns[: len(IDENTITY)] == list(IDENTITY)
    assert frame.row(0, named=True) == {
        "id": document_id("a.jsonl", 1, "7", "https://A.test:80/x"),
        "url": "https://A.test:80/x",
        "host": "a.test",
        "source": "a.jsonl",
        "source_offset": 1,
        "date": "2020",
        "domain": "code",
        "text": "Grüße",
        "reason": None,
        "detail": None,
    }


def test_bad_lines(tmp_path: Path) -> None:
    cases: list[tuple[bytes, str | None]] = [
        (b'{"text": "a"}', None),
        (b'{"text": "a"', "error:json"),
        (b'{"text": "a"} {"text": "b"}', "error:json"),
        (b"[]", "error:json"),
        (b"null", "error:json"),
        (b"hello", "error:json"),
        (b"[" * 100_000, "error:json"),
        (b'{"text": "a", "n": ' + b"9" * 10_000 + b"}", "error:json"),
        (b'{"text": "\xff"}', "error:utf8"),
        (b'{"text": "\\ud83d"}', "error:utf8"),
        (b'{"text": "a", "url": "\\ud83d"}', "error:utf8"),
        (b'{"text": "\\ud83d\\ude00"}', None),
        (b'{"Text": "a"}', "error:no_text"),
        (b'{"text": null}', "error:no_text"),
        (b'{"text": 5}', "error:no_text"),
        (b'{"text": ""}', None),
        (b'{"text": "a\\u0000b"}', None),
        (b"   ", "skipped"),
        (b'{"text": "' + b"x" * 200_000 + b'"}', "too_large"),
        (b'{"text": "last"}', None),
    ]
    data = b"\n".join(case for case, _ in cases)
    for content in (data, data + b"\n", gzip.compress(data), data.replace(b"\n", b"\r\n")):
        for name in ("a.jsonl", "a.jsonl.gz"):
            frame = read(tmp_path, name, content, max_document_bytes=150_000)
            expected = [(i, reason) for i, (_, reason) in enumerate(cases, 1) if reason != "skipped"]
            assert reasons(frame) == expected
            assert frame.filter(pl.col("reason").is_null())["text"].to_list() == ["a", "😀", "", "a\0b", "last"]
            assert frame.filter(pl.col("reason").is_not_null())["text"].null_count() == 14
    assert "did you mean 'Text'" in frame.filter(pl.col("source_offset") == 13)["detail"][0]


def test_damaged_compressed_files(tmp_path: Path) -> None:
    data = lines(
        *({"text": f"{i} " + "".join(chr(97 + (i * i + j * j) % 26) for j in range(500))} for i in range(3000))
    )
    for name, packed in (("a.jsonl.gz", gzip.compress(data)), ("a.jsonl.zst", pa.compress(data, "zstd", asbytes=True))):
        assert read(tmp_path, name, packed).height == 3000
        frame = read(tmp_path, name, packed[: len(packed) * 3 // 4])
        good = frame.height - 1
        assert reasons(frame) == [*((i + 1, None) for i in range(good)), (good + 1, "error:truncated")]
        if name.endswith("gz"):
            assert good > 1000
            assert frame["text"][good - 1].startswith(f"{good - 1} ")
            broken = bytearray(packed)
            broken[len(broken) // 2] ^= 0xFF
            assert read(tmp_path, name, bytes(broken))["reason"][-1] == "error:corrupt"
    two = gzip.compress(data) + gzip.compress(lines({"text": "second member"}))
    assert read(tmp_path, "a.jsonl.gz", two)["text"][-1] == "second member"
    assert read(tmp_path, "a.jsonl.gz", gzip.compress(data) + b"junk")["reason"][-1] == "error:corrupt"


def test_lines_longer_than_a_block(tmp_path: Path) -> None:
    long = "x" * 3_500_000
    frame = read(tmp_path, "a.jsonl", lines({"text": "a"}, {"text": long}, {"text": "b"}))
    assert frame["text"].str.len_bytes().to_list() == [1, 3_500_000, 1]
    frame = read(tmp_path, "a.jsonl", lines({"text": "a"}, {"text": long}, {"text": "b"}), max_document_bytes=10**6)
    assert reasons(frame) == [(1, None), (2, "too_large"), (3, None)]


def test_empty_files_have_no_documents(tmp_path: Path) -> None:
    for name, data in (("a.jsonl", b""), ("a.jsonl.gz", b""), ("b.jsonl.gz", gzip.compress(b"")), ("c.jsonl", b"\n\n")):
        (tmp_path / name).write_bytes(data)
        source = ReadFiles(paths=(name,))
        assert list(source.read(source.files(tmp_path)[0])) == []


def test_batches_do_not_change_rows(tmp_path: Path) -> None:
    data = lines(*({"text": "x" * 100, "url": f"http://a.test/{i}"} for i in range(10)))
    whole = read(tmp_path, "a.jsonl", data)
    pq.write_table(
        pa.table({"text": ["x" * 100] * 10, "url": [f"http://a.test/{i}" for i in range(10)]}), tmp_path / "a.parquet"
    )
    for options, heights in (({"batch_documents": 4}, [4, 4, 2]), ({"batch_bytes": 250}, [3, 3, 3, 1])):
        source = ReadFiles.model_validate({"paths": ["a.jsonl"], **options})
        batches = list(source.read(source.files(tmp_path)[0]))
        assert [b.height for b in batches] == heights
        assert pl.concat(batches).equals(whole)
    source = ReadFiles(paths=("a.parquet",), batch_documents=4)
    batches = list(source.read(source.files(tmp_path)[0]))
    assert [b.height for b in batches] == [4, 4, 2]
    assert pl.concat(batches)["source_offset"].to_list() == list(range(10))
    assert pl.concat(batches).select("url", "host", "text").equals(whole.select("url", "host", "text"))


def test_parquet(tmp_path: Path) -> None:
    table = pa.table(
        {
            "body": pa.array(["a", None, "b" * 50], pa.large_string()).dictionary_encode(),
            "n": [1, 2, 3],
            "url": ["http://a.test", None, "x"],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    frame = read(tmp_path, "a.parquet", text="body", id="n", max_document_bytes=20)
    assert frame["text"].to_list() == ["a", None, None]
    assert reasons(frame) == [(0, None), (1, "error:no_text"), (2, "too_large")]
    assert frame["id"][0] == document_id("a.parquet", 0, "1", "http://a.test")
    assert frame["host"].to_list() == ["a.test", None, None]
    with pytest.raises(InputError, match=r"no column 'bodi'; did you mean 'body'\?"):
        read(tmp_path, "a.parquet", text="bodi")


def test_damaged_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"{i} hello" for i in range(5000)]}), path, row_group_size=1000)
    whole = path.read_bytes()
    for data in (b"", b"PAR1", b"hello" * 100, whole[:-100], whole[:1000]):
        frame = read(tmp_path, "a.parquet", data)
        assert reasons(frame) == [(0, "error:corrupt")] and frame["detail"][0]
    start = pq.ParquetFile(pa.BufferReader(whole)).metadata.row_group(2).column(0).data_page_offset
    frame = read(tmp_path, "a.parquet", whole[:start] + b"\xff" * 64 + whole[start + 64 :])
    assert frame["reason"].to_list() == [None] * 2000 + ["error:corrupt"]
    assert frame["source_offset"][-1] == 2000


def test_text_files(tmp_path: Path) -> None:
    frame = read(tmp_path, "a.txt", "Grüße\nan alle\n".encode())
    assert frame["text"].to_list() == ["Grüße\nan alle\n"] and reasons(frame) == [(0, None)]
    assert read(tmp_path, "a.md.gz", gzip.compress(b"# x"))["text"].to_list() == ["# x"]
    assert reasons(read(tmp_path, "a.txt", b"\xff")) == [(0, "error:utf8")]
    assert reasons(read(tmp_path, "a.txt", b"x" * 11, max_document_bytes=10)) == [(0, "too_large")]
    assert reasons(read(tmp_path, "a.txt.gz", gzip.compress(b"x" * 1000)[:-9])) == [(0, "error:truncated")]


def test_format(tmp_path: Path) -> None:
    (tmp_path / "a.data").write_bytes(lines({"text": "x"}))
    with pytest.raises(InputError, match=r"cannot tell the format of .*a\.data"):
        ReadFiles(paths=("a.data",)).files(tmp_path)
    assert read(tmp_path, "a.data", format="jsonl")["text"].to_list() == ["x"]
    assert read(tmp_path, "a.data", format="text")["text"].to_list() == ['{"text": "x"}\n']


def test_sample() -> None:
    source = ReadFiles(paths=("sample:code/code.jsonl.gz",), domain="code")
    (file,) = source.files(Path("/"))
    frame = pl.concat(list(source.read(file)))
    assert frame.height == 42 and frame["reason"].null_count() == 42
    assert 700_000 < frame["text"].str.len_bytes().sum() < 720_000
    assert frame["host"].unique().to_list() == ["github.com"]


def test_reads_every_document_of_the_test_data(test_data: Path) -> None:
    source = ReadFiles(paths=("domains/*.jsonl.gz",))
    for file in source.files(test_data):
        frame = pl.concat(list(source.read(file)))
        expected = [json.loads(line)["text"] for line in gzip.decompress(Path(file.path).read_bytes()).splitlines()]
        assert frame["text"].to_list() == expected and frame["id"].n_unique() == len(expected)


def test_conversations(tmp_path: Path) -> None:
    record = {"question": "What?", "answer": "That."}
    broken = json.dumps({**record, "answer": "\ud800"}).encode()
    data = lines(record, {"question": "Why?"}) + broken + b"\n{"
    options = {"user": "question", "assistant": "answer"}
    frame = read(tmp_path, "a.jsonl", data, conversation=options)
    assert dict(frame.schema) == {
        **ReadFiles.model_validate({"paths": ["*"], "conversation": options}).columns().adds,
        "reason": pl.String(),
        "detail": pl.String(),
    }
    assert frame["reason"].to_list() == [None, "error:conversation", "error:utf8", "error:json"]
    assert frame["text"].to_list() == ["What?\n\ufdde\nThat.", None, None, None]
    assert frame["turns"].to_list() == ['[{"role": "user"}, {"role": "assistant"}]', None, None, None]
    assert frame.item(1, "detail") == "'answer': expected a string or a number, found nothing"


def test_conversations_in_parquet_are_those_in_json(tmp_path: Path) -> None:
    records = [
        {"id": str(i), "url": None, "messages": [{"role": "user", "content": f"q{i}"}, {"role": "tool", "n": 1}][:n]}
        for i, n in enumerate((1, 2, 1))
    ]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    options: dict[str, object] = {"conversation": {"messages": "messages"}, "id": "id"}
    found = read(tmp_path, "a.parquet", None, **options)
    expected = read(tmp_path, "a.jsonl", lines(*records), **options)
    columns = ["text", "turns", "reason", "detail"]
    assert found.select(columns).equals(expected.select(columns))
    assert found["reason"].to_list() == [None, "error:conversation", None]
    assert read(tmp_path, "a.parquet", None, **options, max_document_bytes=1)["reason"].to_list()[0] == "too_large"
    with pytest.raises(InputError, match=r"has no column 'message'; did you mean 'messages'\?"):
        read(tmp_path, "a.parquet", None, conversation={"messages": "message"})
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"a\.txt' is plain text; a `conversation` needs JSON Lines or Parquet"):
        read(tmp_path, "a.txt", None, conversation={"messages": "message"})
