"""First rows of keys, over partitions that need not fit memory.

A partition is gone through several times, a slice at a time. What is held is a row for each different key; where there
may be more than `KEYS_IN_MEMORY` of them, keys are taken a share at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from dataeng.stage import Slices

KEYS_IN_MEMORY = 400_000
"""Each is about 250 bytes while slices are being merged."""
ROWS_IN_MEMORY = 400_000
"""A partition of up to so many rows is read once and kept."""
SKETCH_SLOTS = 1 << 22

#: A place in the corpus as columns; they sort as documents and units do.
PLACE = ("part", "row", "unit")


def num_keys(slices: Slices, key: str) -> int:
    """Estimates how many different values a column of hashes has, by linear counting (Whang et al. 1990).

    Exact within a percent or so up to ten times `SKETCH_SLOTS`; larger numbers come out as about 15 times.
    """
    seen = np.zeros(SKETCH_SLOTS, np.bool_)
    for table in slices:
        # The lower bits chose the partition, so that within it they are nearly constant.
        seen[(table.get_column(key).to_numpy() >> np.uint64(30)) % np.uint64(SKETCH_SLOTS)] = True
    empty = max(1, SKETCH_SLOTS - int(seen.sum()))
    return math.ceil(SKETCH_SLOTS * math.log(SKETCH_SLOTS / empty))


class Share:
    """Rows of a partition whose keys are in one share of all keys."""

    def __init__(self, slices: Slices | Sequence[pl.DataFrame], key: str, share: int, of: int) -> None:
        self._slices, self._key, self._share, self._of = slices, key, share, of

    def __iter__(self) -> Iterator[pl.DataFrame]:
        for table in self._slices:
            yield table if self._of == 1 else table.filter((pl.col(self._key) // 65_536) % self._of == self._share)


def shares(slices: Slices, key: str) -> Iterator[Share]:
    """Cuts the rows of a partition by their keys into shares of at most about `KEYS_IN_MEMORY` keys."""
    if slices.num_rows <= ROWS_IN_MEMORY:
        whole = slices.collect()
        if whole is not None:
            yield Share([whole], key, 0, 1)
        return
    number = max(1, math.ceil(min(num_keys(slices, key), slices.num_rows) / KEYS_IN_MEMORY))
    for share in range(number):
        yield Share(slices, key, share, number)


def first_rows(share: Share, keys: Sequence[str], kept: Sequence[str]) -> pl.DataFrame:
    """Returns for each key that several rows have the first of them: ``keys``, `PLACE`, ``kept``, and their ``count``.

    Args:
      kept: columns besides `PLACE`.
    """
    columns = [*keys, *PLACE, *kept]
    state = pl.DataFrame()
    waiting: list[pl.DataFrame] = []
    waits = 0
    for table in share:
        waiting.append(_merged(table.select(*columns, pl.lit(1, dtype=pl.UInt64).alias("count")), keys))
        waits += waiting[-1].height
        if waits > max(state.height, ROWS_IN_MEMORY):
            state = _merged(pl.concat([state, *waiting]) if state.height else pl.concat(waiting), keys)
            waiting, waits = [], 0
    if waiting:
        state = _merged(pl.concat([state, *waiting] if state.height else waiting), keys)
    return state.filter(pl.col("count") > 1) if state.height else state


def _merged(table: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Returns the first row of each key with the sum of its counts.

    One sort takes half of the memory, and a quarter of the time, of grouping by keys.
    """
    ordered = table.sort(*keys, *PLACE)
    begins = pl.any_horizontal(*(pl.col(name) != pl.col(name).shift(1) for name in keys)).fill_null(True)
    # Each key's total is the running total before the next key, less that before its own.
    before = (pl.col("count").cum_sum() - pl.col("count")).alias("_before")
    total = ordered.get_column("count").sum()
    firsts = ordered.with_columns(before).filter(begins)
    after = pl.col("_before").shift(-1, fill_value=total)
    return firsts.with_columns((after - pl.col("_before")).alias("count")).drop("_before")


def _is_first() -> pl.Expr:
    return pl.all_horizontal(*(pl.col(name) == pl.col(f"first_{name}") for name in PLACE))


def mark_segments(slices: Slices) -> Iterator[pl.DataFrame]:
    """Says of every segment with a repeated anchor what has to be compared, and sends it back to its part.

    ``whole``: its content is that of the anchor's first occurrence, so that it can be compared as one. ``each``: it is
    not, so its windows must be compared one by one; so must those of the first occurrence itself, with
    which they may agree.
    """
    for share in shares(slices, "anchor"):
        firsts = first_rows(share, ["anchor"], ["content", "windows"])
        if firsts.height == 0:
            continue
        firsts = firsts.rename({name: f"first_{name}" for name in (*PLACE, "content", "windows")})
        equals = (pl.col("content") == pl.col("first_content")) & (pl.col("windows") == pl.col("first_windows"))
        equal: pl.DataFrame | None = None
        for table in share:
            same = table.join(firsts, on="anchor").filter(equals).group_by("anchor").agg(pl.len().alias("equal"))
            equal = same if equal is None else pl.concat([equal, same]).group_by("anchor").agg(pl.col("equal").sum())
        assert equal is not None
        firsts = firsts.join(equal, on="anchor")
        is_first = _is_first()
        for table in share:
            yield table.join(firsts, on="anchor", maintain_order="left").select(
                pl.col("part").alias("partition"),
                "row",
                "unit",
                "windows",
                pl.when(is_first).then(pl.col("equal") > 1).otherwise(equals).alias("whole"),
                pl.when(is_first).then(pl.col("equal") < pl.col("count")).otherwise(~equals).alias("each"),
            )


def later_rows(slices: Slices, *, also_first: bool) -> Iterator[pl.DataFrame]:
    """Returns all but the first of the runs with the same content, with the first's place, for their parts.

    Args:
      also_first: return the first, too, with the second's place.
    """
    keys = ["first_hash", "second_hash", "units"]
    kept = ["id", "start_char"]  # larger than all else: fetched where needed
    found = {"part": "kept_part", "row": "kept_row", "unit": "kept_unit", "id": "kept_id", "start_char": "kept_char"}
    for share in shares(slices, "first_hash"):
        firsts = first_rows(share, keys, [])
        if firsts.height == 0:
            continue
        marks = firsts.select(*keys, *(pl.col(name).alias(f"first_{name}") for name in PLACE))
        named = (table.select(*keys, *PLACE, *kept) for table in share)
        firsts = pl.concat([table.join(firsts, on=[*keys, *PLACE], how="semi") for table in named])
        sources = firsts.rename(found)
        for table in share:
            later = table.join(marks, on=keys, maintain_order="left").filter(~_is_first())
            yield later.join(sources, on=keys, maintain_order="left").select(*_RUN, *found.values())
        if also_first:
            seconds: pl.DataFrame | None = None
            for table in share:
                others = table.join(marks, on=keys).filter(~_is_first()).select(*keys, *PLACE, *kept)
                others = others if seconds is None else pl.concat([seconds, others])
                seconds = others.sort(*PLACE).group_by(keys).agg(pl.all().first())
            assert seconds is not None
            yield (
                firsts.sort(*PLACE)
                .join(seconds.rename(found), on=keys, maintain_order="left")
                .select(*_RUN, *found.values())
            )


_RUN = (pl.col("part").alias("partition"), "row", "unit", "units")
