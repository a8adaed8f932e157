"""Which domain the next rows come from: the largest deficit first, within caps (see `dataeng.kernels.blending`)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def blend(shares: Floats, caps: Ints, drawn: Ints, deficits: Floats, count: int) -> tuple[Ints, Ints]:
    """Plans up to ``count`` rows and returns, for each, its domain and its running number within that, int64 both.

    All arrays have one entry per domain. ``caps`` is the most rows that a domain may give, negative for no cap.
    ``drawn`` (rows so far) and ``deficits`` (share · rows planned - rows drawn) are brought forward in place. Fewer
    rows come back when every domain with a share above 0 has reached its cap.
    """
    from dataeng.kernels.blending import plan_rows

    domains, ordinals = np.empty(count, np.int64), np.empty(count, np.int64)
    planned = plan_rows(shares, caps, drawn, deficits, domains, ordinals)
    return domains[:planned], ordinals[:planned]
