"""Deduplication through the real engine: the same clusters whoever runs it and however the input comes."""

from __future__ import annotations

import json
import random
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from dataeng.config import load_pipeline
from dataeng.engine.executor import Pool
from dataeng.engine.runner import RunResult, run_plan
from dataeng.plan import make_plan
from tests.end_to_end.killed_run import KILLED, PHASES, killed_run
from tests.end_to_end.runs import assert_same, results
from tests.engine.conftest import Listener

Clusters = set[frozenset[str]]

FILES = 3


SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprst" for vowel in "aeiou"]


def word(draw: random.Random) -> str:
    """Returns one of 216,000 words. No digits: all numbers are the same to MinHash."""
    return "".join(draw.choices(SYLLABLES, k=3))


def edited(text: str, words: int, draw: random.Random) -> str:
    """Returns a text with some of its words replaced."""
    changed = text.split()
    for _ in range(words):
        changed[draw.randrange(len(changed))] = word(draw)
    return " ".join(changed)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Pages, copies of them, editions near and far, texts without a shingle, and a chain of editions."""
    draw = random.Random(5)
    pages = [" ".join(word(draw) for _ in range(120)) for _ in range(40)]
    found = [*pages, *pages[:5], *(edited(pages[i], 1 + i % 9, draw) for i in range(30))]
    link = pages[39]
    for _ in range(6):
        link = edited(link, 3, draw)
        found.append(link)
    found += ["too short", "Too  short!", "another", ""]
    draw.shuffle(found)
    return found


def write_input(folder: Path, texts: Sequence[str], order: Sequence[int] = range(FILES)) -> None:
    """Writes the texts to files; ``order`` says which of them comes first in the input."""
    folder.mkdir()
    for number in range(FILES):
        lines = [json.dumps({"text": text}) for text in texts[number::FILES]]
        (folder / f"{order[number]}.jsonl").write_text("\n".join(lines))


def write_pipeline(folder: Path, batch_documents: int = 1000) -> Path:
    file = folder / "dedup.yaml"
    source = {"read_files": {"paths": ["input/*.jsonl"], "batch_documents": batch_documents}}
    stage = {"deduplicate_minhash": {"partitions": 3, "threshold": 0.7}}
    file.write_text(json.dumps({"name": "dedup", "run": str(folder / "run"), "sources": [source], "stages": [stage]}))
    return file


def run(file: Path, scheduler: str = "inline", workers: int = 1, verify: bool = False) -> RunResult:
    pipeline = load_pipeline(file)
    pool = Pool(scheduler, workers, pipeline.kernels)
    try:
        return run_plan(make_plan(pipeline), pipeline.run_dir, pool, Listener(), thorough=verify)
    finally:
        pool.close()


def clusters_of(run_dir: Path) -> Clusters:
    """Returns the clusters of more than one document, as sets of texts, each with how often it occurs."""
    documents = pl.read_parquet(run_dir / "documents/read/*.parquet").select("id", "text")
    texts = dict(documents.iter_rows())
    evidence = pl.read_parquet(run_dir / "dedup/deduplicate_minhash/*.parquet", missing_columns="insert")
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for removed, kept in evidence.select("id", "kept_id").iter_rows():
        groups[kept].append(removed)
    return {frozenset(_numbered([texts[kept], *(texts[one] for one in group)])) for kept, group in groups.items()}


def _numbered(texts: Sequence[str]) -> list[str]:
    return [f"{text} #{texts[:number].count(text)}" for number, text in enumerate(texts)]


@pytest.fixture(scope="module")
def undisturbed(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run in this process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_input(folder / "input", texts)
    run(write_pipeline(folder))
    return folder


def test_what_there_is_to_find(undisturbed: Path, texts: list[str]) -> None:
    found = clusters_of(undisturbed / "run")
    sizes = [len(cluster) for cluster in found]
    assert len(found) >= 15 and max(sizes) >= 3
    assert frozenset({"too short #0", "Too  short! #0"}) in found
    assert not any("another #0" in cluster or " #0" in cluster for cluster in found)


def test_two_workers_leave_the_same_bytes(undisturbed: Path, texts: list[str], tmp_path: Path) -> None:
    shutil.copytree(undisturbed / "input", tmp_path / "input")
    run(write_pipeline(tmp_path), "processes", 2)
    assert_same(results(undisturbed / "run"), results(tmp_path / "run"))


@pytest.mark.parametrize("batch_documents", [1, 7])
def test_any_batch_size(undisturbed: Path, texts: list[str], tmp_path: Path, batch_documents: int) -> None:
    write_input(tmp_path / "input", texts)
    run(write_pipeline(tmp_path, batch_documents))
    assert clusters_of(tmp_path / "run") == clusters_of(undisturbed / "run")


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0)])
def test_any_order_of_files(undisturbed: Path, texts: list[str], tmp_path: Path, order: tuple[int, ...]) -> None:
    write_input(tmp_path / "input", texts, order)
    run(write_pipeline(tmp_path))
    assert clusters_of(tmp_path / "run") == clusters_of(undisturbed / "run")
    backwards = tmp_path / "backwards"
    backwards.mkdir()
    write_input(backwards / "input", texts[::-1], order)
    run(write_pipeline(backwards))
    assert clusters_of(backwards / "run") == clusters_of(undisturbed / "run")


@pytest.mark.parametrize("phase", PHASES)
def test_killed_in_every_phase(undisturbed: Path, texts: list[str], tmp_path: Path, phase: str) -> None:
    """kill -9 when a task of the phase has its files in place, and not yet its record."""
    shutil.copytree(undisturbed / "input", tmp_path / "input")
    file = write_pipeline(tmp_path)
    assert killed_run(file, phase) == KILLED
    assert results(tmp_path / "run") != results(undisturbed / "run")
    again = run(file)
    assert again.tasks_run > 0 and (phase == "read" or again.tasks_reused > 0)
    assert_same(results(undisturbed / "run"), results(tmp_path / "run"))


def test_the_phases_are_all(undisturbed: Path) -> None:
    phases = [phase["name"] for phase in json.loads((undisturbed / "run/run.json").read_text())["phases"]]
    assert {phase for phase in phases if not phase[-1].isdigit()} == set(PHASES)


@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase != "deduplicate_minhash.apply"])
def test_a_corrupted_side_table_is_rebuilt(undisturbed: Path, tmp_path: Path, phase: str) -> None:
    folder = tmp_path
    shutil.copytree(undisturbed / "input", folder / "input")
    file = write_pipeline(folder)
    run(file)
    expected = results(folder / "run")
    records = [json.loads(path.read_text()) for path in sorted((folder / f"run/phases/{phase}").glob("task-*.json"))]
    tables = [entry["name"] for record in records for entry in record["files"] if entry["kind"] == "exchange"]
    table = folder / "run" / tables[0]
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)  # the same size: only the checksum can tell
    assert run(file).tasks_run > 0
    assert bytes(content) != table.read_bytes()
    assert_same(expected, results(folder / "run"))
    assert run(file, verify=True).nothing_to_do
