"""Exchanges with all kinds of steps: partitions in pieces, documents looked at again, steps repeated."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from dataeng.engine.exchange import PartitionedWriter, PartitionSlices, TableSlice
from dataeng.engine.outputs import TaskOutputs
from dataeng.engine.reuse import inspect_plan
from dataeng.engine.runner import load_records
from dataeng.errors import TaskError

from .conftest import Listener, Toy

WANDER = """\
name: wander
sources:
  - toy:Lines:
stages:
  - toy:Wander:
    name: wander
  - toy:Collect:
"""
ROUNDS = ["wander.walk", "wander.walk-1", "wander.walk-2"]


@pytest.fixture
def wander(make_toy: Callable[..., Toy]) -> Toy:
    return make_toy("wander", WANDER)


def test_a_step_is_repeated_until_nothing_changes_and_documents_are_looked_at_again(wander: Toy) -> None:
    result = wander.run()
    assert [name for name in result.records if "walk" in name] == ROUNDS
    rejects = pl.read_parquet(wander.run_dir / "rejects/wander.apply/*.parquet")
    lines = [(part, row, f"line {i} bad" if i % 5 == 0 else f"line {i}")
             for part in range(3) for row, i in enumerate(range(part, 20))]  # fmt: skip
    odd = {(text, f"{row % 4} hops") for _, row, text in lines if len(text) % 2}
    assert set(rejects.select("text", "detail").iter_rows()) == odd
    assert rejects.height == sum(len(text) % 2 for _, _, text in lines)


def test_a_second_run_finds_all_rounds_done(wander: Toy) -> None:
    wander.run()
    listener = Listener()
    assert wander.run(listener=listener).nothing_to_do and listener.states == []
    states = inspect_plan(wander.plan(), wander.run_dir)
    assert [state.phase.name for state in states if "walk" in state.phase.name] == ROUNDS
    assert all(state.complete for state in states)
    assert list(load_records(wander.run_dir)) == ["read", *ROUNDS, "wander.look", "wander.judge", "wander.apply"]


def test_workers_change_nothing(wander: Toy) -> None:
    wander.run()
    alone = wander.results()
    shutil.rmtree(wander.run_dir)
    wander.run(scheduler="processes", workers=2)
    assert wander.results() == alone


def test_a_run_that_stopped_in_a_round_goes_on_from_it(wander: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    wander.run()
    expected = wander.results()
    shutil.rmtree(wander.run_dir)
    monkeypatch.setenv("TOY_FAILS_AT_HOP", "2")
    with pytest.raises(TaskError, match="a bridge is out"):
        wander.run()
    monkeypatch.delenv("TOY_FAILS_AT_HOP")
    listener = Listener()
    wander.run(listener=listener)
    assert listener.states[0].phase.name == "wander.walk-2"
    assert wander.results() == expected


def test_a_damaged_round_is_done_again(wander: Toy) -> None:
    wander.run()
    expected = wander.results()
    (damaged,) = [
        file for file in (wander.run_dir / "exchange/wander.walk-1").iterdir() if file.name == "00001.parquet"
    ]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    listener = Listener()
    wander.run(listener=listener, verify=True)
    assert "shard altered" in listener.states[0].reasons[0] and listener.states[0].phase.name == "wander.walk-1"
    assert wander.results() == expected


def test_a_partition_without_rows_costs_a_record_and_no_worker(wander: Toy) -> None:
    listener = Listener()
    wander.run(listener=listener)
    asked = {record.index for record in listener.records if record.phase == "wander.walk"}
    assert asked == {0, 1, 2}  # parts start in the partition of their number
    record = json.loads((wander.run_dir / "phases/wander.walk/task-00004.json").read_text())
    assert record["files"] == []


def test_rows_come_back_by_partition_in_order_however_often_the_writer_wrote(tmp_path: Path) -> None:
    outputs = TaskOutputs(tmp_path)
    writer = PartitionedWriter(outputs, "exchange", "t.parquet", buffer_bytes=64)
    for start in range(0, 100, 10):
        frame = pl.DataFrame({"n": range(start, start + 10)}, schema={"n": pl.Int64})
        writer.write(frame.with_columns((pl.col("n") % 3).cast(pl.UInt32).alias("partition")))
    assert writer.close() == 100
    (file,) = outputs.commit()
    assert sum(map(len, file.row_groups.values())) > 3  # it wrote more than once
    for partition in range(3):
        slices = PartitionSlices(tmp_path, [TableSlice("t.parquet", tuple(file.row_groups[str(partition)]))])
        table = slices.collect()
        assert table is not None and slices.num_rows == table.height
        assert table.get_column("n").to_list() == list(range(partition, 100, 3))
        assert pl.concat(list(slices)).equals(table)  # and may be gone through again


def test_tables_of_one_task_have_one_schema(tmp_path: Path) -> None:
    writer = PartitionedWriter(TaskOutputs(tmp_path), "exchange", "t.parquet")
    writer.write(pl.DataFrame({"partition": [0]}, schema={"partition": pl.UInt32}))
    with pytest.raises(TaskError, match=r"a table of .*'n'.* follows one of"):
        writer.write(pl.DataFrame({"partition": [0], "n": [1]}, schema={"partition": pl.UInt32, "n": pl.Int8}))
