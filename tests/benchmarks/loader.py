"""Speed of reading packs with shuffle, mixture, sequence packing, document numbers and a resume halfway, on one core.

    python tests/benchmarks/loader.py [--data DIR] [--tokens 200] [--peers]

Packs of ``--tokens`` million random tokens in three domains are made in a temporary folder. Documents are as long as
those of DIR's ``domains/*.jsonl.gz`` (a token for four bytes), drawn with replacement; without DIR, lognormal around
400 tokens. Every packing reads as many tokens as there are, in batches of 32 rows of 2,048 + 1, in shares that are
not the natural ones; halfway the state goes through JSON into a fresh loader. With ``--peers``, the readers of other
trainers over the same tokens, in this process: Megatron-LM's blended GPT dataset (shuffle and mixture, concatenated),
datatrove's folder dataset (shuffle, no mixture) and LitData's token loader (shuffle within chunks, one domain, a
twentieth of the tokens). They hand out single rows without document numbers, and none was asked to resume.

Rates are tokens (padding not counted) per second of processor time of the whole process, threads included; medians of
three. The files were just written, so they come from memory: what is measured is the reader, not the disk. The last
line has ``key=value`` figures.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("NUMBA_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

LENGTH, BATCH, VOCAB = 2048, 32, 50_000
SHARES = {"books": 0.2, "code": 0.3, "web": 0.5}  # of what is read
PARTS = {"books": 0.1, "code": 0.2, "web": 0.7}  # of the tokens there are
SHARD_TOKENS = 25_000_000
EOS = 0


def document_lengths(data: Path | None, rng: np.random.Generator, num_tokens: int) -> np.ndarray[Any, Any]:
    if data is None:
        drawn = np.exp(rng.normal(6.0, 1.2, num_tokens // 300))
    else:
        found = []
        for path in sorted((data / "domains").glob("*.jsonl.gz")):
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                found += [len(json.loads(line)["text"].encode()) / 4 for line in lines]
        drawn = rng.choice(np.array(found), int(num_tokens / np.mean(found) * 1.5))
    lengths = np.clip(drawn, 2, 1_000_000).astype(np.int32)
    return lengths[: int(np.searchsorted(np.cumsum(lengths), num_tokens))]


def write_pack(
    folder: Path, domain: str, lengths: np.ndarray[Any, Any], rng: np.random.Generator, vocab_size: int = VOCAB
) -> None:
    from dataeng.formats.pack import PackManifest, Shard, ShardFile, idx_bytes, write_manifest

    folder.mkdir(parents=True)
    shards = []
    ends = np.cumsum(lengths)
    cuts = np.searchsorted(ends, np.arange(SHARD_TOKENS, int(ends[-1]), SHARD_TOKENS))
    for number, part in enumerate(np.split(lengths, cuts)):
        tokens = rng.integers(1, vocab_size, int(part.sum()), np.uint16)
        tokens[np.cumsum(part) - 1] = EOS
        tokens.tofile(folder / f"{number:05d}.bin")
        (folder / f"{number:05d}.idx").write_bytes(idx_bytes(part, "uint16"))
        files = {
            kind: ShardFile(
                name=f"{number:05d}.{kind}", size_bytes=(folder / f"{number:05d}.{kind}").stat().st_size, sha256="-"
            )
            for kind in ("bin", "idx")
        }
        shards.append(Shard(name=f"{number:05d}", num_documents=len(part), num_tokens=len(tokens), files=files))
    counts = {"num_documents": len(lengths), "num_tokens": int(ends[-1])}
    manifest = PackManifest(
        domain=domain, dtype="uint16", tokenizer_sha256="-", tokenizer="-", vocab_size=vocab_size, eos_id=EOS,
        text_bytes=4 * int(ends[-1]), shards=shards, **counts,
    )  # fmt: skip
    write_manifest(folder, manifest)


def write_mixture(folder: Path, data: Path | None, num_tokens: int) -> Path:
    from dataeng.formats.mixture import Domain, MixtureManifest, Policy, save_mixture

    rng = np.random.default_rng(0)
    domains = {}
    for name, part in PARTS.items():
        lengths = document_lengths(data, rng, int(part * num_tokens))
        write_pack(folder / name, name, lengths, rng)
        total = int(lengths.sum())
        domains[name] = Domain(packs=[name], num_documents=len(lengths), num_tokens=total, weight=SHARES[name])
    manifest = MixtureManifest(tokenizer_sha256="-", vocab_size=VOCAB, domains=domains, policy=Policy(name="given"))
    save_mixture(folder / "mix.json", manifest)
    return folder / "mix.json"


def ours(path: Path, packing: str, depth: int) -> tuple[float, float, float]:
    """Returns tokens read (padding apart), seconds for that, and seconds to open the packs and make the rows."""
    from dataeng.formats.mixture import load_mixture
    from trainer.data.loader import Loader
    from trainer.data.rows import MixtureRows

    manifest = load_mixture(path)
    start = time.process_time()
    rows = MixtureRows(manifest, path, LENGTH, packing)
    opened = time.process_time() - start
    num_steps = sum(domain.num_tokens for domain in manifest.domains.values()) // (BATCH * LENGTH)
    stages = rows.planned_stages(num_steps * BATCH)
    state: dict[str, Any] | None = None
    start = time.process_time()
    for first, last in ((0, num_steps // 2), (num_steps // 2, num_steps)):
        with Loader(rows.reader, rows.sampler(stages, 7), lambda step: BATCH, depth=depth) as loader:
            if state is not None:
                loader.load_state(json.loads(json.dumps(state)))
            for step in range(first, last):
                loader.next(step)
            state = loader.state()
    seconds = time.process_time() - start
    assert state is not None
    held = [(table.waste.num_slots - table.waste.padding) / table.waste.num_rows for table in rows.tables]
    return float(np.dot(state["drawn"], held)), seconds, opened


def megatron(path: Path, num_tokens: int) -> tuple[float, float, float]:
    """Megatron-LM's own blend of GPT datasets over the same files: shuffle, mixture, concatenation."""
    import torch.distributed
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.utils import get_blend_from_list

    class Tokenizer:  # what GPTDataset asks of one
        eod, pad, vocab_size, unique_identifiers = EOS, EOS, VOCAB, {"name": "none"}

    torch.distributed.init_process_group("gloo", init_method=f"file://{path.parent}/ranks", rank=0, world_size=1)
    blend = []
    for name, share in SHARES.items():
        shards = sorted((path.parent / name).glob("*.bin"))
        sizes = [shard.stat().st_size for shard in shards]
        for shard, size in zip(shards, sizes, strict=True):
            blend += [str(share * size / sum(sizes)), str(shard.with_suffix(""))]
    num_rows = num_tokens // LENGTH
    start = time.process_time()
    config = GPTDatasetConfig(
        random_seed=7, sequence_length=LENGTH, blend=get_blend_from_list(blend), split="1,0,0", tokenizer=Tokenizer(),
        reset_position_ids=False, reset_attention_mask=False, eod_mask_loss=False, create_attention_mask=False,
        path_to_cache=str(path.parent / "megatron"), mid_level_dataset_surplus=0.05,
    )  # fmt: skip
    dataset = BlendedMegatronDatasetBuilder(GPTDataset, [num_rows, 0, 0], lambda: True, config).build()[0]
    opened = time.process_time() - start
    start = time.process_time()
    for row in range(num_rows):
        dataset[row]
    return num_rows * (LENGTH + 1), time.process_time() - start, opened


def datatrove(path: Path, num_tokens: int) -> tuple[float, float, float]:
    """datatrove's folder dataset over the same tokens with its shuffle of rows, one domain after another."""
    from datatrove.utils.dataset import DatatroveFolderDataset

    folder = path.parent / "datatrove"
    folder.mkdir()
    for name in SHARES:
        for shard in sorted((path.parent / name).glob("*.bin")):
            (folder / f"{name}_{shard.stem}.ds").symlink_to(shard)
    start = time.process_time()
    dataset = DatatroveFolderDataset(str(folder), LENGTH, token_size=2, shuffle=True, seed=7)
    opened = time.process_time() - start
    start = time.process_time()
    num_rows = min(len(dataset), num_tokens // LENGTH)
    for row in range(num_rows):
        dataset[row]
    return num_rows * (LENGTH + 1), time.process_time() - start, opened


def litdata(path: Path, num_tokens: int) -> tuple[float, float, float]:
    """LitData's token loader over chunks of 64 MB of the same tokens, shuffled, one domain."""
    import torch
    from litdata import StreamingDataset, TokensLoader
    from litdata.streaming.writer import BinaryWriter

    tokens = torch.from_numpy(np.fromfile(next((path.parent / "web").glob("*.bin")), np.uint16).astype(np.int32))
    folder = path.parent / "litdata"
    writer = BinaryWriter(str(folder), chunk_bytes=1 << 26, item_loader=TokensLoader(LENGTH + 1))
    for index, part in enumerate(torch.split(tokens[:num_tokens], (LENGTH + 1) * 64)):
        writer[index] = part
    writer.done()
    writer.merge()
    start = time.process_time()
    dataset = StreamingDataset(str(folder), item_loader=TokensLoader(LENGTH + 1), shuffle=True, seed=7)
    opened = time.process_time() - start
    start = time.process_time()
    num_rows = sum(1 for _ in dataset)
    return num_rows * (LENGTH + 1), time.process_time() - start, opened


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tokens", type=float, default=200, help="millions")
    parser.add_argument("--peers", action="store_true")
    arguments = parser.parse_args()

    from dataeng.packing import prepare

    prepare()
    num_tokens = int(arguments.tokens * 1e6)
    figures: dict[str, float] = {}
    print(f"{'reader':34}{'M tokens/s':>12}{'M tokens':>10}{'opening, s':>12}")

    def show(name: str, key: str, results: list[tuple[float, float, float]]) -> None:
        rate = statistics.median(tokens / seconds for tokens, seconds, _ in results)
        figures[key] = rate
        opened = statistics.median(result[2] for result in results)
        print(f"{name:34}{rate / 1e6:>12.1f}{results[0][0] / 1e6:>10.1f}{opened:>12.2f}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        path = write_mixture(Path(folder), arguments.data, num_tokens)
        for packing in ("concatenate", "best-fit", "aligned"):
            key = f"{packing.replace('-', '_')}_tokens_per_second_per_core"
            show(f"ours, {packing}", key, [ours(path, packing, 0) for _ in range(3)])
        ahead = [ours(path, "best-fit", 2) for _ in range(3)]
        show("ours, best-fit, read ahead", "read_ahead_tokens_per_second_per_core", ahead)
        for peer, share in ((megatron, 1.0), (datatrove, 1.0), (litdata, 0.05)):
            if arguments.peers:
                show(
                    peer.__name__, f"{peer.__name__}_tokens_per_second_per_core", [peer(path, int(share * num_tokens))]
                )
    figures = {"tokens_per_second_per_core": min(list(figures.values())[:3]), **figures}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"The slowest packing counts. Load {os.getloadavg()[0]:.1f}, peak memory {peak:,.0f} MB")
    print(" ".join(f"{name}={value:.0f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
