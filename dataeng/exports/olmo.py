"""Headerless ``.npy`` token arrays with ``.csv.gz`` document boundaries, as Dolma writes and OLMo-core reads them.

For every shard of the packs::

    web-00000.npy          tokens, uint16 or uint32, raw memory: no NumPy header
    web-00000.csv.gz       start,end,id,source,source offset of every document, in tokens, end exclusive; no header
    web-00000.label_mask   (with masks) one boolean byte a token: 1 where it is trained on

Readers: ``olmo_core/data/utils.py`` (`iter_document_indices`, `load_array_slice`) and ``data/numpy_dataset.py``.
"""

from __future__ import annotations

import gzip
import io

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from dataeng.exports.blocks import DocumentTable, mask_blocks, token_blocks
from dataeng.exports.corpus import Domain, documents_file, narrowest_dtype
from dataeng.exports.layout import Job
from dataeng.exports.output import OutputFolder
from dataeng.formats.pack import PackShard

DOCUMENT_COLUMNS = ["id", "source", "source_offset"]  # in the order of Dolma's id, src, loc
DOCUMENTS_AT_ONCE = 1 << 16


def write(job: Job, domain: Domain, out: OutputFolder) -> None:
    dtype = narrowest_dtype(job.corpus.vocab_size)
    for number, shard in enumerate(domain.shards()):
        name = f"{domain.name}-{number:05d}"
        with out.create(f"{name}.npy") as file:
            for tokens in token_blocks(shard):
                file.write(tokens.astype(dtype, copy=False))
        # The time in a gzip header would make every export different from the one before.
        with (
            out.create(f"{name}.csv.gz") as file,
            gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1, mtime=0, filename="") as compressed,
        ):
            _write_boundaries(shard, compressed)
        if job.masked:
            with out.create(f"{name}.label_mask") as file:
                for mask in mask_blocks(shard):
                    file.write((mask != 0).view(np.uint8))


def _write_boundaries(shard: PackShard, file: gzip.GzipFile) -> None:
    path = documents_file(shard)
    names = pq.read_schema(path).names if path is not None else []
    columns = [name for name in DOCUMENT_COLUMNS if name in names]
    table = DocumentTable(path, columns) if path is not None and columns else None
    for first in range(0, len(shard.lengths), DOCUMENTS_AT_ONCE):
        last = min(first + DOCUMENTS_AT_ONCE, len(shard.lengths))
        frame = pl.DataFrame({"start": shard.offsets[first:last], "end": shard.offsets[first + 1 : last + 1]})
        if table is not None:
            # One line a document: OLMo-core reads lines, and splits them at commas, before it looks for quotes.
            described = pl.DataFrame(table.take(last - first)).with_columns(
                pl.col(pl.String).str.replace_all(r"[\r\n]", " ")
            )
            frame = frame.hstack(described)
        text = io.BytesIO()
        frame.write_csv(text, include_header=False)
        file.write(text.getbuffer())


def point_at(job: Job) -> list[str]:
    corpus = job.corpus
    lines = ["# OLMo-core, with its own tokenizer config as TOKENIZER; target ratios are a mixing config's"]
    for name, weight in corpus.weights().items():
        folder = job.output if corpus.alone else job.output / name
        lines += [
            f"NumpyDocumentSourceConfig(label={name!r},  # target_ratio={weight:.6g}",
            f"    source_paths=[{str(folder / '*.npy')!r}],",
            *([f"    label_mask_paths=[{str(folder / '*.label_mask')!r}],"] if job.masked else []),
            f"    dtype=NumpyDatasetDType.{narrowest_dtype(corpus.vocab_size).name}, tokenizer=TOKENIZER)",
        ]
    return lines
