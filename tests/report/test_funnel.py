"""The funnel: one row per station, in order, that adds up."""

from __future__ import annotations

import itertools
from pathlib import Path

import polars as pl

from dataeng.engine.ledger import StageCount
from dataeng.engine.records import TaskRecord
from dataeng.engine.runner import load_records
from dataeng.report.funnel import funnel, stats_tables, write_stats
from tests.small_run import SmallRun


def record(index: int, **counts: StageCount) -> TaskRecord:
    return TaskRecord("read", index, "f", "t", f"in{index}", [], counts)


def test_sums_over_parts_and_keeps_the_order_of_stations() -> None:
    records = {
        "read": [
            record(0, web=StageCount(3, 30, 3, 30, {}, 1.0), rule=StageCount(3, 30, 1, 10, {"spam": [2, 20]}, 0.5)),
            record(1, code=StageCount(2, 8, 1, 4, {"error:x": [1, 4]}, 0.25), rule=StageCount(1, 4, 1, 4, {}, 0.5)),
        ]
    }
    rows = {row.stage: row.count for row in funnel(records)}
    assert list(rows) == ["web", "code", "rule"]  # sources first
    assert rows["rule"] == StageCount(4, 34, 2, 14, {"spam": [2, 20]}, 1.0)
    tables = stats_tables(records)
    assert tables["stages"].select("stage", "position", "part", "input", "documents_in", "bytes_kept").rows() == [
        ("web", 0, 0, "in0", 3, 30),
        ("code", 1, 1, "in1", 2, 4),
        ("rule", 2, 0, "in0", 3, 10),
        ("rule", 2, 1, "in1", 1, 4),
    ]
    assert tables["drops"].rows() == [("read", "code", 1, 1, "error:x", 1, 4), ("read", "rule", 2, 0, "spam", 2, 20)]


def test_each_station_of_a_run_takes_what_the_one_before_kept(finished: SmallRun) -> None:
    rows = [row for row in funnel(load_records(finished.run_dir)) if row.count.documents_in]
    assert [row.stage for row in rows] == [
        "web", "code", "measure", "rule", "same", "near", "train_tokenizer", "write_packs",
    ]  # fmt: skip
    for before, after in itertools.pairwise(rows[2:]):
        assert before.count.documents_kept == after.count.documents_in
        assert before.count.bytes_kept == after.count.bytes_in
    assert rows[2].count.documents_in == rows[0].count.documents_kept + rows[1].count.documents_kept
    assert rows[-1].count.documents_kept == 5


def test_written_tables_are_the_tables(finished: SmallRun) -> None:
    for name, table in stats_tables(load_records(finished.run_dir)).items():
        written = pl.read_parquet(finished.run_dir / "stats" / f"{name}.parquet")
        # Records on disk round durations.
        assert written.schema == table.schema
        assert written.drop("seconds", strict=False).equals(table.drop("seconds", strict=False))


def test_nothing_dropped_is_an_empty_table_with_columns(tmp_path: Path) -> None:
    tables = stats_tables({})
    assert tables["drops"].height == tables["stages"].height == 0
    assert "reason" in tables["drops"].columns and "documents_in" in tables["stages"].columns
    write_stats(tmp_path, {})
    assert pl.read_parquet(tmp_path / "stats/drops.parquet").schema == tables["drops"].schema
