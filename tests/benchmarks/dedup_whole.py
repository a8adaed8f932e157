"""Whole MinHash deduplication, documents in to deduplicated documents out, as programs; the second part of `dedup.py`.

Everybody reads Parquet files of pages made by `dedup_corpus` and writes Parquet files, with two workers; programs run
one after the other and are timed from outside with all their processes. 5-word shingles, 112 hashes in 14 bands of 8.

* dataeng: ``dataeng run`` of ``read_files -> deduplicate_minhash``, verified (threshold 0.7), with everything that a
  run does besides: documents written twice, evidence, checksums, statistics. Once more with ``threshold: null``, which
  verifies nothing, as the peers do.
* datatrove: its four jobs. rensa: its signatures and LSH, shingles in Python. See `dedup_peers`.
* text-dedup: ``python -m text_dedup.minhash``; its packages clash with others', so its interpreter is named by
  ``--text-dedup PYTHON`` or TEXT_DEDUP_PYTHON (python -m venv DIR; DIR/bin/pip install text-dedup==0.4.0).

The peers would take hours for what we are timed on, so they get a smaller corpus by the same generator, and what is
compared are seconds per MB, without start-up on either side: the seconds that a program takes for a corpus of one page
are taken off. `ratio_small_*` compare whole programs, start-up and all, on the small corpus.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.dedup_corpus import Corpus, write_corpus
from tests.benchmarks.end_to_end import Timing, adopt_orphans, run_timed

BANDS, ROWS, NGRAM = 14, 8, 5
PEERS = Path(__file__).with_name("dedup_peers.py")
FILE_BYTES = 64 << 20


class Measured(NamedTuple):
    """Medians of one program on one corpus."""

    wall: float
    cpu: float

    def minus(self, other: Measured) -> Measured:
        return Measured(self.wall - other.wall, self.cpu - other.cpu)

    def per(self, megabytes: float) -> Measured:
        return Measured(self.wall / megabytes, self.cpu / megabytes)


def median(timings: list[Timing]) -> Measured:
    return Measured(
        statistics.median(timing.wall_seconds for timing in timings),
        statistics.median(timing.cpu_seconds for timing in timings),
    )


def our_command(folder: Path, corpus: Path, workers: int, options: Mapping[str, Any], **top: Any) -> list[str]:
    """Returns the command that deduplicates a corpus into ``folder/run``."""
    stage = {"deduplicate_minhash": {"bands": BANDS, "rows": ROWS, "ngram": NGRAM, "seed": 1, **options}}
    pipeline = {
        "name": "dedup",
        "run": str(folder / "run"),
        "sources": [{"read_files": {"paths": [str(corpus / "*.parquet")]}}],
        "stages": [stage],
        **top,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pipeline.yaml").write_text(json.dumps(pipeline))  # JSON is YAML
    return [sys.executable, "-m", "dataeng", "run", str(folder / "pipeline.yaml"), "--workers", str(workers)]


def peer_command(peer: str, corpus: Path, output: Path, workers: int, text_dedup: str | None) -> list[str]:
    if peer != "text_dedup":
        given = {"input": corpus, "output": output, "workers": workers}
        return [
            sys.executable,
            str(PEERS),
            peer,
            *(word for key, value in given.items() for word in (f"--{key}", str(value))),
        ]
    assert text_dedup is not None
    given = {
        "path": "parquet", "data_files": f"{corpus}/*.parquet", "split": "train", "cache_dir": output / "cache",
        "output": output / "documents", "column": "text", "ngram": NGRAM, "num_perm": BANDS * ROWS, "b": BANDS,
        "r": ROWS, "batch_size": 10_000, "num_proc": workers,
    }  # fmt: skip
    options = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    return [text_dedup, "-m", "text_dedup.minhash", *options]


def time_program(command: list[str], output: Path, repeats: int) -> Measured:
    """Runs a program into an empty folder, ``repeats`` times."""
    timings = []
    for _ in range(repeats):
        shutil.rmtree(output, ignore_errors=True)
        timings.append(run_timed(command, {"HF_HOME": str(output / "huggingface"), "HF_HUB_OFFLINE": "1"}))
    return median(timings)


def measure_whole(
    data: Path,
    folder: Path,
    megabytes: float,
    peer_megabytes: float,
    workers: int,
    repeats: int,
    text_dedup: str | None,
) -> dict[str, float]:
    """Prints the table of whole programs; returns the figures of the last line."""
    adopt_orphans()
    size = int(megabytes * 1e6)
    large = write_corpus(data, folder / "large", size, files=max(2 * workers, size // FILE_BYTES))
    small = write_corpus(data, folder / "small", int(peer_megabytes * 1e6), files=workers)
    tiny = write_corpus(data, folder / "tiny", 1, files=1)
    ours = folder / "ours"

    def run_ours(corpus: str, **options: Any) -> Measured:
        return time_program(our_command(ours, folder / corpus, workers, options), ours / "run", repeats)

    run_timed(our_command(ours, folder / "tiny", workers, {}))  # kernels are compiled now if they were not
    runs = {"dataeng": run_ours("large"), "dataeng, not verified": run_ours("large", threshold=None)}
    runs["dataeng, small"], runs["dataeng, tiny"] = run_ours("small"), run_ours("tiny")
    peers = ["datatrove", "rensa", *(["text_dedup"] if text_dedup else [])]
    for peer in peers:
        for name in ("small", "tiny"):
            command = peer_command(peer, folder / name, folder / peer, workers, text_dedup)
            runs[f"{peer}, {name}"] = time_program(command, folder / peer, repeats)
    sizes = {"small": small, "tiny": tiny}
    print_runs(runs, {name: sizes.get(name.rpartition(", ")[2], large) for name in runs}, workers)
    return figures(runs, peers, large.num_bytes / 1e6, small.num_bytes / 1e6)


def print_runs(runs: Mapping[str, Measured], corpora: Mapping[str, Corpus], workers: int) -> None:
    heads = f"documents in, documents out, {workers} workers"
    print(f"\n{heads:44}{'pages':>9}{'MB':>9}{'wall s':>10}{'CPU s':>10}{'MB/s':>9}")
    for name, run in runs.items():
        corpus = corpora[name]
        size = corpus.num_bytes / 1e6
        print(f"{name:44}{corpus.num_documents:9,}{size:9.1f}{run.wall:10.2f}{run.cpu:10.2f}{size / run.wall:9.2f}")


def figures(runs: Mapping[str, Measured], peers: list[str], large: float, small: float) -> dict[str, float]:
    ours = runs["dataeng"].minus(runs["dataeng, tiny"]).per(large)
    found: dict[str, float] = {}
    for peer in peers:
        whole = runs[f"{peer}, small"]
        theirs = whole.minus(runs[f"{peer}, tiny"]).per(small)
        found[f"ratio_vs_{peer}"] = theirs.wall / ours.wall
        found[f"ratio_vs_{peer}_cpu"] = theirs.cpu / ours.cpu
        found[f"ratio_small_{peer}"] = whole.wall / runs["dataeng, small"].wall
    unverified = runs["dataeng, not verified"]
    found["verification_share"] = runs["dataeng"].wall / unverified.wall
    found["verification_share_cpu"] = runs["dataeng"].cpu / unverified.cpu
    found["ours_mb_s"], found["ours_mb_cpu_s"] = 1 / ours.wall, 1 / ours.cpu
    return found


def text_dedup_python() -> str | None:
    return os.environ.get("TEXT_DEDUP_PYTHON")
