"""Noise for denoising objectives: T5's span corruption and BERT's masking, on the tokens of many documents.

Every document draws from its own numbers, so that what happens to it does not depend on its neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.hashing import final_mix

#: Steps of the Weyl sequence that numbers are mixed from (Steele, Lea and Flood 2014, *Fast splittable pseudorandom
#: number generators*).
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
S11 = np.uint64(11)
UNIT = 2.0**-53


class Noised(NamedTuple):
    """Documents after noising: ``lengths`` says how many of ``tokens`` each has; ``mask`` is 1 where one is a label."""

    tokens: NDArray[np.int32]
    lengths: NDArray[np.int32]
    mask: NDArray[np.uint8]


@inlined
def uniform(state: NDArray[np.uint64]) -> float:
    """Returns the next number in [0, 1) of the sequence whose state is ``state[0]``."""
    state[0] += GOLDEN
    return float(final_mix(state[0]) >> S11) * UNIT


@called
def cut_randomly(num_items: int, num_parts: int, state: NDArray[np.uint64], sizes: NDArray[np.int64]) -> None:
    """Cuts a row of items into non-empty parts, all ways being equally likely (Knuth's algorithm S)."""
    part, size, left = 0, 0, num_parts - 1
    for i in range(num_items - 1):
        size += 1
        if left > 0 and uniform(state) * (num_items - 1 - i) < left:
            sizes[part] = size
            part, size, left = part + 1, 0, left - 1
    sizes[part] = size + 1


@inlined
def span_counts(size: int, density: float, mean_span: float) -> tuple[int, int]:
    """Returns how many of ``size`` tokens (two at least) are noise, and in how many spans they are."""
    noise = min(max(int(np.rint(size * density)), 1), size - 1)
    return noise, min(max(int(np.rint(noise / mean_span)), 1), noise, size - noise)


@kernel
def count_spans(size: int, density: float, mean_span: float) -> tuple[int, int]:
    return span_counts(size, density, mean_span)


@kernel
def max_spans_kernel(max_tokens: int, density: float, mean_span: float) -> int:
    most = 0
    for size in range(2, max_tokens + 1):
        most = max(most, span_counts(size, density, mean_span)[1])
    return most


@inlined
def num_pieces(size: int, max_tokens: int) -> int:
    """Returns into how many pieces of almost equal size a document is cut, so that none has more than allowed."""
    return max(1, (size + max_tokens - 1) // max_tokens)


@kernel
def corrupt_spans_kernel(
    tokens: NDArray[np.int32],
    lengths: NDArray[np.int32],
    keys: NDArray[np.uint64],
    max_tokens: int,
    density: float,
    mean_span: float,
    sentinels: NDArray[np.int32],
    frame: NDArray[np.int32],
    out: NDArray[np.int32],
    mask: NDArray[np.uint8],
    out_lengths: NDArray[np.int32],
) -> int:
    """``frame``: the tokens before a piece, between its input and its target, and after it; -1 is none."""
    state = np.empty(1, np.uint64)
    kept_sizes, noise_sizes = np.empty(max_tokens, np.int64), np.empty(max_tokens, np.int64)
    o, first = 0, 0
    for document in range(lengths.shape[0]):
        state[0] = keys[document]
        begin = o
        total = int(lengths[document])
        pieces = num_pieces(total, max_tokens)
        for piece in range(pieces):
            start, stop = first + total * piece // pieces, first + total * (piece + 1) // pieces
            trained = np.uint8(stop - start >= 2)
            num_spans = 0
            if trained:
                noise, num_spans = span_counts(stop - start, density, mean_span)
                cut_randomly(noise, num_spans, state, noise_sizes)
                cut_randomly(stop - start - noise, num_spans, state, kept_sizes)
            if frame[0] >= 0:
                out[o] = frame[0]
                mask[o] = 0
                o += 1
            i = start
            for span in range(num_spans):
                for _ in range(kept_sizes[span]):
                    out[o] = tokens[i]
                    mask[o] = 0
                    o += 1
                    i += 1
                out[o] = sentinels[span]
                mask[o] = 0
                o += 1
                i += noise_sizes[span]
            while i < stop:  # a piece too short to be noised
                out[o] = tokens[i]
                mask[o] = 0
                o += 1
                i += 1
            if frame[1] >= 0:
                out[o] = frame[1]
                mask[o] = 0
                o += 1
            i = start
            for span in range(num_spans):
                i += kept_sizes[span]
                out[o] = sentinels[span]
                mask[o] = 1
                o += 1
                for _ in range(noise_sizes[span]):
                    out[o] = tokens[i]
                    mask[o] = 1
                    o += 1
                    i += 1
            out[o] = frame[2]
            mask[o] = trained
            o += 1
        first += total
        out_lengths[document] = o - begin
    return o


def corrupt_spans(
    tokens: NDArray[np.int32],
    lengths: NDArray[np.int32],
    keys: NDArray[np.uint64],
    *,
    max_tokens: int,
    density: float,
    mean_span: float,
    sentinels: NDArray[np.int32],
    before: int | None,
    between: int | None,
    after: int,
) -> Noised:
    """Replaces random spans of every piece of a document by sentinels, and puts what was there behind it.

    A piece becomes ``before, input, between, target, after``. The input has a sentinel for every span, the target every
    sentinel followed by its span; the target and the token after it are labels. A piece begins with tokens that are
    kept and ends with noise, and all ways to cut it are equally likely, as in T5's ``random_spans_noise_mask`` (Raffel
    et al., arXiv 1910.10683; github.com/google-research/text-to-text-transfer-transformer, Apache-2.0). There may be
    fewer spans than ``mean_span`` asks for where noise is dense, since one token at least is kept between two. A
    document of fewer than two tokens stays as it is and is not trained on.

    Args:
      tokens, lengths: int32 [T] and [documents].
      keys: [documents], what the documents' numbers are drawn from.
      max_tokens: of a piece; a longer document is cut into as few pieces as possible, almost equal in size.
      sentinels: as many as `max_spans` says.
    """
    frame = np.array([-1 if token is None else token for token in (before, between, after)], np.int32)
    total, pieces = len(tokens), int(np.maximum(1, -(-lengths.astype(np.int64) // max_tokens)).sum())
    out = np.empty(2 * total + 3 * pieces, np.int32)  # at most half as many spans as tokens, each named twice
    mask = np.empty(len(out), np.uint8)
    out_lengths = np.empty(len(lengths), np.int32)
    size = corrupt_spans_kernel(
        tokens, lengths, keys, max_tokens, density, mean_span, sentinels, frame, out, mask, out_lengths
    )
    return Noised(out[:size], out_lengths, mask[:size])


def max_spans(max_tokens: int, density: float, mean_span: float) -> int:
    """Returns how many sentinels pieces of up to so many tokens need at most."""
    return int(max_spans_kernel(max_tokens, density, mean_span))


@kernel
def mask_tokens_kernel(
    tokens: NDArray[np.int32],
    lengths: NDArray[np.int32],
    keys: NDArray[np.uint64],
    max_tokens: int,
    rate: float,
    mask_share: float,
    random_share: float,
    mask_id: int,
    ordinary: NDArray[np.int32],
    frame: NDArray[np.int32],
    out: NDArray[np.int32],
    mask: NDArray[np.uint8],
    out_lengths: NDArray[np.int32],
) -> int:
    state = np.empty(1, np.uint64)
    o, first = 0, 0
    for document in range(lengths.shape[0]):
        state[0] = keys[document]
        begin = o
        total = int(lengths[document])
        pieces = num_pieces(total, max_tokens)
        for piece in range(pieces):
            start, stop = first + total * piece // pieces, first + total * (piece + 1) // pieces
            left = min(stop - start, max(1, int(np.rint((stop - start) * rate))))
            half = stop - start + 1 + (frame[0] >= 0)  # from a token of the input to its label
            for copy in range(2):
                if frame[0] >= 0:
                    out[o + copy * half] = frame[0]
                    mask[o + copy * half] = 0
                out[o + copy * half + half - 1] = frame[1]
                mask[o + copy * half + half - 1] = 0
            place = o + (frame[0] >= 0)
            for i in range(start, stop):
                out[place] = tokens[i]
                mask[place] = 0
                out[place + half] = tokens[i]
                mask[place + half] = 0
                if uniform(state) * (stop - i) < left:
                    left -= 1
                    mask[place + half] = 1
                    way = uniform(state)
                    if way < mask_share:
                        out[place] = mask_id
                    elif way < mask_share + random_share:
                        out[place] = ordinary[int(uniform(state) * ordinary.shape[0])]
                place += 1
            o += 2 * half
        first += total
        out_lengths[document] = o - begin
    return o


def mask_tokens(
    tokens: NDArray[np.int32],
    lengths: NDArray[np.int32],
    keys: NDArray[np.uint64],
    *,
    max_tokens: int,
    rate: float,
    mask_share: float,
    random_share: float,
    mask_id: int,
    ordinary: NDArray[np.int32],
    before: int | None,
    after: int,
) -> Noised:
    """Masks random tokens of every piece of a document, and puts the piece as it was behind it.

    A piece becomes ``before, input, after, before, labels, after``, input and labels being as long as the piece. Of its
    tokens, ``rate`` (rounded, one at least) are labels; in the input, ``mask_share`` of these are ``mask_id``,
    ``random_share`` any of ``ordinary``, and the others as they were (Devlin et al., arXiv 1810.04805; BERT's
    ``create_pretraining_data.py``).

    Args:
      tokens, lengths: int32 [T] and [documents].
      keys: [documents], what the documents' numbers are drawn from.
      max_tokens: of a piece, as in `corrupt_spans`.
      ordinary: int32, the ids that a token may be replaced by.
    """
    frame = np.array([-1 if before is None else before, after], np.int32)
    pieces = int(np.maximum(1, -(-lengths.astype(np.int64) // max_tokens)).sum())
    out = np.empty(2 * (len(tokens) + pieces * (1 + (before is not None))), np.int32)
    mask = np.empty(len(out), np.uint8)
    out_lengths = np.empty(len(lengths), np.int32)
    mask_tokens_kernel(
        tokens, lengths, keys, max_tokens, rate, mask_share, random_share, mask_id, ordinary, frame, out, mask,
        out_lengths,
    )  # fmt: skip
    return Noised(out, out_lengths, mask)


def warm_up() -> None:
    """Compiles the kernels or loads them from the cache."""
    tokens, lengths, keys = np.arange(8, dtype=np.int32), np.array([8], np.int32), np.zeros(1, np.uint64)
    sentinels = np.arange(max_spans(8, 0.15, 3.0), dtype=np.int32)
    corrupt_spans(
        tokens, lengths, keys, max_tokens=8, density=0.15, mean_span=3.0, sentinels=sentinels, before=None,
        between=None, after=9,
    )  # fmt: skip
    mask_tokens(
        tokens, lengths, keys, max_tokens=8, rate=0.15, mask_share=0.8, random_share=0.1, mask_id=9, ordinary=tokens,
        before=None, after=9,
    )  # fmt: skip
