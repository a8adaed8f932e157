"""Words as characters, for the algorithms whose vocabulary starts from characters instead of bytes.

An alphabet covers a share of the text; what it leaves out becomes byte tokens or the unknown token. SentencePiece
(arXiv:1808.06226) has 0.9995 for languages with many characters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dataeng.kernels.bpe_merges import Words
    from dataeng.kernels.pretokens import Pieces


class Characters(NamedTuple):
    """The characters of pieces: code points, back to back; where each piece begins; how often each piece is there."""

    codes: NDArray[np.uint32]
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def times(self) -> NDArray[np.int64]:
        """How often the piece of each character is there, int64 [characters]."""
        return np.repeat(self.counts, np.diff(self.offsets))


def numbered(pieces: Pieces) -> Characters:
    """Returns pieces as code points."""
    starts = (pieces.data & 0xC0) != 0x80
    before = np.concatenate([[0], np.cumsum(starts, dtype=np.int64)])
    codes = np.frombuffer(pieces.data.tobytes().decode().encode("utf-32-le"), np.uint32)
    return Characters(codes, before[pieces.offsets], pieces.counts)


def in_order(pieces: Pieces) -> Pieces:
    """Returns the same pieces, sorted by their text."""
    import polars as pl
    import pyarrow as pa

    from dataeng.kernels.pretokens import Pieces
    from dataeng.kernels.text import text_buffers

    array = pa.LargeStringArray.from_buffers(pieces.num_pieces, pa.py_buffer(pieces.offsets), pa.py_buffer(pieces.data))
    texts = pl.Series(array)
    order = texts.arg_sort()
    data, offsets = text_buffers(texts.gather(order))
    return Pieces(data, offsets, pieces.counts[order.to_numpy()])


def covered_characters(characters: Characters, coverage: float) -> NDArray[np.uint32]:
    """Returns the fewest code points that make up this share of the text, ascending. The most frequent come first."""
    codes, places = np.unique(characters.codes, return_inverse=True)
    times = np.bincount(places, weights=characters.times).astype(np.int64)
    order = np.lexsort((codes, -times))
    covered = np.cumsum(times[order])
    num = int(np.searchsorted(covered, coverage * covered[-1])) + 1
    return np.sort(codes[order[:num]])


def covered_words(characters: Characters, alphabet: NDArray[np.uint32], first_id: int) -> Words:
    """Returns words of symbols ``first_id + place in the alphabet``; a character outside it ends a word."""
    from dataeng.kernels.bpe_merges import Words

    known, symbols = _places(characters, alphabet)
    begins = np.zeros(len(known), bool)
    begins[characters.offsets[:-1]] = True
    begins[1:] |= ~known[:-1]
    part = np.cumsum(begins)[known]  # of every known character, the number of its word
    firsts = np.flatnonzero(np.diff(part, prepend=-1))
    offsets = np.concatenate([firsts, [len(part)]]).astype(np.int64)
    return Words((first_id + symbols[known]).astype(np.int32), offsets, characters.times[known][firsts])


def continued_words(
    characters: Characters, alphabet: NDArray[np.uint32], first_id: int
) -> tuple[Words, NDArray[np.uint32]]:
    """Returns WordPiece's words, and the characters that are there behind another one, ascending.

    Symbols are ``first_id`` and on for the alphabet at the beginning of a word, and the ids after those for the
    characters behind another. A word with a character outside the alphabet is left out: it will be unknown as a whole.
    """
    from dataeng.kernels.bpe_merges import Words

    known, symbols = _places(characters, alphabet)
    lengths = np.diff(characters.offsets)
    whole = np.add.reduceat(~known, characters.offsets[:-1]) == 0
    keep = np.repeat(whole, lengths)
    inner = np.ones(len(known), bool)
    inner[characters.offsets[:-1]] = False
    continued = np.unique(characters.codes[inner & keep])
    behind = len(alphabet) + np.searchsorted(continued, characters.codes)
    ids = first_id + np.where(inner, behind, symbols)
    offsets = np.concatenate([[0], np.cumsum(lengths[whole], dtype=np.int64)]).astype(np.int64)
    return Words(ids[keep].astype(np.int32), offsets, characters.counts[whole]), continued


def _places(characters: Characters, alphabet: NDArray[np.uint32]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Returns which characters are in the alphabet, and where in it (or where they would be)."""
    places = np.searchsorted(alphabet, characters.codes)
    known = alphabet[np.minimum(places, len(alphabet) - 1)] == characters.codes
    return known, places
