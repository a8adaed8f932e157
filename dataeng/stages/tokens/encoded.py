"""What passes between encoding, objectives and pack files: the tokens of a batch of documents, as flat arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Encoded:
    """Documents' tokens, one after the other.

    ``tokens`` is uint16 or int32 [T] (the pack's type), ``lengths`` int32 [documents] with sum T, EOS included once it
    was added; ``mask`` is uint8 [T], 1 where a token is trained on as a label, or None when all of them are.
    """

    tokens: npt.NDArray[Any]
    lengths: npt.NDArray[np.int32]
    mask: npt.NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        total = int(self.lengths.sum(dtype=np.int64))
        if total != len(self.tokens) or (self.mask is not None and len(self.mask) != total):
            raise ValueError(
                f"{len(self.lengths)} documents of {total} tokens in all do not fit {len(self.tokens)} tokens"
            )
