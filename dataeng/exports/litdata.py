"""litData's token chunks, which `TokensLoader` (and LitGPT through it) reads.

Layout after ``litdata/streaming/writer.py`` and ``item_loader.py``: a chunk is ``u32 n``, ``u32[n + 1]`` offsets into
the file and the tokens; ``index.json`` lists the chunks with their tokens. An item is a document, or the part of one
that is in the chunk. `TokensLoader` cuts every chunk into blocks and leaves out what is over, so chunks are large: with
``--sequence-length N`` (the loader's ``block_size``) a multiple of N, and only the end of each shard is left out.

A loss mask is a second dataset, ``loss_mask``, of chunks with as many bytes as there are tokens: blocks of both agree.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from dataeng.exports.blocks import mask_blocks, token_blocks
from dataeng.exports.corpus import Domain
from dataeng.exports.layout import Job
from dataeng.exports.output import OutputFolder

CHUNK_TOKENS = 1 << 25
#: Numbers of the types in ``litdata/constants.py``, `_TORCH_DTYPES_MAPPING`.
TORCH_DTYPES = {"uint8": 11, "int32": 16, "uint16": 20}


def write(job: Job, domain: Domain, out: OutputFolder) -> int | None:
    length = job.options.sequence_length or 1
    chunk_tokens = max(CHUNK_TOKENS // length, 1) * length
    chunks = _write(domain, out, "", job.corpus.dtype, chunk_tokens)
    if job.masked:
        _write(domain, out, "loss_mask/", "uint8", chunk_tokens)
    return sum(chunk["dim"] // length for chunk in chunks) if job.options.sequence_length else None


def _write(domain: Domain, out: OutputFolder, folder: str, dtype: str, chunk_tokens: int) -> list[dict[str, Any]]:
    written = np.dtype(dtype).newbyteorder("<")
    chunks: list[dict[str, Any]] = []
    for shard in domain.shards():
        for start in range(0, len(shard.tokens), chunk_tokens):
            stop = min(start + chunk_tokens, len(shard.tokens))
            bounds = _item_bounds(shard.offsets, start, stop) * written.itemsize
            head = 4 * (1 + len(bounds))
            name = f"chunk-0-{len(chunks)}.bin"
            with out.create(f"{folder}{name}") as file:
                file.write(np.array([len(bounds) - 1], "<u4"))
                file.write((bounds + head).astype("<u4"))
                for block in (mask_blocks if folder else token_blocks)(shard, start, stop):
                    file.write(block.astype(written, copy=False))
            chunks.append(
                {
                    "chunk_bytes": head + int(bounds[-1]),
                    "chunk_size": len(bounds) - 1,
                    "dim": stop - start,
                    "filename": name,
                }
            )
    out.write(f"{folder}index.json", json.dumps({"chunks": chunks, "config": _config(dtype)}, sort_keys=True).encode())
    return chunks


def _item_bounds(offsets: npt.NDArray[np.int64], start: int, stop: int) -> npt.NDArray[np.int64]:
    """Returns where the documents between two tokens begin and end, cut at both, relative to ``start``."""
    inside = offsets[np.searchsorted(offsets, start, side="right") : np.searchsorted(offsets, stop, side="left")]
    return np.concatenate([[start], inside, [stop]]) - start


def _config(dtype: str) -> dict[str, Any]:
    return {
        "chunk_bytes": None,
        "chunk_size": CHUNK_TOKENS,
        "compression": None,
        "data_format": [f"no_header_tensor:{TORCH_DTYPES[dtype]}"],
        "data_spec": json.dumps([1, {"type": None, "context": None, "children_spec": []}]),
        "encryption": None,
        "item_loader": "TokensLoader",
    }


def point_at(job: Job) -> list[str]:
    block = job.options.sequence_length or "BLOCK_SIZE"
    weights = job.corpus.weights()
    folders = [str(job.output if job.corpus.alone else job.output / name) for name in weights]
    loader = f"item_loader=TokensLoader(block_size={block})"
    lines = ["# litData", f"parts = [StreamingDataset(folder, {loader}) for folder in {folders}]"]
    listed = ", ".join(f"{weight:.6g}" for weight in weights.values())
    combined = f"weights=[{listed}], seed=42, iterate_over_all=False)"
    if len(weights) > 1:
        lines.append(f"dataset = CombinedStreamingDataset(parts, {combined}")
    if job.masked:
        lines.append(f"masks = [StreamingDataset(f'{{folder}}/loss_mask', {loader}) for folder in {folders}]")
        lines += (
            # litData combines streaming datasets only: two combinations of one seed take the same turns.
            [f"masks = CombinedStreamingDataset(masks, {combined}", "dataset = zip(dataset, masks)"]
            if len(weights) > 1
            else ["dataset = ParallelStreamingDataset([*parts, *masks])"]
        )
    return lines
