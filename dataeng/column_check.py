"""Whether all columns that a step reads are there, and what to do where one is not."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from dataeng.config import Step
from dataeng.errors import ConfigError, PlanError, nearest
from dataeng.predicate import PredicateError, parse_predicate
from dataeng.stage import Columns

Schema = dict[str, pl.DataType]


def checked_columns(step: Step, schema: Schema, before: Sequence[Step] = ()) -> Columns:
    """Returns a step's columns, once all that it reads is there.

    Args:
      before: the steps before it, one of which may know how to add a column that is missing.

    Raises:
      PlanError: a column is missing, or the step's options or its ``where`` are wrong; with file, line and column.
    """
    try:
        columns = step.stage.columns()
    except ConfigError as error:
        raise PlanError(f"{step.place(error.option)}'{step.name}': {error}") from error
    for column in columns.reads:
        if column not in schema:
            place = step.place(columns.read_by.get(column, ""))
            remedy = _remedy(column, before) or (f": {columns.hints[column]}" if column in columns.hints else "")
            raise PlanError(
                f"{place}'{step.name}' reads the column '{column}', which is not there"
                f"{remedy or nearest(column, schema)}"
            )
    if step.where is not None:
        try:
            predicate = parse_predicate(step.where)
            for column in sorted(predicate.columns - set(schema)):
                hint = _remedy(column, before) or nearest(column, schema)
                place = step.place("where", predicate.offset_of(column))
                raise PlanError(f"{place}'{step.name}' reads the column '{column}', which is not there{hint}")
            predicate.check_type(schema)
        except ConfigError as error:
            offset = error.offset if isinstance(error, PredicateError) else None
            raise PlanError(f"{step.place('where', offset)}'{step.name}': {error}") from error
    return columns


def _remedy(column: str, before: Sequence[Step]) -> str:
    """Returns how a step before, configured otherwise, would add a column; empty if none would."""
    for step in reversed(before):
        remedy = step.stage.remedy(column)
        if remedy:
            return f": {step.place().removesuffix(': ')} '{step.name}' adds it with {remedy}"
    return ""
