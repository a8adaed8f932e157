"""Which rule a document breaks first: what `apply_rules` does while a run goes, and what re-deciding does afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from dataeng.errors import ConfigError, nearest
from dataeng.predicate import Predicate, parameter_value
from dataeng.presets import Preset, Rule


@dataclass(frozen=True)
class JudgedRule:
    """A rule of one preset, ready to be evaluated."""

    preset: Preset
    rule: Rule

    @cached_property
    def predicate(self) -> Predicate:
        return self.rule.predicate(self.preset.parameters)

    def evidence(self) -> pl.Expr:
        """Spells out what the rule compared: ``quality_words=12 min_words=50``."""
        measured: Mapping[str, pl.Expr] = {name: pl.col(name) for name in sorted(self.predicate.columns)}
        allowed = {name: parameter_value(self.preset.parameters[name]) for name in sorted(self.predicate.parameters)}
        return pl.concat_str(
            [
                pl.format(name + "={}", value.cast(pl.String).fill_null("null"))
                for name, value in {**measured, **allowed}.items()
            ],
            separator=" ",
        )


def rules_in_order(presets: Sequence[Preset]) -> tuple[JudgedRule, ...]:
    """Returns the rules of several presets in the order in which they are applied."""
    return tuple(JudgedRule(preset, rule) for preset in presets for rule in preset.rules)


def columns_read(rules: Sequence[JudgedRule]) -> tuple[str, ...]:
    """Returns the columns that the rules need, each once, in order."""
    return tuple(dict.fromkeys(column for rule in rules for column in sorted(rule.predicate.columns)))


def check_columns(rules: Sequence[JudgedRule], known: Sequence[str]) -> None:
    """Raises `ConfigError` for the first rule that reads a column which is not there, with the nearest name."""
    for judged in rules:
        for column in sorted(judged.predicate.columns - set(known)):
            raise ConfigError(
                f"rule '{judged.rule.name}' of {judged.preset.name} reads '{column}', which is not there"
                f"{nearest(column, known)}"
            )


def first_broken_rule(frame: pl.DataFrame, rules: Sequence[JudgedRule]) -> pl.Series:
    """Returns for every row the index into ``rules`` of the first rule that it breaks, null where it breaks none.

    One pass over the columns that the rules read. A rule whose predicate is null is not broken.
    """
    if not rules:
        return pl.Series("rule", [None], dtype=pl.Int32).new_from_index(0, frame.height)
    broken = [
        pl.when(judged.predicate.expr).then(pl.lit(index, dtype=pl.Int32)) for index, judged in enumerate(rules)
    ]
    return frame.lazy().select(pl.coalesce(broken).alias("rule")).collect().get_column("rule")


def reasons(indices: pl.Series, rules: Sequence[JudgedRule]) -> pl.Series:
    """Returns the names of the rules at ``indices``; null stays null."""
    names = pl.Series("reason", [judged.rule.name for judged in rules], dtype=pl.String)
    return names.gather(indices) if rules else indices.cast(pl.String).alias("reason")


def evidence(frame: pl.DataFrame, indices: pl.Series, rules: Sequence[JudgedRule]) -> pl.Series:
    """Returns for every row with an index what its rule compared, null for the others."""
    details: list[pl.Series] = []
    positions: list[pl.Series] = []
    for index in indices.drop_nulls().unique(maintain_order=True):
        rows = (indices == index).fill_null(False).arg_true()
        positions.append(rows)
        details.append(frame[rows].select(rules[index].evidence().alias("detail")).get_column("detail"))
    if not details:
        return pl.Series("detail", [None], dtype=pl.String).new_from_index(0, frame.height)
    place = pl.Series("place", [None], dtype=pl.Int64).new_from_index(0, frame.height)
    found = pl.concat(details)
    place = place.scatter(pl.concat(positions), pl.int_range(len(found), dtype=pl.Int64, eager=True))
    return found.gather(place).alias("detail")
