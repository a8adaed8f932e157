"""datatrove and datasketch put the same documents together where no luck with hash functions is involved."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.accuracy.dedup import Pairs, sets_of, similar_pairs
from tests.accuracy.dedup_methods import WITHOUT_THRESHOLD

OURS = "dataeng, MinHash 14x8"
PEERS = ("datatrove, MinHash 14x8", "datasketch, MinHashLSH 14x8")
SAME, DIFFERENT = 0.95, 0.3
"""Of 14 bands of 8 rows, pairs at 0.95 share one with a probability of 1 - 10^-7, pairs at 0.3 with one of 0.0009."""


@pytest.fixture(scope="module", params=["labelled", "licences"])
def texts(request: pytest.FixtureRequest, test_data: Path) -> list[str]:
    return sets_of(test_data)[request.param]


@pytest.fixture(scope="module")
def pairs(texts: list[str]) -> Pairs:
    return similar_pairs(texts)


@pytest.mark.parametrize("peer", PEERS)
def test_clusters_agree_where_candidates_do(texts: list[str], pairs: Pairs, tmp_path: Path, peer: str) -> None:
    ours = WITHOUT_THRESHOLD[OURS](texts, 0.0, tmp_path / "ours")
    theirs = WITHOUT_THRESHOLD[peer](texts, 0.0, tmp_path / "theirs")
    clear = [pair for pair, similarity in pairs.items() if similarity >= SAME]
    assert len(clear) > 50
    for one, other in clear:
        assert ours[one] == ours[other] and theirs[one] == theirs[other]
    # Clusters without a doubtful pair in them are the same sets on both sides.
    doubtful = {text for pair, similarity in pairs.items() if DIFFERENT < similarity < SAME for text in pair}
    sure = [text for text in range(len(texts)) if text not in doubtful]
    assert len(sure) > 20
    assert sets_among(ours, sure) == sets_among(theirs, sure)


def sets_among(clusters: list[int], members: list[int]) -> set[frozenset[int]]:
    groups: dict[int, set[int]] = {}
    for member in members:
        groups.setdefault(clusters[member], set()).add(member)
    return {frozenset(group) for group in groups.values()}
