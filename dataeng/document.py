"""The document contract: what a batch of documents is, and what a reject says.

Documents travel as Polars frames of about a thousand rows. A row is one document; these columns have fixed
names and types. Stages may add others: *signals* (measurements, prefixed with their family: ``quality_``,
``language_``, …) and columns of their own.

Names have no dots, so that the same name works unquoted in a rule, in SQL and in Polars.
"""

from __future__ import annotations

import hashlib

import polars as pl

#: Columns that every source delivers. ``payload`` is the raw record body, which ``extract_text`` turns into ``text``.
IDENTITY: dict[str, pl.DataType] = {
    "id": pl.String(),  # 24 hex digits, stable: see `document_id`
    "url": pl.String(),
    "host": pl.String(),
    "source": pl.String(),  # the input file, relative to the folder its pattern starts from
    "source_offset": pl.Int64(),  # byte offset of the record, or row number, within `source`
    "date": pl.String(),  # ISO 8601, as the source states it
    "domain": pl.String(),  # the mixture domain: web, code, books, …
}

#: Written by the engine and by stages on the way; never by a source that has nothing to say.
REASON = "reason"  # null = keep; otherwise why the document is dropped, e.g. "gopher_short_doc"
DETAIL = "detail"  # optional evidence for a person: the HTTP status, the exception, the matching word

DOMAIN_PATTERN = r"^[a-z0-9_-]{1,64}$"
"""What a mixture domain may be called: it names a folder of packs."""

TEXT = "text"
PAYLOAD = "payload"

#: Reasons that mean "something broke", as opposed to "a rule said no". They count towards `max_error_share`.
ERROR_PREFIX = "error:"


def document_id(source: str, offset: int, record_id: str, url: str) -> str:
    """Returns 24 hex digits that name a document for good.

    The id is derived from where the document was found: the input file's name relative to its pattern's
    folder, the byte offset (or row), the record's own id and its URL. Moving a corpus to another folder
    keeps ids; two files that hold the same record give two ids, so nothing is merged by accident.
    """
    key = f"{source}\0{offset}\0{record_id}\0{url}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(key, digest_size=12).hexdigest()


def with_reason_columns(batch: pl.DataFrame) -> pl.DataFrame:
    """Adds empty ``reason`` and ``detail`` columns where a batch has none."""
    missing = [pl.lit(None, dtype=pl.String).alias(c) for c in (REASON, DETAIL) if c not in batch.columns]
    return batch.with_columns(missing) if missing else batch


def drop_where(
    batch: pl.DataFrame, predicate: pl.Expr, reason: str | pl.Expr, detail: pl.Expr | None = None
) -> pl.DataFrame:
    """Gives ``reason`` to the rows where ``predicate`` is true, unless they have one already.

    A null predicate keeps the row. ``detail`` is stored with the reason.
    """
    batch = with_reason_columns(batch)
    reason_expr = pl.lit(reason) if isinstance(reason, str) else reason
    hit = pl.col(REASON).is_null() & predicate.fill_null(False)
    return batch.with_columns(
        pl.when(hit).then(reason_expr).otherwise(pl.col(REASON)).cast(pl.String).alias(REASON),
        pl.when(hit)
        .then(detail if detail is not None else pl.lit(None, dtype=pl.String))
        .otherwise(pl.col(DETAIL))
        .cast(pl.String)
        .alias(DETAIL),
    )


def row_bytes(batch: pl.DataFrame) -> pl.Series:
    """Returns the size of every row in bytes (Int64): UTF-8 text where there is one, else the raw payload."""
    sizes = [pl.lit(0)]
    if PAYLOAD in batch.columns:
        sizes.insert(0, pl.col(PAYLOAD).bin.size())
    if TEXT in batch.columns:
        sizes.insert(0, pl.col(TEXT).str.len_bytes())
    lengths = batch.with_columns(pl.coalesce(sizes).cast(pl.Int64).alias("num_bytes"))
    return lengths.get_column("num_bytes")
