"""Compiled functions over arrays: text statistics, hashing, MinHash, connected components, language models.

Every kernel is pure, releases the GIL, and reads Arrow string buffers in place.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable

#: Kernel modules that have something to compile. Each has a ``warm_up()`` that runs it on a tiny example.
KERNELS = (
    "signals",
    "extended_signals",
    "minhash",
    "shingle_sets",
    "datasketch_signatures",
    "hashing",
    "fasttext",
    "lines",
    "c4_lines",
    "refinedweb_lines",
    "canonical_urls",
    "normalized_text",
    "simhash",
    "units",
    "normalization",
    "ngrams",
    "bloom",
    "sequences",
    "substrings",
    "cutting",
    "pretokens",
    "bpe_merges",
    "document_ends",
    "noising",
    "unigram",
    "packing",
    "row_reading",
    "permutation",
    "blending",
)


def needs_compiling(kernels: Iterable[str] = KERNELS) -> list[str]:
    """Returns those of ``kernels`` whose machine code is not on this machine yet."""
    from dataeng.kernels.compiling import cache_folder

    return [name for name in kernels if not (cache_folder() / f"{name}.compiled").exists()]


def prepare(kernels: Iterable[str] = KERNELS, on_compile: Callable[[list[str]], None] | None = None) -> list[str]:
    """Loads kernels, compiling those that are not in the cache, and returns the names of the compiled ones.

    Call it before workers start, so that they find the machine code and do not each compile.

    Args:
      kernels: names from `KERNELS`.
      on_compile: called with the names before compiling starts (some ten seconds), if there is anything to compile.
    """
    from dataeng.kernels.compiling import cache_folder

    names = list(kernels)
    for name in names:
        if name not in KERNELS:
            raise ValueError(f"unknown kernel {name!r}; known: {', '.join(KERNELS)}")
    missing = needs_compiling(names)
    if missing and on_compile is not None:
        on_compile(missing)
    for name in names:
        importlib.import_module(f"dataeng.kernels.{name}").warm_up()
        (cache_folder() / f"{name}.compiled").touch()
    return missing
