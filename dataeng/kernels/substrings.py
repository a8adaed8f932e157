"""Windows of a text: which places to compare them at, and hashes of them.

A *window* is a run of ``length`` units (bytes or words, see `dataeng.kernels.sequences`). To find equal windows of a
corpus without looking at all of them, each is represented by its *anchor*, the gram of ``gram`` units in it with the
smallest hash, the leftmost of equals: winnowing (Schleimer, Wilkerson & Aiken 2003; minimizers, Roberts et al. 2004).
The anchor depends on nothing but the window, so equal windows have equal anchors at equal distances from their starts.
Windows that follow each other mostly share their anchor; a run of windows with the same anchor is a *segment*. In
random text a new segment begins every (w + 1) / 2 units, w = length - gram + 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import inlined, kernel
from dataeng.kernels.hashing import final_mix
from dataeng.kernels.sequences import Points, minus, multiply, next_unit, plus, unit_classes, unit_value
from dataeng.kernels.text import TextBuffers


@inlined
def run_hash(prefix: NDArray[np.uint64], mask: int, start: int, stop: int, power: NDArray[np.uint64]) -> np.uint64:
    """Returns the hash of units ``start`` up to ``stop`` from a ring of hashes of prefixes (``mask`` + 1 of them)."""
    return minus(prefix[stop & mask], multiply(prefix[start & mask], power[stop - start]))


@inlined
def ring_size(entries: int) -> int:
    """Returns the least power of two that is at least ``entries``."""
    size = 1
    while size < entries:
        size *= 2
    return size


@kernel
def list_segments_kernel(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    by_bytes: bool,
    classes: NDArray[np.uint8],
    word_points: NDArray[np.uint64],
    power: NDArray[np.uint64],
    length: int,
    gram: int,
) -> tuple[NDArray[np.int64], NDArray[np.uint64], int]:
    width = length - gram + 1
    mask = ring_size(2 * length + 2) - 1
    first_prefix, second_prefix = np.zeros(mask + 1, np.uint64), np.zeros(mask + 1, np.uint64)
    first_power, second_power = power[0], power[1]
    # The grams of the window that may yet become its anchor, hashes ascending: a ring.
    waits_mask = ring_size(width + 1) - 1
    waiting, places = np.empty(waits_mask + 1, np.uint64), np.empty(waits_mask + 1, np.int64)
    found, hashes = np.empty((3, 1024), np.int64), np.empty((3, 1024), np.uint64)
    num = 0
    for text in range(offsets.shape[0] - 1):
        i, stop = offsets[text], offsets[text + 1]
        if by_bytes and stop - i < length:
            continue
        head, waits = 0, 0
        units, first, anchor, anchor_hash = 0, -1, -1, np.uint64(0)
        one, two = np.uint64(0), np.uint64(0)
        first_prefix[0], second_prefix[0] = one, two
        while True:
            start, i = next_unit(data, i, stop, by_bytes, classes)
            ends = start == stop
            window = units + 1 - length
            chosen = -2
            if not ends:
                one = plus(multiply(one, first_power[1]), unit_value(data, start, i, by_bytes, word_points[0]))
                two = plus(multiply(two, second_power[1]), unit_value(data, start, i, by_bytes, word_points[1]))
                units += 1
                first_prefix[units & mask], second_prefix[units & mask] = one, two
                if units >= gram:
                    place = units - gram
                    value = final_mix(run_hash(first_prefix, mask, place, units, first_power))
                    while waits > 0 and waiting[(head + waits - 1) & waits_mask] > value:
                        waits -= 1
                    waiting[(head + waits) & waits_mask] = value
                    places[(head + waits) & waits_mask] = place
                    waits += 1
                if window < 0:
                    continue
                while places[head & waits_mask] < window:
                    head += 1
                    waits -= 1
                chosen = places[head & waits_mask]
            if chosen != anchor and first >= 0:
                # The segment's windows start at `first` … `window - 1`, the last of them ends where `window` would.
                last = window - 1 if not ends else units - length
                if num == found.shape[1]:
                    larger, larger_hashes = np.empty((3, 2 * num), np.int64), np.empty((3, 2 * num), np.uint64)
                    larger[:, :num], larger_hashes[:, :num] = found, hashes
                    found, hashes = larger, larger_hashes
                found[0, num], found[1, num], found[2, num] = text, first, last - first + 1
                hashes[0, num] = anchor_hash
                hashes[1, num] = run_hash(first_prefix, mask, first, last + length, first_power)
                hashes[2, num] = run_hash(second_prefix, mask, first, last + length, second_power)
                num += 1
            if ends:
                break
            if chosen != anchor:
                first, anchor, anchor_hash = window, chosen, waiting[head & waits_mask]
    return found, hashes, num


class Segments(NamedTuple):
    """Runs of windows with the same anchor, in order of text and place; together they are all windows."""

    text: NDArray[np.int64]
    first: NDArray[np.int64]
    """The unit that the first window starts at, within the text."""
    windows: NDArray[np.int64]
    """How many windows: the segment covers ``windows + length - 1`` units."""
    anchor: NDArray[np.uint64]
    """Hash of the anchor; two segments with equal windows have the same."""
    content: NDArray[np.uint64]
    """[2, segments]: hash of all units that the segment covers. Meaningful among segments of equally many windows."""


def list_segments(texts: TextBuffers, length: int, gram: int, by_bytes: bool, at: Points) -> Segments:
    """Cuts the windows of every text into segments.

    Args:
      length: units of a window; ``gram``: units of an anchor, at most as many.
      at: points for runs of ``2 * length`` units.
    """
    if not 1 <= gram <= length:
        raise ValueError(f"an anchor must have 1 to {length} units, as a window has, got {gram}")
    found, hashes, num = list_segments_kernel(
        texts.data, texts.offsets, by_bytes, unit_classes(), at.word, at.power, length, gram
    )
    found, hashes = found[:, :num], hashes[:, :num]
    return Segments(found[0], found[1], found[2], hashes[0], hashes[1:])


@kernel
def hash_runs_kernel(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    by_bytes: bool,
    classes: NDArray[np.uint8],
    word_points: NDArray[np.uint64],
    power: NDArray[np.uint64],
    text_of: NDArray[np.int64],
    first_of: NDArray[np.int64],
    stop_of: NDArray[np.int64],
    hashes: NDArray[np.uint64],
) -> int:
    mask = ring_size(power.shape[1]) - 1
    first_prefix, second_prefix = np.zeros(mask + 1, np.uint64), np.zeros(mask + 1, np.uint64)
    first_power, second_power = power[0], power[1]
    run = 0
    while run < text_of.shape[0]:
        text = text_of[run]
        i, stop = offsets[text], offsets[text + 1]
        units = 0
        one, two = np.uint64(0), np.uint64(0)
        first_prefix[0], second_prefix[0] = one, two
        while run < text_of.shape[0] and text_of[run] == text:
            start, i = next_unit(data, i, stop, by_bytes, classes)
            if start == stop or stop_of[run] <= units:
                return run
            one = plus(multiply(one, first_power[1]), unit_value(data, start, i, by_bytes, word_points[0]))
            two = plus(multiply(two, second_power[1]), unit_value(data, start, i, by_bytes, word_points[1]))
            units += 1
            first_prefix[units & mask], second_prefix[units & mask] = one, two
            while run < text_of.shape[0] and text_of[run] == text and stop_of[run] == units:
                hashes[0, run] = run_hash(first_prefix, mask, first_of[run], units, first_power)
                hashes[1, run] = run_hash(second_prefix, mask, first_of[run], units, second_power)
                run += 1
    return run


def hash_runs(
    texts: TextBuffers, by_bytes: bool, at: Points,
    text: NDArray[np.int64], first: NDArray[np.int64], stop: NDArray[np.int64],
) -> NDArray[np.uint64]:  # fmt: skip
    """Returns the hash of every run of units ``first`` up to ``stop`` of a text: uint64 [2, runs].

    Runs of one length can be compared; it is the hash that `Segments.content` has.

    Args:
      text, first, stop: int64 [runs], ascending in (text, stop).

    Raises:
      ValueError: a run is longer than ``at`` has powers for, is not in its text, or not in order.
    """
    hashes = np.empty((2, len(text)), np.uint64)
    if len(text) and (int((stop - first).max()) >= at.power.shape[1] or int(first.min()) < 0 or (stop <= first).any()):
        raise ValueError(f"runs must have 1 to {at.power.shape[1] - 1} units")
    done = hash_runs_kernel(
        texts.data, texts.offsets, by_bytes, unit_classes(), at.word, at.power, text, first, stop, hashes
    )
    if done != len(text):
        raise ValueError(f"run {done} is not in its text, or not in order")
    return hashes


def warm_up() -> None:
    """Compiles the kernels or loads them from the cache."""
    import polars as pl

    from dataeng.kernels.sequences import points
    from dataeng.kernels.text import text_buffers

    texts = text_buffers(pl.Series(["some words of a text"]))
    segments = list_segments(texts, 3, 2, False, points(6))
    hash_runs(texts, False, points(6), segments.text, segments.first, segments.first + 3)
