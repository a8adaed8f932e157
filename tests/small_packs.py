"""Tiny packs with real bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataeng.formats.atomic import sha256_file
from dataeng.formats.pack import PackManifest, Shard, ShardFile, idx_bytes, write_manifest


def write_pack(
    root: Path,
    name: str,
    lengths: list[int],
    domain: str | None = None,
    tokenizer: str = "t" * 64,
    docs: dict[str, list[Any]] | None = None,
    masked: bool = False,
) -> Path:
    """Writes a pack of documents of such lengths to ``root/packs/name`` and returns its folder.

    Tokens count from 0; each document ends where its length says, whatever its last token. ``docs`` are the columns of
    docs.parquet besides num_tokens; without them there is none. ``masked``: every third token is no label.
    """
    folder = root / "packs" / name
    folder.mkdir(parents=True)
    (folder / "00000.bin").write_bytes((np.arange(sum(lengths)) % 100).astype("<u2").tobytes())
    (folder / "00000.idx").write_bytes(idx_bytes(np.array(lengths, np.int32), "uint16"))
    names = {"bin": "00000.bin", "idx": "00000.idx"}
    if masked:
        names["mask"] = "00000.mask"
        (folder / names["mask"]).write_bytes((np.arange(sum(lengths)) % 3 != 0).astype(np.uint8).tobytes())
    if docs is not None:
        names["docs"] = "00000.docs.parquet"
        pq.write_table(pa.table({"num_tokens": pa.array(lengths, pa.int32()), **docs}), folder / names["docs"])
    files = {
        kind: ShardFile(name=path.name, size_bytes=path.stat().st_size, sha256=sha256_file(path))
        for kind, file in names.items()
        for path in [folder / file]
    }
    counts = {"num_documents": len(lengths), "num_tokens": sum(lengths)}
    manifest = PackManifest(
        domain=domain or name,
        dtype="uint16",
        tokenizer_sha256=tokenizer,
        tokenizer="../tokenizer.json",
        vocab_size=100,
        eos_id=0,
        text_bytes=4 * sum(lengths),
        shards=[Shard(name="00000", files=files, **counts)],
        **counts,
    )
    write_manifest(folder, manifest)
    return folder
