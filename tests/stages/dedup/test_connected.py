"""Connected components by contracting stars, against the obvious way."""

from __future__ import annotations

import itertools
import random

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.stages.dedup.connected import components, contract, link_rows, ranges_of

Links = list[tuple[int, int]]


def smallest_reachable(links: Links) -> dict[int, int]:
    """Node → smallest node of its component, by walking."""
    neighbours: dict[int, set[int]] = {}
    for a, b in links:
        neighbours.setdefault(a, set()).add(b)
        neighbours.setdefault(b, set()).add(a)
    found: dict[int, int] = {}
    for start in sorted(neighbours):
        waiting = [start] if start not in found else []
        while waiting:
            node = waiting.pop()
            if node not in found:
                found[node] = start
                waiting += neighbours[node]
    return found


def frame(links: Links) -> pl.DataFrame:
    return pl.DataFrame(links, schema={"node": pl.UInt64, "neighbour": pl.UInt64}, orient="row")


def found(links: Links, partitions: int) -> dict[int, int]:
    return {node: hub for part in components(frame(links), partitions) for node, hub in part.iter_rows()}


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).filter(lambda pair: pair[0] != pair[1])),
    st.integers(1, 9),
)
def test_components_are_those_of_a_walk(links: Links, partitions: int) -> None:
    assert found(links, partitions) == smallest_reachable(links)


def test_places_of_a_large_corpus() -> None:
    links = [((1 << 63) + 5, 7), (7, (1 << 40) + 1)]
    assert found(links, 3) == dict.fromkeys([(1 << 63) + 5, (1 << 40) + 1, 7], 7)


def rounds_of(links: Links, partitions: int = 8) -> int:
    rows, rounds, changed = link_rows(frame(links), partitions), 0, True
    while changed:
        parts = [contract(ranges_of([part]), part, partitions) for part in rows.partition_by("partition")]
        rows, rounds = pl.concat(parts), rounds + 1
        changed = bool(rows.get_column("changed").any())
    return rounds


def test_stars_are_done_at_once_and_chains_in_rounds_that_grow_with_the_logarithm() -> None:
    assert rounds_of([(0, node) for node in range(1, 1000)]) == 1
    shuffled = list(range(4096))
    random.Random(1).shuffle(shuffled)
    for chain in (range(4096), shuffled):
        assert rounds_of(list(itertools.pairwise(chain))) <= 2 * 12  # 2 log2(n)


def test_rows_may_come_in_any_pieces() -> None:
    generator = random.Random(2)
    links = [(generator.randrange(60), 100 + generator.randrange(60)) for _ in range(80)]
    rows = link_rows(frame(links), 1)
    whole = contract(ranges_of([rows]), rows, 1)
    pieces = list(rows.sample(fraction=1.0, shuffle=True, seed=3).iter_slices(7))
    apart = pl.concat([contract(ranges_of(pieces), piece, 1) for piece in pieces])
    assert apart.drop("changed").unique().sort(pl.all()).equals(whole.drop("changed").unique().sort(pl.all()))
