"""Exact deduplication: which document stays, whatever the batches, partitions and order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dataeng.config import load_pipeline
from dataeng.engine.executor import Pool
from dataeng.engine.runner import run_plan
from dataeng.plan import make_plan
from dataeng.report.sql import query
from dataeng.stages.dedup.deduplicate_exact import DeduplicateExact
from dataeng.stages.dedup.redirects import MAX_HOPS
from tests.engine.conftest import Listener
from tests.stages.exchange import dropped, frames_of, name_of, run_exchange
from tests.stages.ingest.warc_files import http, page, record


def test_first_in_part_and_row_stays(tmp_path: Path) -> None:
    verdicts = run_exchange(DeduplicateExact(), [["a", "b", "a"], ["b", "c", "a"]], tmp_path)
    assert dropped(verdicts) == {"p0r2": "p0r0", "p1r0": "p0r1", "p1r2": "p0r0"}


def test_evidence_names_the_survivor_and_the_size_of_the_cluster(tmp_path: Path) -> None:
    verdicts = run_exchange(DeduplicateExact(), [["a", "b", "a", "a"], ["b"]], tmp_path)
    assert verdicts.schema == {
        "part": pl.UInt32,
        "row": pl.UInt32,
        "id": pl.String,
        "kept_id": pl.String,
        "matched_id": pl.String,
        "similarity": pl.Float64,
        "method": pl.String,
        "cluster_size": pl.UInt32,
        "reason": pl.String,
        "detail": pl.String,
    }
    assert verdicts.rows() == [
        (0, 2, "p0r2", "p0r0", "p0r0", 1.0, "text", 3, "exact_duplicate", "same text as p0r0"),
        (0, 3, "p0r3", "p0r0", "p0r0", 1.0, "text", 3, "exact_duplicate", "same text as p0r0"),
        (1, 0, "p1r0", "p0r1", "p0r1", 1.0, "text", 2, "exact_duplicate", "same text as p0r1"),
    ]


@pytest.mark.parametrize("other", ["a ", "A", "a\n", "a\u0301", "aa", ""])
def test_one_byte_of_difference_is_a_difference(tmp_path: Path, other: str) -> None:
    assert dropped(run_exchange(DeduplicateExact(), [["a", other]], tmp_path)) == {}


def test_composed_and_decomposed_letters_are_different_texts(tmp_path: Path) -> None:
    assert dropped(run_exchange(DeduplicateExact(), [["\u00e1", "a\u0301", "\u00e1"]], tmp_path)) == {"p0r2": "p0r0"}


def test_empty_texts_are_the_same_text(tmp_path: Path) -> None:
    assert dropped(run_exchange(DeduplicateExact(), [["", "x", ""]], tmp_path)) == {"p0r2": "p0r0"}


@pytest.mark.parametrize("parts", [[], [[]], [[], ["only"], []]])
def test_nothing_to_find(tmp_path: Path, parts: list[list[str]]) -> None:
    assert run_exchange(DeduplicateExact(), parts, tmp_path).height == 0


def test_emit_on_an_empty_batch() -> None:
    frame = frames_of(["a"], 0, 1)[0].clear()
    emitted = DeduplicateExact().emit(frame)
    assert emitted.height == 0 and emitted.schema == DeduplicateExact().emit(frames_of(["a"], 0, 1)[0]).schema


def test_one_text_that_is_half_the_corpus(tmp_path: Path) -> None:
    texts = ["the same" if i % 2 else f"number {i}" for i in range(40_000)]
    verdicts = run_exchange(DeduplicateExact(), [texts[:20_000], texts[20_000:]], tmp_path)
    assert verdicts.height == 19_999
    assert set(verdicts.get_column("kept_id")) == {"p0r1"}
    assert set(verdicts.get_column("cluster_size")) == {20_000}


corpora = st.lists(st.lists(st.sampled_from(["", "a", "b", "a b", "ü", "\x00", "long " * 9]), max_size=12), max_size=4)


@settings(max_examples=60, deadline=None)
@given(corpora, st.integers(1, 5), st.integers(1, 7), st.integers(0, 99))
def test_equals_the_obvious_way_and_depends_on_nothing_but_the_texts(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[str]], partitions: int, batch: int, order: int
) -> None:
    first: dict[str, str] = {}
    expected = {}
    for part, texts in enumerate(parts):
        for row, text in enumerate(texts):
            if text in first:
                expected[name_of(part, row)] = first[text]
            first.setdefault(text, name_of(part, row))
    stage = DeduplicateExact(partitions=partitions)
    folder = tmp_path_factory.getbasetemp()
    assert dropped(run_exchange(stage, parts, folder, batch_documents=batch, shuffle=order)) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=8, unique=True), st.data())
def test_planted_duplicates_of_any_text_are_always_found(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], data: st.DataObject
) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    texts = list(dict.fromkeys(texts))  # lone surrogates have become the same question mark
    planted = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=8))
    verdicts = run_exchange(
        DeduplicateExact(), [texts, [texts[i] for i in planted]], tmp_path_factory.getbasetemp(), batch_documents=3
    )
    assert dropped(verdicts) == {name_of(1, row): name_of(0, index) for row, index in enumerate(planted)}


def test_normalized_text_folds_case_spaces_and_punctuation(tmp_path: Path) -> None:
    texts = ["Straße, 5!", "strasse 5", "STRASSE\n5.", "strasse 6", "...", "…", "...", "", "  "]
    verdicts = run_exchange(DeduplicateExact(by="normalized_text"), [texts], tmp_path)
    assert dropped(verdicts) == {"p0r1": "p0r0", "p0r2": "p0r0", "p0r6": "p0r4"}
    assert verdicts.row(0, named=True) == {
        "part": 0,
        "row": 1,
        "id": "p0r1",
        "kept_id": "p0r0",
        "matched_id": "p0r0",
        "similarity": 1.0,
        "method": "normalized_text",
        "cluster_size": 3,
        "reason": "normalized_duplicate",
        "detail": "same normalized text as p0r0",
    }


def test_survivor_is_the_first_by_the_columns_given(tmp_path: Path) -> None:
    texts = ["A b", "a  B!!", "a b", "c", "C"]
    stage = DeduplicateExact(by="normalized_text", survivor=("text_bytes desc",))
    assert dropped(run_exchange(stage, [texts[:2], texts[2:]], tmp_path)) == {
        "p0r0": "p0r1",
        "p1r0": "p0r1",
        "p1r2": "p1r1",
    }


def redirects(*rows: tuple[str, str | None, int, str]) -> pl.DataFrame:
    """Rejects as `read_warc` leaves them: URL, target, status, date."""
    schema = {"url": pl.String, "detail": pl.String, "http_status": pl.Int32, "date": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def by_url(
    folder: Path, parts: list[list[str | None]], rejects: pl.DataFrame | None = None, **options: Any
) -> pl.DataFrame:
    batch = options.pop("batch_documents", 1000)
    shuffle = options.pop("shuffle", None)
    stage = DeduplicateExact(by="url", **options)
    return run_exchange(
        stage, parts, folder, column="url", rejects=rejects, batch_documents=batch, shuffle=shuffle
    )  # fmt: skip


def test_urls_are_compared_in_their_canonical_form(tmp_path: Path) -> None:
    urls = [
        "http://www.a.test/x/?utm_source=y&b=1",
        "https://a.test/x?b=1#z",
        None,
        "nonsense",
        "nonsense",
        "http://a.test/x",
    ]
    verdicts = by_url(tmp_path, [urls[:1], urls[1:]])
    assert dropped(verdicts) == {"p1r0": "p0r0"}
    assert verdicts.select("similarity", "method", "cluster_size", "reason", "detail").row(0) == (
        None,
        "url",
        2,
        "url_duplicate",
        "same URL as p0r0",
    )


def test_parameters_that_do_not_count_are_the_users(tmp_path: Path) -> None:
    urls: list[str | None] = ["http://a.test/?print=1", "http://a.test/", "http://a.test/?utm_source=1"]
    assert dropped(by_url(tmp_path, [urls])) == {"p0r2": "p0r1"}
    assert dropped(by_url(tmp_path, [urls], dropped_parameters=("print",))) == {"p0r1": "p0r0"}


def test_documents_under_redirected_urls_are_those_of_the_target(tmp_path: Path) -> None:
    parts: list[list[str | None]] = [
        ["http://a.test/old", "http://a.test/other"],
        ["http://b.test/new", "http://a.test/older"],
    ]
    moved = redirects(
        ("http://a.test/older/", "../old", 301, "2020"),
        ("http://A.test/old", "https://www.b.test/new?utm_source=moved", 308, "2020"),
    )
    verdicts = by_url(tmp_path, parts, moved)
    assert dropped(verdicts) == {"p1r0": "p0r0", "p1r1": "p0r0"}
    assert verdicts.get_column("method").to_list() == ["redirect", "redirect"]
    assert set(verdicts.get_column("detail")) == {"a redirect makes it the same URL as p0r0"}
    assert dropped(by_url(tmp_path, parts, moved, redirects=False)) == {}


@pytest.mark.parametrize(
    "row",
    [
        ("http://a.test/x", "http://b.test/y", 302, "2020"),  # may lead anywhere
        ("http://a.test/x", "http://b.test/", 301, "2020"),  # what has gone leads to the home page
        ("http://a.test/x", "http://[", 301, "2020"),
        ("http://a.test/x", None, 301, "2020"),
        ("mailto:x", "http://b.test/y", 301, "2020"),
    ],
)
def test_redirects_that_say_nothing_about_a_page(tmp_path: Path, row: tuple[str, str | None, int, str]) -> None:
    parts: list[list[str | None]] = [["http://a.test/x", "http://b.test/y", "http://b.test/"]]
    assert dropped(by_url(tmp_path, parts, redirects(row))) == {}


def test_a_moved_host_is_the_same_home_page(tmp_path: Path) -> None:
    moved = redirects(("http://old.test/", "http://new.test/", 301, "2020"))
    assert dropped(by_url(tmp_path, [["http://new.test", "http://old.test"]], moved)) == {"p0r1": "p0r0"}


def test_the_newest_of_contradicting_redirects_counts(tmp_path: Path) -> None:
    rows = [("http://a.test/x", f"http://a.test/{year}", 301, year) for year in ("2019", "2021", "2020")]
    parts: list[list[str | None]] = [
        ["http://a.test/2019", "http://a.test/2020", "http://a.test/2021", "http://a.test/x"]
    ]
    assert dropped(by_url(tmp_path, parts, redirects(*rows))) == {"p0r3": "p0r2"}


def test_circles_come_to_an_end_and_merge_nothing(tmp_path: Path) -> None:
    for length in (1, 2, 3, 5):
        rows = [(f"http://a.test/{i}", f"http://a.test/{(i + 1) % length}", 301, "2020") for i in range(length)]
        parts: list[list[str | None]] = [[f"http://a.test/{i}" for i in range(length)]]
        assert dropped(by_url(tmp_path, parts, redirects(*rows))) == {}


names = st.sampled_from("abcdef")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(names, max_size=6), max_size=3),
    st.dictionaries(names, st.sampled_from("ABCabc"), max_size=4),
    st.integers(1, 4),
    st.integers(0, 99),
)
def test_redirects_equal_following_them_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[str]], moves: dict[str, str], partitions: int, order: int
) -> None:
    def key(name: str) -> str:
        for _ in range(MAX_HOPS):
            name = moves.get(name, name)
        return name

    first: dict[str, str] = {}
    expected = {}
    for part, found in enumerate(parts):
        for row, name in enumerate(found):
            kept = first.setdefault(key(name), name_of(part, row))
            if kept != name_of(part, row):
                expected[name_of(part, row)] = kept
    rejects = redirects(*[(f"http://h.test/{a}", f"/{b}", 301, "2020") for a, b in moves.items()])
    urls: list[list[str | None]] = [[f"http://h.test/{name}" for name in found] for found in parts]
    verdicts = by_url(
        tmp_path_factory.getbasetemp(), urls, rejects, partitions=partitions, shuffle=order, batch_documents=2
    )
    assert dropped(verdicts) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "hash"}, "'text', 'normalized_text' or 'url'"),
        ({"redirects": False}, "'redirects' goes with 'by: url'"),
        ({"by": "url", "dropped_parameters": ("@trackers",)}, "@tracking, @session"),
        ({"survivor": ("date down",)}, "not a column"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DeduplicateExact(**options)


def test_what_is_read_and_compiled_goes_by_the_options() -> None:
    assert DeduplicateExact(survivor=("date desc", "text_bytes")).columns().reads == ("id", "text", "date")
    assert DeduplicateExact(by="url").columns().reads == ("id", "url")
    assert DeduplicateExact().needed_kernels() == ("hashing",)
    assert DeduplicateExact(by="url").needed_kernels() == ("hashing", "canonical_urls")
    assert DeduplicateExact(by="normalized_text").needed_kernels() == ("hashing", "normalized_text")


def test_redirects_of_a_crawl_reach_the_stage(tmp_path: Path) -> None:
    """In a real run: the record of a redirect is a reject, and merges what two files have under both addresses."""
    (tmp_path / "a.warc").write_bytes(record(http(page(1)), name="old") + record(http(page(2)), name="other"))
    moved = http(b"", "301 Moved Permanently", ("Location: /new",))
    (tmp_path / "b.warc").write_bytes(
        record(moved, name="old", url="http://www.site.test/old") + record(http(page(3)), name="new")
    )
    (tmp_path / "p.yaml").write_text(
        "sources:\n  - read_warc: {paths: ['*.warc']}\nstages:\n  - extract_text:\n"
        "  - deduplicate_exact: {by: url, survivor: [source desc]}\n"
    )
    run_dir = tmp_path / "run"
    pool = Pool("inline", 1)
    run_plan(make_plan(load_pipeline(tmp_path / "p.yaml")), run_dir, pool, Listener())
    _, ((kept,),) = query(run_dir, "SELECT id FROM documents WHERE url LIKE '%new'")
    _, found = query(run_dir, "SELECT url, reason, detail FROM rejects WHERE stage = 'deduplicate_exact'")
    assert found == [("http://www.site.test/old", "url_duplicate", f"a redirect makes it the same URL as {kept}")]
