"""What all text kernels share: Arrow buffers, UTF-8 decoding, 8-byte loads and hashing.

A column of texts is two arrays: ``data`` (uint8, all texts back to back) and ``offsets`` (int64, one more than there
are texts); text ``i`` is ``data[offsets[i]:offsets[i + 1]]``. Kernels read them in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from dataeng.kernels.compiling import inlined

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

#: Table size that any value which `decode` can return fits in, valid UTF-8 or not.
CODE_POINT_LIMIT = 0x200000

#: Texts of 2 GiB and more would overflow the 32-bit positions inside kernels.
TEXT_BYTES_LIMIT = 2**31 - 64
TOO_LARGE = "a text of 2 GiB or more cannot be measured; split it first"


#: Lists of the words of a text that is longer would outgrow the batch that it came in; kernels do without for such.
LONG_BYTES = 1 << 17


class TextBuffers(NamedTuple):
    """A column of texts as kernels take it. Both arrays are read-only views."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @property
    def num_texts(self) -> int:
        return len(self.offsets) - 1


def text_buffers(column: pl.Series | pa.Array | pa.ChunkedArray) -> TextBuffers:
    """Returns the buffers of a string column, without copying where the column is one ``large_string`` array.

    A null counts as an empty text. Sliced and chunked columns are handled.

    Raises:
      TypeError: the column is not of strings.
      ValueError: a text is not valid UTF-8, or has 2 GiB or more.
    """
    import polars as pl
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(column, pl.Series):
        if column.dtype != pl.String:
            raise TypeError(f"expected a column of strings, got {column.dtype}")
        array = column.to_arrow()  # Polars has checked the UTF-8 already
    else:
        array = column
        array.validate(full=True)  # raises ArrowInvalid, a ValueError, for broken UTF-8 or offsets
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
        if isinstance(array, pa.ChunkedArray):  # older versions return one for an empty column
            array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], pa.large_string())
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or array.type == pa.string_view()):
        raise TypeError(f"expected a column of strings, got {array.type}")
    if not pa.types.is_large_string(array.type):
        array = array.cast(pa.large_string())
    if array.null_count:
        array = pc.fill_null(array, "")
    return _buffers_of_large_string(array)


#: Texts are taken from a column in parts of about this many bytes, since a copy of all would double the memory.
PART_BYTES = 1 << 19


def text_parts(column: pl.Series) -> Iterator[tuple[int, int, TextBuffers]]:
    """Yields a column in parts: first row, one past the last row, and `text_buffers` of the rows between.

    A part has at most `PART_BYTES`, or is a single text, which is not copied.

    Raises:
      as `text_buffers`.
    """
    import polars as pl

    if column.dtype != pl.String:
        raise TypeError(f"expected a column of strings, got {column.dtype}")
    ends = np.cumsum(_text_bytes(column), dtype=np.int64)
    first, taken = 0, 0
    while first < len(ends):
        last = max(first + 1, int(np.searchsorted(ends, taken + PART_BYTES, side="right")))
        rows = column.slice(first, last - first)
        size = int(ends[last - 1]) - taken
        yield first, last, _single_text(rows) if last - first == 1 and size > PART_BYTES else text_buffers(rows)
        first, taken = last, taken + size


def _string_views(column: pl.Series) -> tuple[NDArray[np.int32], list[pa.Buffer]]:
    """Returns a column's string views, [texts, 4]: bytes, first four bytes, index of a buffer, place in it; buffers."""
    import polars as pl

    array = column.to_arrow(compat_level=pl.CompatLevel.newest())
    _, views, *data = array.buffers()
    if len(array) == 0 or views is None:
        return np.zeros((0, 4), np.int32), data
    return np.frombuffer(views, np.int32).reshape(-1, 4)[array.offset : array.offset + len(array)], data


def _text_bytes(column: pl.Series) -> NDArray[np.int64]:
    """Returns the bytes of each text, 0 for a null. (Polars' own `len_bytes` first writes out all texts.)"""
    sizes = _string_views(column)[0][:, 0].astype(np.int64)
    if column.null_count():
        sizes[column.is_null().to_numpy()] = 0
    return sizes


def _single_text(column: pl.Series) -> TextBuffers:
    """Returns the buffers of a column of one text of more than 12 bytes, in place."""
    views, data = _string_views(column)
    size, _, index, start = views[0].tolist()
    if size > TEXT_BYTES_LIMIT:
        raise ValueError(TOO_LARGE)
    text = np.frombuffer(data[index], np.uint8)[start : start + size]
    offsets = np.array([0, size], np.int64)
    text.flags.writeable = False
    offsets.flags.writeable = False
    return TextBuffers(text, offsets)


def _buffers_of_large_string(array: Any) -> TextBuffers:
    _, offsets_buffer, data_buffer = array.buffers()
    if len(array) == 0 or offsets_buffer is None:
        offsets = np.zeros(1, np.int64)
    else:
        offsets = np.frombuffer(offsets_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.zeros(0, np.uint8) if data_buffer is None else np.frombuffer(data_buffer, np.uint8)
    if len(array) and int(np.diff(offsets).max()) > TEXT_BYTES_LIMIT:
        raise ValueError(TOO_LARGE)
    # One array type, whatever the buffers came from: each further type would be compiled anew.
    data, offsets = data.view(), offsets.view()
    data.flags.writeable = False
    offsets.flags.writeable = False
    return TextBuffers(data, offsets)


def _load64(typing_context: Any, array: Any, position: Any) -> Any:
    """Reads 8 bytes of a uint8 array at any position as one little-endian uint64; the caller checks the bounds."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir  # type: ignore[import-untyped]

        buffer = context.make_array(signature.args[0])(context, builder, arguments[0])
        address = builder.gep(buffer.data, [arguments[1]])
        return builder.load(builder.bitcast(address, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(array, types.int64), generate


load64: Callable[[NDArray[np.uint8], int], np.uint64] = intrinsic(_load64)  # type: ignore[assignment]


def _lowest_bit(typing_context: Any, word: Any) -> Any:
    """Returns the number of zero bits below the lowest 1 of a uint64 that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


lowest_bit: Callable[[np.uint64], np.uint64] = intrinsic(_lowest_bit)  # type: ignore[assignment]


MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
FINAL_MULTIPLIER = np.uint64(0xD6E8FEB86659FD93)
HASH_START = np.uint64(0x243F6A8885A308D3)
U32 = np.uint64(32)
U8 = np.uint64(8)
ONE = np.uint64(1)


@inlined
def signed(value: np.integer[Any] | int) -> int:
    """Widens a number to int64, the type that kernels count in; mixed with uint64 it would turn into a float."""
    return np.int64(value)  # type: ignore[return-value]


@inlined
def mix(state: np.uint64, word: np.uint64) -> np.uint64:
    """Takes 8 more bytes into a running hash."""
    state = (state ^ word) * MULTIPLIER
    return state ^ (state >> U32)


@inlined
def hash_bytes(data: NDArray[np.uint8], start: int, stop: int) -> np.uint64:
    """Returns a 64-bit hash of ``data[start:stop]``, never 0, for tables inside one kernel call.

    Not for storage: the algorithm may change. Stored hashes come from `dataeng.kernels.hashing`.
    """
    state = HASH_START ^ np.uint64(stop - start)
    i = start
    while stop - i > 8:
        state = mix(state, load64(data, i))
        i += 8
    rest = stop - i
    if i + 8 <= data.shape[0]:
        word = load64(data, i)
        if rest < 8:
            word = word & ((ONE << (U8 * np.uint64(rest))) - ONE)
    else:
        word = np.uint64(0)
        for j in range(rest):
            word |= np.uint64(data[i + j]) << (U8 * np.uint64(j))
    state = mix(state, word) * FINAL_MULTIPLIER
    return (state ^ (state >> U32)) | ONE


def hash_word(word: bytes) -> int:
    """`hash_bytes` in plain Python, so that a table of words needs no compiling."""
    mask, state = (1 << 64) - 1, 0x243F6A8885A308D3 ^ len(word)
    blocks = [word[i : i + 8] for i in range(0, len(word), 8)] or [b""]
    for block in blocks:
        state = ((state ^ int.from_bytes(block, "little")) * 0x9E3779B97F4A7C15) & mask
        state ^= state >> 32
    state = (state * 0xD6E8FEB86659FD93) & mask
    return (state ^ (state >> 32)) | 1


@inlined
def decode(data: NDArray[np.uint8], i: int, stop: int) -> tuple[int, int]:
    """Returns the code point that starts at the non-ASCII byte ``data[i]`` and its length in bytes.

    Never reads at or after ``stop``, and never returns a value of `CODE_POINT_LIMIT` or more, whatever the bytes are.
    """
    last = stop - 1
    first = signed(data[i])
    second = signed(data[min(i + 1, last)]) & 0x3F
    if first < 0xE0:
        return ((first & 0x1F) << 6) | second, 2
    third = signed(data[min(i + 2, last)]) & 0x3F
    if first < 0xF0:
        return ((first & 0x0F) << 12) | (second << 6) | third, 3
    fourth = signed(data[min(i + 3, last)]) & 0x3F
    return ((first & 0x07) << 18) | (second << 12) | (third << 6) | fourth, 4


@inlined
def previous_character(data: NDArray[np.uint8], i: int, start: int) -> int:
    """Returns where the character that ends before ``i`` begins; ``start`` is the first byte of the text."""
    i -= 1
    while i > start and data[i] & 0xC0 == 0x80:
        i -= 1
    return i


LOW_BITS, HIGH_BITS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
NEWLINES = np.uint64(0x0A0A0A0A0A0A0A0A)
U3 = np.uint64(3)


@inlined
def next_newline(data: NDArray[np.uint8], i: int, stop: int) -> int:
    """Returns where the next ``\\n`` at or after byte ``i`` is, or ``stop``; looks at eight bytes at a time."""
    while i + 8 <= stop:
        word = load64(data, i) ^ NEWLINES
        zeros = (word - LOW_BITS) & ~word & HIGH_BITS  # the lowest bit set belongs to the first zero byte
        if zeros != np.uint64(0):
            return i + signed(lowest_bit(zeros) >> U3)
        i += 8
    while i < stop and data[i] != 10:
        i += 1
    return i


@inlined
def num_characters(data: NDArray[np.uint8], start: int, stop: int) -> int:
    """Returns the number of characters of ``data[start:stop]``."""
    chars = 0
    for i in range(start, stop):
        chars += (data[i] & 0xC0) != 0x80
    return chars


@inlined
def clear_table(table: NDArray[np.uint64], num_entries: int) -> np.uint64:
    """Empties enough of a hash table for ``num_entries``; returns the mask of its slots (a power of two, minus 1)."""
    size = 8
    while size < 2 * num_entries:
        size *= 2
    for slot in range(size):
        table[slot] = 0
    return np.uint64(size - 1)


@inlined
def largest_table(table: NDArray[np.uint64]) -> int:
    """Returns the slots of the largest power of two that an array has room for; it has eight at least."""
    size = 8
    while 2 * size <= table.shape[0]:
        size *= 2
    return size


def table_size(num_entries: int) -> int:
    """Returns how many slots `clear_table` may use for this many entries."""
    size = 8
    while size < 2 * num_entries:
        size *= 2
    return size
