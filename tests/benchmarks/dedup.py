"""Deduplication against other libraries: MinHash signatures from text, and whole programs (see `dedup_whole`).

    python tests/benchmarks/dedup.py [--data DIR] [--only signatures|whole] [--megabytes N] [--text-dedup PYTHON]

Signatures are measured in MB of UTF-8 text a second of one thread.
DIR is a folder in the layout of the test data (default: environment variable DATAENG_TEST_DATA); the texts are those of
``domains/*.jsonl.gz``, for the peers an even sample of them. All sides make signatures of 112 permutations (14 bands of
8 rows) of 5-word shingles, from the text. One thread each; figures are medians of seconds of CPU of that thread, since
other work on the machine would change seconds of the clock.

* ours: `minhash` on the whole column, and what verification needs, `shingle_sets`; datasketch's signatures by ours.
* datatrove: what `MinhashDedupSignature.run` does for each document, `get_shingles` and `get_signature`, with its
  default configuration, writing left out. Once.
* rensa: ``RMinHash.digest_matrix_from_token_sets`` on shingles made in Python, of ``text.lower().split()``: less
  normalisation than the others do.
* datasketch: ``MinHash.update_batch`` of the same shingles.

datatrove and rensa come with the extra ``benchmark``, datasketch with ``test``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.dedup_whole import BANDS, NGRAM, ROWS, measure_whole, text_dedup_python

REPEATS = 7


def read_domains(data: Path) -> list[str]:
    texts: list[str] = []
    for path in sorted((data / "domains").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["text"] for line in lines]
    return texts


def sample(texts: Sequence[str], megabytes: float) -> list[str]:
    """Returns every so many-th text, of about ``megabytes``."""
    return list(texts[:: max(1, round(num_megabytes(texts) / megabytes))])


def num_megabytes(texts: Sequence[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


def cpu_seconds(action: Callable[[], object], repeats: int = REPEATS) -> float:
    """Returns the median of the CPU seconds of this thread."""
    found = []
    for _ in range(repeats):
        started = time.thread_time()
        action()
        found.append(time.thread_time() - started)
    return statistics.median(found)


def python_shingles(text: str) -> list[str]:
    words = text.lower().split()
    return [" ".join(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]


def our_signatures(texts: Sequence[str]) -> dict[str, Callable[[], object]]:
    from dataeng.kernels.datasketch_signatures import datasketch_minhash, datasketch_permutations
    from dataeng.kernels.minhash import minhash, permutations
    from dataeng.kernels.shingle_sets import jaccard, shingle_sets
    from dataeng.kernels.text import text_buffers

    column = pl.Series(texts)
    narrow, wide = permutations(BANDS * ROWS), permutations(BANDS * ROWS, bits=64)
    like_datasketch = datasketch_permutations(BANDS * ROWS)
    sets = shingle_sets(text_buffers(column), ngram=NGRAM)
    return {
        "dataeng": lambda: minhash(text_buffers(column), narrow, ngram=NGRAM),
        "dataeng, 64 bits": lambda: minhash(text_buffers(column), wide, ngram=NGRAM),
        "dataeng, shingle sets": lambda: shingle_sets(text_buffers(column), ngram=NGRAM),
        "dataeng, Jaccard of a pair of equals for each text": lambda: jaccard(sets, sets),
        "dataeng, as datasketch": lambda: datasketch_minhash(text_buffers(column), like_datasketch, ngram=NGRAM),
    }


def datatrove_signatures(texts: Sequence[str], folder: str) -> Callable[[], object]:
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

    config = MinhashConfig(n_grams=NGRAM, num_buckets=BANDS, hashes_per_bucket=ROWS)
    step = MinhashDedupSignature(folder, config=config)

    def sign(text: str) -> Any:
        shingles = step.get_shingles(text)
        return step.get_signature(shingles) if shingles.size else None

    sign("The tokenizer is loaded with the first of the texts.")
    return lambda: [sign(text) for text in texts]


def rensa_signatures(texts: Sequence[str]) -> Callable[[], object]:
    from rensa import RMinHash

    return lambda: RMinHash.digest_matrix_from_token_sets(map(python_shingles, texts), BANDS * ROWS, 1)


def datasketch_signatures(texts: Sequence[str]) -> Callable[[], object]:
    from datasketch import MinHash

    def encoded() -> list[list[bytes]]:
        return [[shingle.encode() for shingle in python_shingles(text)] for text in texts]

    return lambda: MinHash.bulk(encoded(), num_perm=BANDS * ROWS)


def measure_signatures(texts: Sequence[str], megabytes: float) -> dict[str, float]:
    """Prints the table of signatures; returns the figures of the last line."""
    some = sample(texts, megabytes)
    speeds = {}
    for name, action in our_signatures(texts).items():
        action()
        speeds[name] = num_megabytes(texts) / cpu_seconds(action)
    with tempfile.TemporaryDirectory() as folder:
        speeds["datatrove"] = num_megabytes(some) / cpu_seconds(datatrove_signatures(some, folder), 1)
    speeds["rensa"] = num_megabytes(some) / cpu_seconds(rensa_signatures(some))
    speeds["datasketch"] = num_megabytes(some) / cpu_seconds(datasketch_signatures(some), 1)
    print(f"\n{'signatures of 112 permutations, 5-word shingles':56}{'MB/s':>10}{'dataeng is':>14}")
    for name, speed in speeds.items():
        ratio = "" if name.startswith("dataeng") else f"{speeds['dataeng'] / speed:11.1f} x"
        print(f"{name:56}{speed:10.2f}{ratio:>14}")
    return {
        "signature_ratio_vs_datatrove": speeds["dataeng"] / speeds["datatrove"],
        "signature_ratio_vs_rensa": speeds["dataeng"] / speeds["rensa"],
        "signature_mb_s": speeds["dataeng"],
        "shingle_sets_mb_s": speeds["dataeng, shingle sets"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("DATAENG_TEST_DATA"))
    parser.add_argument("--megabytes", type=float, default=2.0, help="text that the peers sign")
    parser.add_argument("--only", choices=("signatures", "whole"))
    parser.add_argument("--whole-megabytes", type=float, default=320, help="text that we deduplicate")
    parser.add_argument("--peer-megabytes", type=float, default=8, help="text that the peers deduplicate")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--text-dedup", default=text_dedup_python(), help="a Python that has text-dedup")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data or DATAENG_TEST_DATA: a folder in the layout of the test data")
    data, figures = Path(arguments.data), {}
    print(f"load {os.getloadavg()[0]:.1f}")
    if arguments.only != "whole":
        texts = read_domains(data)
        print(f"{len(texts)} documents, {num_megabytes(texts):.1f} MB")
        figures.update(measure_signatures(texts, arguments.megabytes))
    if arguments.only != "signatures":
        with tempfile.TemporaryDirectory(prefix="dedup-") as folder:
            sizes = arguments.whole_megabytes, arguments.peer_megabytes
            measured = measure_whole(
                data, Path(folder), *sizes, arguments.workers, arguments.repeats, arguments.text_dedup
            )
        figures.update(measured)
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")
    print(" ".join(f"{name}={value:.2f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
