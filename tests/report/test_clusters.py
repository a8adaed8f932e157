"""Clusters of duplicates as people see them, the table behind them, and the alarms."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from dataeng.config import load_pipeline
from dataeng.errors import DataengError
from dataeng.report.alarms import alarms, read_alarms
from dataeng.report.clusters import differences, largest_clusters
from dataeng.report.evidence import CLUSTERS, CLUSTERS_FILE
from dataeng.report.sql import query
from dataeng.report.terminal_clusters import alarm_lines, print_clusters
from tests.small_run import CODE, WORDS, SmallRun


def test_the_table_names_removed_and_kept_documents(finished: SmallRun) -> None:
    table = pl.read_parquet(finished.run_dir / CLUSTERS_FILE)
    assert table.schema == CLUSTERS
    assert table.sort("stage").get_column("stage").to_list() == ["near", "same", "same"]
    near = table.filter(pl.col("stage") == "near").row(0, named=True)
    assert near["method"] == "minhash" and near["cluster_size"] == 2 and near["matched_id"] == near["kept_id"]
    shingles = len(WORDS.split()) - 4
    assert near["similarity"] == pytest.approx((shingles - 1) / (shingles + 1))  # the last word differs
    urls = query(finished.run_dir, "SELECT url FROM clusters JOIN rejects USING (id) ORDER BY url")[1]
    assert [row[0] for row in urls] == [
        f"https://{page}" for page in ("a.example/copy", "b.example/copy", "b.example/near")
    ]


def test_clusters_come_largest_first_with_their_texts(finished: SmallRun) -> None:
    same, near = largest_clusters(finished.run_dir, number=5, shown=1)
    assert (same.stage, same.size, len(same.removed)) == ("same", 3, 1)
    assert (near.stage, near.size, near.domains) == ("near", 2, ("web",))
    assert near.kept.url == "https://a.example/garden" and near.kept.text == WORDS
    assert near.removed[0].url == "https://b.example/near" and near.removed[0].similarity == near.least_similar
    (only,) = largest_clusters(finished.run_dir, 5, 5, stage="near")
    assert only == near
    assert largest_clusters(finished.run_dir, 5, 1, kept_id=near.kept.id[:10]) == [same, near]
    with pytest.raises(DataengError, match="no cluster of duplicates"):
        largest_clusters(finished.run_dir, 5, 5, stage="nobody")


def test_a_run_that_removes_no_duplicates_says_so(tmp_path: Path) -> None:
    small = SmallRun(tmp_path)
    text = small.file.read_text()
    start, end = text.index("  - deduplicate_exact"), text.index("  - train_tokenizer")
    small.file.write_text(text[:start] + text[end:])
    small.run()
    with pytest.raises(DataengError, match="no cluster of duplicates"):
        largest_clusters(small.run_dir, 5, 5)
    (small.run_dir / CLUSTERS_FILE).unlink()
    with pytest.raises(DataengError, match="has no table of clusters"):
        largest_clusters(small.run_dir, 5, 5)


def test_what_differs_is_marked_on_both_sides() -> None:
    first, second = "one two three four five", "one 2 three\nfour  and five six"
    left, right = differences(first, second)
    assert [first[a:b] for a, b in left] == ["two"]
    assert [second[a:b] for a, b in right] == ["2", "and", "six"]
    assert differences(first, first) == ([], [])
    assert differences("", "all of it") == ([], [(0, 9)])


def test_clusters_in_the_terminal(finished: SmallRun) -> None:
    out = io.StringIO()
    print_clusters(Console(file=out, width=140), largest_clusters(finished.run_dir, 5, 1))
    shown = out.getvalue()
    assert "1. 3 documents  same" in shown and "and 1 more" in shown and "the texts are the same" in shown
    assert "2. 2 documents  near, minhash, least similar 0.9" in shown
    assert "kept: 217 characters, 1 differences" in shown and ">>THE PEOPLE" in shown


def test_alarms_for_clusters_files_and_domains(tmp_path: Path) -> None:
    small = SmallRun(tmp_path)
    template = "\n".join(f'{{"url": "https://t.example/{i}", "text": "{WORDS}"}}' for i in range(40))
    others = "\n".join(
        f'{{"url": "https://o.example/{i}", "text": "page {"x" * i} says this and that"}}' for i in range(60)
    )
    (small.folder / "web" / "2.jsonl").write_text(template)
    (small.folder / "web" / "3.jsonl").write_text(others)
    result = small.run("alarm_source_share=0.35")
    found = read_alarms(small.run_dir)
    documents = 4 + 2 + 2 + 40 + 60  # two are spam, one code document has no text
    assert found.select("stage", "kind", "removed", "documents").rows() == [
        ("same", "file", 40, 40),
        ("same", "domain", 42, documents - len(CODE) + 1),
        ("same", "cluster", 42, documents),
    ]
    assert found.get_column("name").to_list()[:2] == [str(small.folder / "web/2.jsonl"), "web"]
    lines = [line.plain for line in alarm_lines(found)]
    assert "lost 40 documents of 40 (100%; the limit is 35%)" in lines[0] and lines[2].startswith(
        "alarm: same: one cluster"
    )
    silent = load_pipeline(small.file, ["alarm_source_share=1", "alarm_cluster_share=1"], allow_code=True)
    assert alarms(silent, small.run_dir, result.records).height == 0


def test_limits_of_alarms_are_no_reason_to_run_again(finished: SmallRun) -> None:
    assert finished.run("alarm_cluster_share=0.5", "alarm_source_share=0.9").nothing_to_do
