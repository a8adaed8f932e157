"""datatrove and datasketch put the same documents together where no luck with hash functions is involved."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataeng.stages.dedup.deduplicate_minhash import DeduplicateMinhash
from tests.accuracy.dedup import sets_of, similar_pairs
from tests.accuracy.dedup_methods import BANDS, NGRAM, ROWS, datasketch_same_bands, datatrove, ours

SAME, DIFFERENT = 0.95, 0.3
"""Of 14 bands of 8 rows, pairs at 0.95 share one with a probability of 1 - 10^-7, pairs at 0.3 with one of 0.0009."""
LABELLED = 240
"""Pages of the labelled set; datatrove takes its time."""


@pytest.fixture(scope="module", params=["labelled", "licences"])
def texts(request: pytest.FixtureRequest, test_data: Path) -> list[str]:
    """Texts in lower case, as datasketch's side of the comparison gets them."""
    return [text.lower() for text in sets_of(test_data)[request.param][:LABELLED]]


def check_same_clusters(texts: list[str], mine: list[int], theirs: list[int]) -> None:
    """Documents that are clearly the same are together on both sides, and those without a doubtful one, alike."""
    pairs = similar_pairs(texts)
    clear = [pair for pair, similarity in pairs.items() if similarity >= SAME]
    assert len(clear) > 40
    for one, other in clear:
        assert mine[one] == mine[other] and theirs[one] == theirs[other]
    doubtful = {text for pair, similarity in pairs.items() if DIFFERENT < similarity < SAME for text in pair}
    sure = [text for text in range(len(texts)) if text not in doubtful]
    assert len(sure) > 20
    assert sets_among(mine, sure) == sets_among(theirs, sure)


def sets_among(clusters: list[int], members: list[int]) -> set[frozenset[int]]:
    groups: dict[int, set[int]] = {}
    for member in members:
        groups.setdefault(clusters[member], set()).add(member)
    return {frozenset(group) for group in groups.values()}


def test_datatrove(texts: list[str], tmp_path: Path) -> None:
    stage = DeduplicateMinhash(bands=BANDS, rows=ROWS, ngram=NGRAM, threshold=None)
    mine = ours(stage)(texts, 0.0, tmp_path / "ours")
    check_same_clusters(texts, mine, datatrove(texts, 0.0, tmp_path / "theirs"))


def test_datasketch(texts: list[str], tmp_path: Path) -> None:
    """Numbers are all the same to datatrove's words, and not to those of ``text.split()``."""
    stage = DeduplicateMinhash(bands=BANDS, rows=ROWS, ngram=NGRAM, normalization="none", threshold=None)
    mine = ours(stage)(texts, 0.0, tmp_path / "ours")
    check_same_clusters(texts, mine, datasketch_same_bands(texts, 0.0, tmp_path / "theirs"))
