"""The tokens that every document of a pack begins and ends with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dataeng.stages.tokens.encoded import Encoded


class Ends(NamedTuple):
    """BOS and EOS, as `write_packs` is configured; None adds none."""

    bos_id: int | None = None
    eos_id: int | None = None

    @property
    def ids(self) -> tuple[int, ...]:
        """Those that there are."""
        return tuple(token for token in self if token is not None)

    def around(self, encoded: Encoded) -> Encoded:
        """Puts BOS before and EOS behind every document.

        EOS is trained on; BOS, which nothing predicts, is not, where there is a mask.
        """
        added = (self.bos_id is not None) + (self.eos_id is not None)
        if not added:
            return encoded
        lengths = encoded.lengths + np.int32(added)
        stops = np.cumsum(lengths, dtype=np.int64)
        given = np.ones(int(stops[-1]) if len(stops) else 0, np.bool_)
        tokens = np.empty(len(given), encoded.tokens.dtype)
        mask = None if encoded.mask is None else np.empty(len(given), np.uint8)
        for places, token, trained in ((stops - lengths, self.bos_id, 0), (stops - 1, self.eos_id, 1)):
            if token is not None:
                given[places], tokens[places] = False, token
                if mask is not None:
                    mask[places] = trained
        tokens[given] = encoded.tokens
        if mask is not None and encoded.mask is not None:
            mask[given] = encoded.mask
        return Encoded(tokens, lengths, mask)
