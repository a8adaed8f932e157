"""Stage `read_files`: documents from JSON Lines, Parquet and plain text files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import Field

from dataeng.document import DETAIL, IDENTITY, REASON, TEXT, document_id
from dataeng.errors import InputError, nearest
from dataeng.stage import Columns, InputFile, Source
from dataeng.stages.ingest.byte_lines import DamagedInputError, decompressed_blocks, lines_of
from dataeng.stages.ingest.conversations import Conversation, ConversationError
from dataeng.stages.ingest.input_files import find_input_files
from dataeng.stages.ingest.urls import host_of

MIB = 1 << 20
FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".txt": "text",
    ".md": "text",
}
COMPRESSIONS = (".gz", ".zst")

TURNS = "turns"
#: One document on its way into a batch: offset, record id, url, date, text, turns, reason, detail.
Row = tuple[int, str, str | None, str | None, str | None, str | None, str | None, str | None]
ROW_SCHEMA: dict[str, pl.DataType] = {
    "source_offset": pl.Int64(),
    "record_id": pl.String(),
    "url": pl.String(),
    "date": pl.String(),
    TEXT: pl.String(),
    TURNS: pl.String(),
    REASON: pl.String(),
    DETAIL: pl.String(),
}


class ReadFiles(Source):
    """Reads documents that are text already: JSON Lines (one object a line), Parquet, or one file per document.

    JSON Lines and text may be gzip or zstd; what a file holds is told by its name unless ``format`` says it.
    ``source_offset`` is the line number, from 1, or the row number, from 0. Rows with a reason:

    - ``error:json`` (the line is no JSON object), ``error:utf8``, ``error:no_text`` (no such key, null, or no string)
    - ``too_large``: longer than ``max_document_bytes``
    - ``error:truncated``, ``error:corrupt``: one row at the end of what could be read of a damaged file

    Empty lines are not records.

    With ``conversation``, a record is a conversation instead of a text: ``text`` has what its turns say, parted by
    lines with U+FDDE, and the column ``turns`` all else about them, for ``apply_chat_template``. A record without one
    is ``error:conversation``.
    """

    paths: tuple[str, ...] = Field(min_length=1, description="Globs, relative to the pipeline file; `sample:` too")
    format: Literal["auto", "jsonl", "parquet", "text"] = "auto"
    text: str = Field(default="text", description="Key or column of the text")
    id: str | None = Field(default=None, description="Key or column of the records' own ids")
    conversation: Conversation | None = Field(
        default=None,
        description="Where records have a conversation: {messages: KEY}, or {user: KEY, assistant: KEY}",
    )
    url: str | None = Field(default="url", description="Key or column of the URL; may be absent")
    date: str | None = Field(default="date", description="Key or column of the date; may be absent")
    batch_documents: int = Field(default=1000, ge=1, description="Most rows in a batch")
    batch_bytes: int = Field(default=32 * MIB, ge=1, description="A batch ends once it has this much text")
    max_document_bytes: int = Field(default=64 * MIB, ge=1, description="Longer lines and files are dropped")

    def columns(self) -> Columns:
        turns = {} if self.conversation is None else {TURNS: pl.String()}
        return Columns(adds={**IDENTITY, TEXT: pl.String(), **turns})

    def files(self, base: Path) -> list[InputFile]:
        files = find_input_files(self.paths, base)
        for file in files:
            if self._format_of(file) == "text" and self.conversation is not None:
                raise InputError(f"'{file.path}' is plain text; a `conversation` needs JSON Lines or Parquet.")
        return files

    def read(self, file: InputFile) -> Iterator[pl.DataFrame]:
        kind = self._format_of(file)
        if kind == "parquet":
            frames = self._read_parquet(file)
        elif kind == "jsonl":
            frames = self._batches(self._json_rows(file))
        else:
            frames = self._batches(self._text_rows(file))
        for frame in frames:
            yield self._finish(file.name, frame)

    def _format_of(self, file: InputFile) -> str:
        if self.format != "auto":
            return self.format
        path = Path(file.name)
        suffix = path.with_suffix("").suffix if path.suffix in COMPRESSIONS else path.suffix
        if suffix not in FORMATS:
            raise InputError(
                f"cannot tell the format of '{file.path}' by its name; expected one of {', '.join(FORMATS)} "
                f"(with {' or '.join(COMPRESSIONS)}), or set `format`."
            )
        return FORMATS[suffix]

    # --- JSON Lines and text

    def _json_rows(self, file: InputFile) -> Iterator[Row]:
        number = 0
        try:
            for number, line in lines_of(decompressed_blocks(Path(file.path)), self.max_document_bytes):
                if line is None:
                    yield _dropped(number, "too_large", f"a line of more than {self.max_document_bytes} bytes")
                elif line.strip():
                    yield self._json_row(number, line)
        except DamagedInputError as error:
            yield _dropped(number + 1, error.reason, str(error))

    def _json_row(self, number: int, line: bytes) -> Row:
        # One call of json.loads per line: 212 MB/s, where Polars reaches 288, turns a lone surrogate into NUL, drops
        # rows, and does not say which line is broken.
        try:
            text = line.decode()
            record = json.loads(text)
        except UnicodeDecodeError as error:
            return _dropped(number, "error:utf8", f"byte {error.start} of the line: {error.reason}")
        except (ValueError, RecursionError) as error:
            return _dropped(number, "error:json", str(error)[:200])
        if not isinstance(record, dict):
            return _dropped(number, "error:json", f"expected an object, found {type(record).__name__}")
        record_id, url, date = (_string(record, key) for key in (self.id, self.url, self.date))
        if self.conversation is not None:
            return _conversation_row(number, record_id, url, date, self.conversation, record)
        value = record.get(self.text)
        if not isinstance(value, str):
            found = type(value).__name__ if self.text in record else nearest(self.text, record).strip("; ") or "no keys"
            return (number, record_id or "", url, date, None, None, "error:no_text", f"'{self.text}': {found}"[:200])
        if b"\\u" in line and not all(map(_is_encodable, (value, record_id, url, date))):
            return _dropped(number, "error:utf8", "half of a surrogate pair")
        return (number, record_id or "", url, date, value, None, None, None)

    def _text_rows(self, file: InputFile) -> Iterator[Row]:
        content = bytearray()
        try:
            for block in decompressed_blocks(Path(file.path)):
                content += block
                if len(content) > self.max_document_bytes:
                    yield _dropped(0, "too_large", f"more than {self.max_document_bytes} bytes")
                    return
            yield (0, "", None, None, content.decode(), None, None, None)
        except DamagedInputError as error:
            yield _dropped(0, error.reason, str(error))
        except UnicodeDecodeError as error:
            yield _dropped(0, "error:utf8", f"byte {error.start}: {error.reason}")

    def _batches(self, rows: Iterator[Row]) -> Iterator[pl.DataFrame]:
        batch: list[Row] = []
        size = 0
        for row in rows:
            batch.append(row)
            size += len(row[4] or "")
            if len(batch) >= self.batch_documents or size >= self.batch_bytes:
                yield pl.DataFrame(batch, ROW_SCHEMA, orient="row")
                batch, size = [], 0
        if batch:
            yield pl.DataFrame(batch, ROW_SCHEMA, orient="row")

    # --- Parquet

    def _read_parquet(self, file: InputFile) -> Iterator[pl.DataFrame]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        row = 0
        try:
            with pq.ParquetFile(file.path) as parquet:
                names = self._parquet_columns(file, parquet.schema_arrow.names)
                keys = () if self.conversation is None else self.conversation.keys()
                for batch in parquet.iter_batches(self.batch_documents, columns=sorted({*names.values(), *keys})):
                    if self.conversation is not None:
                        yield self._parquet_conversations(self.conversation, batch.to_pylist(), names, row)
                    else:
                        frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch])))
                        yield self._parquet_rows(frame, names, row)
                    row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            if not isinstance(error, pa.ArrowException) and error.errno is not None:
                raise  # the disk, not the content
            yield pl.DataFrame([_dropped(row, "error:corrupt", str(error)[:200])], ROW_SCHEMA, orient="row")

    def _parquet_columns(self, file: InputFile, present: list[str]) -> dict[str, str]:
        needed = (self.text,) if self.conversation is None else self.conversation.keys()
        for column in needed:
            if column not in present:
                raise InputError(f"'{file.path}' has no column '{column}'{nearest(column, present)}")
        optional = {"record_id": self.id, "url": self.url, "date": self.date}
        given = {name: column for name, column in optional.items() if column is not None and column in present}
        if self.conversation is None:
            given[TEXT] = self.text
        return given

    def _parquet_conversations(
        self, where: Conversation, records: list[dict[str, Any]], names: dict[str, str], first: int
    ) -> pl.DataFrame:
        rows = []
        for number, record in enumerate(records, first):
            known = {name: _string(record, names.get(name)) for name in ("record_id", "url", "date")}
            row = _conversation_row(number, known["record_id"], known["url"], known["date"], where, record)
            if row[4] is not None and len(row[4].encode()) > self.max_document_bytes:
                row = _dropped(number, "too_large", f"{len(row[4].encode())} bytes")
            rows.append(row)
        return pl.DataFrame(rows, ROW_SCHEMA, orient="row")

    def _parquet_rows(self, frame: pl.DataFrame, names: dict[str, str], first: int) -> pl.DataFrame:
        frame = frame.select(
            (pl.col(names[c]).cast(pl.String, strict=False) if c in names else pl.lit(None, pl.String)).alias(c)
            for c in ("record_id", "url", "date", TEXT)
        )
        too_large = pl.col(TEXT).str.len_bytes() > self.max_document_bytes
        return frame.with_row_index("source_offset", first).select(
            pl.col("source_offset").cast(pl.Int64),
            pl.col("record_id").fill_null(""),
            "url",
            "date",
            pl.when(~too_large).then(pl.col(TEXT)).alias(TEXT),
            pl.lit(None, pl.String).alias(TURNS),
            pl.when(pl.col(TEXT).is_null())
            .then(pl.lit("error:no_text"))
            .when(too_large)
            .then(pl.lit("too_large"))
            .alias(REASON),
            pl.when(too_large).then(pl.format("{} bytes", pl.col(TEXT).str.len_bytes())).alias(DETAIL),
        )

    def _finish(self, source: str, frame: pl.DataFrame) -> pl.DataFrame:
        """Adds the identity columns. One hash per document, so one Python step per document."""
        keys = zip(frame["source_offset"], frame["record_id"], frame["url"], strict=True)
        ids = [document_id(source, offset, record_id, url or "") for offset, record_id, url in keys]
        return frame.with_columns(
            pl.Series("id", ids, pl.String),
            host_of("url").alias("host"),
            pl.lit(source).alias("source"),
            pl.lit(self.domain).alias("domain"),
        ).select(*self.columns().adds, REASON, DETAIL)


def _dropped(offset: int, reason: str, detail: str) -> Row:
    return (offset, "", None, None, None, None, reason, detail)


def _conversation_row(
    number: int, record_id: str | None, url: str | None, date: str | None, where: Conversation, record: dict[str, Any]
) -> Row:
    try:
        text, turns = where.turns_of(record)
    except ConversationError as error:
        return (number, record_id or "", url, date, None, None, "error:conversation", str(error)[:200])
    if not all(map(_is_encodable, (text, turns, record_id, url, date))):
        return _dropped(number, "error:utf8", "half of a surrogate pair")
    return (number, record_id or "", url, date, text, turns, None, None)


def _string(record: dict[str, Any], key: str | None) -> str | None:
    value = record.get(key) if key is not None else None
    return value if value is None or isinstance(value, str) else json.dumps(value, default=str)


def _is_encodable(text: str | None) -> bool:
    try:
        return text is None or text.encode() is not None
    except UnicodeEncodeError:
        return False
