"""The runner: what a run leaves, what a second run does, and why a phase runs again."""

from __future__ import annotations

import polars as pl
import pytest

from dataeng.engine.ledger import total
from dataeng.engine.reuse import inspect_plan
from dataeng.engine.runner import phase_counts
from dataeng.errors import PlanError, TaskError

from .conftest import PIPELINE, Listener, Toy


def test_documents_rejects_and_sink_hold_what_they_should(toy: Toy) -> None:
    result = toy.run()
    # Parts hold lines part … 19; those with a number divisible by 5 are bad; later parts repeat the first one's lines.
    kept = [pl.read_parquet(toy.run_dir / f"documents/dedup.apply/{part:05d}.parquet") for part in range(3)]
    assert kept[0].get_column("text").to_list() == [f"LINE {i}" for i in range(20) if i % 5]
    assert kept[1].height == kept[2].height == 0
    rejects = pl.read_parquet(toy.run_dir / "rejects/read/*.parquet")
    assert set(rejects.get_column("reason")) == {"contains_word"}
    assert rejects.height == 4 + 3 + 3
    assert rejects.get_column("text").to_list()[0] == "line 0 bad"
    repeated = pl.read_parquet(toy.run_dir / "rejects/dedup.apply/*.parquet")
    assert repeated.height == 16 + 15  # what parts 1 and 2 have left are all repeats
    assert set(repeated.get_column("stage")) == {"dedup"}
    assert (toy.run_dir / "collected/00000.txt").read_text() == "".join(f"LINE {i}\n" for i in range(20) if i % 5)
    assert (toy.run_dir / "collected/list.txt").read_text() == "00000.txt 16\n00001.txt 0\n00002.txt 0"
    counts = phase_counts(result.records["read"])
    assert counts["lines"].documents_in == 20 + 19 + 18
    assert counts["drop"].dropped == {"contains_word": [10, sum(len(t) for t in rejects.get_column("text"))]}


def test_signals_are_kept_for_documents_that_were_measured_and_null_for_those_dropped_before(toy: Toy) -> None:
    toy.run()
    signals = pl.read_parquet(toy.run_dir / "signals/read/*.parquet")
    assert signals.height == 57
    assert signals.get_column("toy_length").null_count() == 10


def test_second_run_does_nothing(toy: Toy) -> None:
    toy.run()
    before = {path: path.stat().st_mtime_ns for path in toy.run_dir.rglob("*") if path.is_file()}
    listener = Listener()
    again = toy.run(listener=listener)
    assert again.nothing_to_do and listener.states == []
    after = {path: path.stat().st_mtime_ns for path in toy.run_dir.rglob("*") if path.is_file()}
    assert {p for p in after if p.name not in (".lease.lock",)} == {p for p in before if p.name not in (".lease.lock",)}
    assert all(after[path] == before[path] for path in before if path.name != ".lease.lock")


def test_changed_parameter_reruns_only_what_depends_on_it(toy: Toy) -> None:
    toy.run()
    states = {state.phase.name: state for state in inspect_plan(toy.plan("dedup.partitions=2"), toy.run_dir)}
    # The emitting phase holds the partitioning, so it runs again; its own stages' options did not change.
    assert states["read"].reasons == ("config: dedup.partitions 3 → 2",)
    changed = {state.phase.name: state for state in inspect_plan(toy.plan("drop.word='7'"), toy.run_dir)}
    assert changed["read"].reasons == ("config: drop.word bad → 7",)
    assert changed["dedup.apply"].reasons == ("input: 'read' runs again",)


def test_a_later_stage_leaves_earlier_phases_alone(toy: Toy) -> None:
    toy.run()
    text = toy.file.read_text().replace("  - toy:Upper:\n", "  - toy:Upper:\n  - toy:DropContaining: {word: '9'}\n")
    toy.file.write_text(text)
    listener = Listener()
    result = toy.run(listener=listener)
    assert [state.phase.name for state in listener.states] == ["dedup.apply"]
    assert listener.states[0].reasons == ("config: 'dropcontaining' is new here",)
    assert result.tasks_run == 3 and result.tasks_reused == 3 + 3 + 3


def test_new_input_file_runs_one_new_task_in_the_first_phase(toy: Toy) -> None:
    toy.run()
    toy.write_input("9.txt", ["a new line"])
    state = inspect_plan(toy.plan(), toy.run_dir)[0]
    assert state.todo == (3,) and len(state.done) == 3
    assert state.reasons == ("input: 9.txt new",)
    toy.run()
    assert (toy.run_dir / "collected/00003.txt").read_text() == "A NEW LINE\n"


def test_changed_input_is_named(toy: Toy) -> None:
    toy.run()
    toy.write_input("1.txt", ["completely different"])
    state = inspect_plan(toy.plan(), toy.run_dir)[0]
    assert state.todo == (1,) and state.reasons == ("input: 1.txt changed",)


@pytest.mark.parametrize("damage", ["missing", "altered", "truncated"])
def test_a_damaged_shard_is_noticed_named_and_rebuilt(toy: Toy, damage: str) -> None:
    toy.run()
    expected = toy.results()
    shard = toy.run_dir / "documents/read/00001.parquet"
    content = shard.read_bytes()
    if damage == "missing":
        shard.unlink()
    elif damage == "altered":
        shard.write_bytes(content[:-20] + b"x" * 20)
    else:
        shard.write_bytes(content[:50])
    state = inspect_plan(toy.plan(), toy.run_dir)[0]
    assert state.todo == (1,)
    assert state.reasons[0].startswith("shard missing" if damage == "missing" else "shard altered")
    assert "documents/read/00001.parquet" in state.reasons[0]
    toy.run()
    assert toy.results() == expected


def test_verify_notices_what_size_and_time_hide(toy: Toy) -> None:
    import os

    toy.run()
    expected = toy.results()
    shard = toy.run_dir / "rejects/read/00000.parquet"
    status, content = shard.stat(), bytearray(shard.read_bytes())
    content[10] ^= 1
    shard.write_bytes(content)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert toy.run().nothing_to_do
    assert not toy.run(verify=True).nothing_to_do
    assert toy.results() == expected


def test_a_missing_sink_manifest_is_written_again(toy: Toy) -> None:
    toy.run()
    (toy.run_dir / "collected/list.txt").unlink()
    listener = Listener()
    result = toy.run(listener=listener)
    assert listener.states[0].reasons == ("manifest missing: collected/list.txt",)
    assert result.tasks_run == 0
    assert (toy.run_dir / "collected/list.txt").exists()


def test_leftovers_of_an_old_configuration_are_removed(toy: Toy) -> None:
    toy.run()
    stray = toy.run_dir / "documents/read/.00000.parquet.abc.tmp"
    stray.write_text("left by a killed attempt")
    toy.file.write_text(toy.file.read_text().replace("name: dedup", "name: repeats"))
    toy.run()
    assert not (toy.run_dir / "documents/dedup.apply").exists() and not stray.exists()
    assert (toy.run_dir / "documents/repeats.apply/00000.parquet").exists()


def test_a_document_that_breaks_a_stage_becomes_a_reject(toy: Toy) -> None:
    toy.write_input("0.txt", ["line 1", "please raise", "line 2", "line 3"])
    result = toy.run()
    counts = phase_counts(result.records["read"])["fragile"]
    assert counts.dropped == {"error:ValueError": [1, len("please raise")]}
    reject = pl.read_parquet(toy.run_dir / "rejects/read/00000.parquet")
    assert reject.get_column("detail").to_list() == ["cannot take 'please raise'"]
    assert reject.get_column("stage").to_list() == ["fragile"]


def test_a_stage_that_breaks_on_everything_fails_the_task_but_not_the_others(toy: Toy) -> None:
    toy.write_input("1.txt", [f"raise {i}" for i in range(30)])
    with pytest.raises(TaskError, match="1 of 3 tasks failed") as caught:
        toy.run()
    message = str(caught.value)
    assert "1.txt" in message and "'fragile' raised an error on 30 of 30" in message and "cannot take" in message
    state = inspect_plan(toy.plan(), toy.run_dir)[0]
    assert sorted(state.done) == [0, 2] and state.todo == (1,)
    toy.write_input("1.txt", ["line 1"])
    assert toy.run().tasks_reused == 2


@pytest.mark.parametrize(
    ("stage", "message"),
    [("LosesRows", "changed the number or order of rows"), ("Undeclared", "'surprise' without declaring")],
)
def test_a_stage_that_breaks_its_contract_is_named(toy: Toy, stage: str, message: str) -> None:
    toy.file.write_text(toy.file.read_text().replace("toy:Upper", f"toy:{stage}"))
    toy.write_input("0.txt", ["bad one", "good one"])
    toy.file.write_text(toy.file.read_text().replace("word: bad", "word: nothing"))
    with pytest.raises(TaskError, match=message):
        toy.run()


def test_where_leaves_other_rows_alone_and_in_place(toy: Toy) -> None:
    toy.file.write_text(toy.file.read_text().replace("  - toy:Upper:\n", "  - toy:Upper:\n    where: toy_length > 6\n"))
    toy.run()
    texts = pl.read_parquet(toy.run_dir / "documents/dedup.apply/00000.parquet").get_column("text").to_list()
    assert texts == [f"LINE {i}" if i > 9 else f"line {i}" for i in range(20) if i % 5]


def test_a_column_that_nobody_adds_stops_the_plan(toy: Toy) -> None:
    toy.file.write_text(toy.file.read_text().replace("  - toy:Upper:\n", "  - toy:Upper:\n    where: toy_lenght > 6\n"))
    with pytest.raises(
        PlanError, match="'upper' reads the column 'toy_lenght', which is not there; did you mean 'toy_length'"
    ):
        toy.plan()


def test_books_add_up_over_the_whole_run(toy: Toy) -> None:
    result = toy.run()
    first = total(record.counts["lines"] for record in result.records["read"])
    left = sum(record.file("documents").num_rows for record in result.records["dedup.apply"])  # type: ignore[union-attr]
    dropped = sum(
        count.documents_dropped
        for group in result.records.values()
        for counts in [phase_counts(group)]
        for count in counts.values()
    )
    rejects = pl.read_parquet(toy.run_dir / "rejects/*/*.parquet").height
    assert first.documents_in == left + dropped and dropped == rejects


def test_stages_in_another_order_run_again_and_say_so(toy: Toy) -> None:
    toy.run()
    text = toy.file.read_text().replace("  - toy:Measure:\n  - toy:Fragile:\n", "  - toy:Fragile:\n  - toy:Measure:\n")
    toy.file.write_text(text)
    assert inspect_plan(toy.plan(), toy.run_dir)[0].reasons == ("config: the stages are in another order",)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("JudgesTwice", "'dedup' decided about the same document twice"),
        ("JudgesNobody", "'dedup' decided about a document that is not there"),
    ],
)
def test_an_exchange_whose_verdicts_fit_no_document_is_named(toy: Toy, stage: str, message: str) -> None:
    toy.file.write_text(toy.file.read_text().replace("toy:KeepFirst", f"toy:{stage}"))
    with pytest.raises(TaskError, match=message):
        toy.run()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"null", b'{"files": [], "counts": []}', b"\xff"])
def test_a_record_that_cannot_be_understood_is_made_again(toy: Toy, content: bytes) -> None:
    toy.run()
    expected = toy.results()
    (toy.run_dir / "phases/read/task-00001.json").write_bytes(content)
    state = inspect_plan(toy.plan(), toy.run_dir)[0]
    assert state.todo == (1,) and state.reasons == ("record missing or unreadable",)
    assert toy.run().tasks_run == 1
    assert toy.results() == expected


def test_leftovers_of_killed_attempts_are_removed_from_the_sinks_folders_too(toy: Toy) -> None:
    toy.run()
    strays = [toy.run_dir / name for name in ("collected/.00000.txt.0123456789ab.tmp", ".run.json.0123456789ab.tmp")]
    for stray in strays:
        stray.write_text("left")
    other = toy.run_dir / "collected" / "notes.tmp"
    other.write_text("somebody's own")
    toy.write_input("3.txt", ["something new"])
    toy.run()
    assert not any(stray.exists() for stray in strays) and other.exists()


def test_a_stage_may_start_a_task_again_and_nothing_of_the_first_attempt_is_left(toy: Toy) -> None:
    pipeline = PIPELINE.replace("  - toy:KeepFirst:\n    name: dedup\n", "")
    toy.file.write_text(pipeline)
    plain = toy.run()
    expected = {path.name: path.read_bytes() for path in (toy.run_dir / "collected").iterdir()}
    counts = phase_counts(plain.records["read"])
    toy.file.write_text(pipeline.replace("toy:Collect:", "toy:CollectAtSecondAttempt:"))
    again = toy.run()
    assert {path.name: path.read_bytes() for path in (toy.run_dir / "collected").iterdir()} == expected
    found = phase_counts(again.records["read"])
    assert {n: c.documents_in for n, c in found.items() if n in counts} == {
        n: c.documents_in for n, c in counts.items() if n != "collect"
    }
    assert not list(toy.run_dir.rglob("*.tmp"))
    toy.file.write_text(pipeline.replace("toy:Collect:", "toy:CollectAtSecondAttempt: {times: 2}"))
    with pytest.raises(TaskError, match=r"0\.txt: a stage started the task again twice: the second batch does not fit"):
        toy.run()
