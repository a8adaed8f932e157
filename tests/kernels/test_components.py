from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.kernels.components import components, components_of_edges

EDGES = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40)


def reference(edges: list[tuple[int, int]], num_nodes: int) -> list[int]:
    roots = list(range(num_nodes))
    for _ in range(num_nodes):
        for a, b in edges:
            roots[a] = roots[b] = min(roots[a], roots[b])
    return roots


def columns(edges: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    array = np.array(edges, np.int64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


@settings(max_examples=300, deadline=None)
@given(edges=EDGES)
def test_equals_the_plain_reference(edges: list[tuple[int, int]]) -> None:
    assert components(*columns(edges), 20).tolist() == reference(edges, 20)


@settings(max_examples=100, deadline=None)
@given(edges=EDGES)
def test_any_node_numbers(edges: list[tuple[int, int]]) -> None:
    spread = [(a * 10**15 - 7, b * 10**15 - 7) for a, b in edges]
    nodes, roots = components_of_edges(*columns(spread))
    expected = reference(edges, 20)
    named = sorted({node for edge in edges for node in edge})
    assert nodes.tolist() == [node * 10**15 - 7 for node in named]
    assert roots.tolist() == [expected[node] * 10**15 - 7 for node in named]


def test_a_long_chain_in_the_worst_order() -> None:
    n = 200_000
    nodes = np.arange(n - 1, dtype=np.int64)[::-1]
    assert (components(nodes, nodes + 1, n) == 0).all()


def test_wrong_edges_are_refused() -> None:
    with pytest.raises(ValueError, match=r"outside 0 … 2"):
        components(np.array([0]), np.array([3]), 3)
    with pytest.raises(ValueError, match="equally long"):
        components(np.array([0, 1]), np.array([1]), 3)
