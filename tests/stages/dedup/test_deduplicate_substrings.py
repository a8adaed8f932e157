from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pydivsufsort import divsufsort, kasai

from dataeng.stages.dedup.deduplicate_substrings import DeduplicateSubstrings
from tests.end_to_end.runs import WITH_WORKERS, dataeng
from tests.kernels.sequences_reference import units_of
from tests.stages.exchange import frames_of, run_exchange

Parts = Sequence[Sequence[str | None]]


def removed_units(parts: Parts, length: int, by_bytes: bool, keep: str) -> list[list[set[int]]]:
    """Which units of each document go, straight from the definition: all windows of the corpus in a dictionary."""
    windows: dict[tuple[bytes, ...], list[tuple[int, int, int]]] = {}
    removed: list[list[set[int]]] = [[set() for _ in texts] for texts in parts]
    for part, texts in enumerate(parts):
        for row, text in enumerate(texts):
            units = units_of(text or "", by_bytes)
            for i in range(len(units) - length + 1):
                windows.setdefault(tuple(units[i : i + length]), []).append((part, row, i))
    for places in windows.values():
        for part, row, i in places[1:] if keep == "first" else places if len(places) > 1 else []:
            removed[part][row].update(range(i, i + length))
    return removed


def spans(places: set[int]) -> list[tuple[int, int]]:
    """Joins numbers that follow each other to ``(first, stop)``."""
    found: list[tuple[int, int]] = []
    for place in sorted(places):
        if found and found[-1][1] == place:
            found[-1] = (found[-1][0], place + 1)
        else:
            found.append((place, place + 1))
    return found


def run(stage: DeduplicateSubstrings, parts: Parts, size: int = 1000, shuffle: int | None = None) -> pl.DataFrame:
    verdicts = run_exchange(stage, parts, Path(), batch_documents=size, shuffle=shuffle)
    return verdicts.sort("part", "row", "start") if verdicts.height else verdicts


def cut_ranges(verdicts: pl.DataFrame, part: int, row: int) -> list[tuple[int, int]]:
    """Returns the bytes that verdicts remove from a document, where ranges that touch are one."""
    if verdicts.height == 0:
        return []
    rows = verdicts.filter((pl.col("part") == part) & (pl.col("row") == row)).sort("start")
    found: list[tuple[int, int]] = []
    for start, stop in rows.select("start", "stop").iter_rows():
        assert not found or found[-1][1] <= start < stop
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
    return found


def whole_characters(text: str, ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Shrinks ranges of bytes to the characters that lie inside."""
    bounds = np.cumsum([0, *(len(character.encode()) for character in text)])
    shrunk = []
    for start, stop in ranges:
        inside = bounds[(bounds >= start) & (bounds <= stop)]
        if len(inside) > 1:
            shrunk.append((int(inside[0]), int(inside[-1])))
    return shrunk


TEXT = st.one_of(
    st.text("ab", max_size=60),
    st.text("aé文😀", max_size=30),
    st.tuples(st.text("ab文", min_size=1, max_size=5), st.integers(1, 15)).map(lambda t: t[0] * t[1]),
)
CORPUS = st.lists(st.lists(TEXT, max_size=4), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(
    parts=CORPUS, length=st.integers(2, 12), keep=st.sampled_from(["first", "none"]), size=st.integers(1, 4),
    partitions=st.integers(1, 5), shuffle=st.one_of(st.none(), st.integers(0, 9)),
)  # fmt: skip
@example(parts=[["aaaaaaa", "aaaa"]], length=4, keep="first", size=1, partitions=1, shuffle=None)
@example(parts=[["aaaabbbb"], ["bbbbaaaa", "aaaabbbb"]], length=4, keep="none", size=1, partitions=2, shuffle=3)
def test_bytes_equal_the_definition(
    parts: list[list[str]], length: int, keep: Any, size: int, partitions: int, shuffle: int | None
) -> None:
    stage = DeduplicateSubstrings(min_bytes=length, keep=keep, partitions=partitions)
    verdicts = run(stage, parts, size, shuffle)
    for part, texts in enumerate(parts):
        for row, text in enumerate(texts):
            expected = spans(removed_units(parts, length, True, keep)[part][row])
            assert cut_ranges(verdicts, part, row) == whole_characters(text, expected)
    assert verdicts.equals(run(DeduplicateSubstrings(min_bytes=length, keep=keep, partitions=3), parts))


WORDS = st.one_of(
    st.lists(st.sampled_from(["a", "b", "文", "字", "e\u0301"]), max_size=40),
    st.tuples(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), st.integers(1, 12)).map(lambda t: t[0] * t[1]),
)


@st.composite
def spaced(draw: st.DrawFn) -> str:
    words = draw(WORDS)
    spaces = draw(st.lists(st.sampled_from([" ", "\n", "  ", "\n\n", "\u3000"]), min_size=1, max_size=5))
    text = "".join(word + spaces[i % len(spaces)] for i, word in enumerate(words))
    return text.rstrip() if draw(st.booleans()) else " " + text


@settings(max_examples=40, deadline=None)
@given(
    parts=st.lists(st.lists(spaced(), max_size=4), min_size=1, max_size=3), length=st.integers(2, 8),
    keep=st.sampled_from(["first", "none"]), size=st.integers(1, 4), shuffle=st.one_of(st.none(), st.integers(0, 9)),
)  # fmt: skip
def test_words_equal_the_definition(
    parts: list[list[str]], length: int, keep: Any, size: int, shuffle: int | None
) -> None:
    stage = DeduplicateSubstrings(min_words=length, keep=keep, partitions=3)
    verdicts = run(stage, parts, size, shuffle)
    removed = removed_units(parts, length, False, keep)
    for part, frames in enumerate(applied(stage, parts, verdicts, size)):
        for row, document in enumerate(frames):
            units = units_of(parts[part][row], by_bytes=False)
            left = [unit for i, unit in enumerate(units) if i not in removed[part][row]]
            ranges = cut_ranges(verdicts, part, row)
            bare = "".join(parts[part][row].encode()[a:b].decode() for a, b in ranges).split()
            assert len(units_of("\n".join(bare), False)) == len(removed[part][row])
            if left:
                assert units_of(document["text"], by_bytes=False) == left
                assert document["reason"] is None
            elif units:
                assert document["reason"] == "only_repeated_substrings" and document["text"] == parts[part][row]
    assert verdicts.equals(run(DeduplicateSubstrings(min_words=length, keep=keep, partitions=1), parts))


def applied(
    stage: DeduplicateSubstrings, parts: Parts, verdicts: pl.DataFrame, size: int = 1000
) -> list[list[dict[str, Any]]]:
    """Returns the documents of each part as `apply` leaves them."""
    if verdicts.height == 0:
        verdicts = pl.DataFrame(schema=dict(stage.verdict_columns()))
    left = []
    for part, texts in enumerate(parts):
        mine = verdicts.filter(pl.col("part") == part)
        frames = [stage.apply(frame.drop("part"), mine) for frame in frames_of(texts, part, size)]
        rows = [row for frame in frames for row in frame.to_dicts()]
        left.append([{"reason": None, "detail": None, **row} for row in rows])
    return left


@settings(max_examples=40, deadline=None)
@given(parts=CORPUS, length=st.integers(2, 8), seed=st.integers(0, 2))
def test_evidence_names_an_equal_earlier_place(parts: list[list[str]], length: int, seed: int) -> None:
    verdicts = run(DeduplicateSubstrings(min_bytes=length, partitions=2, seed=seed), parts)
    for row in verdicts.iter_rows(named=True):
        text = parts[row["part"]][row["row"]]
        passage = text[row["start_char"] : row["end_char"]]
        assert text.encode()[row["start"] : row["stop"]].decode() == passage
        assert row["sample"] == passage[:200] and row["id"] == f"p{row['part']}r{row['row']}"
        kept_part, kept_row = map(int, row["original_id"][1:].split("r"))
        kept = parts[kept_part][kept_row]
        assert kept[row["original_start_char"] :][: len(passage)] == passage
        place = (kept_part, kept_row, row["original_start_char"])
        assert place < (row["part"], row["row"], row["start_char"])


def google_ranges(texts: Sequence[str], length: int) -> list[list[tuple[int, int]]]:
    """What google-research/deduplicate-text-datasets removes, on a suffix array of the corpus by libdivsufsort.

    ``self-similar``: suffixes next to each other in the array that agree in their first `length` bytes are duplicates;
    ``collect``: each is ``length`` bytes from its start, and ranges that overlap or touch are merged. As in its loader,
    a separator that occurs nowhere else stands between documents.
    """
    pieces, starts, position = [], [], 0
    for number, text in enumerate(texts):
        data = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
        pieces += [data, np.array([256 + number])]
        starts.append(position)
        position += len(data) + 1
    corpus = np.concatenate(pieces) if pieces else np.zeros(0, np.int64)
    order = divsufsort(corpus.copy())
    common = kasai(corpus.copy(), order)
    duplicates: set[int] = set()
    for i in np.flatnonzero(common[:-1] >= length):
        duplicates |= {int(order[i]), int(order[i + 1])}
    ranges: list[tuple[int, int]] = []
    for start in sorted(duplicates):
        if ranges and start <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], start + length)
        else:
            ranges.append((start, start + length))
    return [
        [(a - first, b - first) for a, b in ranges if first <= a < first + len(text.encode())]
        for first, text in zip(starts, texts, strict=True)
    ]


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.one_of(st.text("ab", max_size=80), st.text(max_size=10)), min_size=1, max_size=5),
    length=st.integers(2, 10),
)
def test_keep_none_is_googles_self_similar_and_collect(texts: list[str], length: int) -> None:
    verdicts = run(DeduplicateSubstrings(min_bytes=length, keep="none", partitions=2), [texts])
    for row, (text, ranges) in enumerate(zip(texts, google_ranges(texts, length), strict=True)):
        assert cut_ranges(verdicts, 0, row) == whole_characters(text, ranges)


def test_options() -> None:
    assert (DeduplicateSubstrings().length, DeduplicateSubstrings().by_words) == (50, True)
    assert not DeduplicateSubstrings(min_bytes=100).by_words
    assert DeduplicateSubstrings(min_bytes=100, cut="words").by_words
    with pytest.raises(ValidationError, match="not both"):
        DeduplicateSubstrings(min_bytes=100, min_words=50)
    with pytest.raises(ValidationError, match="needs min_bytes"):
        DeduplicateSubstrings(cut="characters")


def test_planted_passages() -> None:
    notice = "All rights reserved . No part of this page may be copied without permission of the publisher"
    parts = [
        [f"First page . {notice} . End one .", "Nothing in common here at all , it is a page of its own ."],
        [f"{notice}\n\nSecond page says something else .", None, notice, "", f"{notice} {notice}"],
    ]
    stage = DeduplicateSubstrings(min_words=10, partitions=3)
    verdicts = run(stage, parts)
    rows = [row for part in applied(stage, parts, verdicts) for row in part]
    assert [row["reason"] for row in rows] == [None] * 4 + [
        "only_repeated_substrings",
        None,
        "only_repeated_substrings",
    ]
    assert rows[0]["text"] == parts[0][0] and rows[1]["text"] == parts[0][1]
    assert rows[2]["text"] == "Second page says something else ."
    assert rows[4]["text"] == notice and rows[4]["detail"] == f"{len(notice)} characters removed"
    assert rows[2]["substring_ranges_removed"] == 1 and rows[0]["substring_ranges_removed"] == 0
    assert rows[2]["substring_chars_removed"] == len(notice) + 2
    assert rows[2]["substring_sample"] == notice + "\n\n" and rows[0]["substring_sample"] is None
    assert set(verdicts.get_column("original_id")) == {"p0r0"}
    assert set(verdicts.get_column("original_start_char")) == {len("First page . ")}
    # Everything that occurs twice goes.
    none = DeduplicateSubstrings(min_words=10, partitions=3, keep="none")
    rows = [row for part in applied(none, parts, run(none, parts)) for row in part]
    assert rows[0]["text"] == "First page . . End one ."
    # Fewer characters than asked for are left.
    strict = DeduplicateSubstrings(min_words=10, partitions=3, min_chars=40)
    rows = [row for part in applied(strict, parts, run(strict, parts)) for row in part]
    assert rows[2]["reason"] == "only_repeated_substrings" and rows[0]["reason"] is None


def test_half_of_the_corpus_is_one_text() -> None:
    rng = random.Random(3)
    same = " ".join(rng.choices("abcdefghij", k=400))
    parts = [
        [same if rng.random() < 0.5 else " ".join(rng.choices("klmnopq", k=300)) for _ in range(40)] for _ in range(4)
    ]
    stage = DeduplicateSubstrings(min_words=40, partitions=4)
    verdicts = run(stage, parts)
    copies = [(part, row) for part, texts in enumerate(parts) for row, text in enumerate(texts) if text == same]
    # One row tells of a whole copy, however many there are.
    assert verdicts.select("part", "row").rows() == copies[1:]
    assert verdicts.select("start", "stop").unique().rows() == [(0, len(same))]
    first = copies[0]
    assert set(verdicts.get_column("original_id")) == {f"p{first[0]}r{first[1]}"}


def test_chinese(test_data: Path) -> None:
    """Characters are words, and a text that is cut stays readable: text-dedup#33."""
    with gzip.open(test_data / "domains" / "manpages.jsonl.gz", "rt", encoding="utf-8") as lines:
        pages = [json.loads(line)["text"] for line in lines]
    chinese = [page for page in pages if sum("一" <= c <= "鿿" for c in page) > 0.2 * len(page)]
    chinese = sorted(chinese, key=len)[:24]
    assert len(chinese) == 24
    passage = next(part for page in chinese for part in page.split("\n\n") if len(part) > 200)
    parts = [chinese[:10], [*chinese[10:], "前言。" + passage + "结尾的话。"]]
    for stage in (
        DeduplicateSubstrings(min_words=50, partitions=3),
        DeduplicateSubstrings(min_bytes=150, partitions=3),
        DeduplicateSubstrings(min_bytes=150, partitions=3, cut="words"),
    ):
        verdicts = run(stage, parts)
        left = applied(stage, parts, verdicts)
        last = left[-1][-1]
        assert last["text"].startswith("前言。") and last["text"].rstrip().endswith("结尾的话。")
        assert last["substring_chars_removed"] >= 0.9 * len(passage)
        for row in verdicts.iter_rows(named=True):
            # Whole characters: bytes and characters say the same.
            text = parts[row["part"]][row["row"]]
            assert text.encode()[row["start"] : row["stop"]].decode() == text[row["start_char"] : row["end_char"]]
        removed = [] if stage.by_bytes else removed_units(parts, stage.length, False, "first")
        for part, documents in enumerate(left):
            for row, document in enumerate(documents):
                assert "\ufffd" not in document["text"]
                if removed and document["reason"] is None:
                    units = units_of(parts[part][row], by_bytes=False)
                    kept = [unit for i, unit in enumerate(units) if i not in removed[part][row]]
                    assert units_of(document["text"], by_bytes=False) == kept


PIPELINE = """
name: substrings
run: {run}
worker_memory_mb: 512
sources:
  - read_files: {{paths: ["*.jsonl"], batch_documents: {batch}}}
stages:
  - deduplicate_substrings: {{min_words: 30, partitions: {partitions}}}
"""


def test_a_run_does_not_depend_on_how_it_is_cut(tmp_path: Path, test_data: Path) -> None:
    with gzip.open(test_data / "dedup" / "copyright_files.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    for part in range(3):
        rows = (json.dumps({"text": text}) + "\n" for text in texts[part::3])
        (tmp_path / f"{part}.jsonl").write_text("".join(rows))
    found = []
    for name, batch, partitions, workers in (("one", 1000, 4, 1), ("two", 7, 9, 2)):
        file = tmp_path / f"{name}.yaml"
        file.write_text(PIPELINE.format(run=tmp_path / name, batch=batch, partitions=partitions))
        dataeng("run", str(file), *WITH_WORKERS[workers])
        statement = "SELECT id, text, substring_chars_removed FROM documents ORDER BY id"
        evidence = "SELECT * FROM dedup ORDER BY id, start_char"
        found.append([dataeng("sql", str(tmp_path / name), s, "--format", "json") for s in (statement, evidence)])
    assert found[0] == found[1]
    assert found[0][1].count("original_id") > 60
