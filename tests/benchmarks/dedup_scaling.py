"""MinHash deduplication as the corpus grows: peak memory of workers under a bound, time, and what goes over disk.

    python tests/benchmarks/dedup_scaling.py [--data DIR] [--megabytes N] [--memory-mb N] [--workers N]

Pages are made by `dedup_corpus`: a corpus of N MB, one ten times as large, and one that is as large as that in which
half of all pages are one form letter with a few words changed, so that half the corpus shares its buckets. Each is
deduplicated by ``dataeng run`` (verified, threshold 0.7) with ``worker_memory_mb``. The peak is the largest VmHWM
(Linux: most resident memory so far) that any worker process ever shows; the driver's is reported beside it. Time is
that of the whole program, also as seconds of CPU, the steadier figure on a machine with other work.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.dedup_corpus import write_corpus
from tests.benchmarks.dedup_whole import our_command
from tests.benchmarks.end_to_end import adopt_orphans, run_timed

SAMPLE_SECONDS = 0.1


class PeakWatch(threading.Thread):
    """Notes the largest VmHWM of the processes below this one, by whether they are the driver or below it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.driver_mb = self.worker_mb = 0.0
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self._sample()

    def end(self) -> None:
        self._ended.set()
        self.join()

    def _sample(self) -> None:
        status = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    lines = (folder / "status").read_text().splitlines()
                except OSError:  # it has ended
                    continue
                fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
                if "VmHWM" in fields:
                    status[int(folder.name)] = int(fields["PPid"]), int(fields["VmHWM"].split()[0]) / 1024
        for parent, peak in status.values():
            if parent == os.getpid():
                self.driver_mb = max(self.driver_mb, peak)
                continue
            while parent in status and parent != os.getpid():
                parent = status[parent][0]
            if parent == os.getpid():
                self.worker_mb = max(self.worker_mb, peak)


@dataclass(frozen=True)
class Measured:
    """One run."""

    documents: int
    megabytes: float
    partitions: int
    wall: float
    cpu: float
    worker_mb: float
    driver_mb: float
    steps: list[tuple[str, int, int, float, float]]
    """Of every phase: its name, files, rows and MB of its side tables, seconds of its tasks."""
    removed: int


def measure(data: Path, folder: Path, num_bytes: int, skewed: bool, memory_mb: int, workers: int) -> Measured:
    corpus = write_corpus(data, folder / "corpus", num_bytes, files=2 * workers, skewed=skewed)
    watch = PeakWatch()
    watch.start()
    timing = run_timed(our_command(folder, folder / "corpus", workers, {}, worker_memory_mb=memory_mb))
    watch.end()
    run_dir = folder / "run"
    steps = exchange_tables(run_dir)
    resolved = json.loads((run_dir / "run.json").read_text())
    partitions = resolved["pipeline"]["stages"][0]["deduplicate_minhash"]["partitions"]
    removed = next((rows for name, _, rows, _, _ in steps if name.endswith(".choose")), 0)
    shutil.rmtree(folder)
    return Measured(
        corpus.num_documents, corpus.num_bytes / 1e6, partitions, timing.wall_seconds, timing.cpu_seconds,
        watch.worker_mb, watch.driver_mb, steps, removed,
    )  # fmt: skip


def exchange_tables(run_dir: Path) -> list[tuple[str, int, int, float, float]]:
    """Returns what the records of all phases say about side tables."""
    steps = []
    for phase in json.loads((run_dir / "run.json").read_text())["phases"]:
        records = [json.loads(file.read_text()) for file in (run_dir / "phases" / phase["name"]).glob("task-*.json")]
        files = [file for record in records for file in record["files"] if file["kind"] == "exchange"]
        rows, size = sum(file["num_rows"] for file in files), sum(file["size_bytes"] for file in files)
        steps.append((phase["name"], len(files), rows, size / 1e6, sum(record["seconds"] for record in records)))
    return steps


def print_run(name: str, run: Measured) -> None:
    print(f"\n{name}: {run.documents:,} pages, {run.megabytes:.0f} MB, {run.removed:,} removed")
    print(f"  {run.partitions} partitions; {run.wall:.1f} s, {run.cpu:.1f} s of CPU")
    print(f"  peak {run.worker_mb:.0f} MB a worker, {run.driver_mb:.0f} MB the driver")
    print(f"  {'phase':40}{'files':>7}{'rows':>12}{'MB':>9}{'bytes/page':>12}{'seconds':>9}")
    for phase, files, rows, size, seconds in run.steps:
        print(f"  {phase:40}{files:7}{rows:12,}{size:9.1f}{1e6 * size / run.documents:12.1f}{seconds:9.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("DATAENG_TEST_DATA"))
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--memory-mb", type=int, default=512)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data or DATAENG_TEST_DATA: a folder in the layout of the test data")
    data, one = Path(arguments.data), int(arguments.megabytes * 1e6)
    adopt_orphans()
    print(f"load {os.getloadavg()[0]:.1f}; {arguments.workers} workers of {arguments.memory_mb} MB")
    runs: dict[str, Measured] = {}
    options: dict[str, Any] = {"memory_mb": arguments.memory_mb, "workers": arguments.workers}
    with tempfile.TemporaryDirectory(prefix="dedup-scaling-") as folder:
        measure(data, Path(folder) / "first", 1, False, **options)  # compiles kernels
        for name, size, skewed in (("1x", one, False), ("10x", 10 * one, False), ("10x, skewed", 10 * one, True)):
            runs[name] = measure(data, Path(folder) / "measured", size, skewed, **options)
            print_run(name, runs[name])
            sys.stdout.flush()
            time.sleep(1)
    small, large, skewed_run = runs.values()
    figures = {
        "peak_mb_1x": small.worker_mb,
        "peak_mb_10x": large.worker_mb,
        "peak_mb_skewed": skewed_run.worker_mb,
        "time_ratio_10x": large.wall / small.wall,
        "cpu_ratio_10x": large.cpu / small.cpu,
        "time_ratio_skewed": skewed_run.wall / large.wall,
        "cpu_ratio_skewed": skewed_run.cpu / large.cpu,
    }
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")
    print(" ".join(f"{name}={value:.2f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
