"""Putting a token before and after every document of a batch of tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import kernel
from dataeng.kernels.text import signed

NOTHING = -1


@kernel
def put_ends(tokens: NDArray[Any], lengths: NDArray[np.int32], first: int, last: int, out: NDArray[Any]) -> None:
    """Copies documents, each with ``first`` before it and ``last`` behind it; `NOTHING` stands for none.

    Args:
      tokens: [T], uint16 or int32 (or uint8, for masks).
      lengths: [documents], with sum T.
      out: [T + documents times the number of ends], of the same type.
    """
    read, write = 0, 0
    for document in range(lengths.shape[0]):
        if first >= 0:
            out[write] = first
            write += 1
        length = signed(lengths[document])
        for k in range(length):
            out[write + k] = tokens[read + k]
        read += length
        write += length
        if last >= 0:
            out[write] = last
            write += 1


def warm_up() -> None:
    """Compiles for all types of tokens, and for masks."""
    for dtype in (np.uint16, np.int32, np.uint8):
        tokens = np.zeros(1, dtype)
        tokens.flags.writeable = False
        put_ends(tokens, np.ones(1, np.int32), NOTHING, 0, np.zeros(2, dtype))
