"""WARC to deduplicated, tokenized packs: dataeng against datatrove's FineWeb recipe, same files, same cores.

    python tests/benchmarks/end_to_end.py [--data DIR] [--workers N] [--repeats N]

DIR is a folder in the layout of the test data (default: environment variable DATAENG_TEST_DATA); its
``crawl/recorded/*.warc.gz`` are read. Both sides run as whole programs with the same number of workers, one after the
other, and are timed from outside: start-up, imports and commits count. Both get the same tokenizer, trained once by
dataeng before anything is timed. datatrove runs twice per repeat: as it ships (trafilatura), and with resiliparse,
called as dataeng calls it. What the recipe is, and which choices were made in its favour, is in `fineweb_recipe.py`,
with the packages that it needs.

dataeng runs once with an empty cache for compiled kernels (cold), then three times per repeat, around and between
datatrove's runs (warm; the median counts). Seconds of CPU are those of a side's whole process tree; on a machine with
other work they are the steadier figure. Ratios are datatrove's median over dataeng's warm median.

The same filters on both sides; the documents that are left differ all the same: see docs/performance.md.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36  # from <linux/prctl.h>
RECIPE = Path(__file__).with_name("fineweb_recipe.py")


@dataclass(frozen=True)
class Timing:
    """One whole program, with all the processes that it started."""

    wall_seconds: float
    cpu_seconds: float
    output: str


def run_timed(command: list[str], environment: Mapping[str, str] | None = None) -> Timing:
    """Runs a program and waits for its last process. Raises `SystemExit` with its output when it fails."""
    before = _children_seconds()
    started = time.perf_counter()
    process = subprocess.run(command, env={**os.environ, **(environment or {})}, capture_output=True, text=True)
    wall = time.perf_counter() - started
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{process.stdout[-2000:]}\n{process.stderr[-4000:]}")
    # Servers that workers are forked from outlive the program for a moment. They are ours now (see `adopt_orphans`),
    # and their time is known once they have been waited for.
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    return Timing(wall, _children_seconds() - before, process.stdout)


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def adopt_orphans() -> None:
    """Makes this process the parent of orphaned grandchildren, so that their CPU time can be counted (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


# --- dataeng


def pipeline(run_dir: Path, crawl: Path, stages: list[Any]) -> str:
    """Returns a pipeline file. JSON is YAML."""
    sources = [{"read_warc": {"paths": [str(crawl / "*.warc.gz")]}}]
    return json.dumps({"name": run_dir.name, "run": str(run_dir), "sources": sources, "stages": stages}, indent=1)


def recipe(tokenizer: Path) -> list[Any]:
    """FineWeb's stages, in FineWeb's order."""
    presets = ["gopher_repetition@datatrove", "gopher@datatrove", "c4@fineweb", "fineweb@code"]
    return [
        "filter_url",
        "extract_text",
        {"identify_language": {"languages": ["en"], "min_score": 0.65}},
        "quality_signals",
        {"apply_rules": {"presets": presets}},
        {"deduplicate_minhash": {"bands": 14, "rows": 8, "ngram": 5}},
        "scrub_pii",
        {"write_packs": {"tokenizer": str(tokenizer), "formats": ["megatron"]}},
    ]


class Dataeng:
    """Our side: pipelines in a folder of their own, run by the command line."""

    def __init__(self, folder: Path, crawl: Path, workers: int) -> None:
        self.folder, self.crawl, self.workers = folder, crawl, workers
        self.run_dir = folder / "runs" / "fineweb"

    def train_tokenizer(self) -> Path:
        """Returns a tokenizer of up to 32,768 tokens, trained on the texts of all pages."""
        stages = ["extract_text", {"train_tokenizer": {"vocab_size": 32_768}}, "write_packs"]
        self._run(self._file("tokenizer", stages))
        return self.folder / "runs" / "tokenizer" / "tokenizer" / "tokenizer.json"

    def run(self, tokenizer: Path, environment: Mapping[str, str] | None = None, fresh: bool = True) -> Timing:
        """Runs the recipe, into a new run folder unless ``fresh`` is false."""
        if fresh:
            shutil.rmtree(self.run_dir, ignore_errors=True)
        return self._run(self._file("fineweb", recipe(tokenizer)), environment)

    def _file(self, name: str, stages: list[Any]) -> Path:
        file = self.folder / f"{name}.yaml"
        file.write_text(pipeline(self.folder / "runs" / name, self.crawl, stages))
        return file

    def _run(self, file: Path, environment: Mapping[str, str] | None = None) -> Timing:
        return run_timed(
            [sys.executable, "-m", "dataeng", "run", str(file), "--workers", str(self.workers)], environment
        )

    def stages(self) -> list[dict[str, Any]]:
        """Returns name, documents in and kept, and seconds of every stage of the last run, in order."""
        statement = (
            "SELECT stage, sum(documents_in)::BIGINT AS taken, sum(documents_kept)::BIGINT AS kept, "
            "sum(seconds) AS seconds FROM stages GROUP BY stage ORDER BY min(position)"
        )
        return self._sql(statement)

    def tokens(self) -> int:
        """Returns the number of tokens in the packs of the last run."""
        return int(self._sql("SELECT sum(num_tokens)::BIGINT AS tokens FROM packs")[0]["tokens"])

    def _sql(self, statement: str) -> list[dict[str, Any]]:
        command = [sys.executable, "-m", "dataeng", "sql", str(self.run_dir), statement, "--format", "json"]
        return [json.loads(line) for line in run_timed(command).output.splitlines()]


# --- datatrove


def run_datatrove(folder: Path, crawl: Path, tokenizer: Path, workers: int, extractor: str) -> Timing:
    """Runs datatrove's side into a new folder; the last line of the output is what `datatrove_steps` reads."""
    output = folder / f"datatrove-{extractor}"
    shutil.rmtree(output, ignore_errors=True)
    options = {"crawl": crawl, "tokenizer": tokenizer, "output": output, "workers": workers, "extractor": extractor}
    command = [sys.executable, str(RECIPE)]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    return run_timed(command)


def datatrove_steps(timing: Timing) -> list[dict[str, Any]]:
    """Returns name, documents in and kept, and seconds of every step."""
    rows = []
    for step in json.loads(timing.output.splitlines()[-1])["steps"]:
        counts = step["counts"]
        taken = counts.get("total", counts.get("documents", 0))
        # Steps that only read or change documents pass on all that they get.
        kept = counts.get("forwarded", taken if "dropped" not in counts else 0)
        name = f"{step['phase']}: {step['step']}"
        rows.append({"stage": name, "taken": taken, "kept": kept, "seconds": step["seconds"], "counts": counts})
    return rows


def datatrove_totals(steps: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Returns pages read, documents after the filters and after deduplication, timeouts, and tokens."""
    totals = {"pages": 0, "filtered": 0, "kept": 0, "timeouts": 0, "tokens": 0}
    for step in steps:
        counts = step["counts"]
        totals["timeouts"] += counts.get("timeout", 0)
        totals["tokens"] += counts.get("tokens", 0)
        if "Warc" in step["stage"]:
            totals["pages"] = counts.get("documents", 0)
        elif "FineWeb" in step["stage"]:
            totals["filtered"] = counts.get("forwarded", 0)
        elif "stage 4" in step["stage"]:
            totals["kept"] = counts.get("forwarded", 0)
    return totals


# --- the comparison


@dataclass
class Side:
    """What was measured of one side."""

    name: str
    timings: list[Timing]
    stages: list[dict[str, Any]]
    totals: dict[str, int]

    @property
    def wall(self) -> float:
        return statistics.median(timing.wall_seconds for timing in self.timings)

    @property
    def cpu(self) -> float:
        return statistics.median(timing.cpu_seconds for timing in self.timings)


def compare(crawl: Path, folder: Path, workers: int, repeats: int) -> tuple[list[Side], Timing, Timing]:
    """Returns both kinds of datatrove run and ours, our cold run, and ours again with nothing to do."""
    ours = Dataeng(folder, crawl, workers)
    tokenizer = ours.train_tokenizer()
    cold = ours.run(tokenizer, {"NUMBA_CACHE_DIR": str(folder / "kernels")})
    ours.run(tokenizer)  # compiles for the usual cache where that is empty
    timings: dict[str, list[Timing]] = {"dataeng": [], "trafilatura": [], "resiliparse": []}
    for _ in range(repeats):
        for extractor in ("trafilatura", "resiliparse"):
            timings["dataeng"].append(ours.run(tokenizer))
            timings[extractor].append(run_datatrove(folder, crawl, tokenizer, workers, extractor))
        timings["dataeng"].append(ours.run(tokenizer))
    again = ours.run(tokenizer, fresh=False)
    stages = ours.stages()
    kept = {row["stage"]: row["kept"] for row in stages}
    totals = {
        "pages": kept["read_warc"],
        "filtered": kept["apply_rules"],
        "kept": kept["write_packs"],
        "timeouts": 0,
        "tokens": ours.tokens(),
    }
    sides = [Side("dataeng, warm", timings["dataeng"], stages, totals)]
    for extractor in ("trafilatura", "resiliparse"):
        steps = datatrove_steps(timings[extractor][-1])
        sides.append(Side(f"datatrove, {extractor}", timings[extractor], steps, datatrove_totals(steps)))
    return sides, cold, again


def print_sides(sides: list[Side], cold: Timing, again: Timing) -> None:
    heads = ("runs", 5), ("wall s", 9), ("CPU s", 9), ("pages", 8), ("filtered", 10), ("kept", 7), ("tokens", 10)
    print("\n" + " " * 28 + "".join(f"{name:>{width}}" for name, width in heads) + f"{'timeouts':>10}")
    for side in sides:
        numbers = [side.totals[name] for name in ("pages", "filtered", "kept", "tokens", "timeouts")]
        print(
            f"{side.name:28}{len(side.timings):5}{side.wall:9.2f}{side.cpu:9.2f}"
            f"{numbers[0]:8,}{numbers[1]:10,}{numbers[2]:7,}{numbers[3]:10,}{numbers[4]:10,}"
        )
    print(f"{'dataeng, cold kernels':28}{1:5}{cold.wall_seconds:9.2f}{cold.cpu_seconds:9.2f}")
    print(f"{'dataeng, nothing to do':28}{1:5}{again.wall_seconds:9.2f}{again.cpu_seconds:9.2f}")


def print_stages(side: Side, workers: int) -> None:
    """The last run's seconds, summed over workers."""
    print(f"\n{side.name}: stage by stage, last run{'':6}{'in':>8}{'kept':>8}{'seconds':>10}")
    for row in side.stages:
        print(f"  {row['stage'][:44]:46}{row['taken']:8,}{row['kept']:8,}{row['seconds']:10.2f}")
    counted = sum(row["seconds"] for row in side.stages if "(wall time)" not in row["stage"])
    rest = workers * side.timings[-1].wall_seconds - counted
    print(f"  {'start-up, commits, idle workers':46}{'':16}{rest:10.2f}")


def figures(sides: list[Side], cold: Timing, again: Timing) -> dict[str, float]:
    ours, trafilatura, resiliparse = sides
    return {
        "ratio_vs_datatrove": trafilatura.wall / ours.wall,
        "ratio_same_extractor": resiliparse.wall / ours.wall,
        "ratio_vs_datatrove_cpu": trafilatura.cpu / ours.cpu,
        "ratio_same_extractor_cpu": resiliparse.cpu / ours.cpu,
        "ours_seconds": ours.wall,
        "ours_cpu_seconds": ours.cpu,
        "ours_cold_seconds": cold.wall_seconds,
        "ours_nothing_to_do_seconds": again.wall_seconds,
        "datatrove_seconds": trafilatura.wall,
        "datatrove_cpu_seconds": trafilatura.cpu,
        "datatrove_resiliparse_seconds": resiliparse.wall,
        "datatrove_resiliparse_cpu_seconds": resiliparse.cpu,
        "pages": ours.totals["pages"],
        "datatrove_pages": trafilatura.totals["pages"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("DATAENG_TEST_DATA"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("give --data DIR or set DATAENG_TEST_DATA")
    crawl = arguments.data.resolve() / "crawl" / "recorded"
    files = sorted(crawl.glob("*.warc.gz"))
    if not files:
        parser.error(f"no *.warc.gz in {crawl}")
    adopt_orphans()
    size = sum(file.stat().st_size for file in files)
    print(f"{len(files)} WARC files, {size / 1e6:.1f} MB; {arguments.workers} workers; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="end-to-end-") as folder:
        sides, cold, again = compare(crawl, Path(folder), arguments.workers, arguments.repeats)
    print_sides(sides, cold, again)
    for side in sides:
        print_stages(side, arguments.workers)
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")
    print(" ".join(f"{name}={value:.2f}" for name, value in figures(sides, cold, again).items()))


if __name__ == "__main__":
    main()
