"""One peer's whole MinHash deduplication as a program: Parquet files of documents in, Parquet files of documents out.

    python tests/benchmarks/dedup_peers.py {datatrove,rensa} --input DIR --output DIR [--workers N]

Both make 112 hashes in 14 bands of 8 over 5-word shingles, neither verifies candidates. Run by `dedup.py`, which times
it from outside; text-dedup is a program itself and is called as its documentation says.
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path

import pyarrow.parquet as pq

BANDS, ROWS, NGRAM, SEED = 14, 8, 5, 1


def run_datatrove(source: Path, output: Path, workers: int) -> None:
    """datatrove's four jobs with its defaults, as its example ``minhash_deduplication.py`` chains them."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter

    config = MinhashConfig(n_grams=NGRAM, num_buckets=BANDS, hashes_per_bucket=ROWS)
    tasks = len(list(source.glob("*.parquet")))
    signatures, buckets, removed = (str(output / name) for name in ("signatures", "buckets", "remove_ids"))
    jobs = [
        (tasks, [ParquetReader(str(source)), MinhashDedupSignature(signatures, config=config)]),
        (BANDS, [MinhashDedupBuckets(signatures, buckets, config=config)]),
        (1, [MinhashDedupCluster(buckets, removed, config=config)]),
        (tasks, [ParquetReader(str(source)), MinhashDedupFilter(removed), ParquetWriter(str(output / "documents"))]),
    ]
    for number, (num_tasks, steps) in enumerate(jobs):
        LocalPipelineExecutor(
            steps,
            tasks=num_tasks,
            workers=min(workers, num_tasks),
            start_method="fork",
            logging_dir=str(output / "logs" / str(number)),
        ).run()


def _shingles(text: str) -> list[str]:
    words = text.lower().split()
    return [" ".join(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]


def _sign_file(file: Path) -> list[object]:
    from rensa import RMinHash

    texts = pq.read_table(file, columns=["text"]).column("text").to_pylist()
    signed: list[object] = RMinHash.from_token_sets(map(_shingles, texts), BANDS * ROWS, SEED)
    return signed


def run_rensa(source: Path, output: Path, workers: int) -> None:
    """rensa's signatures, a worker a file, its LSH in one process, and a document stays if no earlier one is found.

    Shingles are made in Python, as rensa leaves that to its caller.
    """
    from rensa import RMinHashLSH

    files = sorted(source.glob("*.parquet"))
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        signed = pool.map(_sign_file, files, chunksize=1)
    index = RMinHashLSH(threshold=0.7, num_perm=BANDS * ROWS, num_bands=BANDS)
    first = 0
    for part in signed:
        index.insert_many(part, first)
        first += len(part)
    output.mkdir(parents=True)
    first = 0
    for file, part in zip(files, signed, strict=True):
        kept = [min(found, default=first + row) >= first + row for row, found in enumerate(index.query_all(part))]
        first += len(part)
        pq.write_table(pq.read_table(file).filter(kept), output / file.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=("datatrove", "rensa"))
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    run = run_datatrove if arguments.peer == "datatrove" else run_rensa
    run(arguments.input.resolve(), arguments.output.resolve(), arguments.workers)


if __name__ == "__main__":
    main()
