"""Tiny packs with real bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dataeng.formats.atomic import sha256_file
from dataeng.formats.pack import PackManifest, Shard, ShardFile, idx_bytes, write_manifest

WritePack = Callable[..., Path]


@pytest.fixture
def write_pack(tmp_path: Path) -> WritePack:
    """Returns ``write_pack(name, lengths, domain=…, tokenizer=…)``: a pack folder of documents of such lengths."""

    def write(name: str, lengths: list[int], domain: str | None = None, tokenizer: str = "t" * 64) -> Path:
        folder = tmp_path / "packs" / name
        folder.mkdir(parents=True)
        (folder / "00000.bin").write_bytes(np.ones(sum(lengths), "<u2").tobytes())
        (folder / "00000.idx").write_bytes(idx_bytes(np.array(lengths, np.int32), "uint16"))
        files = {
            kind: ShardFile(name=path.name, size_bytes=path.stat().st_size, sha256=sha256_file(path))
            for kind in ("bin", "idx")
            for path in [folder / f"00000.{kind}"]
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

    return write
