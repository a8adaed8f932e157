"""Putting a token before and after every document of a batch of tokens, and narrowing an encoder's ids on the way."""

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


@kernel
def narrow_ids(
    ids: NDArray[np.uint32], lengths: NDArray[np.int64], special: NDArray[np.bool_], first: int, last: int,
    out: NDArray[Any],
) -> tuple[int, int]:  # fmt: skip
    """Does what `put_ends` does with an encoder's ids, in one pass with what has to be checked.

    Args:
      ids: [T].
      lengths: [documents], with sum T.
      special: [vocabulary], whether an id is one that no text may become.
      out: uint16 or int32 [T + documents times the number of ends]. Where an id is not in the vocabulary, what is
        written is of no use.

    Returns:
      The largest id (-1 if there is none), and how many are special.
    """
    read, write, largest, found = 0, 0, -1, 0
    most = special.shape[0] - 1
    for document in range(lengths.shape[0]):
        if first >= 0:
            out[write] = first
            write += 1
        length = lengths[document]
        for k in range(length):
            token = signed(ids[read + k])
            largest = max(largest, token)
            found += special[min(token, most)]
            out[write + k] = token
        read += length
        write += length
        if last >= 0:
            out[write] = last
            write += 1
    return largest, found


def warm_up() -> None:
    """Compiles for all types of tokens, and for masks."""
    ids = np.zeros(1, np.uint32)
    ids.flags.writeable = False
    for narrow in (np.uint16, np.int32):
        narrow_ids(ids, np.ones(1, np.int64), np.zeros(1, np.bool_), NOTHING, 0, np.zeros(2, narrow))
    for dtype in (np.uint16, np.int32, np.uint8):
        tokens = np.zeros(1, dtype)
        tokens.flags.writeable = False
        lengths = np.ones(1, np.int32)
        lengths.flags.writeable = False
        put_ends(tokens, lengths, NOTHING, 0, np.zeros(2, dtype))
