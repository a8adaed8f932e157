"""Exact deduplication: which document stays, whatever the batches, partitions and order."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.stages.dedup.deduplicate_exact import DeduplicateExact
from tests.stages.exchange import dropped, frames_of, name_of, run_exchange


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
        "reason": pl.String,
        "detail": pl.String,
        "cluster_size": pl.UInt32,
    }
    assert verdicts.rows() == [
        (0, 2, "p0r2", "p0r0", "exact_duplicate", "same text as p0r0", 3),
        (0, 3, "p0r3", "p0r0", "exact_duplicate", "same text as p0r0", 3),
        (1, 0, "p1r0", "p0r1", "exact_duplicate", "same text as p0r1", 2),
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
