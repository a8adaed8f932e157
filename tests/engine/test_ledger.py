"""The books: cooked ones are noticed."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from dataeng.engine.ledger import StageCount, check_chain, too_many_errors, total
from dataeng.engine.outputs import TableWriter
from dataeng.engine.runner import _check_phases
from dataeng.errors import LedgerError, TaskError

from .conftest import Toy


def count(documents_in: int, kept: int, **dropped: int) -> StageCount:
    return StageCount(documents_in, 0, kept, 0, {reason: [n, 0] for reason, n in dropped.items()})


def test_balanced_books_pass() -> None:
    check_chain("here", [("read", count(10, 8, bad=2)), ("filter", count(8, 5, short=2, long=1))], 5, 5)


@pytest.mark.parametrize(
    ("chain", "written", "rejected", "message"),
    [
        ([("read", count(10, 8, bad=1))], 8, 1, "'read' took 10 documents and accounts for 8 kept \\+ 1 dropped"),
        ([("read", count(10, 10)), ("filter", count(9, 9))], 9, 0, "'read' kept 10 documents, 'filter' took 9"),
        ([("read", count(10, 8, bad=2))], 7, 2, "'read' kept 8 documents, 7 were written"),
        ([("read", count(10, 8, bad=2))], 8, 1, "2 documents were dropped, 1 rejects were written"),
    ],
)
def test_cooked_books_are_noticed(
    chain: list[tuple[str, StageCount]], written: int, rejected: int, message: str
) -> None:
    with pytest.raises(LedgerError, match=message):
        check_chain("here", chain, written, rejected)


def test_a_reject_that_is_counted_but_not_written_fails_the_task(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    write = TableWriter.write

    def lossy(self: TableWriter, frame: pl.DataFrame) -> None:
        write(self, frame[:-1] if self.name.startswith("rejects/read/00000") else frame)

    monkeypatch.setattr(TableWriter, "write", lossy)
    with pytest.raises(TaskError, match="documents were dropped, "):
        toy.run()


def test_phases_that_do_not_hand_on_what_they_wrote_are_noticed(toy: Toy) -> None:
    result = toy.run()
    plan = toy.plan()
    _check_phases(plan, result.records)
    first = result.records["dedup.apply"][0]
    cooked = replace(
        first, counts={name: replace(c, documents_in=c.documents_in + 1) for name, c in first.counts.items()}
    )
    records = {**result.records, "dedup.apply": [cooked, *result.records["dedup.apply"][1:]]}
    with pytest.raises(LedgerError, match=r"part 0: 'read' wrote 16 documents, 'dedup\.apply' read 17"):
        _check_phases(plan, records)


def test_counts_add_up() -> None:
    both = total([count(10, 8, bad=2), count(5, 3, bad=1, long=1)])
    assert (both.documents_in, both.documents_kept, both.documents_dropped) == (15, 11, 4)
    assert both.dropped == {"bad": [3, 0], "long": [1, 0]}


def test_when_a_stage_is_at_fault() -> None:
    assert too_many_errors(StageCount(2, 0, 0, 0, {"error:TypeError": [2, 0]}), 0.05)  # all it was given
    assert not too_many_errors(StageCount(1, 0, 0, 0, {"error:TypeError": [1, 0]}), 0.05)
    assert not too_many_errors(StageCount(100, 0, 80, 0, {"error:TypeError": [20, 0]}), 0.05)
    assert too_many_errors(StageCount(100, 0, 79, 0, {"error:TypeError": [21, 0]}), 0.05)
    assert not too_many_errors(StageCount(1000, 0, 950, 0, {"error:TypeError": [50, 0]}), 0.05)
    assert not too_many_errors(StageCount(100, 0, 0, 0, {"too_short": [100, 0]}), 0.05)


def test_a_stage_that_breaks_in_every_small_file_fails_the_phase(toy: Toy) -> None:
    for part in range(3):
        toy.write_input(f"{part}.txt", ["raise now"])
    with pytest.raises(TaskError, match="'fragile' raised an error on 3 of 3 documents"):
        toy.run()


def test_an_altered_record_is_noticed(toy: Toy) -> None:
    from dataeng.engine.reuse import inspect_plan

    toy.run()
    path = toy.run_dir / "phases/read/task-00000.json"
    path.write_text(path.read_text().replace('"num_rows": 16', '"num_rows": 15', 1))
    state = inspect_plan(toy.plan(), toy.run_dir)[0]
    assert state.todo == (0,) and state.reasons == ("record altered: phases/read/task-00000.json",)
    toy.run()
    assert inspect_plan(toy.plan(), toy.run_dir)[0].complete
