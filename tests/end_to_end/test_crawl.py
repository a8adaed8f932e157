"""The main job over a large recorded crawl and forty odd archive files: every record accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from .runs import assert_same, dataeng, kill_when, results

PIPELINE = "pipelines/cc_clean.yaml"


@pytest.fixture(scope="module")
def arguments(test_data: Path) -> list[str]:
    paths = json.dumps([str(test_data / "crawl/**/*.warc*"), str(test_data / "crawl/**/*.arc*")])
    return ["run", PIPELINE, "--set", f"read_warc.paths={paths}", "--set"]


@pytest.fixture(scope="module")
def run_dir(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "crawl"
    dataeng(*arguments, f"run={folder}", "--workers", "2")
    return folder


def test_every_record_that_warcio_reads_is_a_document_or_a_reject(run_dir: Path, test_data: Path) -> None:
    """Files that warcio reads to the end: the same number of rows. Broken ones: at least as many."""
    rejects = pl.read_parquet(run_dir / "rejects/*/*.parquet").filter(pl.col("domain") != "code")
    documents = pl.read_parquet(run_dir / "documents/train_tokenizer.apply/*.parquet").filter(
        pl.col("domain") != "code"
    )
    ours = dict(pl.concat([rejects["source"], documents["source"]]).value_counts().iter_rows())
    with (test_data / "crawl/collected/manifest.jsonl").open() as lines:
        manifest = [json.loads(line) for line in lines]
    for entry in manifest:
        found = ours.get(f"collected/{entry['file']}", 0)
        is_arc = ".arc" in entry["file"]  # the format before WARC: one reject that says so
        assert found == 1 if is_arc else found >= sum(entry["records_read_by_warcio"].values()), entry["file"]
    recorded = sum(
        count for name, count in ours.items() if name.startswith("recorded/") and not name.endswith("wet.gz")
    )
    assert recorded >= 2 * (1987 + 22)  # a request for every response and revisit, and the warcinfo records


def test_books_balance(run_dir: Path) -> None:
    stages, drops = (pl.read_parquet(run_dir / f"stats/{name}.parquet") for name in ("stages", "drops"))
    read = stages.filter(pl.col("stage").is_in(["read_warc", "read_files"]))["documents_in"].sum()
    left = pl.read_parquet(run_dir / "documents/train_tokenizer.apply/*.parquet").height
    rejects = pl.read_parquet(run_dir / "rejects/*/*.parquet")
    assert read == left + drops["documents"].sum() and rejects.height == drops["documents"].sum()
    assert rejects["reason"].null_count() == 0 and rejects["id"].null_count() == 0


def test_killed_and_finished_by_one_worker_gives_the_same_bytes_as_two(
    run_dir: Path, arguments: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    again = [*arguments, f"run={folder}", "--workers"]
    assert kill_when([*again, "2"], lambda: len(list((folder / "phases/read").glob("task-*.json"))) > 5)
    dataeng(*again, "1")
    assert_same(results(run_dir), results(folder))
