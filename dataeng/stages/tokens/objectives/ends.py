"""The tokens that every document of a pack begins and ends with."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

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
        from dataeng.kernels.document_ends import NOTHING, put_ends

        if not self.ids:
            return encoded
        lengths = encoded.lengths + np.int32(len(self.ids))
        first, last = (NOTHING if token is None else token for token in self)
        tokens = np.empty(len(encoded.tokens) + len(self.ids) * len(lengths), encoded.tokens.dtype)
        given = _read_only(encoded.lengths)
        put_ends(_read_only(encoded.tokens), given, first, last, tokens)
        if encoded.mask is None:
            return Encoded(tokens, lengths)
        mask = np.empty(len(tokens), np.uint8)
        first, last = (NOTHING if token is None else mark for token, mark in ((self.bos_id, 0), (self.eos_id, 1)))
        put_ends(_read_only(encoded.mask), given, first, last, mask)
        return Encoded(tokens, lengths, mask)


def _read_only(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns a view: kernels are compiled for one type of array, and some are read-only already."""
    view = np.ascontiguousarray(values).view()
    view.flags.writeable = False
    return view
