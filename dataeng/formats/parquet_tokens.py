"""The tokens of a Parquet pack as one flat sequence, a row group at a time.

A Parquet pack has a row per document with a list column ``tokens`` (and perhaps ``mask``). A reader wants windows of
tokens that know nothing of documents; so the row groups are indexed by cumulative tokens, and a window decodes those
groups that it touches, and no more. Decoded groups are kept in a cache of bounded size.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from dataeng.errors import FormatError
from dataeng.formats.megatron_index import token_offsets

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

CACHE_BYTES = 64 << 20


class GroupCache:
    """Decoded row groups, the least recently used of which make room when there are more than ``max_bytes``.

    One group is always kept, however large. Threads may share it.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self.max_bytes = max_bytes
        self._groups: OrderedDict[tuple[Path, str, int], npt.NDArray[Any]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[Path, str, int]) -> npt.NDArray[Any] | None:
        """Returns a group's values, or None if they are not here (any more)."""
        with self._lock:
            found = self._groups.get(key)
            if found is not None:
                self._groups.move_to_end(key)
            return found

    def put(self, key: tuple[Path, str, int], values: npt.NDArray[Any]) -> None:
        """Keeps a group's values, at the cost of older ones."""
        with self._lock:
            if key in self._groups:
                return
            self._groups[key] = values
            self._bytes += values.nbytes
            while self._bytes > self.max_bytes and len(self._groups) > 1:
                _, dropped = self._groups.popitem(last=False)
                self._bytes -= dropped.nbytes


class ParquetTokens:
    """A list column as a flat, read-only array: ``len``, ``dtype``, integers, slices and integer arrays as indexes.

    Args:
      offsets: int64[documents + 1], where each document begins, in tokens.
      dtype: the values' type; a column of another one is refused, because ids would not be what the manifest says.
    """

    def __init__(
        self, path: Path, offsets: npt.NDArray[np.int64], dtype: str, cache: GroupCache, column: str = "tokens"
    ) -> None:
        self.path, self.column, self.dtype, self._cache = path, column, np.dtype(dtype), cache
        self._file: pq.ParquetFile | None = None
        self._lock = threading.Lock()
        metadata = self._opened().metadata
        rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        if sum(rows) != len(offsets) - 1:
            raise FormatError(f"{path} has {sum(rows)} rows; the pack has {len(offsets) - 1} documents there.")
        self.group_documents = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])  # int64[groups + 1]
        self.group_starts = offsets[self.group_documents]  # int64[groups + 1], in tokens
        self._check_type()

    def __len__(self) -> int:
        return int(self.group_starts[-1])

    @property
    def shape(self) -> tuple[int]:
        return (len(self),)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice | npt.NDArray[Any]) -> npt.NDArray[Any]: ...
    def __getitem__(self, index: int | slice | npt.NDArray[Any]) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return self[np.arange(start, stop, step)]
            return self.read(start, max(0, stop - start))
        return self._take(np.asarray(index))

    def read(self, start: int, count: int) -> npt.NDArray[Any]:
        """Returns tokens [start, start + count), across row groups."""
        if start < 0 or count < 0 or start + count > len(self):
            raise IndexError(f"tokens {start} to {start + count} of {self.path}, which has {len(self)}")
        out = np.empty(count, self.dtype)
        filled = 0
        group = int(np.searchsorted(self.group_starts, start, side="right")) - 1
        while filled < count:
            offset = start + filled - int(self.group_starts[group])
            part = self.group(group)[offset : offset + count - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)
            group += 1
        return out

    def _take(self, index: npt.NDArray[Any]) -> Any:
        """Returns single tokens; of each row group all at once."""
        if index.size and not np.issubdtype(index.dtype, np.integer):
            raise IndexError(f"tokens are chosen by whole numbers, not {index.dtype}")
        flat = index.ravel().astype(np.int64)
        flat = np.where(flat < 0, flat + len(self), flat)
        if ((flat < 0) | (flat >= len(self))).any():
            raise IndexError(f"a token outside the {len(self)} of {self.path}")
        out = np.empty(len(flat), self.dtype)
        groups = np.searchsorted(self.group_starts, flat, side="right") - 1
        for group in np.unique(groups):
            chosen = groups == group
            out[chosen] = self.group(int(group))[flat[chosen] - self.group_starts[group]]
        return out.reshape(index.shape)[()]

    def group(self, number: int) -> npt.NDArray[Any]:
        """Returns all tokens of one row group.

        Raises `FormatError` when they are not as many as the documents' lengths say.
        """
        key = (self.path, self.column, number)
        values = self._cache.get(key)
        if values is None:
            values = list_values(self._read_group(number), self.path)[0]
            expected = int(self.group_starts[number + 1] - self.group_starts[number])
            if len(values) != expected:
                raise FormatError(
                    f"{self.path}: row group {number} has {len(values)} values in '{self.column}'; its documents have "
                    f"{expected} tokens. Restore or rebuild the pack."
                )
            self._cache.put(key, values)
        return values

    def _read_group(self, number: int) -> pa.ChunkedArray:
        import pyarrow as pa

        try:
            with self._lock:
                return self._opened().read_row_group(number, [self.column], use_threads=False).column(0)
        except (OSError, pa.ArrowException) as error:
            raise FormatError(f"cannot read row group {number} of {self.path}: {error}") from error

    def _opened(self) -> pq.ParquetFile:
        if self._file is None:
            self._file = open_parquet(self.path)
        return self._file

    def _check_type(self) -> None:
        import pyarrow as pa

        schema = self._opened().schema_arrow
        found = schema.field(self.column).type if self.column in schema.names else None
        if found is None or not (pa.types.is_list(found) or pa.types.is_large_list(found)):
            raise FormatError(
                f"{self.path} has no list column '{self.column}' (it has {', '.join(schema.names)}): it is not a pack."
            )
        if found.value_type != pa.from_numpy_dtype(self.dtype):
            raise FormatError(f"{self.path}: '{self.column}' holds {found.value_type}, the pack {self.dtype}.")


def open_parquet(path: Path) -> pq.ParquetFile:
    """Opens a Parquet file; raises `FormatError` that names it where it is missing, truncated or something else."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, memory_map=True)
    except FileNotFoundError as error:
        raise FormatError(f"cannot read {path}: No such file or directory. The pack is incomplete.") from error
    except (OSError, pa.ArrowException) as error:
        raise FormatError(f"{path} is not a whole Parquet file: {' '.join(str(error).split())[:200]}") from error


def list_values(column: pa.ChunkedArray, path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Returns a list column's values, one list after the other, and the lists' lengths.

    Raises `FormatError` where a list or a value is null.
    """
    import pyarrow.compute as pc

    values = pc.list_flatten(column).combine_chunks()
    lengths = pc.list_value_length(column).combine_chunks()
    if column.null_count or values.null_count:
        raise FormatError(f"{path} has rows or tokens that are null. Restore or rebuild the pack.")
    return values.to_numpy(zero_copy_only=False), lengths.to_numpy(zero_copy_only=False).astype(np.int64)


def document_offsets(path: Path) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Returns what `megatron_index.read_idx` does, for a Parquet pack: from its column ``num_tokens``."""
    file = open_parquet(path)
    if "num_tokens" not in file.schema_arrow.names:
        raise FormatError(f"{path} has no column 'num_tokens' (it has {', '.join(file.schema_arrow.names)}).")
    column = file.read(columns=["num_tokens"]).column(0)
    lengths = column.to_numpy().astype(np.int64) if not column.null_count else np.array([-1])
    if len(lengths) and (lengths.min() < 0 or lengths.max() > np.iinfo(np.int32).max):
        raise FormatError(f"{path}: 'num_tokens' has numbers that are no lengths. Restore or rebuild the pack.")
    narrow = lengths.astype(np.int32)
    return narrow, token_offsets(narrow)
