"""Speed and memory of `deduplicate_substrings`, beside a suffix array of the same texts.

    python tests/benchmarks/substrings.py --data DIR [--megabytes 8]

DIR has ``domains/*.jsonl.gz`` with a key ``text``. First the step that reads all text (`emit`), on one thread; beside
it libdivsufsort's suffix array with Kasai's longest common prefixes (pydivsufsort), which is what deciding on repeated
substrings needs at the least, all in memory. Then whole runs in one process: the texts once, four times as many, and
as many again with one text in place of every second one; the memory is the process' peak. Copies are told apart
by a word every few words, so that they are not repeats. Times are the processor's and, of whole runs, include
starting; the last line has ``key=value`` figures in MB of UTF-8 text per second and MB.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "1")

PIPELINE = """
name: substrings
worker_memory_mb: 512
run: {run}
sources:
  - read_files: {{paths: ["{texts}/*.jsonl"]}}
stages:
  - deduplicate_substrings: {{{option}}}
"""


def emit_speed(texts: list[str], **options: int) -> float:
    import polars as pl

    from dataeng.stages.dedup.deduplicate_substrings import DeduplicateSubstrings

    stage = DeduplicateSubstrings(partitions=16, **options)  # type: ignore[arg-type]
    frame = pl.DataFrame({"text": texts}).with_columns(
        pl.lit(0, dtype=pl.UInt32).alias("part"), pl.int_range(pl.len(), dtype=pl.UInt32).alias("row")
    )
    stage.emit(frame[:10])
    start = time.process_time()
    for batch in frame.iter_slices(1000):
        stage.emit(batch)
    return size_of(texts) / (time.process_time() - start)


def suffix_array_speed(texts: list[str]) -> float:
    import numpy as np
    from pydivsufsort import divsufsort, kasai

    corpus = np.frombuffer("\0".join(texts).encode(), np.uint8).copy()
    start = time.process_time()
    kasai(corpus, divsufsort(corpus))
    return size_of(texts) / (time.process_time() - start)


def size_of(texts: list[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


def copies(texts: list[str], number: int, every: int = 6) -> Iterator[str]:
    """Yields texts with a word of their copy put in after every few words."""
    for text in texts:
        words = iter(re.split(r"(\s+)", text))
        pieces = [word + (f" c{number}x{i} " if i % (2 * every) == 0 else "") for i, word in enumerate(words)]
        yield "".join(pieces)


def whole_run(folder: Path, files: list[list[str]], option: str) -> tuple[float, float, float]:
    """Returns MB of text per second of processor time, the process' peak in MB, and MB sent between steps."""
    folder.mkdir()
    for number, texts in enumerate(files):
        lines = (json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"{number:03d}.jsonl").write_text("".join(lines))
    pipeline = folder / "pipeline.yaml"
    pipeline.write_text(PIPELINE.format(run=folder / "run", texts=folder, option=option))
    program = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3)\n"
    )
    command = [sys.executable, "-m", "dataeng", "run", str(pipeline), "--scheduler", "inline"]
    done = subprocess.run([sys.executable, "-c", program, *command], check=True, capture_output=True, text=True)
    seconds, peak = map(float, done.stdout.split()[-2:])
    sent = sum(path.stat().st_size for path in (folder / "run" / "exchange").rglob("*.parquet"))
    return sum(map(size_of, files)) / seconds, peak, sent / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--megabytes", type=float, default=8)
    arguments = parser.parse_args()

    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.benchmarks.lines import read_texts

    texts = read_texts(arguments.data, int(arguments.megabytes * 1e6))
    figures = {
        "emit_words": emit_speed(texts, min_words=50),
        "emit_bytes": emit_speed(texts, min_bytes=200),
        "suffix_array": suffix_array_speed(texts),
    }
    print(f"{size_of(texts):.1f} MB of text, {len(texts):,} documents; {os.cpu_count()} processors")
    print(f"{'emit, 50 words':<40}{figures['emit_words']:>10.1f} MB/s")
    print(f"{'emit, 200 bytes':<40}{figures['emit_bytes']:>10.1f} MB/s")
    print(f"{'suffix array + LCP (libdivsufsort)':<40}{figures['suffix_array']:>10.1f} MB/s")
    grown = [list(copies(texts, number)) for number in range(4)]
    same = [[texts[0] if i % 2 else text for i, text in enumerate(some)] for some in grown]
    cases = {"x1": grown[:1], "x4": grown, "half_same": same}
    print(f"{'whole run, one process':<30}{'MB':>10}{'MB/s':>10}{'peak MB':>10}{'sent MB':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for name, files in cases.items():
            for kind, option in (("words", "min_words: 50"), ("bytes", "min_bytes: 200")):
                speed, peak, sent = whole_run(Path(folder) / f"{name}-{kind}", files, option)
                figures |= {f"run_{name}_{kind}": speed, f"peak_mb_{name}_{kind}": peak}
                size = sum(map(size_of, files))
                print(f"{name + ', ' + kind:<30}{size:>10.1f}{speed:>10.1f}{peak:>10.0f}{sent:>10.1f}")
    print(" ".join(f"{name}={value:.2f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
