from __future__ import annotations

import random
from pathlib import Path

import polars as pl
import pytest

from dataeng.stages.dedup import deduplicate_substrings, first_occurrences
from dataeng.stages.dedup.deduplicate_substrings import DeduplicateSubstrings
from dataeng.stages.dedup.first_occurrences import num_keys
from tests.stages.exchange import SlicesOf, run_exchange


@pytest.mark.parametrize("number", [0, 1, 1000, 300_000])
def test_number_of_keys(number: int) -> None:
    keys = pl.Series("key", range(number), dtype=pl.UInt64).hash(seed=1)
    table = pl.concat([pl.DataFrame({"key": keys})] * 3)
    assert num_keys(SlicesOf(table, 70_000), "key") == pytest.approx(number, rel=0.02, abs=1)


def passages(seed: int, documents: int) -> list[str]:
    rng = random.Random(seed)
    shared = [" ".join(rng.choices("abcdefgh", k=30)) for _ in range(8)]

    def passage() -> str:
        return rng.choice(shared) if rng.random() < 0.5 else " ".join(rng.choices("ijklmnop", k=20))

    return [" ".join(passage() for _ in range(6)) for _ in range(documents)]


def test_small_memory_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [passages(1, 5), passages(1, 3), passages(2, 5)]
    for keep, least in (("first", {"min_words": 10}), ("none", {"min_words": 10}), ("first", {"min_bytes": 15})):
        stage = DeduplicateSubstrings(keep=keep, partitions=2, **least)  # type: ignore[arg-type]
        order = ("part", "row", "start")
        expected = run_exchange(stage, parts, Path()).sort(order)
        assert expected.height > 20
        with monkeypatch.context() as small:
            small.setattr(first_occurrences, "ROWS_IN_MEMORY", 100)
            small.setattr(first_occurrences, "KEYS_IN_MEMORY", 500)
            small.setattr(deduplicate_substrings, "WINDOWS_AT_A_TIME", 20)
            assert run_exchange(stage, parts, Path(), batch_documents=3, shuffle=6).sort(order).equals(expected)


def test_a_visit_has_a_bounded_number_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deduplicate_substrings, "WINDOWS_AT_A_TIME", 100)
    held: list[int] = []
    places, ranges = DeduplicateSubstrings._places, DeduplicateSubstrings._ranges

    def noting(stage: DeduplicateSubstrings, batch: pl.DataFrame, marked: pl.DataFrame) -> pl.DataFrame:
        held.append(places(stage, batch, marked).height)
        return places(stage, batch, marked)

    monkeypatch.setattr(DeduplicateSubstrings, "_places", noting)
    run_exchange(DeduplicateSubstrings(min_bytes=15, partitions=1), [passages(1, 30), passages(1, 30)], Path())
    assert sum(held) > 1500 and max(held) <= 100 + 15  # a segment has no more windows than a window has units
    texts: list[int] = []

    def noting_texts(stage: DeduplicateSubstrings, batch: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
        texts.append(batch.height)
        return ranges(stage, batch, runs)

    monkeypatch.setattr(DeduplicateSubstrings, "_ranges", noting_texts)
    run_exchange(DeduplicateSubstrings(min_bytes=15, partitions=1), [passages(1, 30), passages(1, 30)], Path())
    assert len(texts) > 10 and max(texts) <= 5


def test_a_key_with_half_the_rows_is_held_once(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    merged = first_occurrences._merged
    monkeypatch.setattr(first_occurrences, "ROWS_IN_MEMORY", 1000)

    def noting(table: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
        result = merged(table, keys)
        held.append(result.height)
        return result

    monkeypatch.setattr(first_occurrences, "_merged", noting)
    number = 40_000
    anchors = pl.Series([7 if i % 2 else i % 100 for i in range(number)], dtype=pl.UInt64).hash(seed=3)
    table = pl.DataFrame({"anchor": anchors}).with_columns(
        pl.lit(0, dtype=pl.UInt32).alias("part"), pl.int_range(number, dtype=pl.UInt32).alias("row"),
        *(pl.lit(0, dtype=pl.UInt32).alias(name) for name in ("unit", "windows")),
        pl.lit(1, dtype=pl.UInt64).alias("content"),
    )  # fmt: skip
    marked = pl.concat(first_occurrences.mark_segments(SlicesOf(table, 500)))
    assert marked.height == number and marked.get_column("whole").all() and not marked.get_column("each").any()
    assert held and max(held) <= 1000
