"""MinHash signatures as stages use them: published parameters by name, and the kernel that an option asks for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from dataeng.errors import nearest

if TYPE_CHECKING:
    from dataeng.kernels.folding import Normalization, Unit
    from dataeng.kernels.minhash import Signatures
    from dataeng.kernels.text import TextBuffers

_DATASKETCH = re.compile(r"datasketch\((0?\.\d+|0|1|1\.0*)\)")
DATASKETCH_PERMUTATIONS = 128


def preset_options(name: str) -> dict[str, Any]:
    """Returns the options that a preset stands for.

    Raises:
      ValueError: there is no such preset.
    """
    from dataeng.kernels.lsh_parameters import PARAMETER_SETS, datasketch_parameters

    match = _DATASKETCH.fullmatch(name.replace(" ", ""))
    if match:
        bands, rows = datasketch_parameters(float(match[1]), DATASKETCH_PERMUTATIONS)
        return {"bands": bands, "rows": rows, "signatures": "datasketch"}
    if name not in PARAMETER_SETS:
        known = (*PARAMETER_SETS, "datasketch(0.7)")
        raise ValueError(f"unknown preset '{name}'{nearest(name, known)}")
    found = PARAMETER_SETS[name]
    return {
        "bands": found.bands,
        "rows": found.rows,
        "ngram": found.ngram,
        "unit": found.unit,
        "normalization": found.normalization,
    }


def sign(
    texts: TextBuffers, num_perm: int, seed: int, bits: Literal[32, 64], kind: Literal["native", "datasketch"],
    ngram: int, unit: Unit, normalization: Normalization,
) -> Signatures:  # fmt: skip
    """Returns signatures of texts: uint32 or uint64 [texts, num_perm].

    Those of kind ``datasketch`` are what ``datasketch.MinHash(num_perm, seed, scheme="affine32")`` (or affine64) has
    after ``update`` with every shingle, its words joined by one space, in UTF-8.
    """
    if kind == "datasketch":
        from dataeng.kernels.datasketch_signatures import datasketch_minhash, datasketch_permutations

        scheme: Literal["affine32", "affine64"] = "affine32" if bits == 32 else "affine64"
        drawn = datasketch_permutations(num_perm, seed, scheme)
        return datasketch_minhash(texts, drawn, ngram=ngram, unit=unit, normalization=normalization)
    from dataeng.kernels.minhash import minhash, permutations

    functions = permutations(num_perm, seed, bits)
    return minhash(texts, functions, ngram=ngram, unit=unit, normalization=normalization)
