"""Connected components of a graph given as edges, by union-find."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import inlined, kernel


@inlined
def find_root(parent: NDArray[np.int64], node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]  # halve the path on the way
        node = parent[node]
    return node


@kernel
def join_edges(u: NDArray[np.int64], v: NDArray[np.int64], parent: NDArray[np.int64]) -> None:
    """Merges the ends of every edge; afterwards ``parent[i]`` is the smallest node of i's component."""
    for i in range(parent.shape[0]):
        parent[i] = i
    for i in range(u.shape[0]):
        a, b = find_root(parent, u[i]), find_root(parent, v[i])
        # The smaller node becomes the root, whatever the order of the edges.
        if a < b:
            parent[b] = a
        else:
            parent[a] = b
    for i in range(parent.shape[0]):
        parent[i] = find_root(parent, i)


def components(u: NDArray[np.int64], v: NDArray[np.int64], num_nodes: int) -> NDArray[np.int64]:
    """Returns for each of the nodes 0 … num_nodes - 1 the smallest node that it is connected with.

    Args:
      u, v: int64 [edges], the two ends; order, direction and repeats do not matter.

    Returns:
      int64 [num_nodes]; a node without edges gets itself.
    """
    u, v = np.ascontiguousarray(u, np.int64), np.ascontiguousarray(v, np.int64)
    if u.shape != v.shape or u.ndim != 1:
        raise ValueError(f"expected two equally long lists of nodes, got shapes {u.shape} and {v.shape}")
    if len(u) and (min(u.min(), v.min()) < 0 or max(u.max(), v.max()) >= num_nodes):
        raise ValueError(f"edges name nodes outside 0 … {num_nodes - 1}")
    parent = np.empty(num_nodes, np.int64)
    join_edges(_readonly(u), _readonly(v), parent)
    return parent


def components_of_edges(u: NDArray[np.int64], v: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As `components`, for nodes that are any numbers.

    Returns:
      nodes: int64 [n], every node that an edge names, ascending.
      roots: int64 [n], the smallest node of each one's component.
    """
    nodes, positions = np.unique(np.concatenate([u, v]).astype(np.int64), return_inverse=True)
    positions = positions.astype(np.int64)
    roots = components(positions[: len(u)], positions[len(u) :], len(nodes))
    return nodes, nodes[roots]


def _readonly(array: NDArray[np.int64]) -> NDArray[np.int64]:
    """One array type for the kernel, whatever the caller has."""
    view = array.view()
    view.flags.writeable = False
    return view


def warm_up() -> None:
    """Compiles the kernel or loads it from the cache."""
    components(np.array([0], np.int64), np.array([1], np.int64), 2)
