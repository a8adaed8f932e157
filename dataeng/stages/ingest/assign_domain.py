"""Stage `assign_domain`: puts documents into mixture domains by rules."""

from __future__ import annotations

from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from dataeng.document import DOMAIN_PATTERN
from dataeng.predicate import Predicate, PredicateError, parse_predicate
from dataeng.stage import Columns, RowStage


class DomainRule(BaseModel):
    """Documents for which ``where`` is true belong to ``domain``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    domain: str = Field(pattern=DOMAIN_PATTERN)
    where: str = Field(description="A predicate over columns, such as `language == 'de'`")


class AssignDomain(RowStage):
    """Sets ``domain`` by the first rule that is true; where none is, the domain stays as it was.

    A predicate that is null, because a column is, is not true.
    """

    rules: tuple[DomainRule, ...] = Field(min_length=1)
    _predicates: tuple[tuple[str, Predicate], ...] = PrivateAttr(default=())

    def model_post_init(self, context: Any) -> None:
        predicates = []
        for index, rule in enumerate(self.rules):
            try:
                predicates.append((rule.domain, parse_predicate(rule.where)))
            except PredicateError as error:
                raise PredicateError(str(error), error.offset, option=f"rules.{index}.where") from error
        self._predicates = tuple(predicates)

    def columns(self) -> Columns:
        read = {column for _, predicate in self._predicates for column in predicate.columns}
        read_by = {
            column: f"rules.{index}.where"
            for index, (_, predicate) in reversed(list(enumerate(self._predicates)))
            for column in predicate.columns
        }
        return Columns(reads=("domain", *sorted(read - {"domain"})), read_by=read_by)

    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        domain = pl.col("domain")
        for name, predicate in reversed(self._predicates):
            domain = pl.when(predicate.expr.fill_null(False)).then(pl.lit(name)).otherwise(domain)
        return batch.with_columns(domain.cast(pl.String).alias("domain"))
