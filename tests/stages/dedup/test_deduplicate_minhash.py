"""Near-duplicate removal: planted cases, real pages against exact similarity and datasketch, and what it costs."""

from __future__ import annotations

import gzip
import itertools
import json
import math
import random
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dataeng.stages.dedup.clusters import EVIDENCE
from dataeng.stages.dedup.deduplicate_minhash import DeduplicateMinhash
from tests.stages.exchange import SlicesOf, dropped, frames_of, name_of, run_exchange

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrstz"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def page(seed: int, num_words: int = 300) -> str:
    """A text that shares no run of five words with a page of another seed, in all likelihood."""
    generator = random.Random(seed)
    return " ".join(generator.choice(WORDS) for _ in range(num_words))


def edited(text: str, num_words: int, seed: int = 1) -> str:
    """Replaces words at random places, each of which takes up to five shingles with it."""
    words = text.split()
    for at in random.Random(seed).sample(range(len(words)), num_words):
        words[at] = f"edited{LETTERS[at % 26]}{LETTERS[at // 26 % 26]}"
    return " ".join(words)


def shingles_of(text: str, ngram: int = 5) -> set[tuple[str, ...]]:
    """The slow, obvious way: letters without case and accents, every number a 0, words, runs of words."""
    folded = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    words = re.findall(r"\w+", re.sub(r"\d+(?:[.,]\d+)?", "0", folded).replace("_", " "))
    return {tuple(words[i : i + ngram]) for i in range(len(words) - ngram + 1)}


def jaccard(a: set[tuple[str, ...]], b: set[tuple[str, ...]]) -> float:
    return len(a & b) / len(a | b) if a | b else 0.0


def chance(similarity: float, bands: int = 14, rows: int = 8) -> float:
    """The LSH curve: how likely two documents of a similarity are to share a bucket."""
    return 1 - (1 - similarity**rows) ** bands


def candidates(stage: DeduplicateMinhash, texts: list[str]) -> set[tuple[int, int]]:
    """Pairs of rows that share a bucket."""
    emitted = stage.emit(frames_of(texts, 0, len(texts))[0])
    buckets: dict[int, list[int]] = defaultdict(list)
    for row, key in emitted.select("place", "key").iter_rows():
        buckets[key].append(row)
    return {pair for rows in buckets.values() for pair in itertools.combinations(sorted(rows), 2)}


# --- planted cases


def test_near_duplicates_go_and_the_first_stays(tmp_path: Path) -> None:
    first, second = page(1), page(2)
    parts = [[second, first], [edited(first, 2), page(3)], [edited(second, 1), edited(first, 1)]]
    verdicts = run_exchange(DeduplicateMinhash(), parts, tmp_path)
    assert dropped(verdicts) == {"p1r0": "p0r1", "p2r0": "p0r0", "p2r1": "p0r1"}


def test_evidence_names_the_survivor_and_the_size_of_the_cluster(tmp_path: Path) -> None:
    verdicts = run_exchange(DeduplicateMinhash(), [[page(1), page(1)], [page(1)]], tmp_path)
    assert verdicts.schema == EVIDENCE
    shown = verdicts.select(
        "part", "row", "id", "kept_id", "matched_id", "similarity", "method", "cluster_size", "reason"
    )
    assert shown.rows() == [
        (0, 1, "p0r1", "p0r0", "p0r0", 1.0, "minhash", 3, "near_duplicate"),
        (1, 0, "p1r0", "p0r0", "p0r0", 1.0, "minhash", 3, "near_duplicate"),
    ]
    assert verdicts.get_column("detail")[0] == "near-duplicate of p0r0 (similarity 1.0)"


def test_case_accents_punctuation_and_numbers_make_no_difference(tmp_path: Path) -> None:
    one = "Le café de l'été, ouvert depuis 1998; fermé le lundi (sauf 3 jours)."
    other = "LE CAFE DE L ETE OUVERT DEPUIS 2004 FERME LE LUNDI SAUF 12 JOURS"
    assert dropped(run_exchange(DeduplicateMinhash(), [[one, other]], tmp_path)) == {"p0r1": "p0r0"}


def test_texts_too_short_for_a_shingle_are_duplicates_of_those_with_the_same_words(tmp_path: Path) -> None:
    short = [
        "",
        "one",
        "one two three four",
        "One, two: three four!",
        "",
        "!!! ??? ... ,,, ;;; :::",
        "one two three",
        "ONE",
    ]
    verdicts = run_exchange(DeduplicateMinhash(), [short], tmp_path)
    assert dropped(verdicts) == {"p0r3": "p0r2", "p0r7": "p0r1"}
    assert set(verdicts.get_column("similarity")) == {1.0}


def test_five_words_are_one_shingle(tmp_path: Path) -> None:
    texts = ["one two three four five", "six", "One two, three four FIVE!"]
    assert dropped(run_exchange(DeduplicateMinhash(), [texts], tmp_path)) == {"p0r2": "p0r0"}


@pytest.mark.parametrize("parts", [[], [[]], [[], [page(1)], []], [[page(1)], [page(2)]]])
def test_nothing_to_find(tmp_path: Path, parts: list[list[str]]) -> None:
    assert run_exchange(DeduplicateMinhash(), parts, tmp_path).height == 0


def test_chains_are_one_cluster_even_where_its_ends_are_unlike(tmp_path: Path) -> None:
    # Each text shares 84 % of its shingles with its neighbours' (0.72 of both together), its ends share none.
    words = page(5, 2000).split()
    chain = [" ".join(words[start : start + 500]) for start in range(0, 500, 40)]
    assert jaccard(shingles_of(chain[0]), shingles_of(chain[-1])) < 0.1
    stage = DeduplicateMinhash(bands=40, rows=4)  # 0.72 shares a bucket with probability 1 - 2e-6
    verdicts = run_exchange(stage, [chain[6:], chain[:6]], tmp_path)
    everybody = {name_of(part, row) for part in range(2) for row in range(len(chain))} & {
        *(name_of(0, row) for row in range(len(chain[6:]))),
        *(name_of(1, row) for row in range(6)),
    }
    assert dropped(verdicts) == {identifier: "p0r0" for identifier in everybody - {"p0r0"}}
    assert set(verdicts.get_column("cluster_size")) == {len(chain)}


@pytest.mark.parametrize("field", ["bands", "rows", "ngram", "partitions"])
def test_options_that_make_no_sense_are_refused(field: str) -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        DeduplicateMinhash.model_validate({field: 0})


# --- what the result must not depend on


def mixed_corpus() -> list[list[str]]:
    parts = [[page(i) for i in range(8)], [edited(page(i), 1 + i % 3) for i in range(8)], ["short one", page(99)], []]
    return [*parts, [edited(page(3), 2, seed=9), page(4), page(100)]]


@pytest.mark.parametrize(
    ("partitions", "batch", "shuffle"), [(1, 1000, None), (3, 1, None), (16, 3, 7), (40, 2, 8), (5, 1000, 9)]
)
def test_partitions_batches_and_order_change_nothing(
    tmp_path: Path, partitions: int, batch: int, shuffle: int | None
) -> None:
    parts = mixed_corpus()
    expected = run_exchange(DeduplicateMinhash(), parts, tmp_path / "a")
    assert expected.height >= 9
    stage = DeduplicateMinhash(partitions=partitions)
    assert run_exchange(stage, parts, tmp_path / "b", batch_documents=batch, shuffle=shuffle).equals(expected)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), max_size=6), max_size=4), st.integers(1, 5), st.integers(0, 9))
def test_copies_of_whole_pages_are_found_wherever_they_are(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[list[int]], batch: int, order: int
) -> None:
    pages = [page(number, 40) for number in range(5)]
    first: dict[int, str] = {}
    expected = {}
    for part, row in ((part, row) for part, line in enumerate(numbers) for row in range(len(line))):
        number = numbers[part][row]
        if number in first:
            expected[name_of(part, row)] = first[number]
        first.setdefault(number, name_of(part, row))
    texts = [[pages[number] for number in line] for line in numbers]
    folder = tmp_path_factory.getbasetemp()
    verdicts = run_exchange(DeduplicateMinhash(partitions=3), texts, folder, batch_documents=batch, shuffle=order)
    assert dropped(verdicts) == expected


def test_another_seed_draws_other_hash_functions() -> None:
    frame = frames_of([page(1)], 0, 1)[0]
    keys = [set(DeduplicateMinhash(seed=seed).emit(frame).get_column("key")) for seed in (0, 0, 1)]
    assert keys[0] == keys[1] and not keys[0] & keys[2]


# --- cost


def test_a_bucket_with_half_the_corpus_costs_its_size_and_not_its_square(tmp_path: Path) -> None:
    boilerplate = page(7, 60)
    num = 20_000  # all pairs of the copies would be 50 million per band
    texts = [boilerplate if i % 2 else page(10_000 + i, 12) for i in range(num)]
    stage = DeduplicateMinhash(partitions=4)
    emitted = pl.concat([stage.emit(frame) for frame in frames_of(texts, 0, 5000)])
    requests = [
        table
        for part in emitted.partition_by("partition")
        for table in stage.reduce_slices(0, SlicesOf(part, 700), None)
    ]  # type: ignore[arg-type]
    assert sum(table.height for table in requests) <= stage.bands * num
    verdicts = run_exchange(stage, [texts], tmp_path, batch_documents=5000)
    assert verdicts.height == num // 2 - 1
    assert set(verdicts.get_column("kept_id")) == {"p0r1"}


# --- verification and survivors


def test_pairs_below_the_threshold_stay_although_they_share_a_bucket(tmp_path: Path) -> None:
    # 40 of 300 words changed: about 0.33 of the shingles are shared, which 60 bands of 2 rows always find.
    texts = [page(1), edited(page(1), 40), edited(page(1), 2)]
    likely = DeduplicateMinhash(bands=60, rows=2, threshold=None)
    assert dropped(run_exchange(likely, [texts], tmp_path / "a")) == {"p0r1": "p0r0", "p0r2": "p0r0"}
    verified = DeduplicateMinhash(bands=60, rows=2, threshold=0.7)
    verdicts = run_exchange(verified, [texts], tmp_path / "b")
    assert dropped(verdicts) == {"p0r2": "p0r0"}
    expected = jaccard(shingles_of(texts[0]), shingles_of(texts[2]))
    assert verdicts.get_column("similarity")[0] == pytest.approx(expected)


def test_those_unlike_a_hub_still_find_each_other(tmp_path: Path) -> None:
    """One bucket for all (a single row of a single band on a common opening), three groups of copies in it."""
    opening = page(50, 400)
    groups = [f"{opening} {page(60 + group, 700)}" for group in range(3)]
    texts = [edited(groups[i % 3], 2, seed=i) for i in range(12)]
    verdicts = run_exchange(DeduplicateMinhash(bands=400, rows=1, threshold=0.8), [texts], tmp_path)
    assert dropped(verdicts) == {f"p0r{i}": f"p0r{i % 3}" for i in range(3, 12)}
    assert verdicts.get_column("similarity").min() >= 0.8  # type: ignore[operator]


def test_a_page_inside_another_is_found_by_containment(tmp_path: Path) -> None:
    texts = [page(1, 400), page(1, 400) + " " + page(2, 300)]
    many = {"bands": 100, "rows": 2, "threshold": 0.9}
    assert run_exchange(DeduplicateMinhash.model_validate(many), [texts], tmp_path / "a").height == 0
    contained = DeduplicateMinhash.model_validate({**many, "similarity": "containment"})
    assert dropped(run_exchange(contained, [texts], tmp_path / "b")) == {"p0r1": "p0r0"}


def test_characters_as_shingles_find_text_without_spaces(tmp_path: Path) -> None:
    sentence = "数据工程是把原始网页整理成可以训练语言模型的语料的工作，需要去重和清洗。"
    texts = [
        sentence * 3 + "第一",
        sentence * 3 + "第二",
        "完全不同的一篇文章，说的是天气和季节的变化，与前面没有关系。" * 2,
    ]
    stage = DeduplicateMinhash(unit="characters", ngram=5, bands=50, rows=2)
    assert dropped(run_exchange(stage, [texts], tmp_path)) == {"p0r1": "p0r0"}


@pytest.mark.parametrize(
    ("survivor", "kept"),
    [
        ((), "p0r0"),
        (("text_bytes desc",), "p0r2"),
        (("text_bytes",), "p0r1"),
        (({"id": ["p0r3", "p0r1"]},), "p0r3"),
        (({"id": ["nobody"]}, "text_bytes asc"), "p0r1"),
    ],
)
def test_the_survivor_is_the_first_by_the_users_criteria(
    tmp_path: Path, survivor: tuple[object, ...], kept: str
) -> None:
    base = page(1, 400)
    texts = [base, base[: -len(base) // 50], base + " " + page(2, 8), base]
    stage = DeduplicateMinhash.model_validate({"survivor": survivor})
    assert set(dropped(run_exchange(stage, [texts], tmp_path)).values()) == {kept}


def test_criteria_are_columns_that_must_be_there() -> None:
    stage = DeduplicateMinhash.model_validate({"survivor": ["quality_score desc", {"domain": ["books"]}]})
    assert stage.columns().reads == ("id", "text", "quality_score", "domain")
    with pytest.raises(ValidationError, match="'quality_score down' is not a column"):
        DeduplicateMinhash.model_validate({"survivor": ["quality_score down"]})
    with pytest.raises(ValidationError, match="has to name one column"):
        DeduplicateMinhash.model_validate({"survivor": [{"domain": ["a"], "host": ["b"]}]})


# --- real pages


@pytest.fixture(scope="module")
def pages(test_data: Path) -> dict[str, str]:
    with gzip.open(test_data / "dedup" / "documents.jsonl.gz", "rt") as file:
        return {record["id"]: record["text"] for record in map(json.loads, file)}


@pytest.fixture(scope="module")
def similarities(pages: dict[str, str]) -> dict[tuple[int, int], float]:
    """Exact similarity of every pair of rows that shares a shingle."""
    shingles = [shingles_of(text) for text in pages.values()]
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row, own in enumerate(shingles):
        for shingle in own:
            holders[shingle].append(row)
    shared: dict[tuple[int, int], int] = defaultdict(int)
    for rows in holders.values():
        for pair in itertools.combinations(rows, 2):
            shared[pair] += 1
    return {(a, b): n / (len(shingles[a]) + len(shingles[b]) - n) for (a, b), n in shared.items()}


def binned(values: Iterable[float], edges: tuple[float, ...]) -> Iterator[tuple[float, list[float]]]:
    values = list(values)
    for low, high in itertools.pairwise(edges):
        yield low, [value for value in values if low <= value < high]


def test_candidates_follow_the_lsh_curve_on_real_pages(
    pages: dict[str, str], similarities: dict[tuple[int, int], float]
) -> None:
    texts = list(pages.values())
    edges = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.01)
    expected: dict[float, list[float]] = {low: [] for low in edges[:-1]}
    found = dict.fromkeys(expected, 0)
    seeds = range(8)  # many draws of hash functions: one draw's pairs are not independent of each other
    found_pairs = [candidates(DeduplicateMinhash(seed=seed), texts) for seed in seeds]
    for low, values in binned(similarities.values(), edges):
        expected[low] = [chance(value) for value in values]
    for pairs in found_pairs:
        for low, values in binned((similarities.get(pair, 0.0) for pair in pairs), edges):
            found[low] += len(values)
    for low, chances in expected.items():
        mean = len(seeds) * sum(chances)
        spread = math.sqrt(len(seeds) * sum(p * (1 - p) for p in chances))
        # Pages come in clusters, whose pairs are found or missed together; that widens the spread.
        assert abs(found[low] - mean) <= 8 * spread + 0.02 * mean + 3, (low, found[low], mean, spread)


def test_clusters_agree_with_datasketch(
    tmp_path: Path, pages: dict[str, str], similarities: dict[tuple[int, int], float]
) -> None:
    from datasketch import MinHash, MinHashLSH

    texts = list(pages.values())
    theirs = MinHashLSH(num_perm=112, params=(14, 8))
    linked: set[tuple[int, int]] = set()
    for row, text in enumerate(texts):
        own = shingles_of(text)
        if own:
            signature = MinHash(num_perm=112, seed=1)
            signature.update_batch([" ".join(shingle).encode() for shingle in own])
            linked |= {(int(other), row) for other in theirs.query(signature)}
            theirs.insert(str(row), signature)
    ours = candidates(DeduplicateMinhash(), texts)
    # What is all but certain (0.9: 99.96 %) both find; what is all but impossible (0.3: 0.1 %) neither does.
    certain = {pair for pair, value in similarities.items() if value >= 0.95}
    assert len(certain) > 50 and certain <= ours and certain <= linked
    for pairs in (ours, linked):
        unlike = [pair for pair in pairs if similarities.get(pair, 0.0) < 0.3]
        assert len(unlike) <= 2
    union, both = len(ours | linked), len(ours & linked)
    assert both / union > 0.75, (both, union)


def test_labelled_pairs_recall_and_precision(
    tmp_path: Path, test_data: Path, pages: dict[str, str], similarities: dict[tuple[int, int], float]
) -> None:
    identifiers = list(pages)
    rows = {identifier: row for row, identifier in enumerate(identifiers)}
    verdicts = run_exchange(DeduplicateMinhash(), [list(pages.values())], tmp_path)
    cluster = {name_of(0, row): name_of(0, row) for row in rows.values()} | dropped(verdicts)
    with gzip.open(test_data / "dedup" / "pairs.jsonl.gz", "rt") as file:
        labels = [json.loads(line) for line in file]

    def found(label: dict[str, str]) -> bool:
        return cluster[name_of(0, rows[label["a"]])] == cluster[name_of(0, rows[label["b"]])]

    # The labels' own 5-gram similarity counts words a little differently, so the borders are not sharp.
    sure = [label for label in labels if label["jaccard5"] >= 0.9]
    assert len(sure) > 50 and all(map(found, sure))
    likely = [label for label in labels if 0.8 <= label["jaccard5"] < 0.9]
    assert len(likely) > 10 and sum(map(found, likely)) >= 0.9 * len(likely)  # the curve: 0.92 … 0.9996
    unlike = [label for label in labels if label["jaccard5"] < 0.3]
    assert len(unlike) > 200 and sum(map(found, unlike)) <= 0.01 * len(unlike)
    # Nobody is dropped without a neighbour that is like it.
    nearest: dict[int, float] = defaultdict(float)
    for (a, b), value in similarities.items():
        nearest[a], nearest[b] = max(nearest[a], value), max(nearest[b], value)
    lonely = [row for row in (int(i.removeprefix("p0r")) for i in dropped(verdicts)) if nearest[row] < 0.5]
    assert len(lonely) <= 0.01 * len(cluster)
