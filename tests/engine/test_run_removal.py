"""Removal from the packs of a run: nothing it does later brings a document back, whatever fails on the way."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest

from dataeng.config import load_pipeline
from dataeng.engine.executor import Pool
from dataeng.engine.run_removal import PENDING, STATION, drop_removed, finish_removal, run_of_pack, run_packs
from dataeng.engine.runner import RunResult, run_plan
from dataeng.engine.takedown import Takedown, take_down
from dataeng.errors import ConfigError, DataengError
from dataeng.formats.pack import Pack, load_manifest
from dataeng.formats.pack_verification import verify_pack
from dataeng.formats.removal_list import LIST_NAME, RemovalList, load_removals, removal_list
from dataeng.plan import make_plan
from dataeng.report.explain import explain
from dataeng.report.sql import query
from tests.engine.conftest import Listener
from tests.faults.test_every_io_call import MODES, Faults, Killed

PIPELINE = """\
name: towns
sources:
  - read_files: {paths: ["web/*.jsonl"], domain: web}
    name: web
  - read_files: {paths: ["code/*.jsonl"], domain: code}
    name: code
stages:
  - train_tokenizer: {vocab_size: 270}
  - write_packs:
"""
WHEN = "2026-01-01T00:00:00+00:00"
INPUT = {
    "web/0.jsonl": [("https://a.example/1", "a garden by the river"), ("https://b.example/2", "beans and corn")],
    "web/1.jsonl": [("https://www.b.example/3", "squash in rows"), ("https://c.example/4", "water from the well")],
    "code/c.jsonl": [("https://b.example/5", "print(1)"), ("https://c.example/6", "import this")],
}


class Towns:
    """A run of three inputs, and its folder as it was when it was complete."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run_dir, self.file = folder, folder / "runs/towns", folder / "towns.yaml"
        self.file.write_text(PIPELINE)
        for name, pages in INPUT.items():
            self.write(name, pages)
        self.run()
        shutil.copytree(self.run_dir, folder / "complete")
        self.before = self.content()
        remove(self)
        self.after = self.content()

    def write(self, name: str, pages: list[tuple[str, str]]) -> None:
        (self.folder / name).parent.mkdir(exist_ok=True)
        (self.folder / name).write_text("".join(json.dumps({"url": u, "text": t}) + "\n" for u, t in pages))

    def restore(self) -> None:
        shutil.rmtree(self.run_dir)
        shutil.copytree(self.folder / "complete", self.run_dir)

    def run(self, *overrides: str, thorough: bool = False) -> RunResult:
        pipeline = load_pipeline(self.file, [f"run={self.run_dir}", *overrides])
        return run_plan(make_plan(pipeline), self.run_dir, Pool("inline", 1), Listener(), thorough=thorough)

    def content(self) -> dict[str, list[str]]:
        """Returns the URLs in every pack, after checking that the packs are whole and as long as they say."""
        urls: dict[str, list[str]] = {}
        for folder in run_packs(self.run_dir):
            assert verify_pack(folder) == []
            files = [shard.shard.files["docs"].name for shard in Pack(folder).shards]
            urls[folder.name] = [u for name in files for u in pl.read_parquet(folder / name).get_column("url")]
        return urls

    def bury(self) -> None:
        """Makes the lease look as it does when its process has really died."""
        path = self.run_dir / "lease.json"
        if path.exists():
            path.write_text(json.dumps({**json.loads(path.read_text()), "process": "dead"}))


def listed(*hosts: str, ids: tuple[str, ...] = ()) -> RemovalList:
    return removal_list(list(ids), list(hosts), "asked", WHEN)


def remove(towns: Towns, removals: RemovalList | None = None) -> Takedown:
    return take_down([towns.run_dir], removals or listed("*.b.example"), [], WHEN)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Towns:
    return Towns(tmp_path_factory.mktemp("towns"))


@pytest.fixture
def towns(made: Towns) -> Towns:
    made.restore()
    return made


def test_documents_go_and_the_run_stays_complete(towns: Towns) -> None:
    assert towns.before == {
        "code": ["https://b.example/5", "https://c.example/6"],
        "web": ["https://a.example/1", "https://b.example/2", "https://www.b.example/3", "https://c.example/4"],
    }
    done = remove(towns)
    assert (sum(plan.num_documents for plan in done.packs), done.ids_unknown) == (3, [])
    assert towns.content() == towns.after
    assert towns.after == {"code": ["https://c.example/6"], "web": ["https://a.example/1", "https://c.example/4"]}
    assert towns.run(thorough=True).nothing_to_do and towns.content() == towns.after
    assert not (towns.run_dir / PENDING).exists()
    # The run's tables tell the same: what is packed, and what was taken out of it.
    assert query(towns.run_dir, "SELECT url FROM packs ORDER BY url")[1] == [
        ("https://a.example/1",), ("https://c.example/4",), ("https://c.example/6",)
    ]  # fmt: skip
    removed = query(towns.run_dir, "SELECT url, because, reason, removed FROM removed ORDER BY url")[1]
    assert removed[0] == ("https://b.example/2", "domain b.example", "asked", WHEN) and len(removed) == 3
    story = explain(towns.run_dir, "https://b.example/2")
    assert story.outcome == f"kept, then removed from its pack on {WHEN} (domain b.example: asked)" and not story.pack


def test_a_part_all_of_whose_documents_go(towns: Towns) -> None:
    remove(towns, listed("a.example", "b.example"))
    assert towns.content() == {
        "code": ["https://c.example/6"],
        "web": ["https://www.b.example/3", "https://c.example/4"],
    }
    assert [shard.name for shard in load_manifest(towns.run_dir / "packs/web").shards] == ["00001"]
    assert towns.run(thorough=True).nothing_to_do


def test_a_whole_pack_may_go(towns: Towns) -> None:
    remove(towns, listed("b.example", "c.example"))
    assert towns.content() == {"code": [], "web": ["https://a.example/1", "https://www.b.example/3"]}
    assert load_manifest(towns.run_dir / "packs/code").num_tokens == 0
    assert towns.run(thorough=True).nothing_to_do


def test_a_run_that_is_done_again_drops_what_is_on_the_list(towns: Towns) -> None:
    remove(towns)
    result = towns.run("train_tokenizer.vocab_size=265")
    assert result.tasks_run > 0 and towns.content() == towns.after
    assert load_manifest(towns.run_dir / "packs/web").vocab_size == 265
    (name, rows) = query(towns.run_dir, "SELECT stage, reason, detail, url, text FROM rejects ORDER BY url")
    assert rows[0] == (STATION, "removed", "domain b.example: asked", "https://b.example/2", None) and len(rows) == 3
    assert name[0] == "stage" and "text" not in explain(towns.run_dir, "https://b.example/2").identity
    assert explain(towns.run_dir, "https://b.example/2").text is None
    phase = json.loads((towns.run_dir / "run.json").read_text())["phases"][-1]["name"]
    counts = [record.counts[STATION] for record in result.records[phase]]
    assert sum(count.documents_dropped for count in counts) == 3 and sum(c.documents_in for c in counts) == 6
    assert towns.run("train_tokenizer.vocab_size=265", thorough=True).nothing_to_do


def test_documents_that_come_later_are_dropped_too(made: Towns) -> None:
    made.restore()
    remove(made, listed("*.b.example"))
    made.write("web/2.jsonl", [("https://deep.b.example/7", "late"), ("https://d.example/8", "late, too")])
    try:
        made.run()
        assert made.content()["web"] == ["https://a.example/1", "https://c.example/4", "https://d.example/8"]
    finally:
        (made.folder / "web/2.jsonl").unlink()


@pytest.mark.parametrize("damage", ["00000.r1.bin", "00001.r1.docs.parquet", "pack.json"])
def test_files_that_go_missing_are_restored_without_the_documents(towns: Towns, damage: str) -> None:
    remove(towns)
    (towns.run_dir / "packs/web" / damage).unlink()
    assert towns.run().tasks_run == (damage != "pack.json")
    assert towns.content() == towns.after and towns.run(thorough=True).nothing_to_do
    # And once more after that: revisions of shards are never written over.
    remove(towns, listed("c.example"))
    assert towns.content() == {"code": [], "web": ["https://a.example/1"]}
    assert towns.run(thorough=True).nothing_to_do


def test_removals_add_up(towns: Towns) -> None:
    identifier = str(query(towns.run_dir, "SELECT id FROM documents WHERE url LIKE '%/1'")[1][0][0])
    remove(towns, listed(ids=(identifier, "nobody")))
    done = remove(towns, listed("b.example", ids=(identifier,)))
    assert (done.num_ids, done.ids_removed_before, done.ids_unknown) == (1, 1, [])
    stored = load_removals(towns.run_dir)
    assert stored is not None and stored.entries.get_column("value").to_list() == [identifier, "nobody", "b.example"]
    assert towns.content()["web"] == ["https://www.b.example/3", "https://c.example/4"]
    assert load_manifest(towns.run_dir / "packs/web").revision == 2
    towns.run("train_tokenizer.vocab_size=265")
    assert towns.content()["web"] == ["https://www.b.example/3", "https://c.example/4"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Arrow's writers, closed after a "kill"
def test_whatever_call_fails_a_run_or_a_removal_finishes_the_work(towns: Towns, mode: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        faults = Faults(patch, mode)
        remove(towns)
    calls = faults.calls
    assert calls > 60 or mode == "torn write"
    for n in range(1 + MODES.index(mode), calls + 1, max(1, calls // 7)):
        towns.restore()
        with pytest.MonkeyPatch.context() as patch:
            faulty = Faults(patch, mode, n)
            with suppress(DataengError, OSError, Killed):
                remove(towns)
            assert faulty.met
        towns.bury()
        recorded = (towns.run_dir / LIST_NAME).exists()
        found = towns.content()
        assert all(found[name] in (towns.before[name], towns.after[name]) for name in found), f"{mode} {n}"
        if n % 2:
            towns.run()  # the run finishes what was begun; what was not even noted, it cannot know
            assert towns.content() == (towns.after if recorded else towns.before), f"{mode} {n}"
        remove(towns)
        assert towns.content() == towns.after, f"{mode} {n}"
        assert not (towns.run_dir / PENDING).exists() and not list((towns.run_dir / "packs").rglob("*.tmp"))
        assert towns.run(thorough=True).nothing_to_do


def test_a_pack_that_was_damaged_while_a_removal_was_under_way_is_written_again(towns: Towns) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        Faults(patch, "kill", 30)
        remove(towns)
    towns.bury()
    assert (towns.run_dir / PENDING).exists() and (towns.run_dir / LIST_NAME).exists()
    damaged = next((towns.run_dir / "packs/code").glob("*.docs.parquet"))
    damaged.write_bytes(b"nothing")
    result = towns.run()
    assert result.tasks_run == 3 and towns.content() == towns.after
    assert not (towns.run_dir / PENDING).exists() and not finish_removal(towns.run_dir)
    assert towns.run(thorough=True).nothing_to_do


def test_a_run_that_is_not_complete_is_refused(towns: Towns) -> None:
    path = towns.run_dir / "run.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "status": "failed"}))
    with pytest.raises(ConfigError, match=r"towns is failed, not complete: finish it first \(dataeng run\)"):
        remove(towns)
    assert not (towns.run_dir / LIST_NAME).exists() and towns.content() == towns.before
    path.write_text("{}")
    with pytest.raises(ConfigError, match="holds no run that can be read"):
        remove(towns)


def test_a_pack_of_a_run_is_not_changed_behind_its_back(towns: Towns, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"is a pack of the run .*towns, which has to know.*dataeng remove .*towns …"):
        take_down([towns.run_dir / "packs/web"], listed("b.example"), [], WHEN)
    monkeypatch.chdir(towns.run_dir / "packs/web")
    assert run_of_pack(Path()) == towns.run_dir and run_of_pack(towns.run_dir) is None
    assert towns.content() == towns.before


def test_rows_without_hosts_or_text() -> None:
    batch = pl.DataFrame({"id": ["1", "2"], "text": ["a", "b"]})
    dropped = drop_removed(batch, listed("a.example", ids=("2",)))
    assert dropped.rows() == [("1", "a", None, None), ("2", None, "removed", "id: asked")]
    kept = drop_removed(batch, listed("a.example"))
    assert kept.rows() == [("1", "a", None, None), ("2", "b", None, None)]
