"""kill -9 in every phase of every way to deduplicate, and damaged side tables: the next run leaves the same bytes.

(`deduplicate_minhash` has tests of its own, in tests/end_to_end/test_dedup.py.)
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from dataeng.config import load_pipeline
from dataeng.engine.executor import Pool
from dataeng.engine.runner import RunResult, run_plan
from dataeng.plan import make_plan
from dataeng.report.finish import write_reports
from tests.end_to_end.killed_run import KILLED, killed_run
from tests.end_to_end.runs import assert_same, dataeng, kill_when, results
from tests.engine.conftest import Listener

STAGES = {
    "deduplicate_exact": {"by": "url"},
    "deduplicate_simhash": {"threshold": 0.5},
    "deduplicate_lines": {},
    "deduplicate_paragraphs": {"ngram": 3, "documents": False},
    "deduplicate_substrings": {"min_bytes": 80},
}
FILES, PARTITIONS = 2, 2
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprst" for vowel in "aeiou"]


def words(draw: random.Random, number: int) -> str:
    return " ".join("".join(draw.choices(SYLLABLES, k=3)) for _ in range(number))


def texts() -> list[str]:
    """Pages with something for every stage: copies, editions, a banner, lines in two editions, a passage in others."""
    draw = random.Random(3)
    banner, passage = words(draw, 6), words(draw, 20)
    edition = words(draw, 30).split()
    pages = []
    for number in range(24):
        edition[number % 30] = words(draw, 1)
        passages = f"{words(draw, 3)} {passage} {words(draw, 3)}" if number % 3 == 0 else words(draw, 8)
        pages.append("\n".join([banner, words(draw, 150), " ".join(edition), passages, words(draw, 150)]))
    return [*pages, pages[0], *(page.replace(" ba", " be", 1) for page in pages[5:10])]


def write_pipeline(folder: Path) -> Path:
    (folder / "input").mkdir()
    rows = [{"text": text, "url": f"https://example.org/{number % 28}"} for number, text in enumerate(texts())]
    for number in range(FILES):
        lines = [json.dumps(row) for row in rows[number::FILES]]
        (folder / "input" / f"{number}.jsonl").write_text("\n".join(lines))
    pipeline = {
        "name": "kills",
        "run": str(folder / "run"),
        "sources": [{"read_files": {"paths": ["input/*.jsonl"], "batch_documents": 8}}],
        "stages": [{name: {**options, "partitions": PARTITIONS}} for name, options in STAGES.items()],
    }
    (folder / "kills.yaml").write_text(json.dumps(pipeline))
    return folder / "kills.yaml"


def run(file: Path, verify: bool = False) -> tuple[RunResult, Listener]:
    pipeline = load_pipeline(file)
    listener = Listener()
    result = run_plan(
        make_plan(pipeline), pipeline.run_dir, Pool("inline", 1), listener,
        finish=lambda records: write_reports(pipeline, pipeline.run_dir, records), thorough=verify,
    )  # fmt: skip
    return result, listener


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pipeline and its run. What a test does to it has to heal."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run(write_pipeline(folder))
    return folder


def phases_of(folder: Path) -> list[str]:
    return [phase["name"] for phase in json.loads((folder / "run/run.json").read_text())["phases"]]


def test_every_stage_has_found_something(undisturbed: Path) -> None:
    for name in STAGES:
        found = pl.read_parquet(undisturbed / f"run/dedup/{name}/*.parquet", missing_columns="insert")
        assert found.height > 0, name
    phases = phases_of(undisturbed)
    assert all(any(phase.startswith(f"{name}.") for phase in phases) for name in STAGES)
    assert {phase for phase in phases if phase.endswith(".apply")} == {f"{name}.apply" for name in STAGES}


def test_killed_in_every_phase(undisturbed: Path, tmp_path: Path) -> None:
    """A run dies in its first phase, the next in the second, and so on; each goes on from what was committed.

    In every other phase it dies with a task's files in place and not yet its record; in the others with one task done.
    """
    file = write_pipeline(tmp_path)
    for number, phase in enumerate(phases_of(undisturbed)):
        recorded = number % 2 == 0
        assert killed_run(file, phase, recorded) == KILLED, phase
        assert bool(list((tmp_path / f"run/phases/{phase}").glob("task-*.json"))) == recorded
    last, _ = run(file)
    assert 0 < last.tasks_run < last.tasks_reused
    assert_same(results(undisturbed / "run"), results(tmp_path / "run"))
    assert run(file)[0].nothing_to_do and not list((tmp_path / "run").rglob("*.tmp"))


def test_all_processes_killed(undisturbed: Path, tmp_path: Path) -> None:
    """The driver and its workers, at whatever they are doing when a phase has its first record."""
    file = write_pipeline(tmp_path)
    arguments = ["run", str(file), "--workers", "2", "--scheduler", "processes"]
    moments = ("deduplicate_simhash.near", "deduplicate_lines.apply", "deduplicate_substrings.places")
    for phase in moments:
        records = tmp_path / f"run/phases/{phase}"
        assert kill_when(arguments, lambda records=records: bool(list(records.glob("task-*.json")))), phase
        assert results(tmp_path / "run") != results(undisturbed / "run")
    dataeng(*arguments)
    assert_same(results(undisturbed / "run"), results(tmp_path / "run"))


def exchange_tables(folder: Path) -> Iterator[tuple[str, str]]:
    """Yields each phase with one of its side tables, relative to the run folder."""
    for phase in phases_of(folder):
        records = sorted((folder / f"run/phases/{phase}").glob("task-*.json"))
        files = [file for record in records for file in json.loads(record.read_text())["files"]]
        tables = [file["name"] for file in files if file["kind"] == "exchange" and file["num_rows"]]
        if tables:
            yield phase, tables[0]


def test_a_damaged_side_table_is_noticed_and_made_again(undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed, tmp_path / "copy")  # with times of modification
    folder = undisturbed
    expected = results(folder / "run")
    tables = dict(exchange_tables(folder))
    assert all(any(phase.startswith(name) for phase in tables) for name in STAGES) and len(tables) >= 15
    for phase, name in tables.items():
        table = folder / "run" / name
        content, times = table.read_bytes(), (table.stat().st_atime_ns, table.stat().st_mtime_ns)
        damaged = bytearray(content)
        damaged[len(damaged) // 2] ^= 1
        table.write_bytes(damaged)
        os.utime(table, ns=times)  # neither size nor time tell
        file = folder / "kills.yaml"
        assert run(file)[0].nothing_to_do and table.read_bytes() == damaged
        result, listener = run(file, verify=True)
        reasons = [reason for state in listener.states if state.phase.name == phase for reason in state.reasons]
        assert reasons == [f"shard altered: {name} is not what was committed (SHA-256)"]
        assert result.tasks_run >= 1 and table.read_bytes() == content, phase
        assert_same(expected, results(folder / "run"))
