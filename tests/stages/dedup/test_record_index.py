"""New against old: a crawl is deduplicated against what an earlier one left in an index."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from dataeng.engine.reuse import inspect_plan
from dataeng.errors import FormatError, PlanError
from dataeng.formats import dedup_index
from dataeng.formats.dedup_index import load_index
from tests.end_to_end.runs import ROOT, command
from tests.stages.dedup.crawls import Crawls, run_made

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrstz"]


def page(seed: int, num_words: int = 200) -> str:
    generator = random.Random(seed)
    return " ".join(generator.choice(WORDS) for _ in range(num_words))


def edited(text: str, num_words: int = 2, seed: int = 1) -> str:
    words = text.split()
    for at in random.Random(seed).sample(range(len(words)), num_words):
        words[at] = f"edited{seed}"
    return " ".join(words)


OLD = [page(1), page(2), edited(page(1)), "too short", page(3)]
NEW = [edited(page(2), seed=2), page(8), edited(page(8)), "Too, SHORT!", page(9), edited(page(1), seed=3)]
DROPPED = {  # of NEW → what it is a duplicate of
    "https://new/0": "https://old/1",
    "https://new/2": "https://new/1",
    "https://new/3": "https://old/3",
    "https://new/5": "https://old/0",
}


@pytest.fixture
def crawls(tmp_path: Path) -> Crawls:
    crawls = Crawls(tmp_path)
    crawls.write("old", OLD)
    crawls.write("new", NEW)
    return crawls


# --- the planted case


@pytest.mark.parametrize("store", ["shingles", "signature"])
def test_a_new_crawl_is_deduplicated_against_an_old_one_whose_text_is_gone(crawls: Crawls, store: str) -> None:
    crawls.run("old", f"add: true, store: {store}")
    ids = crawls.kept("old")
    (crawls.folder / "crawls/old.jsonl").unlink()
    for path in sorted((crawls.folder / "runs").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    crawls.run("new", f"store: {store}")
    evidence = crawls.evidence("new")
    ids |= crawls.kept("new")
    assert {url: row["kept_id"] for url, row in evidence.items()} == {n: ids[kept] for n, kept in DROPPED.items()}
    assert {url: row["index_segment"] for url, row in evidence.items()} == {
        url: "old" if "old" in kept else None for url, kept in DROPPED.items()
    }
    for url, row in evidence.items():
        by_estimate = store == "signature" and "old" in DROPPED[url]
        assert row["method"] == ("minhash_estimate" if by_estimate else "minhash")
        assert row["matched_id"] == row["kept_id"] and 0.7 <= float(str(row["similarity"])) <= 1
        assert ("in index segment old" in str(row["detail"])) == ("old" in DROPPED[url])
        assert row["reason"] == "near_duplicate"


def test_the_same_documents_go_as_when_both_crawls_are_deduplicated_together(crawls: Crawls) -> None:
    crawls.run("old")
    crawls.run("new", "")
    (crawls.folder / "crawls/new.jsonl").rename(crawls.folder / "crawls/the_new.jsonl")  # behind the old one
    crawls.run("both", None, "*.jsonl")
    together, found = crawls.evidence("both"), crawls.evidence("new")
    assert set(together) == set(found) | {"https://old/2"}
    for url in found:
        assert found[url]["similarity"] == together[url]["similarity"]


def test_old_documents_win_whatever_the_policy_says(crawls: Crawls) -> None:
    crawls.run("old", options="survivor: [text_bytes desc]")
    longer = page(2) + " and a few words more"
    crawls.write("new", [longer, page(2)])
    crawls.run("new", "", options="survivor: [text_bytes desc]")
    evidence = crawls.evidence("new")
    assert len(evidence) == 2 and {row["index_segment"] for row in evidence.values()} == {"old"}


def test_new_documents_of_a_cluster_with_an_old_one_all_go(crawls: Crawls) -> None:
    """The second is like the old one only through the first."""
    near = edited(page(2), 3, seed=5)
    far = edited(near, 3, seed=6)
    crawls.write("new", [near, far])
    crawls.run("old", options="threshold: 0.8")
    crawls.run("new", "", options="threshold: 0.8")
    evidence = crawls.evidence("new")
    ids = crawls.kept("old")
    assert {row["kept_id"] for row in evidence.values()} == {ids["https://old/1"]}
    assert [row["cluster_size"] for row in evidence.values()] == [3, 3]
    assert evidence["https://new/1"]["matched_id"] == evidence["https://new/0"]["id"]


def test_without_a_threshold_an_old_document_of_the_bucket_is_enough(crawls: Crawls) -> None:
    crawls.run("old", options="threshold: null")
    crawls.run("new", "", options="threshold: null")
    evidence = crawls.evidence("new")
    assert set(evidence) == set(DROPPED) and evidence["https://new/0"]["similarity"] is None


def test_several_old_documents_in_one_bucket_are_all_compared(crawls: Crawls) -> None:
    """With one row per band nearly everything shares a bucket with everything that shares a few shingles."""
    template = page(50, 60)
    olds = [f"{template} {page(60 + i, 140)}" for i in range(6)]
    crawls.write("old", olds)
    crawls.write("new", [edited(text, 3, seed=i) for i, text in enumerate(olds)])
    options = "bands: 40, rows: 1"
    crawls.run("old", options=options)
    assert len(crawls.kept("old")) == 6
    crawls.run("new", "", options=options)
    ids = crawls.kept("old")
    matched = {url: row["matched_id"] for url, row in crawls.evidence("new").items()}
    assert matched == {f"https://new/{i}": ids[f"https://old/{i}"] for i in range(6)}


# --- what goes into the index


def test_only_documents_that_are_left_are_in_the_segment(crawls: Crawls) -> None:
    crawls.run("old")
    index = load_index(crawls.index)
    (segment,) = index.segments
    documents = pl.concat(
        pl.read_parquet(crawls.index / "segments" / segment.folder / file.name) for file in segment.of_kind("documents")
    )
    assert sorted(documents["url"]) == sorted(crawls.kept("old")) and "text" not in documents.columns
    assert segment.origins[0].documents == 4 and segment.names == ("old",)
    assert segment.origins[0].text_bytes == sum(len(OLD[number]) for number in (0, 1, 3, 4))
    keys = pl.concat(
        pl.read_parquet(crawls.index / "segments" / segment.folder / file.name) for file in segment.of_kind("keys")
    )
    assert keys.height == 3 * 14 + 1 and keys["key"].is_sorted()


def test_a_run_without_documents_adds_an_empty_segment(crawls: Crawls) -> None:
    crawls.write("old", ["", " "])
    crawls.run("old")
    assert [(origin.name, origin.documents) for origin in load_index(crawls.index).origins] == [("old", 0)]
    crawls.run("new", "")
    assert set(crawls.evidence("new")) == {"https://new/2"}


# --- running again


def test_running_again_changes_nothing_whoever_has_added_since(crawls: Crawls) -> None:
    crawls.run("old")
    crawls.run("new")
    before = {name: crawls.results(name) for name in ("old", "new")}
    for name in ("old", "new", "old"):
        assert crawls.run(name).nothing_to_do
        assert crawls.results(name) == before[name]
    assert [origin.name for origin in load_index(crawls.index).origins] == ["old", "new"]


def test_a_run_replaces_its_own_segment_in_its_place(crawls: Crawls) -> None:
    crawls.run("old")
    crawls.run("new")
    first = load_index(crawls.index)
    crawls.write("old", [page(1), page(77)])
    assert not crawls.run("old").nothing_to_do
    second = load_index(crawls.index)
    assert [origin.name for origin in second.origins] == ["old", "new"]
    assert second.segments[0] != first.segments[0] and second.segments[1] == first.segments[1]
    folders = sorted(path.name for path in (crawls.index / "segments").iterdir())
    assert folders == sorted(segment.folder for segment in second.segments)
    plan = crawls.plan("new", "add: true")
    reasons = [reason for state in inspect_plan(plan, crawls.run_dir("new")) for reason in state.reasons]
    assert "index: segment old changed" in reasons


def test_a_new_segment_is_the_reason_to_compare_again_but_not_to_read_again(crawls: Crawls) -> None:
    crawls.write("third", [page(9)])
    crawls.run("old")
    crawls.run("new", "")
    crawls.run("third")
    plan = crawls.plan("new", "")
    states = {state.phase.name: state for state in inspect_plan(plan, crawls.run_dir("new"))}
    assert states["read"].complete
    assert states["deduplicate_minhash.buckets"].reasons == ("index: segment third is new",)
    result = run_made(plan, crawls.run_dir("new"))
    assert result.tasks_reused == 1
    assert crawls.evidence("new")["https://new/4"]["index_segment"] == "third"


def test_an_option_that_emits_nothing_does_not_read_again(crawls: Crawls) -> None:
    crawls.run("new", None)
    plan = crawls.plan("new", None, options="threshold: 0.9")
    states = inspect_plan(plan, crawls.run_dir("new"))
    assert states[0].complete and states[1].reasons == ("config: deduplicate_minhash.threshold 0.7 → 0.9",)


def test_of_two_that_add_at_the_same_time_the_second_catches_up_when_it_runs_again(crawls: Crawls) -> None:
    plans = {name: crawls.plan(name, "add: true") for name in ("old", "new")}  # both see an empty index
    for name, plan in plans.items():
        run_made(plan, crawls.run_dir(name))
    assert set(crawls.evidence("new")) == {"https://new/2"}
    assert [origin.name for origin in load_index(crawls.index).origins] == ["old", "new"]
    assert crawls.run("old").nothing_to_do
    crawls.run("new")
    assert set(crawls.evidence("new")) == set(DROPPED)


def test_a_segment_that_changes_while_a_run_reads_is_an_error(crawls: Crawls) -> None:
    crawls.run("old")
    plan = crawls.plan("new", "")
    crawls.write("old", [page(1), page(77)])
    crawls.run("old")
    with pytest.raises(Exception, match=r"segment 'old' .* was replaced after this run was planned; run again"):
        run_made(plan, crawls.run_dir("new"))
    crawls.run("new", "")
    assert set(crawls.evidence("new")) == {"https://new/2", "https://new/5"}


def test_a_lost_index_is_restored_from_the_run(crawls: Crawls) -> None:
    crawls.run("old")
    expected = crawls.results("old")
    segment = load_index(crawls.index).segments[0]
    (crawls.index / "segments" / segment.folder / "segment.json").unlink()
    (crawls.index / "segments" / segment.folder / "keys-00001.parquet").write_bytes(b"gone")
    assert crawls.run("old").tasks_run == 0
    assert crawls.results("old") == expected


# --- what does not fit is an error before anything runs


def test_other_parameters_are_an_error_with_names_and_numbers(crawls: Crawls) -> None:
    crawls.run("old")
    with pytest.raises(PlanError, match="bands is 14 there and 20 here; rows is 8 there and 4 here"):
        crawls.plan("new", "", options="bands: 20, rows: 4")
    with pytest.raises(PlanError, match="store is 'shingles' there and 'signature' here"):
        crawls.plan("new", "store: signature")
    assert not crawls.run_dir("new").exists()


def test_an_index_that_is_not_there_is_an_error_unless_it_is_to_be_made(crawls: Crawls) -> None:
    with pytest.raises(PlanError, match=r"there is no dedup index at .*; a first run makes one with `add: true`"):
        crawls.plan("new", "")


def test_another_run_s_segment_is_not_replaced(crawls: Crawls) -> None:
    crawls.run("old", "add: true, segment: main")
    with pytest.raises(PlanError, match=r"segment 'main' .* was added by the run in .*runs/old, not by this one"):
        crawls.plan("new", "add: true, segment: main")


def test_containment_cannot_be_estimated(crawls: Crawls) -> None:
    with pytest.raises(Exception, match="signatures say nothing about containment"):
        crawls.plan("new", "add: true, store: signature", options="similarity: containment")


# --- faults


def damaged(crawls: Crawls, kind: str) -> Path:
    segment = load_index(crawls.index).segments[0]
    return crawls.index / "segments" / segment.folder / segment.of_kind(kind)[0].name


def flip(path: Path, column: str) -> None:
    """Changes one bit of the last value of a column."""
    with pq.ParquetFile(path) as file:
        group = file.metadata.row_group(0)
        chunk = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == column)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size - 3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["documents", "keys"])
def test_a_truncated_segment_is_noticed_when_planning_and_named(crawls: Crawls, kind: str) -> None:
    crawls.run("old")
    path = damaged(crawls, kind)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(PlanError, match=rf"segment 'old': .*{path.name} has \d+ bytes, expected"):
        crawls.plan("new", "")
    path.unlink()
    with pytest.raises(PlanError, match=rf"segment 'old': .*{path.name} is missing"):
        crawls.plan("new", "")


@pytest.mark.parametrize("kind", ["documents", "keys"])
def test_a_flipped_bit_is_noticed_while_reading(crawls: Crawls, kind: str) -> None:
    crawls.run("old")
    for file in load_index(crawls.index).segments[0].of_kind(kind):
        path = damaged(crawls, kind).with_name(file.name)
        flip(path, "key" if kind == "keys" else "shingles.list.element")
    plan = crawls.plan("new", "")
    with pytest.raises(Exception, match=rf"segment 'old' of the dedup index at .* is damaged: {kind}-\d+.parquet"):
        run_made(plan, crawls.run_dir("new"))
    crawls.write("old", OLD)  # touched only: the pipeline of the segment restores it
    crawls.run("old")
    crawls.run("new", "")
    assert set(crawls.evidence("new")) == set(DROPPED)


def test_killed_while_adding_and_run_again(crawls: Crawls, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every point of publishing is cut in turn; the manifest names the whole segment or nothing of it."""
    crawls.run("old")
    expected = crawls.results("old")
    original = dedup_index._copied
    for cut in range(1, 20):
        for path in sorted(crawls.index.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        calls = iter(range(cut))

        def stopping(file: dedup_index.NewFile, folder: Path, calls: object = calls) -> dedup_index.IndexFile:
            if next(calls, None) is None:  # type: ignore[call-overload]
                raise KeyboardInterrupt
            return original(file, folder)

        monkeypatch.setattr(dedup_index, "_copied", stopping)
        try:
            crawls.run("old")
            stopped = False
        except KeyboardInterrupt:
            stopped = True
            assert not (crawls.index / "manifest.json").exists()
        monkeypatch.setattr(dedup_index, "_copied", original)
        assert crawls.run("old").tasks_run == 0 and crawls.results("old") == expected
        if not stopped:
            break
    assert cut > 3 and not stopped


def test_killed_with_sigkill_while_the_segment_is_made(crawls: Crawls) -> None:
    crawls.write("old", [page(seed) for seed in range(100)])
    path = crawls.file("old", "add: true")
    made = crawls.run_dir("old") / "exchange/deduplicate_minhash.index/segment"
    arguments = ["run", str(path), "--set", f"run={crawls.run_dir('old')}", "--scheduler", "inline"]
    process = subprocess.Popen(
        command(*arguments), cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and not made.exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (crawls.index / "manifest.json").exists()
    subprocess.run(command(*arguments), cwd=ROOT, check=True, capture_output=True, timeout=300)
    killed = crawls.results("old")
    undisturbed = Crawls(crawls.folder / "undisturbed")
    undisturbed.write("old", [page(seed) for seed in range(100)])
    undisturbed.run("old")
    (segment,), (other,) = load_index(crawls.index).segments, load_index(undisturbed.index).segments
    assert segment.files == other.files and segment.folder == other.folder
    crawls.run("old")
    assert crawls.results("old") == killed


def test_the_command_line_shows_verifies_and_names_damage(crawls: Crawls) -> None:
    crawls.run("old")

    def dataeng(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "dataeng", "index", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout + done.stderr

    code, shown = dataeng("show", str(crawls.index))
    assert code == 0 and "minhash (bands 14, rows 8" in shown and "old" in shown
    (crawls.index / "segments/left-0123456789ab").mkdir()
    code, shown = dataeng("verify", str(crawls.index))
    assert code == 0 and "is whole: 1 segments, 5 files" in shown
    assert "left-0123456789ab is not named by the manifest" in shown
    path = damaged(crawls, "keys")
    flip(path, "key")
    code, shown = dataeng("verify", str(crawls.index))
    assert code == 1 and f"segment 'old': {path} is not what was committed (SHA-256)" in shown
    with pytest.raises(FormatError):
        (crawls.index / "manifest.json").write_text("{}")
        load_index(crawls.index)
