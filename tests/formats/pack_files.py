"""Writes packs token by token, for tests: every kind of file, masks, several shards."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataeng.formats.atomic import sha256_file
from dataeng.formats.megatron_index import idx_bytes
from dataeng.formats.pack import PackManifest, Shard, ShardFile, write_manifest

EOS = 0
BINARY = ("bin", "idx")
ALL = ("bin", "idx", "docs", "parquet")
HOSTS = ("a.example", "b.example", "www.a.example", "code.b.example")

Documents = Sequence[Sequence[int]]


def document_table(shard: int, documents: Documents) -> pa.Table:
    """Row i: a document with an id, URL and host that follow from its place."""
    places = [f"{shard}-{i}" for i in range(len(documents))]
    hosts = [HOSTS[(shard + i) % len(HOSTS)] for i in range(len(documents))]
    return pa.table(
        {
            "id": pa.array([hashlib.sha256(place.encode()).hexdigest()[:24] for place in places], pa.string()),
            "url": pa.array([f"https://{h}/{p}" for h, p in zip(hosts, places, strict=True)], pa.string()),
            "host": pa.array(hosts, pa.string()),
            "source": pa.array(["in.warc.gz"] * len(documents), pa.string()),
            "source_offset": pa.array(range(len(documents)), pa.int64()),
            "domain": pa.array(["web"] * len(documents), pa.string()),
            "language": pa.array(["en" if i % 2 else "de" for i in range(len(documents))], pa.string()),
            "num_tokens": pa.array([len(document) for document in documents], pa.int32()),
            "text_bytes": pa.array([10 * len(document) for document in documents], pa.int64()),
        }
    )


def list_column(lists: Sequence[Sequence[int]], dtype: str) -> pa.LargeListArray:
    values = np.array([value for one in lists for value in one], dtype)
    return pa.LargeListArray.from_arrays(np.cumsum([0, *map(len, lists)]), pa.array(values))


def parquet_bytes(table: pa.Table, rows_per_group: int = 2) -> bytes:
    sink = BytesIO()
    pq.write_table(table, sink, row_group_size=rows_per_group)
    return sink.getvalue()


def write_pack(
    folder: Path,
    shards: Sequence[Documents],
    dtype: str = "uint16",
    kinds: Sequence[str] = BINARY,
    masks: Sequence[Documents] | None = None,
    **changes: Any,
) -> PackManifest:
    """Writes a pack of the given documents; ``masks`` have the shape of ``shards``."""
    folder.mkdir(parents=True, exist_ok=True)
    described = []
    for number, documents in enumerate(shards):
        name = f"{number:05d}"
        lengths = np.array([len(document) for document in documents], np.int32)
        tokens = np.array([token for document in documents for token in document], dtype)
        table = document_table(number, documents)
        rows = table.append_column("tokens", list_column(documents, dtype))
        content = {"bin": tokens.tobytes(), "idx": idx_bytes(lengths, dtype), "docs": parquet_bytes(table, 1000)}
        if masks is not None:
            content["mask"] = bytes(value for mask in masks[number] for value in mask)
            rows = rows.append_column("mask", list_column(masks[number], "uint8"))
        content["parquet"] = parquet_bytes(rows)
        files = {}
        for kind in kinds:
            path = folder / (f"{name}.docs.parquet" if kind == "docs" else f"{name}.{kind}")
            path.write_bytes(content[kind])
            files[kind] = ShardFile(name=path.name, size_bytes=len(content[kind]), sha256=sha256_file(path))
        described.append(Shard(name=name, num_documents=len(lengths), num_tokens=len(tokens), files=files))
    value: dict[str, Any] = {
        "domain": "web",
        "dtype": dtype,
        "tokenizer_sha256": "0" * 64,
        "tokenizer": "../tokenizer.json",
        "vocab_size": 100,
        "eos_id": EOS,
        "num_documents": sum(shard.num_documents for shard in described),
        "num_tokens": sum(shard.num_tokens for shard in described),
        "text_bytes": 10 * sum(shard.num_tokens for shard in described),
        "shards": described,
    }
    manifest = PackManifest(**{**value, **changes})
    assert write_manifest(folder, manifest) == sha256_file(folder / "pack.json")
    return manifest
