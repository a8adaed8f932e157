"""The sample: balanced as its temperatures say, and the same however the corpus is cut."""

from __future__ import annotations

import math
import random
from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.stages.tokens.tokenizer_sample import budgets
from dataeng.stages.tokens.train_tokenizer import TrainTokenizer

SIZES = st.dictionaries(
    st.tuples(st.sampled_from(["web", "code", "books"]), st.sampled_from(["en", "de", "sw", ""])),
    st.integers(0, 10**12),
    max_size=12,
)
TEMPERATURES = st.one_of(st.just(1.0), st.floats(1, 50), st.just(math.inf))


@settings(max_examples=500, deadline=None)
@given(SIZES, st.integers(1, 10**12), TEMPERATURES, TEMPERATURES)
def test_budgets_are_within_the_limit_and_what_there_is(
    sizes: dict[tuple[str, str], int], limit: int, domain: float, language: float
) -> None:
    taken = budgets(sizes, limit, domain, language)
    assert taken.keys() == sizes.keys()
    assert all(0 <= taken[group] <= size for group, size in sizes.items())
    # Everything that fits is taken, but for less than a byte a group, and what floats lose of 10^12.
    assert sum(taken.values()) <= limit
    assert sum(taken.values()) >= min(limit, sum(sizes.values())) * (1 - 1e-12) - len(sizes) - 1


def test_temperature_1_is_natural_and_infinity_uniform() -> None:
    sizes = {("web", "en"): 9_000_000, ("web", "sw"): 1_000_000}
    assert budgets(sizes, 100_000, 1, 1) == {("web", "en"): 90_000, ("web", "sw"): 10_000}
    assert budgets(sizes, 100_000, 1, math.inf) == {("web", "en"): 50_000, ("web", "sw"): 50_000}


def test_shares_are_powers_of_the_natural_ones() -> None:
    sizes = {("web", "en"): 8_000_000, ("web", "sw"): 1_000_000}
    taken = budgets(sizes, 90_000, 1, 3)
    assert taken == {("web", "en"): pytest.approx(60_000, abs=2), ("web", "sw"): pytest.approx(30_000, abs=2)}
    taken = budgets({("web", "en"): 4_000_000, ("code", ""): 1_000_000}, 90_000, 2, 1)
    assert taken == {("web", "en"): pytest.approx(60_000, abs=2), ("code", ""): pytest.approx(30_000, abs=2)}


def test_what_a_small_group_cannot_fill_goes_to_the_others_by_their_weights() -> None:
    sizes = {("web", "en"): 8_000_000, ("web", "de"): 8_000_000, ("web", "sw"): 100}
    assert budgets(sizes, 90_100, 1, math.inf) == {("web", "en"): 45_000, ("web", "de"): 45_000, ("web", "sw"): 100}


def corpus(seed: int = 0) -> pl.DataFrame:
    """4,000 documents: English web, some Swahili, some code without a language."""
    generator = random.Random(seed)
    kinds = [("web", "en")] * 90 + [("web", "sw")] * 6 + [("code", None)] * 4
    rows = []
    for number in range(4_000):
        domain, language = generator.choice(kinds)
        rows.append((f"d{number}", f"{domain} {language} é " * generator.randint(1, 20), domain, language))
    return pl.DataFrame(rows, ["id", "text", "domain", "language"], orient="row")


def sample_of(stage: TrainTokenizer, frame: pl.DataFrame, seed: int, slice_rows: int) -> list[str]:
    """Cuts and shuffles a corpus as tasks and batches might, and draws the sample."""
    generator = random.Random(seed)
    frame = frame.sample(fraction=1.0, shuffle=True, seed=seed)
    tables: list[pl.DataFrame] = []
    start = 0
    while start < frame.height:
        stop = start + generator.randint(1, 1_500)
        emitted = [stage.emit(batch) for batch in frame[start:stop].iter_slices(generator.randint(1, 400))]
        if generator.random() < 0.5:
            emitted = [stage.combine(pl.concat(emitted))]
        tables += emitted
        start = stop
    slices = list(pl.concat(tables).iter_slices(slice_rows))
    return stage.sample(slices).to_list()


@pytest.mark.parametrize(("domain", "language"), [(1.0, 1.0), (2.0, 3.3), (1.0, math.inf)])
def test_the_same_sample_from_any_cut(domain: float, language: float) -> None:
    stage = TrainTokenizer(sample_bytes=60_000, domain_temperature=domain, language_temperature=language)
    frame = corpus()
    samples = {
        tuple(sample_of(stage, frame, seed, rows)) for seed, rows in ((0, 100_000), (1, 50), (2, 7_000), (3, 999))
    }
    assert len(samples) == 1
    assert 0 <= 60_000 - sum(len(text.encode()) for text in samples.pop()) <= 6


def test_small_languages_and_domains_get_more_than_their_natural_share() -> None:
    frame = corpus()

    def shares(stage: TrainTokenizer) -> dict[str, float]:
        bytes_of: Counter[str] = Counter()
        for text in sample_of(stage, frame, 0, 1_000):
            bytes_of[" ".join(text.split()[:2])] += len(text.encode())
        return {kind: size / bytes_of.total() for kind, size in bytes_of.items()}

    natural = shares(TrainTokenizer(sample_bytes=60_000, domain_temperature=1, language_temperature=1))
    flat = shares(TrainTokenizer(sample_bytes=60_000, domain_temperature=1, language_temperature=math.inf))
    assert natural["web sw"] == pytest.approx(0.06, abs=0.025)
    assert [flat[kind] for kind in ("web en", "web sw", "code None")] == pytest.approx([1 / 3] * 3, abs=0.01)
    default = shares(TrainTokenizer(sample_bytes=60_000))
    assert natural["web sw"] < default["web sw"] < flat["web sw"]


def test_a_corpus_that_fits_is_taken_whole() -> None:
    frame = corpus()
    assert sorted(sample_of(TrainTokenizer(), frame, 0, 500)) == sorted(frame.get_column("text").to_list())


def test_columns_that_are_not_there_are_one_group() -> None:
    stage = TrainTokenizer(sample_bytes=2_000)
    bare = sample_of(stage, corpus().drop("domain", "language"), 0, 500)
    natural = TrainTokenizer(sample_bytes=2_000, domain_temperature=1, language_temperature=1)
    assert bare == sample_of(natural, corpus(), 1, 500)
