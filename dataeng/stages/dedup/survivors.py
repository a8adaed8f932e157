"""Which document of a cluster stays: the first by the columns that the user names, in a total order.

    survivor:
      - domain: [books, reference, web]      # in this order; other values come last
      - quality.score desc
      - date

Documents that are equal in all of these are ordered by their place in the input, so that the choice never depends on
who ran what when. A missing value comes last, whatever the direction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated

import polars as pl
from pydantic import AfterValidator

from dataeng.stages.dedup.buckets import FIRST_OLD_PLACE

TEXT_BYTES = "text_bytes"
"""May be named like a column: the length of the text in bytes."""

Criterion = str | Mapping[str, list[str]]

_CRITERION = re.compile(r"(\S+)(?:\s+(asc|desc))?", re.IGNORECASE)


def _checked(criteria: tuple[Criterion, ...]) -> tuple[Criterion, ...]:
    for criterion in criteria:
        if isinstance(criterion, str) and not _CRITERION.fullmatch(criterion):
            raise ValueError(f"{criterion!r} is not a column, or a column with 'asc' or 'desc' behind it")
        if not isinstance(criterion, str) and len(criterion) != 1:
            raise ValueError(f"{dict(criterion)!r} has to name one column with its values in order")
    return criteria


Survivor = Annotated[tuple[Criterion, ...], AfterValidator(_checked)]
"""The type of the option."""


def _parsed(criterion: Criterion) -> tuple[str, bool, Sequence[str] | None]:
    """Returns a criterion's column, whether it is descending, and the values that it ranks."""
    if isinstance(criterion, str):
        match = _CRITERION.fullmatch(criterion)
        assert match is not None
        return match[1], (match[2] or "").lower() == "desc", None
    ((column, values),) = criterion.items()
    return column, False, values


def survivor_columns(criteria: Sequence[Criterion]) -> tuple[str, ...]:
    """Returns the columns of documents that the criteria read."""
    names = [_parsed(criterion)[0] for criterion in criteria]
    return tuple(dict.fromkeys("text" if name == TEXT_BYTES else name for name in names))


def rank_columns(criteria: Sequence[Criterion]) -> tuple[str, ...]:
    """Returns the names of what `ranks` makes."""
    return tuple(f"rank_{number}" for number in range(len(criteria)))


def ranks(criteria: Sequence[Criterion]) -> list[pl.Expr]:
    """Returns one expression per criterion over documents; `first_of` knows which end is the better one."""
    exprs = []
    for name, criterion in zip(rank_columns(criteria), criteria, strict=True):
        column, _, values = _parsed(criterion)
        if values is not None:
            places = {value: number for number, value in enumerate(values)}
            expr = pl.col(column).replace_strict(places, default=len(places), return_dtype=pl.UInt32)
        elif column == TEXT_BYTES:
            expr = pl.col("text").str.len_bytes()
        else:
            expr = pl.col(column)
        exprs.append(expr.alias(name))
    return exprs


def first_of(
    table: pl.DataFrame, cluster: str | Sequence[str], criteria: Sequence[Criterion], place: str = "place"
) -> pl.DataFrame:
    """Returns the row of each cluster that stays; an old document (of a dedup index) before all others.

    Args:
      table: rows with the columns of `ranks`, ``cluster`` (one column or several) and ``place``.
    """
    directions = [_parsed(criterion)[1] for criterion in criteria]
    ordered = table.sort(
        [pl.col(place) < FIRST_OLD_PLACE, *rank_columns(criteria), place],
        descending=[False, *directions, False],
        nulls_last=True,
        maintain_order=True,
    )
    return ordered.unique(cluster, keep="first", maintain_order=True)
