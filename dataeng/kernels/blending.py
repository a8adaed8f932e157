"""Which domain the next row comes from, for thousands of rows at a time: the largest deficit, within caps.

As Megatron-LM's ``build_blending_indices``, with two differences: the deficits are kept, so that planning can go on
from any row and with other shares, and a domain that reaches its cap leaves its share to the others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, kernel


@called
def open_shares(
    shares: NDArray[np.float64], drawn: NDArray[np.int64], caps: NDArray[np.int64], to: NDArray[np.float64]
) -> bool:
    """Writes the shares of the domains below their caps, scaled to sum to 1, 0 for the others; False if none is."""
    total = 0.0
    for i in range(len(shares)):
        to[i] = shares[i] if caps[i] < 0 or drawn[i] < caps[i] else 0.0
        total += to[i]
    if total > 0.0:
        for i in range(len(shares)):
            to[i] /= total
    return total > 0.0


@kernel
def plan_rows(
    shares: NDArray[np.float64],
    caps: NDArray[np.int64],
    drawn: NDArray[np.int64],
    deficits: NDArray[np.float64],
    domains: NDArray[np.int64],
    ordinals: NDArray[np.int64],
) -> int:
    """Plans up to ``len(domains)`` rows: the domain of each, and its running number within that domain.

    ``caps`` is the most rows that a domain may give, negative for no cap; ``drawn`` and ``deficits`` are where planning
    stands and are brought forward. Returns how many rows were planned; fewer than asked for when every domain with a
    share above 0 has reached its cap.
    """
    current = np.empty(len(shares))
    going = open_shares(shares, drawn, caps, current)
    for row in range(len(domains)):
        if not going:
            return row
        best = -1
        for i in range(len(shares)):
            deficits[i] += current[i]
            if current[i] > 0.0 and (best < 0 or deficits[i] > deficits[best]):
                best = i
        deficits[best] -= 1.0
        domains[row], ordinals[row] = best, drawn[best]
        drawn[best] += 1
        if drawn[best] == caps[best]:
            going = open_shares(shares, drawn, caps, current)
    return len(domains)


def warm_up() -> None:
    """Compiles the kernel on a tiny example."""
    ints, floats = np.zeros(1, np.int64), np.ones(1)
    plan_rows(floats, np.full(1, -1), ints, np.zeros(1), np.empty(1, np.int64), np.empty(1, np.int64))
