"""Sets of shingle hashes, and the exact similarity of pairs of them.

What LSH proposes is checked here: Jaccard similarity |A ∩ B| / |A ∪ B| and containment |A ∩ B| / |A| of the sets of
64-bit shingle hashes (Broder 1997). The hashes are those that `kernels.minhash` permutes. Sets are sorted, so that a
pair costs one walk along both.

With 64 bits, two different shingles share a hash with a probability of about 2^-64, so that among pairs of sets with
10,000 shingles each, one in 180 billion is off by one shingle. With 32 bits (half the memory) the same pair shares
0.02 shingles by accident: its similarity is off by 10^-4 about once in 40 pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.folding import Normalization, Unit, fold_table, normalise
from dataeng.kernels.shingles import (
    CHUNK,
    carry,
    check_shingling,
    list_elements,
    listing_of,
    power_of,
    roll,
)  # fmt: skip
from dataeng.kernels.text import TextBuffers, signed

if TYPE_CHECKING:
    import polars as pl

#: Buckets of a set that is sorted; hashes are spread evenly, so that a bucket has about one element of `MAX_BUCKETS`.
MAX_BUCKETS = 1 << 16
#: Longer stretches of one bucket are not sorted by insertion, whose time is quadratic.
MAX_INSERTION = 48


class ShingleSets(NamedTuple):
    """The set of shingle hashes of every text: set ``i`` is ``values[offsets[i]:offsets[i + 1]]``."""

    values: NDArray[Any]  # uint64 or uint32, within each set ascending and without repetition
    offsets: NDArray[np.int64]  # [texts + 1]

    @property
    def num_sets(self) -> int:
        return len(self.offsets) - 1

    def to_series(self, name: str = "shingles") -> pl.Series:
        """Returns the sets as a column of lists."""
        import polars as pl
        import pyarrow as pa

        return pl.Series(name, pa.LargeListArray.from_arrays(pa.array(self.offsets), pa.array(self.values)))

    @classmethod
    def from_series(cls, series: pl.Series) -> ShingleSets:
        """Takes back what `to_series` made, also sliced or put together from several; a null is an empty set.

        Raises:
          TypeError: not a column of lists of 32- or 64-bit hashes.
        """
        import polars as pl

        if series.dtype not in (pl.List(pl.UInt64), pl.List(pl.UInt32)):
            raise TypeError(f"expected a column of lists of UInt64 or UInt32, got {series.dtype}")
        lengths = series.list.len().fill_null(0).cast(pl.Int64).to_numpy()
        offsets = np.zeros(len(series) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        # Empty lists become nulls when exploded.
        values = series.filter(series.list.len() > 0).explode().to_numpy()
        return cls(np.ascontiguousarray(values), offsets)


@inlined
def insertion_sort(values: NDArray[Any], start: int, stop: int) -> None:
    for k in range(start + 1, stop):
        value = values[k]
        j = k - 1
        while j >= start and values[j] > value:
            values[j + 1] = values[j]
            j -= 1
        values[j + 1] = value


@called
def sift_down(values: NDArray[Any], start: int, root: int, size: int) -> None:
    """Restores the heap order below ``root`` of the heap ``values[start:start + size]``."""
    value = values[start + root]
    while 2 * root + 1 < size:
        child = 2 * root + 1
        if child + 1 < size and values[start + child] < values[start + child + 1]:
            child += 1
        if values[start + child] <= value:
            break
        values[start + root] = values[start + child]
        root = child
    values[start + root] = value


@called
def heap_sort(values: NDArray[Any], start: int, stop: int) -> None:
    """Sorts in n log n steps, whatever the values: texts are hostile, and the hash has no key."""
    size = stop - start
    for root in range(size // 2 - 1, -1, -1):
        sift_down(values, start, root, size)
    for last in range(size - 1, 0, -1):
        values[start], values[start + last] = values[start + last], values[start]
        sift_down(values, start, 0, last)


@called
def sort_hashes(values: NDArray[Any], size: int, sorted_values: NDArray[Any], ends: NDArray[np.int64]) -> None:
    """Sorts ``values[:size]`` into ``sorted_values``: by bucket of the upper bits first, then within each.

    Args:
      ends: [MAX_BUCKETS + 1] scratch, where each bucket ends.
    """
    bits = 0
    while bits < 16 and 1 << bits < size:
        bits += 1
    shift = np.uint64(8 * values.itemsize - bits)
    buckets = 1 << bits
    if bits == 0:
        for k in range(size):
            sorted_values[k] = values[k]
        return
    for bucket in range(buckets + 1):
        ends[bucket] = 0
    for k in range(size):
        ends[signed(np.uint64(values[k]) >> shift) + 1] += 1
    for bucket in range(buckets):
        ends[bucket + 1] += ends[bucket]
    for k in range(size):
        bucket = signed(np.uint64(values[k]) >> shift)
        sorted_values[ends[bucket]] = values[k]
        ends[bucket] += 1
    start = 0
    for bucket in range(buckets):
        stop = ends[bucket]
        if stop - start > MAX_INSERTION:
            heap_sort(sorted_values, start, stop)
        else:
            insertion_sort(sorted_values, start, stop)
        start = stop


@inlined
def unique(values: NDArray[Any], size: int, sets: NDArray[Any], at: int) -> int:
    """Copies sorted values without repetitions to ``sets[at:]``; returns where they end."""
    begin = at
    for k in range(size):
        if at == begin or sets[at - 1] != values[k]:
            sets[at] = values[k]
            at += 1
    return at


@kernel
def list_sets(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    folded: NDArray[np.uint32],
    expansions: NDArray[np.uint32],
    listing: int,
    ngram: int,
    sets: NDArray[Any],
    set_offsets: NDArray[np.int64],
    first: int,
    at: int,
) -> tuple[int, int, int]:
    """Writes sets from text ``first`` on until ``sets`` may be too small for the next chunk or text.

    Returns:
      the texts done, the end of their sets, and how many more elements the next text may need.
    """
    elements = np.zeros(ngram + CHUNK, np.uint64)
    oldest_power = power_of(ngram)
    ends = np.zeros(MAX_BUCKETS + 1, np.int64)
    scratch = np.zeros(CHUNK, sets.dtype)
    for text in range(first, offsets.shape[0] - 1):
        i, stop = offsets[text], offsets[text + 1]
        elements[:ngram] = 0
        rolling = np.uint64(0)
        missing = ngram - 1
        found = 0
        while i < stop:
            # The list is written where the set will stand; it needs room for one more chunk.
            if at + found + CHUNK > sets.shape[0]:
                return text, at, found + CHUNK
            i, end = list_elements(data, i, stop, folded, expansions, listing, elements, ngram)
            rolling = roll(elements, ngram, end, rolling, oldest_power, sets, at + found)
            listed = end - ngram
            skipped = min(missing, listed)
            if skipped > 0:
                for k in range(at + found, at + found + listed - skipped):
                    sets[k] = sets[k + skipped]
            missing -= skipped
            found += listed - skipped
            carry(elements, ngram, end)
        if found > scratch.shape[0]:
            scratch = np.zeros(found + found // 4, sets.dtype)
        sort_hashes(sets[at:], found, scratch, ends)
        at = unique(scratch, found, sets, at)
        set_offsets[text + 1] = at
    return offsets.shape[0] - 1, at, 0


def shingle_sets(
    texts: TextBuffers,
    *,
    ngram: int = 5,
    unit: Unit = "words",
    normalization: Normalization = "simplified",
    bits: Literal[32, 64] = 64,
) -> ShingleSets:
    """Returns the set of shingle hashes of every text; it is empty where the text is too short.

    Memory is that of the sets (8 bytes for each different shingle; English has about six bytes a word), up to a half
    more while they grow, and the longest text's once more.

    Args:
      bits: 64, or the lower 32 of these.
    """
    check_shingling(ngram, unit)
    if bits not in (32, 64):
        raise ValueError(f"bits must be 32 or 64, got {bits}")
    table = fold_table(normalization)
    if unit == "characters":
        texts = normalise(texts, normalization, unit)
    num_bytes = int(texts.offsets[-1] - texts.offsets[0])
    sets = np.empty(num_bytes // 6 + 2 * CHUNK, np.uint64 if bits == 64 else np.uint32)
    offsets = np.zeros(texts.num_texts + 1, np.int64)
    done, end, needed = 0, 0, 0
    while True:
        done, end, needed = list_sets(
            texts.data, texts.offsets, table.folded, table.expansions, listing_of(table, unit), ngram,
            sets, offsets, done, end,
        )  # fmt: skip
        if not needed:
            break
        # In place where the allocator can; a text that did not fit begins anew.
        sets.resize(end + needed + sets.size // 2, refcheck=False)
    sets.resize(end, refcheck=False)
    return ShingleSets(sets, offsets)


@kernel
def count_overlaps(
    values_a: NDArray[Any], offsets_a: NDArray[np.int64], rows_a: NDArray[np.int64],
    values_b: NDArray[Any], offsets_b: NDArray[np.int64], rows_b: NDArray[np.int64],
    overlaps: NDArray[np.int64],
) -> None:  # fmt: skip
    for pair in range(overlaps.shape[0]):
        i, stop_a = offsets_a[rows_a[pair]], offsets_a[rows_a[pair] + 1]
        j, stop_b = offsets_b[rows_b[pair]], offsets_b[rows_b[pair] + 1]
        found = 0
        # Which of the two is smaller cannot be predicted: steps are sums of comparisons, not branches.
        while i < stop_a and j < stop_b:
            a, b = values_a[i], values_b[j]
            found += signed(a == b)
            i += signed(a <= b)
            j += signed(b <= a)
        overlaps[pair] = found


def _rows(rows: NDArray[Any] | None, sets: ShingleSets) -> NDArray[np.int64]:
    if rows is None:
        return np.arange(sets.num_sets)
    checked = np.ascontiguousarray(rows, np.int64)
    if len(checked) and not 0 <= int(checked.min()) <= int(checked.max()) < sets.num_sets:
        raise IndexError(f"rows must be 0 to {sets.num_sets - 1}, got {checked.min()} to {checked.max()}")
    return checked


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Returns a read-only view: one type of array, whatever it came from, so that the kernel is compiled once."""
    view = array.view()
    view.flags.writeable = False
    return view


class _Pairs(NamedTuple):
    overlaps: NDArray[np.int64]
    sizes_a: NDArray[np.int64]
    sizes_b: NDArray[np.int64]


def _compare(a: ShingleSets, b: ShingleSets, rows_a: NDArray[Any] | None, rows_b: NDArray[Any] | None) -> _Pairs:
    if a.values.dtype != b.values.dtype:
        raise TypeError(f"sets of {a.values.dtype} cannot be compared with sets of {b.values.dtype}")
    first, second = _rows(rows_a, a), _rows(rows_b, b)
    if len(first) != len(second):
        raise ValueError(f"pairs need as many sets on both sides, got {len(first)} and {len(second)}")
    found = np.empty(len(first), np.int64)
    count_overlaps(
        _read_only(a.values), _read_only(a.offsets), first, _read_only(b.values), _read_only(b.offsets), second, found
    )
    return _Pairs(found, np.diff(a.offsets)[first], np.diff(b.offsets)[second])


def overlaps(
    a: ShingleSets, b: ShingleSets, rows_a: NDArray[Any] | None = None, rows_b: NDArray[Any] | None = None
) -> NDArray[np.int64]:
    """Returns how many hashes the two sets of each pair share: int64 [pairs].

    Args:
      rows_a: [pairs], which set of ``a``; without it, every one in order.
      rows_b: [pairs], which set of ``b``.

    Raises:
      IndexError: there is no such set.
      TypeError: one side has 32-bit hashes and the other 64-bit ones.
      ValueError: the two sides are not equally many.
    """
    return _compare(a, b, rows_a, rows_b).overlaps


def jaccard(
    a: ShingleSets, b: ShingleSets, rows_a: NDArray[Any] | None = None, rows_b: NDArray[Any] | None = None
) -> NDArray[np.float64]:
    """Returns the Jaccard similarity of each pair: float64 [pairs]; arguments and errors as of `overlaps`.

    It is 0 where a set is empty, also where both are: texts too short for a shingle say nothing about each other.
    """
    pairs = _compare(a, b, rows_a, rows_b)
    return np.asarray(pairs.overlaps / np.maximum(pairs.sizes_a + pairs.sizes_b - pairs.overlaps, 1))


def containment(
    a: ShingleSets, b: ShingleSets, rows_a: NDArray[Any] | None = None, rows_b: NDArray[Any] | None = None
) -> NDArray[np.float64]:
    """Returns which share of a pair's first set is in its second: float64 [pairs]; 0 where the first is empty.

    Arguments and errors as of `overlaps`.
    """
    pairs = _compare(a, b, rows_a, rows_b)
    return np.asarray(pairs.overlaps / np.maximum(pairs.sizes_a, 1))


def warm_up() -> None:
    """Compiles the kernels or loads them from the cache."""
    import polars as pl

    from dataeng.kernels.text import text_buffers

    texts = text_buffers(pl.Series(["one two three"], dtype=pl.String))
    widths: tuple[Literal[32, 64], ...] = (64, 32)
    for bits in widths:
        sets = shingle_sets(texts, ngram=2, bits=bits)
        jaccard(sets, sets)
