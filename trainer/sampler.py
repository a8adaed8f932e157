"""Which row of which domain comes next: a pure function of (seed, shares, how many rows came before).

The domain of a row is the one that is furthest behind its share (largest deficit, as Megatron-LM's
``build_blending_indices``), so that after any number of rows every domain has had its share to within about a row.
Within a domain, every epoch is another permutation (see `dataeng.mixture.permutation`), so nothing repeats before
everything was read. The state is one count and one deficit per domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dataeng.errors import FormatError
from dataeng.mixture.permutation import permutation_key, permute

Ints = npt.NDArray[np.int64]


class MixtureSampler:
    """Plans rows. ``num_rows`` is what one epoch of a domain has; ``max_rows`` is where its epoch cap stops it."""

    def __init__(
        self,
        names: Sequence[str],
        num_rows: Sequence[int],
        max_rows: Sequence[int | None],
        shares: Sequence[float],
        seed: int,
    ) -> None:
        self.names, self.num_rows, self.max_rows, self.shares = (
            list(names),
            list(num_rows),
            list(max_rows),
            list(shares),
        )
        self.seed = seed
        self.drawn = [0] * len(self.names)  # rows of each domain so far
        self.deficits = [0.0] * len(self.names)  # share · rows planned - rows drawn

    def take(self, count: int) -> tuple[Ints, Ints]:
        """Returns the next ``count`` rows as (domain index, row index within the domain), int64[count] each.

        Raises `FormatError` when the epoch caps have stopped every domain.
        """
        domains, ordinals = np.empty(count, np.int64), np.empty(count, np.int64)
        for i in range(count):
            domains[i] = domain = self._next_domain()
            ordinals[i] = self.drawn[domain]
            self.drawn[domain] += 1
        return domains, self._shuffled(domains, ordinals)

    def _next_domain(self) -> int:
        best, largest = -1, 0.0
        for i, share in enumerate(self.shares):
            self.deficits[i] += share
            cap = self.max_rows[i]
            is_open = share > 0 and (cap is None or self.drawn[i] < cap)
            if is_open and (best < 0 or self.deficits[i] > largest):
                best, largest = i, self.deficits[i]
        if best < 0:
            caps = ", ".join(f"{n} {d:,} of {c}" for n, d, c in zip(self.names, self.drawn, self.max_rows, strict=True))
            raise FormatError(f"every domain has reached its epoch cap (rows drawn: {caps}); raise max_epochs.")
        self.deficits[best] -= 1.0
        return best

    def _shuffled(self, domains: Ints, ordinals: Ints) -> Ints:
        """Maps a domain's running number (epochs included) to a row of the domain."""
        rows = np.empty(len(domains), np.int64)
        for domain in np.unique(domains).tolist():
            size = self.num_rows[domain]
            chosen = domains == domain
            epochs, positions = np.divmod(ordinals[chosen], size)
            values = np.empty(len(positions), np.int64)
            for epoch in np.unique(epochs).tolist():
                key = permutation_key(self.seed, self.names[domain], epoch)
                values[epochs == epoch] = permute(positions[epochs == epoch], size, key)
            rows[chosen] = values
        return rows

    def epochs(self) -> list[float]:
        """Returns how often each domain has been read so far."""
        return [drawn / size for drawn, size in zip(self.drawn, self.num_rows, strict=True)]

    def state(self) -> dict[str, Any]:
        """Returns what `take` depends on besides the constructor's arguments, as JSON values."""
        return {"drawn": list(self.drawn), "deficits": list(self.deficits)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores `state`; raises `FormatError` when it is of another number of domains."""
        drawn, deficits = [int(n) for n in state["drawn"]], [float(d) for d in state["deficits"]]
        if len(drawn) != len(self.names) or len(deficits) != len(self.names):
            raise FormatError(f"sampler state has {len(drawn)} domains, expected {len(self.names)}.")
        self.drawn, self.deficits = drawn, deficits
