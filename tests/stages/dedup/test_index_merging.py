"""Merged indexes answer as their parts do, as they are and rewritten."""

from __future__ import annotations

import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.errors import ConfigError, FormatError, PlanError
from dataeng.formats.dedup_index import damages, load_index, strangers
from dataeng.stages.dedup import index_merging
from dataeng.stages.dedup.index_merging import merge_indexes
from dataeng.stages.dedup.index_reading import IndexReader
from tests.stages.dedup.crawls import Crawls
from tests.stages.dedup.test_index_reading import KEYS, Document, add, answered, crawls, expected
from tests.stages.dedup.test_record_index import DROPPED, NEW, OLD


@settings(max_examples=10, deadline=None)
@given(segments=crawls(), asked=st.sets(KEYS, max_size=30), file_documents=st.sampled_from([1, 5, 1000]))
def test_a_merged_index_answers_as_its_parts_do(
    segments: list[list[Document]], asked: set[int], file_documents: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_merging, "FILE_DOCUMENTS", file_documents)
        patch.setattr(index_merging, "RANGE_KEYS", 7)
        base = Path(folder)
        origins = [add(base / f"{number}", f"s{number}", documents) for number, documents in enumerate(segments)]
        paths = [base / f"{number}" for number in range(len(segments))]
        for name, compact in (("merged", None), ("compacted", "all")):
            index = merge_indexes(paths, base / name, compact)
            assert list(index.origins) == origins and not strangers(base / name, index)
            assert list(damages(base / name, index.segments, thorough=True)) == []
            assert len(index.segments) == (1 if compact else len(segments))
            assert answered(IndexReader(base / name, origins), asked) == expected(segments, asked)
            # A run leaves out its own segment and those behind it, also where all are one.
            assert answered(IndexReader(base / name, origins[:1]), asked) == expected(segments[:1], asked)
        again = merge_indexes([base / "compacted"], base / "again", "all")
        assert again.segments == index.segments


def test_small_files_are_put_together(tmp_path: Path) -> None:
    origins = [add(tmp_path / "a", f"s{n}", [(f"s{n}d{d}", [n * 10 + d]) for d in range(6)]) for n in range(3)]
    merged = merge_indexes([tmp_path / "a"], tmp_path / "b", "all")
    assert sum(len(segment.files) for segment in load_index(tmp_path / "a").segments) > 6
    assert [(file.kind, file.rows, file.origin) for file in merged.segments[0].files] == [
        *(("documents", 6, number) for number in range(3)),
        ("keys", 18, 0),
    ]
    assert merged.origins == tuple(origins)


def test_runs_see_no_difference(tmp_path: Path) -> None:
    """What was compared with several segments needs nothing done when they are one; a new crawl finds the same."""
    crawls = Crawls(tmp_path)
    crawls.write("older", OLD[:2])
    crawls.write("old", OLD[2:])
    crawls.write("new", NEW)
    for name in ("older", "old"):
        crawls.run(name)
    crawls.run("new", "")
    expected_evidence = crawls.evidence("new")
    assert set(expected_evidence) == set(DROPPED)
    assert {row["index_segment"] for row in expected_evidence.values()} == {"older", "old", None}
    merge_indexes([crawls.index], tmp_path / "merged", "all")
    crawls.index.rename(tmp_path / "before")
    (tmp_path / "merged").rename(crawls.index)
    for name in ("older", "old"):
        assert crawls.run(name).nothing_to_do
    assert crawls.run("new", "").nothing_to_do
    for path in sorted(crawls.run_dir("new").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    crawls.run("new", "")
    assert crawls.evidence("new") == expected_evidence
    crawls.write("older", OLD[:1])
    with pytest.raises(FormatError, match=r"segment 'older' .* was merged with others \(older, old\)"):
        crawls.run("older")


def test_what_cannot_be_merged_is_an_error(tmp_path: Path) -> None:
    add(tmp_path / "a", "s", [("d", [1])])
    add(tmp_path / "b", "s", [("e", [1])])
    with pytest.raises(ConfigError, match="both have a segment 's', and not the same documents"):
        merge_indexes([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    with pytest.raises(ConfigError, match="already; merge into a new folder"):
        merge_indexes([tmp_path / "a"], tmp_path / "b")
    manifest = tmp_path / "b/manifest.json"
    manifest.write_text(manifest.read_text().replace('"bands": 3', '"bands": 4'))
    with pytest.raises(PlanError, match="bands is 4 there and 3 here"):
        merge_indexes([tmp_path / "a", tmp_path / "b"], tmp_path / "c")


def test_the_same_segment_in_two_indexes_is_one(tmp_path: Path) -> None:
    first = add(tmp_path / "a", "s", [("d", [1])])
    assert add(tmp_path / "b", "s", [("d", [1])]) == first
    second = add(tmp_path / "b", "t", [("e", [1])])
    assert merge_indexes([tmp_path / "a", tmp_path / "b"], tmp_path / "c").origins == (first, second)
    assert answered(IndexReader(tmp_path / "c", [first, second]), {1}) == {(1, "d"), (1, "e")}


@pytest.mark.parametrize("compact", [None, "all"])
def test_a_damaged_segment_is_not_merged(tmp_path: Path, compact: str | None) -> None:
    add(tmp_path / "a", "s", [(f"d{d}", [d]) for d in range(20)])
    segment = load_index(tmp_path / "a").segments[0]
    path = tmp_path / "a/segments" / segment.folder / segment.files[0].name
    rows = pl.read_parquet(path)
    rows[:-1].write_parquet(path)
    with pytest.raises(FormatError, match=path.name):
        merge_indexes([tmp_path / "a"], tmp_path / "c", compact)
    assert not (tmp_path / "c/manifest.json").exists()
