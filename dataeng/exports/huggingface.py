"""Hugging Face datasets: Parquet files and a ``README.md`` that names them, as a dataset on the Hub is laid out.

``load_dataset(OUTPUT, "web")`` gives, for every document, the columns of the pack's table of documents, ``input_ids``
and, with masks, ``labels`` (-100 where a token is not trained on). With ``--sequence-length N`` there is one row for N
tokens, documents concatenated, and only ``input_ids`` and ``labels``. Every domain is a configuration of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dataeng.errors import FormatError
from dataeng.exports.blocks import BLOCK_TOKENS, DocumentTable, document_ranges, mask_of, row_blocks
from dataeng.exports.corpus import Corpus, Domain, documents_file
from dataeng.exports.layout import Job
from dataeng.exports.output import OutputFolder

IGNORED = -100  # the label that PyTorch's cross entropy and Transformers leave out
TOKENS_A_FILE = 1 << 28


def write(job: Job, domain: Domain, out: OutputFolder) -> int | None:
    length = job.options.sequence_length
    numbered = _rows(job, domain, length) if length else _documents(job, domain)
    num_files = _num_row_files(domain, length) if length else sum(1 for _ in domain.shards())
    for number, group in groupby(numbered, key=itemgetter(0)):
        tables = (table for _, table in group)
        with out.create(f"train-{number:05d}-of-{num_files:05d}.parquet") as file:
            first = next(tables)
            with pq.ParquetWriter(file, first.schema, compression="zstd", compression_level=1) as writer:
                writer.write_table(first)
                for table in tables:
                    writer.write_table(table)
    return domain.num_tokens // length if length else None


def _documents(job: Job, domain: Domain) -> Iterator[tuple[int, pa.Table]]:
    """Yields the number of a file, one for each shard, and the next table of it."""
    schema = _document_schema(job.corpus)
    for number, shard in enumerate(domain.shards()):
        path = documents_file(shard)
        described = DocumentTable(path, schema.names) if path is not None and schema.names else None
        for first, last in document_ranges(shard.offsets, BLOCK_TOKENS):
            start, stop = int(shard.offsets[first]), int(shard.offsets[last])
            offsets = (shard.offsets[first : last + 1] - start).astype(np.int32)
            mask = mask_of(shard, start, stop) if job.masked else None
            tokens = _token_columns(np.asarray(shard.tokens[start:stop]), mask, offsets)
            if described is not None:
                columns = described.take(last - first).select(schema.names).cast(schema)
                tokens = pa.table({**dict(zip(columns.column_names, columns.columns, strict=True)), **tokens})
            yield number, pa.table(tokens)


def _document_schema(corpus: Corpus) -> pa.Schema:
    """Returns the columns that all tables of documents have, in types that fit all of them."""
    schemas = []
    for shard in (shard for domain in corpus.domains for shard in domain.shards()):
        path = documents_file(shard)
        schemas.append(pa.schema([]) if path is None else pq.read_schema(path).remove_metadata())
    shared = set.intersection(*(set(schema.names) for schema in schemas))
    kept = [pa.schema([field for field in schema if field.name in shared]) for schema in schemas]
    try:
        return pa.unify_schemas(kept, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise FormatError(f"the packs' tables of documents do not go together: {error}") from error


def _num_row_files(domain: Domain, length: int) -> int:
    return -(-(domain.num_tokens // length) // _rows_a_file(length))


def _rows_a_file(length: int) -> int:
    return max(1, TOKENS_A_FILE // length)


def _rows(job: Job, domain: Domain, length: int) -> Iterator[tuple[int, pa.Table]]:
    """Yields the number of a file, and the next table of rows of it."""
    a_file, done = _rows_a_file(length), 0
    for rows in row_blocks(domain, length, max(1, BLOCK_TOKENS // length), job.masked):
        first = 0
        while first < len(rows.tokens):
            last = min(len(rows.tokens), first + a_file - done % a_file)
            mask = None if rows.mask is None else rows.mask[first:last].reshape(-1)
            offsets = np.arange(last - first + 1, dtype=np.int32) * np.int32(length)
            yield done // a_file, pa.table(_token_columns(rows.tokens[first:last].reshape(-1), mask, offsets))
            done, first = done + last - first, last


def _token_columns(
    tokens: npt.NDArray[Any], mask: npt.NDArray[np.uint8] | None, offsets: npt.NDArray[np.int32]
) -> dict[str, pa.ListArray]:
    """Returns ``input_ids`` and, with a mask, ``labels`` as lists of int32; ``offsets`` part the rows."""
    ids = tokens.astype(np.int32)
    columns = {"input_ids": pa.ListArray.from_arrays(offsets, ids)}
    if mask is not None:
        columns["labels"] = pa.ListArray.from_arrays(offsets, np.where(mask != 0, ids, np.int32(IGNORED)))
    return columns


def finish(job: Job, out: OutputFolder) -> None:
    lines = ["---", "configs:"]
    for domain in job.corpus.domains:
        path = "train-*.parquet" if job.corpus.alone else f"{domain.name}/train-*.parquet"
        lines += [f"- config_name: {domain.name}", "  data_files:", "  - split: train", f"    path: {path}"]
    lines += [
        "---",
        "",
        "Tokens of a corpus, one configuration for each domain. `export.json` says of which packs.",
        "",
    ]
    out.write("README.md", "\n".join(lines).encode())


def point_at(job: Job) -> list[str]:
    weights = job.corpus.weights()
    lines = [
        "# Hugging Face",
        f"parts = [load_dataset({str(job.output)!r}, name, split='train') for name in {list(weights)}]",
    ]
    if len(weights) > 1:
        listed = ", ".join(f"{weight:.6g}" for weight in weights.values())
        lines.append(f"dataset = interleave_datasets(parts, probabilities=[{listed}], seed=42)")
    return lines
