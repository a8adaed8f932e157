"""Two real crawls, one after the other: the second is deduplicated against what the first left in an index."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from dataeng.config import load_pipeline
from tests.stages.dedup.crawls import Crawls, run_made

OLD, NEW = "1-old", "2-new"  # old documents come first where both are read together


def pages(folder: Path, patterns: Sequence[str]) -> pl.DataFrame:
    """Returns the texts of recorded pages: ``url, text``."""
    from dataeng.plan import make_plan

    path = folder / "extract.yaml"
    path.write_text(
        f"name: extract\nsources:\n  - read_warc: {{paths: {json.dumps(list(patterns))}}}\nstages:\n  - extract_text\n"
    )
    run_made(make_plan(load_pipeline(path, [f"run={folder / 'extract'}"])), folder / "extract")
    return pl.read_parquet(folder / "extract/documents/read/*.parquet").select("url", "text")


def exact(first: str, second: str) -> float:
    """Returns the similarity of two texts; 1 where they are too short for a shingle (then their words are the same)."""
    from dataeng.kernels.shingle_sets import jaccard, shingle_sets
    from dataeng.kernels.text import text_buffers

    sets = [shingle_sets(text_buffers(pl.Series([text]))) for text in (first, second)]
    return float(jaccard(*sets)[0]) if all(len(own.values) for own in sets) else 1.0


def against_old(folder: Path, old: pl.DataFrame, new: pl.DataFrame, at_least: int) -> None:
    crawls = Crawls(folder)
    texts = {name: frame["text"].to_list() for name, frame in ((OLD, old), (NEW, new))}
    files = {name: crawls.write(name, texts[name]) for name in texts}
    crawls.run("together", None, "*.jsonl")
    together = crawls.evidence("together")
    files[NEW].rename(folder / "aside")
    crawls.run("first", "add: true", f"{OLD}.jsonl")
    old_kept = crawls.kept("first")
    old_dropped = set(crawls.evidence("first"))
    files[OLD].unlink()  # the old text is gone, in the run folder too
    for path in sorted(crawls.run_dir("first").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert b"text" not in {name.encode() for name in pl.read_parquet(crawls.index / "segments/*/documents-*").columns}
    (folder / "aside").rename(files[NEW])
    crawls.run("second", "", f"{NEW}.jsonl")
    found = crawls.evidence("second")

    by_old = {url: row for url, row in found.items() if row["index_segment"] == "first"}
    assert len(by_old) > at_least and {row["kept_id"] for row in by_old.values()} <= set(old_kept.values())
    assert all(row["index_segment"] is None for url, row in found.items() if url not in by_old)
    # The same new documents go as when both crawls are deduplicated together with the old one first. There, a new
    # document may also go for being like an old one that went itself: that one is not in the index.
    together_new = {url for url in together if url.startswith(f"https://{NEW}/")}
    assert set(found) <= together_new
    ids_of_dropped = {row["id"] for url, row in together.items() if url in old_dropped or url.startswith("https://2")}
    for url in together_new - set(found):
        assert together[url]["matched_id"] in ids_of_dropped
    assert len(together_new - set(found)) <= 0.02 * len(together_new)
    # Whoever went for an old document is as similar to it as the evidence says.
    urls = {identifier: url for url, identifier in old_kept.items()}
    for url, row in by_old.items():
        if row["matched_id"] not in urls:
            continue
        mine = texts[NEW][int(url.rpartition("/")[2])]
        theirs = texts[OLD][int(urls[str(row["matched_id"])].rpartition("/")[2])]
        assert exact(mine, theirs) == pytest.approx(float(str(row["similarity"])))


def test_the_bundled_sample(tmp_path: Path) -> None:
    old = pages(tmp_path, ["sample:crawl/docs-0000[01].warc.gz"])
    (tmp_path / "new").mkdir()
    new = pages(tmp_path / "new", ["sample:crawl/docs-00002.warc.gz"])
    against_old(tmp_path / "crawls", old, new, at_least=60)


def test_the_recorded_crawl(tmp_path: Path, test_data: Path) -> None:
    recorded = test_data / "crawl/recorded"
    old = pages(tmp_path, [str(recorded / f"local-dev-0000{part}.warc.gz") for part in (0, 1)])
    (tmp_path / "new").mkdir()
    new = pages(tmp_path / "new", [str(recorded / f"local-dev-0000{part}.warc.gz") for part in (2, 3)])
    against_old(tmp_path / "crawls", old, new, at_least=250)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_number_of_workers_changes_no_byte_of_the_index(tmp_path: Path, workers: str) -> None:
    from tests.end_to_end.runs import dataeng

    crawls = Crawls(tmp_path)
    rows = [f"page {number} of a book about the number {number} and what comes after it" for number in range(50)]
    crawls.write("old", rows)
    path = crawls.file("old", "add: true")
    dataeng("run", str(path), "--set", f"run={crawls.run_dir('old')}", "--workers", workers)
    names = sorted(folder.name for folder in (crawls.index / "segments").iterdir())
    inline = Crawls(tmp_path / "inline")
    inline.write("old", rows)
    inline.run("old")
    assert names == sorted(folder.name for folder in (inline.index / "segments").iterdir())
