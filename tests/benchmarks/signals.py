"""Quality signals: MB of UTF-8 text a second, against datatrove's filters and Dolma's taggers.

    python tests/benchmarks/signals.py [--data DIR] [--megabytes N] [--dolma-python PYTHON]

DIR is a folder in the layout of the test data (default: environment variable DATAENG_TEST_DATA); the text is an even
sample of ``domains/*.jsonl.gz``, the same for all sides. One thread each; figures are medians of seconds of CPU of
that thread, since other work on the machine would change seconds of the clock. Each peer runs once.

* ours: `quality_signals` as a stage, with the signals of the default presets, and with all.
* datatrove 0.10: GopherRepetition, GopherQuality, C4Quality and FineWebQuality filters in sequence on spaCy's English
  words, each document leaving at the first filter that drops it, as in its FineWeb example.
* Dolma 1.2: taggers gopher_v1, gopher_v2, c4_v1 and c4_v2 one after the other; the ratio is against gopher_v2 and c4_v2
  together. It may need an environment of its own: name its interpreter with ``--dolma-python``.

Memory is what a fresh process grows by while it measures its first batch, over the batch's bytes; the signals
themselves are part of it. Two threads are timed by the clock, in short runs that alternate with those of one thread,
and with those of a kernel that only computes: what that one gains is what the machine gives (other work, shared
cores). Long texts: one document of 12.5, 25 and 50 MB, of text, one line, one word.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import polars as pl

sys.path.insert(0, str(Path(__file__).parents[2]))

from dataeng.stages.quality.quality_signals import QualitySignals

LARGEST = 100_000  # characters
REPEATS = 7
THREAD_RUNS = 15
Signals = Literal["default", "all"]


def sample(data: Path, num_bytes: int) -> list[str]:
    """Returns documents of all domains, evenly taken, of about ``num_bytes``."""
    texts: list[str] = []
    for path in sorted((data / "domains").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["text"] for line in lines]
    texts = [text for text in texts if 0 < len(text) <= LARGEST]
    step = max(1, sum(map(num_utf8_bytes, texts)) // num_bytes)
    return texts[::step]


def num_utf8_bytes(text: str) -> int:
    return len(text.encode())


def stage_of(signals: Signals, words: Literal["split", "whitespace"] = "split") -> QualitySignals:
    stage = QualitySignals(language="en", signals=signals, words=words)
    stage.setup({})
    stage.apply(pl.DataFrame({"text": ["The kernel is compiled, or loaded from the cache."]}))
    return stage


def cpu_seconds(action: Callable[[], object], repeats: int = REPEATS) -> float:
    """Returns the median of the CPU seconds of this thread."""
    found = []
    for _ in range(repeats):
        started = time.thread_time()
        action()
        found.append(time.thread_time() - started)
    return statistics.median(found)


def clock_seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def two_threads(stage: QualitySignals, batch: pl.DataFrame) -> tuple[float, float]:
    """Returns how much more two threads do than one, by the shortest of alternating runs: our stage, and bare sums."""
    import numba

    @numba.njit(nogil=True)  # type: ignore[misc]
    def compute(rounds: int) -> int:
        state = 88172645463325252
        for _ in range(rounds):
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
        return state

    def measure(_: int) -> None:
        stage.apply(batch)

    def only_compute(_: int) -> None:
        compute(50_000_000)

    only_compute(0)
    seconds: dict[str, list[float]] = {}
    with ThreadPoolExecutor(2) as pool:
        for _ in range(THREAD_RUNS):
            for name, action in (("stage", measure), ("sums", only_compute)):
                one = clock_seconds(lambda action=action: [action(i) for i in range(2)])  # type: ignore[misc]
                two = clock_seconds(lambda action=action: list(pool.map(action, range(2))))  # type: ignore[misc]
                seconds.setdefault(name + " one", []).append(one)
                seconds.setdefault(name + " two", []).append(two)
    print(f"\n{'two threads against one':28}{'shortest':>10}{'median':>10}")
    for name in ("stage", "sums"):
        runs = [one / two for one, two in zip(seconds[name + " one"], seconds[name + " two"], strict=True)]
        shortest = min(seconds[name + " one"]) / min(seconds[name + " two"])
        print(f"{name:28}{shortest:10.2f}{statistics.median(runs):10.2f}")
    stage_ratio, sums_ratio = (min(seconds[n + " one"]) / min(seconds[n + " two"]) for n in ("stage", "sums"))
    return stage_ratio, sums_ratio


def datatrove_seconds(texts: Sequence[str]) -> float:
    from datatrove.data import Document
    from datatrove.pipeline import filters

    blocks = [
        filters.GopherRepetitionFilter(),
        filters.GopherQualityFilter(),
        filters.C4QualityFilter(filter_no_terminal_punct=False),
        filters.FineWebQualityFilter(),
    ]

    def judge(text: str) -> None:
        document = Document(text=text, id="0")
        for block in blocks:
            if block.filter(document) is not True:
                return

    judge("Load the tokenizer, please.")
    return cpu_seconds(lambda: [judge(text) for text in texts], repeats=1)


def dolma_seconds(texts: Sequence[str], python: str) -> dict[str, float]:
    script = Path(__file__).with_name("dolma_taggers.py")
    done = subprocess.run([python, str(script)], input=json.dumps(texts), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"dolma's taggers failed, is dolma installed for {python}?\n{done.stderr[-2000:]}")
    seconds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def memory_of(texts: Sequence[str], signals: Signals = "default") -> float:
    """Returns by how many bytes a fresh process grows at most while it measures the texts, over their bytes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(memory_of_batch, texts, signals).result()


def memory_of_batch(texts: Sequence[str], signals: Signals) -> float:
    stage = stage_of(signals)
    batch = pl.DataFrame({"text": texts})
    return peak_growth(lambda: stage.apply(batch)) / sum(map(num_utf8_bytes, texts))


def peak_growth(action: Callable[[], object]) -> int:
    """Returns by how many bytes the process's memory peaked above where it was. Linux only."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = status_bytes("VmRSS")
    action()
    return status_bytes("VmHWM") - before


def status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no {field} in /proc/self/status")


LONG_SIZES = (12_500_000, 25_000_000, 50_000_000)
LONG_TEXTS: dict[str, Callable[[str, Sequence[str], int], str]] = {
    "all documents": lambda _, texts, size: repeated(there_and_back(texts), size),
    "one of them": lambda text, _, size: repeated(text, size),
    "one line": lambda _, texts, size: repeated(" ".join(there_and_back(texts).split()), size),
    "one word": lambda _, __, size: "x" * size,
    "different words": lambda _, __, size: " ".join(f"{i * 7919 % 10000019:x}" for i in range(size // 6))[:size],
    "one byte a word": lambda _, __, size: repeated("a?b !c,d;(e) 1.", size),
}


def there_and_back(texts: Sequence[str]) -> str:
    """Returns all texts, then each with its words backwards: twice as much text without saying everything twice."""
    return "\n\n".join(
        [*texts, *("\n".join(" ".join(line.split()[::-1]) for line in text.split("\n")) for text in texts)]
    )


def repeated(text: str, size: int) -> str:
    """Returns ``size`` bytes of a text, over and over; what is not ASCII becomes question marks."""
    text = text.encode("ascii", "replace").decode()
    return (text * (size // len(text) + 1))[:size]


def long_texts(stage: QualitySignals, text: str, texts: Sequence[str]) -> tuple[float, float]:
    """Prints the times of long documents; returns the largest ratio of time per byte, 50 to 12.5 MB, and of memory."""
    worst = largest_memory = 0.0
    print(
        f"\n{'one document of':20}" + "".join(f"{size:>12} MB" for size in ("12.5", "25", "50")) + "    scratch/bytes"
    )
    for name, make in LONG_TEXTS.items():
        batches = [pl.DataFrame({"text": [make(text, texts, size)]}) for size in LONG_SIZES]
        seconds = [cpu_seconds(lambda batch=batch: stage.apply(batch), 1) for batch in batches]  # type: ignore[misc]
        growth = memory_of(batches[-1].get_column("text").to_list())
        worst = max(worst, seconds[2] / 4 / seconds[0])
        largest_memory = max(largest_memory, growth)
        print(f"{name:20}" + "".join(f"{s:13.2f} s" for s in seconds) + f"{growth:15.2f}", flush=True)
    return worst, largest_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("DATAENG_TEST_DATA"))
    parser.add_argument("--megabytes", type=float, default=2.0, help="text that the peers read")
    parser.add_argument("--dolma-python", default=sys.executable)
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data or DATAENG_TEST_DATA: a folder in the layout of the test data")
    texts = sample(arguments.data, int(arguments.megabytes * 1e6))
    megabytes = sum(map(num_utf8_bytes, texts)) / 1e6
    print(f"{len(texts)} documents, {megabytes:.2f} MB; load {os.getloadavg()[0]:.1f}")
    batch = pl.DataFrame({"text": texts})
    default, everything, whitespace = stage_of("default"), stage_of("all"), stage_of("default", "whitespace")
    speeds = {
        "dataeng, default signals": megabytes / cpu_seconds(lambda: default.apply(batch)),
        "dataeng, default, whitespace words": megabytes / cpu_seconds(lambda: whitespace.apply(batch)),
        "dataeng, all signals": megabytes / cpu_seconds(lambda: everything.apply(batch)),
        "datatrove, four filters": megabytes / datatrove_seconds(texts),
    }
    taggers = dolma_seconds(texts, arguments.dolma_python)
    speeds |= {f"dolma, {name}": megabytes / seconds for name, seconds in taggers.items()}
    speeds["dolma, gopher_v2 and c4_v2"] = megabytes / (taggers["gopher_v2"] + taggers["c4_v2"])
    print(f"\n{'':36}{'MB/s':>10}")
    for name, speed in speeds.items():
        print(f"{name:36}{speed:10.2f}")
    growth, growth_all = (memory_of(texts * max(1, round(8 / megabytes)), signals) for signals in ("default", "all"))
    print(f"\nmemory beyond a batch of {megabytes * max(1, round(8 / megabytes)):.1f} MB, over its size: ", end="")
    print(f"{growth:.2f}, with all signals {growth_all:.2f}")
    threads, sums = two_threads(default, batch)
    everything_once = sample(arguments.data, 1 << 40)
    worst, long_memory = long_texts(default, max(texts, key=len), everything_once)
    ours, full = speeds["dataeng, default signals"], speeds["dataeng, all signals"]
    theirs, dolma = speeds["datatrove, four filters"], speeds["dolma, gopher_v2 and c4_v2"]
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")
    figures = {
        "ratio_vs_datatrove": ours / theirs,
        "ratio_vs_dolma": ours / dolma,
        "ratio_all_signals_vs_datatrove": full / theirs,
        "ratio_all_signals_vs_dolma": full / dolma,
        "two_threads": threads,
        "two_threads_of_sums": sums,
        "memory_ratio": growth,
        "memory_ratio_all": growth_all,
        "memory_ratio_50_mb": long_memory,
        "long_text_slowdown": worst,
        "default_mb_s": ours,
        "all_mb_s": full,
    }
    print(" ".join(f"{name}={value:.2f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
