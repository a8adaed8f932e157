"""Reading, verifying and taking documents out of packs: what each costs per token and per byte, in CPU time.

Makes packs of random tokens (documents of about 800 tokens, row groups of 1,000 documents), so the figures are about
files and not about text. Windows at random are what a loader reads for shuffled rows; no decoded row group is kept
then. Reading is the median of three.

    python tests/benchmarks/packs.py [--tokens 20000000]
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from dataeng.formats.atomic import sha256_file
from dataeng.formats.megatron_index import idx_bytes, token_offsets
from dataeng.formats.pack import Pack, PackManifest, PackShard, Shard, ShardFile, write_manifest
from dataeng.formats.pack_removal import apply_removal, plan_removal, remove_leftovers
from dataeng.formats.pack_verification import verify_pack
from dataeng.formats.parquet_tokens import CACHE_BYTES, GroupCache
from dataeng.formats.removal_list import RemovalList, removal_list

WINDOW = 4097
EOS = 0


def make_pack(folder: Path, num_tokens: int, kinds: tuple[str, ...]) -> int:
    """Writes a pack of one shard; returns its documents."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.geometric(1 / 800, num_tokens // 800), 1, 20_000).astype(np.int32)
    offsets = token_offsets(lengths)
    tokens = draw.integers(1, 50_000, int(offsets[-1])).astype("<u2")
    tokens[offsets[1:] - 1] = EOS
    ids = [hashlib.blake2b(str(i).encode(), digest_size=12).hexdigest() for i in range(len(lengths))]
    rows = pa.table({"id": ids, "num_tokens": lengths, "text_bytes": lengths.astype(np.int64) * 4})
    if "bin" in kinds:
        (folder / "00000.bin").write_bytes(tokens.tobytes())
        (folder / "00000.idx").write_bytes(idx_bytes(lengths, "uint16"))
    if "parquet" in kinds:
        lists = pa.LargeListArray.from_arrays(offsets, pa.array(tokens))
        options = {"compression": "zstd", "compression_level": 1, "use_dictionary": False}
        pq.write_table(rows.append_column("tokens", lists), folder / "00000.parquet", row_group_size=1000, **options)
    pq.write_table(rows, folder / "00000.docs.parquet")
    names = {"docs": "00000.docs.parquet", **{kind: f"00000.{kind}" for kind in kinds}}
    files = {
        kind: ShardFile(name=name, size_bytes=(folder / name).stat().st_size, sha256=sha256_file(folder / name))
        for kind, name in names.items()
    }
    counts = {"num_documents": len(lengths), "num_tokens": len(tokens)}
    shard = Shard(name="00000", files=files, **counts)
    manifest = PackManifest(
        domain="web", dtype="uint16", tokenizer_sha256="0" * 64, tokenizer="../tokenizer.json", vocab_size=50_000,
        eos_id=EOS, text_bytes=4 * len(tokens), shards=[shard], **counts,
    )  # fmt: skip
    write_manifest(folder, manifest)
    return len(lengths)


def cpu_seconds(work: Callable[[], object]) -> float:
    """Returns the CPU time of this process and its threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


def read_windows(shard: PackShard, starts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> int:
    """Copies windows, as a loader does; returns a sum, so that nothing is left out."""
    tokens = shard.tokens
    return sum(int(np.array(tokens[start : start + WINDOW])[0]) for start in starts.tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=20_000_000)
    parser.add_argument("--data", type=Path, help="not used: tokens are drawn")
    given = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        for kind, kinds in (("binary", ("bin", "idx")), ("parquet", ("parquet",))):
            folder = Path(name) / kind
            num_documents = make_pack(folder, given.tokens, kinds)
            pack = Pack(folder)
            total = pack.manifest.num_tokens
            num_bytes = sum(file.size_bytes for file in pack.shards[0].shard.files.values())
            in_order = np.arange(0, total - WINDOW, WINDOW, dtype=np.int64)
            at_random = np.random.default_rng(1).permutation(in_order)[:300]
            for order, starts, cache_bytes in (("in_order", in_order, CACHE_BYTES), ("random", at_random, 0)):
                shards = [PackShard(folder, pack.shards[0].shard, "uint16", GroupCache(cache_bytes)) for _ in range(3)]
                seconds = median(cpu_seconds(lambda s=shard, w=starts: read_windows(s, w)) for shard in shards)
                figures[f"{kind}_{order}_mtokens_per_s"] = len(starts) * WINDOW / seconds / 1e6
            problems: list[str] = []
            seconds = cpu_seconds(lambda folder=folder, found=problems: found.extend(verify_pack(folder)))
            assert problems == [], problems
            figures[f"{kind}_verify_mb_per_s"] = num_bytes / seconds / 1e6
            ids = [hashlib.blake2b(str(i).encode(), digest_size=12).hexdigest() for i in range(0, num_documents, 100)]
            wanted = removal_list(ids, [], "", "now")

            def remove(folder: Path = folder, wanted: RemovalList = wanted) -> None:
                apply_removal(plan_removal(folder, wanted), "now")
                remove_leftovers(folder)

            figures[f"{kind}_remove_mtokens_per_s"] = total / cpu_seconds(remove) / 1e6
            assert Pack(folder).manifest.num_documents == num_documents - len(ids)
    table = Table(title=f"{given.tokens:,} tokens, windows of {WINDOW}; per second of CPU", title_justify="left")
    for column in ("pack", "windows in order", "windows at random", "verify", "remove 1 % of documents"):
        table.add_column(column, justify="right")
    for kind in ("binary", "parquet"):
        table.add_row(
            kind,
            f"{figures[f'{kind}_in_order_mtokens_per_s']:,.0f} Mtokens",
            f"{figures[f'{kind}_random_mtokens_per_s']:,.1f} Mtokens",
            f"{figures[f'{kind}_verify_mb_per_s']:,.0f} MB",
            f"{figures[f'{kind}_remove_mtokens_per_s']:,.0f} Mtokens",
        )
    Console().print(table)
    print(" ".join(f"{key}={value:.4g}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
