"""Documents to train a tokenizer on or to measure one with: of a finished run, or of files that anybody wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from dataeng.errors import InputError, nearest
from dataeng.formats.atomic import read_json

BATCH_ROWS = 1000
SCHEMA: dict[str, pl.DataType] = {
    "id": pl.String(),
    "text": pl.String(),
    "domain": pl.String(),
    "language": pl.String(),
}
LANGUAGE_COLUMNS = ("language", "lang")


def documents(paths: Sequence[Path]) -> Iterator[pl.DataFrame]:
    """Yields batches with ``id``, ``text``, ``domain`` and ``language`` from run folders, JSON Lines and Parquet.

    In files, ``domain`` and ``language`` (or ``lang``) may be missing: then the domain is the file's name. Lines and
    rows without a text are passed over.

    Raises:
      InputError: a path that is none of these, a line that is no JSON object, or a file without texts.
    """
    for path in paths:
        found = False
        for batch in _documents(path):
            found = found or batch.height > 0
            yield batch
        if not found:
            raise InputError(f"{path} has no documents: nothing in it has a text.")


def _documents(path: Path) -> Iterator[pl.DataFrame]:
    if path.is_dir():
        for file in _files_of_run(path):
            yield from _parquet(file, path.name)
        return
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".parquet"):
        yield from _parquet(path, name.removesuffix(".parquet"))
    elif name.endswith((".jsonl", ".ndjson", ".json")):
        yield from _json_lines(path, name.rpartition(".")[0])
    else:
        raise InputError(f"{path} is neither a run folder nor JSON Lines (.jsonl, .jsonl.gz, .jsonl.zst) nor Parquet.")


def _files_of_run(run_dir: Path) -> list[Path]:
    from dataeng.engine.runner import load_records
    from dataeng.report.sql import files_of

    if not (run_dir / "run.json").exists():
        raise InputError(f"{run_dir} is no run folder: it has no run.json. Give the files in it one by one.")
    records = load_records(run_dir)
    phases = [phase["name"] for phase in read_json(run_dir / "run.json")["phases"] if phase["kind"] == "rows"]
    finished = [name for name in phases if name in records]
    if not finished:
        raise InputError(f"{run_dir} has no documents yet: no phase of it has finished.")
    return files_of(run_dir, records[finished[-1]], "documents")


def _parquet(path: Path, domain: str) -> Iterator[pl.DataFrame]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            present = file.schema_arrow.names
            if "text" not in present:
                raise InputError(f"{path} has no column 'text'{nearest('text', present)}")
            wanted = [name for name in ("id", "text", "domain", *LANGUAGE_COLUMNS) if name in present]
            first = 0
            for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
                frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch])))
                yield _finished(frame, path, domain, first)
                first += batch.num_rows
    except pa.ArrowException as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}") from error


def _json_lines(path: Path, domain: str) -> Iterator[pl.DataFrame]:
    from dataeng.stages.ingest.byte_lines import DamagedInputError, decompressed_blocks, lines_of

    rows: list[dict[str, str | None]] = []
    first = 0
    try:
        for number, line in lines_of(decompressed_blocks(path), 1 << 30):
            if not (line or b"").strip():
                continue
            # One call per line: faster than Polars where lines differ in their keys, and it can say which is broken.
            record = json.loads((line or b"").decode())
            if not isinstance(record, dict):
                raise InputError(f"{path}, line {number}: expected an object, found {type(record).__name__}.")
            row = {name: _string(record.get(name)) for name in ("id", "text", "domain", *LANGUAGE_COLUMNS)}
            if b"\\u" in (line or b""):
                "".join(value or "" for value in row.values()).encode()  # half of a surrogate pair is a ValueError
            rows.append(row)
            if len(rows) == BATCH_ROWS:
                yield _finished(_frame(rows), path, domain, first)
                first += len(rows)
                rows = []
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}, line {number}: {error}") from error
    except DamagedInputError as error:
        raise InputError(f"{path} is damaged: {error}") from error
    yield _finished(_frame(rows), path, domain, first)


def _frame(rows: list[dict[str, str | None]]) -> pl.DataFrame:
    names = ("id", "text", "domain", *LANGUAGE_COLUMNS)
    return pl.DataFrame({name: pl.Series([row[name] for row in rows], dtype=pl.String) for name in names})


def _string(value: object) -> str | None:
    return value if isinstance(value, str) or value is None else json.dumps(value)


def _finished(frame: pl.DataFrame, path: Path, domain: str, first: int) -> pl.DataFrame:
    """Fills in what is missing, and leaves out rows without text."""

    def column(name: str) -> pl.Expr:
        return pl.col(name).cast(pl.String) if name in frame.columns else pl.lit(None, pl.String)

    numbered = frame.with_row_index("number", first)
    return numbered.select(
        pl.coalesce(column("id"), pl.format("{}:{}", pl.lit(str(path.name)), "number")).alias("id"),
        column("text").alias("text"),
        pl.coalesce(column("domain"), pl.lit(domain)).alias("domain"),
        pl.coalesce(*map(column, LANGUAGE_COLUMNS)).alias("language"),
    ).filter(pl.col("text").str.len_bytes() > 0)
