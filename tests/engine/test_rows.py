"""Row phases: what an exchange of its own kind does to documents when its verdicts are applied."""

from __future__ import annotations

import polars as pl
import pytest

from dataeng.engine.runner import phase_counts
from dataeng.errors import TaskError

from .conftest import Toy

EDITING = """\
name: toy
sources:
  - toy:Lines:
stages:
  - toy:CountInitials:
    name: same
  - toy:Measure:
  - toy:Collect:
"""


@pytest.fixture
def editing(toy: Toy) -> Toy:
    toy.file.write_text(EDITING)
    toy.write_input("0.txt", ["1a", "2b", "3a"])
    toy.write_input("1.txt", ["4a", "5c", "6a"])
    toy.write_input("2.txt", [])
    return toy


def test_an_exchange_may_edit_documents_and_add_signals(editing: Toy) -> None:
    result = editing.run()
    left = [pl.read_parquet(editing.run_dir / f"documents/same.apply/{part:05d}.parquet") for part in range(3)]
    texts = [text for frame in left for text in frame.get_column("text").to_list()]
    assert texts == ["1a x4", "2b x1", "3a x4", "4a x4", "5c x1", "6a x4"]
    assert left[0].get_column("toy_same").to_list() == [4, 1, 4] and "row" not in left[0].columns
    signals = pl.read_parquet(editing.run_dir / "signals/same.apply/00001.parquet")
    assert signals.select("toy_same", "toy_length").rows() == [(4, 5), (1, 5), (4, 5)]
    counts = phase_counts(result.records["same.apply"])["same"]
    assert (counts.documents_in, counts.bytes_in, counts.bytes_kept) == (6, 12, 30)


def test_it_may_drop_documents_and_stages_may_rely_on_its_columns(editing: Toy) -> None:
    editing.write_input("1.txt", ["4a", "5c"])
    editing.file.write_text(EDITING.replace("  - toy:Measure:\n", "  - toy:Measure:\n    where: toy_same < 2\n"))
    editing.run()
    rejects = pl.read_parquet(editing.run_dir / "rejects/same.apply/*.parquet")
    assert set(rejects.get_column("reason")) == {"three"} and rejects.height == 3
    documents = pl.read_parquet(editing.run_dir / "documents/same.apply/*.parquet")
    assert documents.select("text", "toy_length").rows() == [("2b x1", 5), ("5c x1", 5)]


def test_workers_change_nothing(editing: Toy) -> None:
    editing.run()
    before = editing.results()
    editing.run_dir = editing.folder / "again"
    editing.run(scheduler="processes", workers=2)
    assert editing.results() == before


def test_verdicts_without_what_apply_needs_are_an_error_of_the_stage(editing: Toy) -> None:
    with pytest.raises(TaskError, match=r"'same' reduced to a table whose 'initial' is missing; expected String"):
        editing.run("same.broken=true")


def test_a_stage_that_adds_a_column_twice_in_two_types_does_not_plan(editing: Toy) -> None:
    from dataeng.errors import PlanError

    (editing.folder / "other.py").write_text(
        "import polars as pl\nfrom dataeng.stage import Columns, RowStage\n\n\nclass Other(RowStage):\n"
        "    def columns(self):\n        return Columns(signals={'toy_same': pl.String()})\n\n"
        "    def apply(self, batch):\n        return batch\n"
    )
    editing.file.write_text(EDITING.replace("  - toy:Measure:\n", "  - other:Other:\n"))
    with pytest.raises(PlanError, match="'toy_same'"):
        editing.plan()
