"""Speed of tokenizing and packing on one thread, beside datatrove's tokenizer stage and the bare encoders.

    python tests/benchmarks/tokens.py --data DIR [--megabytes 32] [--repeats 5] [--tokenizer FILE] [--eos-token NAME]

DIR has ``domains/*.jsonl.gz`` with a key ``text``, and ``tokenizers/gpt-neox-20b/tokenizer.json``, the vocabulary
that all use unless another is given. Each measurement is a process of its own, so that no cache of words is warm, and
they take turns; imports are over, but nothing was encoded but a few words. Loading the tokenizer is not timed (that,
with the comparison of encoders, once per worker, is ``start``). Times are the processor's, medians of ``--repeats``
(one for what uses `tokenizers`, on ``--peer-megabytes``).

What is compared: `write_packs` with ``.bin``, ``.idx`` and ``.docs.parquet``; datatrove's `DocumentTokenizer` with its
index and without shuffling; `encode_batch_flat` of fastokens, which takes turns with `write_packs` in one process and
keeps nothing; `encode_batch_fast` of tokenizers. What encodes the same texts must give the same number of tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

SINGLE_THREADED = {
    "POLARS_MAX_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "FASTOKENS_BPE_THREADS": "1",
}
BATCH = 1000
KINDS = ("ours", "datatrove", "tokenizers", "ours_by_tokenizers", "start")
PEERS = ("datatrove", "tokenizers", "ours_by_tokenizers")


def ours(
    texts: list[str], tokenizer: Path, eos_token: str, folder: Path, encoder: str
) -> tuple[Callable[[], int], list[float]]:
    """Returns what packs all texts, and a list that it appends the seconds of the bare encoder to.

    The two take turns with every batch, each with a cache of words of its own: what else the machine does is the same
    for both.
    """
    import polars as pl

    from dataeng.engine.outputs import TaskOutputs
    from dataeng.stages.tokens.write_packs import WritePacks

    stage = WritePacks.model_validate(
        {"tokenizer": tokenizer, "eos_token": eos_token, "formats": ["megatron"], "encoder": encoder}
    )
    stage.setup({})
    frame = pl.DataFrame({"id": [str(i) for i in range(len(texts))], "text": texts}).with_columns(
        pl.lit("https://example.org/").alias("url"), pl.lit("web").alias("domain")
    )
    fast = bare([], tokenizer, "fastokens") if encoder == "auto" else None
    bare_seconds: list[float] = []

    def pack(part: int, frame: pl.DataFrame, texts: list[str]) -> list[dict[str, Any]]:
        outputs = TaskOutputs(folder)
        writer = stage.open(part, outputs)
        for first in range(0, frame.height, BATCH):
            if fast is not None:
                start = time.process_time()
                fast(texts[first : first + BATCH])
                bare_seconds.append(time.process_time() - start)
            writer.write(frame[first : first + BATCH])
        shards = writer.close()
        outputs.commit()
        return shards

    pack(1, frame[:1].with_columns(pl.lit("one two").alias("text")), ["one two"])
    bare_seconds.clear()

    def work() -> int:
        shards = pack(0, frame, texts)
        stage.finish(folder, shards)
        (shard,) = shards
        assert shard["encoding"]["encoder"] == ("tokenizers" if encoder == "tokenizers" else "fastokens"), shard
        return int(shard["shard"]["num_tokens"])

    return work, bare_seconds


def datatrove(texts: list[str], tokenizer: Path, eos_token: str, folder: Path) -> Callable[[], int]:
    from datatrove.data import Document
    from datatrove.pipeline.tokens.tokenizer import DocumentTokenizer

    step = DocumentTokenizer(str(folder), str(tokenizer), eos_token=eos_token, shuffle_documents=False)
    assert step.tokenizer is not None
    step.tokenizer.encode_batch(["one two"])
    documents = [Document(text=text, id=str(i)) for i, text in enumerate(texts)]

    def work() -> int:
        step.run(iter(documents))
        return int(step.stats["tokens"].total)

    return work


def bare(texts: list[str], tokenizer: Path, library: str) -> Callable[..., int]:
    """Returns what encodes a batch (without an argument: all texts) and counts tokens, with one EOS a text."""
    if library == "tokenizers":
        from tokenizers import Tokenizer

        reference = Tokenizer.from_file(str(tokenizer))
        reference.encode_special_tokens = True

        def encode(batch: list[str]) -> int:
            return sum(len(e.ids) + 1 for e in reference.encode_batch_fast(batch, add_special_tokens=False))

    else:
        from fastokens import Tokenizer as FastTokenizer

        fast = FastTokenizer.from_file(str(tokenizer))

        def encode(batch: list[str]) -> int:
            return len(fast.encode_batch_flat(batch, split_special_tokens=True)[0]) // 4 + len(batch)

    encode(["one two"])
    batches = [texts[i : i + BATCH] for i in range(0, len(texts), BATCH)]
    return lambda batch=None: sum(map(encode, batches)) if batch is None else encode(batch)


def start(tokenizer: Path) -> Callable[[], int]:
    """What a worker does before its first batch: reading the file and comparing the encoders."""
    from dataeng.stages.tokens.pack_tokenizer import load_tokenizer

    def work() -> int:
        assert load_tokenizer(tokenizer).encoder.name == "fastokens"
        return 0

    return work


def measure(kind: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Returns the seconds and the number of tokens of one measurement, in this process."""
    from tests.benchmarks.lines import read_texts

    megabytes = arguments.peer_megabytes if kind in PEERS else arguments.megabytes
    texts = read_texts(arguments.data, int(megabytes * 1e6))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bare_seconds: list[float] = []
        if kind.startswith("ours"):
            encoder = "tokenizers" if kind != "ours" else "auto"
            work, bare_seconds = ours(texts, arguments.tokenizer, arguments.eos_token, folder, encoder)
        elif kind == "datatrove":
            work = datatrove(texts, arguments.tokenizer, arguments.eos_token, folder)
        else:
            work = start(arguments.tokenizer) if kind == "start" else bare(texts, arguments.tokenizer, kind)
        begin = time.process_time()
        tokens = work()
        seconds = time.process_time() - begin - sum(bare_seconds)
    size = sum(len(text.encode()) for text in texts)
    return {"seconds": seconds, "tokens": tokens, "bytes": size, "bare_seconds": sum(bare_seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--megabytes", type=float, default=32)
    parser.add_argument("--peer-megabytes", type=float, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--eos-token", default="<|endoftext|>")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--measure", choices=KINDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.tokenizer = arguments.tokenizer or arguments.data / "tokenizers/gpt-neox-20b/tokenizer.json"
    if arguments.measure:
        sys.stdout.write(json.dumps(measure(arguments.measure, arguments)) + "\n")
        return
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in arguments.kinds}
    command = [sys.executable, "-m", "tests.benchmarks.tokens", *sys.argv[1:], "--measure"]
    environment = {**os.environ, **SINGLE_THREADED}
    for repeat in range(arguments.repeats):
        for kind in arguments.kinds:
            if repeat == 0 or kind not in PEERS:
                done = subprocess.run(
                    [*command, kind], env=environment, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, check=True
                )
                runs[kind].append(json.loads(done.stdout.splitlines()[-1]))
    counts = {kind: runs[kind][0]["tokens"] for kind in PEERS if kind in runs}
    assert len(set(counts.values())) <= 1, f"they disagree: {counts}"
    seconds = {kind: statistics.median(run["seconds"] for run in found) for kind, found in runs.items()}
    speeds = {kind: runs[kind][0]["bytes"] / 1e6 / seconds[kind] for kind in runs if kind != "start"}
    if "ours" in runs:
        speeds["fastokens"] = (
            runs["ours"][0]["bytes"] / 1e6 / statistics.median(r["bare_seconds"] for r in runs["ours"])
        )
    print("| | MB/s |\n|---|---|")
    for kind, speed in speeds.items():
        print(f"| {kind} | {speed:.1f} |")
    figures = {f"{kind}_mb_s": round(speed, 2) for kind, speed in speeds.items()}
    if "start" in seconds:
        figures["start_seconds"] = round(seconds["start"], 2)
    if {"ours", "datatrove"} <= speeds.keys():
        figures["ratio_vs_datatrove"] = round(speeds["ours"] / speeds["datatrove"], 1)
    if "ours" in runs:
        shares = [run["bare_seconds"] / run["seconds"] for run in runs["ours"]]
        figures["share_of_bare_encoder"] = round(statistics.median(shares), 3)
    print(" ".join(f"{name}={value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
