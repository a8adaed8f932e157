"""From documents to rows of sequence_length + 1 tokens: which documents share a row (`rows`), in which order a
curriculum takes them (`order`), and reading rows out of packs (`reading`)."""

from __future__ import annotations

from collections.abc import Callable

#: Kernels that planning and reading rows need.
KERNELS = ("packing", "row_reading", "permutation", "blending")


def prepare(on_compile: Callable[[list[str]], None] | None = None) -> list[str]:
    """Loads the kernels, compiling those that this machine has not compiled yet; see `dataeng.kernels.prepare`."""
    from dataeng import kernels

    return kernels.prepare(KERNELS, on_compile)
