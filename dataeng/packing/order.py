"""A curriculum: the documents of a domain in the order of a column of their ``docs.parquet``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dataeng.errors import FormatError, nearest
from dataeng.formats.mixture import Order
from dataeng.formats.pack import PackShard


def document_order(shards: Sequence[PackShard], order: Order) -> npt.NDArray[np.int64]:
    """Returns the documents' numbers, counted over all shards, sorted by a column; equal ones keep their order.

    Documents without a value come last, whichever way they are sorted. One number a document is held in memory. Raises
    `FormatError` naming the file whose column is missing or has no numbers.
    """
    values = [_column(shard, order.by) for shard in shards]
    whole = np.concatenate(values) if values else np.zeros(0)
    return np.argsort(-whole if order.descending else whole, kind="stable").astype(np.int64)


def _column(shard: PackShard, name: str) -> npt.NDArray[np.float64]:
    """Returns a column's values, NaN where there is none: NaN sorts last."""
    import polars as pl

    if "docs" not in shard.shard.files:
        raise FormatError(f"{shard.folder / shard.name} has no docs.parquet to order its documents by '{name}'.")
    path = shard.folder / shard.shard.files["docs"].name
    try:
        schema = pl.read_parquet_schema(path)
        if name not in schema:
            raise FormatError(f"{path} has no column '{name}' to order documents by{nearest(name, schema)}")
        if not schema[name].is_numeric():
            raise FormatError(f"{path}: column '{name}' is {schema[name]}; a curriculum needs numbers.")
        column = pl.read_parquet(path, columns=[name])[name].cast(pl.Float64)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise FormatError(f"cannot read {path} to order documents by '{name}': {error}.") from error
    if len(column) != len(shard.lengths):
        raise FormatError(f"{path} has {len(column):,} rows, its pack {len(shard.lengths):,} documents; rebuild it.")
    return column.fill_null(float("nan")).to_numpy()
