"""Stage `assign_domain`: puts documents into mixture domains by rules."""

from __future__ import annotations

import re
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

from dataeng.predicate import Predicate, parse_predicate
from dataeng.stage import Columns, RowStage

DOMAIN_NAME = re.compile("[a-z0-9_-]{1,64}")


class DomainRule(BaseModel):
    """Documents for which ``where`` is true belong to ``domain``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    domain: str
    where: str = Field(description="A predicate over columns, such as `language == 'de'`")

    @field_validator("domain")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not DOMAIN_NAME.fullmatch(name):
            raise ValueError(f"'{name}' cannot name a domain: expected 1 to 64 of the characters a-z 0-9 _ -")
        return name


class AssignDomain(RowStage):
    """Sets ``domain`` by the first rule that is true; where none is, the domain stays as it was.

    A predicate that is null, because a column is, is not true.
    """

    rules: tuple[DomainRule, ...] = Field(min_length=1)
    _predicates: tuple[tuple[str, Predicate], ...] = PrivateAttr(default=())

    def model_post_init(self, context: Any) -> None:
        self._predicates = tuple((rule.domain, parse_predicate(rule.where)) for rule in self.rules)

    def columns(self) -> Columns:
        read = {column for _, predicate in self._predicates for column in predicate.columns}
        return Columns(reads=("domain", *sorted(read - {"domain"})))

    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        domain = pl.col("domain")
        for name, predicate in reversed(self._predicates):
            domain = pl.when(predicate.expr.fill_null(False)).then(pl.lit(name)).otherwise(domain)
        return batch.with_columns(domain.cast(pl.String).alias("domain"))
