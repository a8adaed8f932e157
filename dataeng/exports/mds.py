"""MosaicML Streaming's MDS, which LLM-Foundry trains on.

Layout after ``streaming/base/format/mds/writer.py``: ``index.json`` lists the shards; a shard is ``u32 n``,
``u32[n + 1]`` offsets into the file, its configuration as JSON, and the samples. A sample is a u32 size for every
column of varying size, then the columns' values in the order of their names.

- One sample a document: ``id`` (text), ``tokens`` and, with masks, ``loss_mask``, arrays of varying length.
- With ``--sequence-length N``: ``tokens`` and ``loss_mask`` of N each, without any header. LLM-Foundry wants these.

Samples are put together as columns: Arrow joins the parts of all samples of a shard at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataeng.errors import FormatError
from dataeng.exports.blocks import document_ranges, mask_of, row_blocks
from dataeng.exports.corpus import Domain, documents_file
from dataeng.exports.layout import Job
from dataeng.exports.output import OutputFolder
from dataeng.formats.pack import PackShard

SHARD_BYTES = 1 << 26  # MDSWriter's default
LARGEST_SHARD = 2**32 - 1  # offsets are u32

Columns = dict[str, str]
"""Encoding of every column, by name, in the order of the names."""


def write(job: Job, domain: Domain, out: OutputFolder) -> int | None:
    columns = _columns(job, domain)
    config = _config(columns)
    shards: list[dict[str, Any]] = []
    pieces = _rows(job, domain, config) if job.options.sequence_length else _documents(job, domain, columns, config)
    for offsets, samples in pieces:
        name = f"shard.{len(shards):05d}.mds"
        num, start = len(offsets) - 1, 4 + 4 * len(offsets) + len(config)
        size = start + int(offsets[-1])
        if size > LARGEST_SHARD:
            raise FormatError(f"a document of the domain '{domain.name}' is too long for an MDS shard ({size} bytes).")
        with out.create(name) as file:
            file.write(np.array([num], "<u4"))
            file.write((offsets + start).astype("<u4"))
            file.write(config)
            file.write(samples)
        raw = {"basename": name, "bytes": size, "hashes": {}}
        shards.append({**json.loads(config), "raw_data": raw, "samples": num, "zip_data": None})
    out.write("index.json", json.dumps({"version": 2, "shards": shards}, sort_keys=True).encode())
    return sum(shard["samples"] for shard in shards) if job.options.sequence_length else None


def _columns(job: Job, domain: Domain) -> Columns:
    """Returns the encodings of the columns of all domains: streams can only be mixed if they agree."""
    length = f":{job.options.sequence_length}" if job.options.sequence_length else ""
    columns = {"tokens": f"ndarray:{job.corpus.dtype}{length}"}
    if job.masked:
        columns["loss_mask"] = f"ndarray:uint8{length}"
    if not job.options.sequence_length and all(_has_ids(shard) for d in job.corpus.domains for shard in d.shards()):
        columns["id"] = "str"
    return dict(sorted(columns.items()))


def _has_ids(shard: PackShard) -> bool:
    path = documents_file(shard)
    return path is not None and "id" in pq.read_schema(path).names


def _config(columns: Columns) -> bytes:
    """Returns what stands in every shard about itself."""
    described = {
        "version": 2,
        "format": "mds",
        "compression": None,
        "hashes": [],
        "size_limit": SHARD_BYTES,
        "column_names": list(columns),
        "column_encodings": list(columns.values()),
        "column_sizes": [_fixed_size(encoding) for encoding in columns.values()],
    }
    return json.dumps(described, sort_keys=True).encode()


def _fixed_size(encoding: str) -> int | None:
    _, *described = encoding.split(":")
    return np.dtype(described[0]).itemsize * int(described[1]) if len(described) == 2 else None


def _rows(job: Job, domain: Domain, config: bytes) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]]:
    """Yields samples of one length: offsets int64[n + 1] and bytes, shard by shard."""
    length = job.options.sequence_length
    assert length
    row_bytes = length * (np.dtype(job.corpus.dtype).itemsize + job.masked)
    max_rows = max(1, (SHARD_BYTES - 8 - len(config)) // (row_bytes + 4))
    dtype = np.dtype(job.corpus.dtype).newbyteorder("<")
    for rows in row_blocks(domain, length, max_rows, job.masked):
        samples = np.ascontiguousarray(rows.tokens.astype(dtype, copy=False)).view(np.uint8)
        if rows.mask is not None:
            samples = np.hstack([rows.mask, samples])
        yield np.arange(len(samples) + 1, dtype=np.int64) * row_bytes, samples.reshape(-1)


def _documents(
    job: Job, domain: Domain, columns: Columns, config: bytes
) -> Iterator[tuple[npt.NDArray[np.int64], memoryview]]:
    """Yields one sample a document: offsets int64[n + 1] and bytes, shard by shard, cut where MDSWriter cuts."""
    for shard in domain.shards():
        ids = _ids(shard) if "id" in columns else None
        sizes = _sample_sizes(shard, columns, job.corpus.dtype, ids) + 4  # and an offset in the shard's head
        ends = np.concatenate([[0], np.cumsum(sizes)])
        for first, last in document_ranges(ends, SHARD_BYTES - 8 - len(config)):
            yield _joined(shard, columns, job.corpus.dtype, None if ids is None else ids[first:last], first, last)


def _ids(shard: PackShard) -> pa.LargeBinaryArray:
    path = documents_file(shard)
    assert path is not None
    column = pq.read_table(path, columns=["id"]).column("id").cast(pa.large_string()).cast(pa.large_binary())
    return pa.concat_arrays(column.chunks)


def _shape_widths(lengths: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Returns in how many bytes the length of an array is written."""
    return np.where(lengths < 1 << 8, 1, np.where(lengths < 1 << 16, 2, 4))


def _sample_sizes(
    shard: PackShard, columns: Columns, dtype: str, ids: pa.LargeBinaryArray | None
) -> npt.NDArray[np.int64]:
    """Returns the bytes of every document's sample."""
    lengths = shard.lengths.astype(np.int64)
    heads = 4 * len(columns) + (1 + _shape_widths(shard.lengths)) * (1 + ("loss_mask" in columns))
    values = lengths * (np.dtype(dtype).itemsize + ("loss_mask" in columns))
    return heads + values + (0 if ids is None else pc.binary_length(ids).to_numpy())


def _joined(
    shard: PackShard, columns: Columns, dtype: str, ids: pa.LargeBinaryArray | None, first: int, last: int
) -> tuple[npt.NDArray[np.int64], memoryview]:
    """Returns the samples of documents ``first`` to ``last``, one after the other, and their offsets."""
    lengths = shard.lengths[first:last].astype(np.int64)
    start, stop = int(shard.offsets[first]), int(shard.offsets[last])
    offsets = shard.offsets[first : last + 1] - start
    itemsize = np.dtype(dtype).itemsize
    shapes = _shapes(lengths)
    width = pc.binary_length(shapes).to_numpy()
    sizes, values = [], []
    for name in columns:
        if name == "id":
            sizes.append(pc.binary_length(ids).to_numpy())
            values.append(ids)
        elif name == "loss_mask":
            sizes.append(width + lengths)
            values += [shapes, _binary(mask_of(shard, start, stop), offsets)]
        else:
            sizes.append(width + lengths * itemsize)
            tokens = np.asarray(shard.tokens[start:stop]).astype(np.dtype(dtype).newbyteorder("<"), copy=False)
            values += [shapes, _binary(tokens, offsets * itemsize)]
    heads = np.stack(sizes, axis=1).astype("<u4")
    every = 4 * len(sizes)
    parts = [_binary(heads, np.arange(len(lengths) + 1) * every), *values]
    joined = pc.binary_join_element_wise(*parts, pa.scalar(b"", pa.large_binary()))
    _, ends, data = joined.buffers()
    return np.frombuffer(ends, np.int64, len(joined) + 1), memoryview(data)[
        : np.frombuffer(ends, np.int64)[len(joined)]
    ]


def _shapes(lengths: npt.NDArray[np.int64]) -> pa.LargeBinaryArray:
    """Returns how MDS writes the shape of one-dimensional arrays: ``1 << 2 | log2(width)``, then the length."""
    widths = _shape_widths(lengths.astype(np.int32))
    table = np.zeros((len(lengths), 5), np.uint8)
    table[:, 0] = 1 << 2 | np.log2(widths).astype(np.uint8)
    table[:, 1:] = lengths.astype("<u4")[:, None].view(np.uint8)
    used = np.arange(5) < 1 + widths[:, None]
    return _binary(table[used], np.concatenate([[0], np.cumsum(1 + widths)]))


def _binary(data: npt.NDArray[Any], offsets: npt.NDArray[np.int64]) -> pa.LargeBinaryArray:
    """Returns an Arrow array of byte strings over ``data``, without copying it."""
    buffers = [None, pa.py_buffer(np.ascontiguousarray(offsets, np.int64)), pa.py_buffer(np.ascontiguousarray(data))]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)


def point_at(job: Job) -> list[str]:
    length = job.options.sequence_length
    lines = ["# LLM-Foundry's train_loader" if length else "# Streaming; LLM-Foundry wants --sequence-length"]
    if length:
        lines += ["name: text", "dataset:", f"  max_seq_len: {length}", "  streams:"]
    else:
        lines += ["streams:"]
    indent = "    " if length else "  "
    for name, weight in job.corpus.weights().items():
        folder = job.output if job.corpus.alone else job.output / name
        lines += [f"{indent}{name}:", f"{indent}  local: {folder}", f"{indent}  proportion: {weight:.6g}"]
    return lines
