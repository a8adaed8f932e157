"""Near-duplicate removal by SimHash: against all pairs of fingerprints, whatever the batches, partitions and order."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dataeng.kernels.simhash import simhash
from dataeng.kernels.text import text_buffers
from dataeng.stages.dedup import deduplicate_simhash
from dataeng.stages.dedup.clusters import EVIDENCE
from dataeng.stages.dedup.deduplicate_simhash import DeduplicateSimhash
from tests.stages.dedup.test_connected import smallest_reachable
from tests.stages.dedup.test_deduplicate_minhash import edited, page
from tests.stages.exchange import dropped, frames_of, name_of, run_exchange


def expected_of(parts: list[list[str]], max_distance: int) -> dict[str, str]:
    """Removed → kept, by comparing all pairs."""
    places = [(part, row) for part, texts in enumerate(parts) for row in range(len(texts))]
    frames = [frame for part, texts in enumerate(parts) for frame in frames_of(texts, part, len(texts) or 1)]
    prints = [simhash(text_buffers(frame.get_column("text"))) for frame in frames]
    values = [int(value) for found in prints for value in found.values]
    features = [int(number) for found in prints for number in found.num_features]
    near = [
        (a, b)
        for a, b in itertools.combinations(range(len(values)), 2)
        if features[a] and features[b] and (values[a] ^ values[b]).bit_count() <= max_distance
    ]
    kept = smallest_reachable(near)
    return {name_of(*places[a]): name_of(*places[b]) for a, b in kept.items() if a != b}


def corpus(seed: int = 0) -> list[list[str]]:
    generator = random.Random(seed)
    texts = [edited(page(i % 12, 500), generator.randrange(4), seed=i) for i in range(60)] + ["", "one two", "one two"]
    generator.shuffle(texts)
    return [texts[:20], texts[20:21], [], texts[21:]]


def test_what_is_near_goes_and_the_first_stays(tmp_path: Path) -> None:
    parts = corpus()
    expected = expected_of(parts, 3)
    assert len(expected) > 20
    verdicts = run_exchange(DeduplicateSimhash(), parts, tmp_path)
    assert dropped(verdicts) == expected
    assert verdicts.schema == EVIDENCE
    assert set(verdicts.get_column("method")) == {"simhash"}
    assert verdicts.get_column("similarity").is_between(1 - 3 / 64, 1).all()


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 99), st.integers(0, 6), st.integers(1, 9), st.integers(1, 30), st.integers(0, 9))
def test_partitions_batches_and_order_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, seed: int, distance: int, partitions: int, batch: int, order: int
) -> None:
    parts = corpus(seed)
    stage = DeduplicateSimhash(max_distance=distance, blocks=distance + 2, partitions=partitions)
    verdicts = run_exchange(stage, parts, tmp_path_factory.getbasetemp(), batch_documents=batch, shuffle=order)
    assert dropped(verdicts) == expected_of(parts, distance)


def test_shingles_decide_where_a_threshold_is_given(tmp_path: Path) -> None:
    # Far from alike, but a distance of 16 bits takes them for near.
    texts = [page(1, 400), edited(page(1, 400), 40), edited(page(1, 400), 1)]
    loose = {"max_distance": 16, "blocks": 18}
    assert set(dropped(run_exchange(DeduplicateSimhash.model_validate(loose), [texts], tmp_path / "a"))) == {
        "p0r1",
        "p0r2",
    }
    strict = DeduplicateSimhash.model_validate({**loose, "threshold": 0.9})
    verdicts = run_exchange(strict, [texts], tmp_path / "b")
    assert dropped(verdicts) == {"p0r2": "p0r0"}
    assert 0.9 <= verdicts.get_column("similarity")[0] < 1


def test_the_survivor_is_the_users(tmp_path: Path) -> None:
    texts = [page(1), page(1) + " more", page(1) + " and more"]
    stage = DeduplicateSimhash.model_validate({"survivor": ["text_bytes desc"], "max_distance": 8, "blocks": 10})
    assert dropped(run_exchange(stage, [texts], tmp_path)) == {"p0r0": "p0r2", "p0r1": "p0r2"}


def test_a_bucket_with_half_the_corpus(tmp_path: Path) -> None:
    texts = [page(7, 60) if i % 2 else page(10_000 + i, 12) for i in range(6_000)]
    verdicts = run_exchange(DeduplicateSimhash(partitions=3), [texts], tmp_path)
    assert verdicts.height == 2_999 and set(verdicts.get_column("kept_id")) == {"p0r1"}


def test_a_partition_need_not_fit_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = corpus(4)
    held: list[int] = []
    near = DeduplicateSimhash._near_pairs

    def noting(stage: DeduplicateSimhash, rows: pl.DataFrame) -> pl.DataFrame:
        held.append(rows.height)
        return near(stage, rows)

    monkeypatch.setattr(DeduplicateSimhash, "_near_pairs", noting)
    monkeypatch.setattr(deduplicate_simhash, "KEYS_IN_MEMORY", 100)
    verdicts = run_exchange(DeduplicateSimhash(partitions=2), parts, tmp_path, shuffle=3)
    assert dropped(verdicts) == expected_of(parts, 3)
    assert len(held) > 6 and max(held) < 200 < sum(held)


def test_too_few_blocks_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"blocks must be more than max_distance \(6\), found 6"):
        DeduplicateSimhash(max_distance=6)
