"""Which rule a document breaks first: what `apply_rules` asks during a run, and what re-deciding asks afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import polars as pl

from dataeng.errors import ConfigError, nearest
from dataeng.predicate import Predicate, parameter_value
from dataeng.presets import Preset, Rule


@dataclass(frozen=True, eq=False)
class JudgedRule:
    """A rule of one preset, ready to be evaluated. Equal to itself only, so that what is built from it can be kept."""

    preset: Preset
    rule: Rule

    @cached_property
    def predicate(self) -> Predicate:
        return self.rule.predicate(self.preset.parameters)

    @cached_property
    def evidence(self) -> pl.Expr:
        """Spells out what the rule compared: ``quality_words=12 min_words=50``."""
        measured: Mapping[str, pl.Expr] = {name: pl.col(name) for name in sorted(self.predicate.columns)}
        allowed = {name: parameter_value(self.preset.parameters[name]) for name in sorted(self.predicate.parameters)}
        pieces: list[pl.Expr] = []
        for name, value in {**measured, **allowed}.items():
            pieces += [pl.lit(f" {name}=" if pieces else f"{name}="), value.cast(pl.String).fill_null("null")]
        return pl.concat_str(pieces)


def rules_in_order(presets: Sequence[Preset]) -> tuple[JudgedRule, ...]:
    """Returns the rules of several presets in the order in which they are applied."""
    return tuple(JudgedRule(preset, rule) for preset in presets for rule in preset.rules)


def columns_read(rules: Sequence[JudgedRule]) -> tuple[str, ...]:
    """Returns the columns that the rules need, each once, in order."""
    return tuple(dict.fromkeys(column for rule in rules for column in sorted(rule.predicate.columns)))


def check_rules(
    rules: Sequence[JudgedRule], schema: Mapping[str, pl.DataType], remedy: Callable[[str], str] = lambda column: ""
) -> None:
    """Raises `ConfigError` for a rule that reads a column which is not there, or does not fit its columns.

    Args:
      remedy: says how a column could come to be there; empty where it is not known.
    """
    for judged in rules:
        place = judged.rule.place
        name = f"rule '{judged.rule.name}' of {judged.preset.name}"
        for column in sorted(judged.predicate.columns - set(schema)):
            at = f"{place.at(judged.predicate.offset_of(column))}: " if place else ""
            told = judged.preset.columns.get(column)
            hint = remedy(column) or (f": {told}" if told else nearest(column, schema))
            raise ConfigError(f"{at}{name} reads '{column}', which is not there{hint}")
        try:
            judged.predicate.check_type(schema)
        except ConfigError as error:
            raise ConfigError(f"{place}: {name}: {error}" if place else f"{name}: {error}") from error


def first_broken_rule(frame: pl.DataFrame, rules: tuple[JudgedRule, ...]) -> pl.Series:
    """Returns for every row the index into ``rules`` of the first rule that it breaks, null where it breaks none.

    One pass over the columns that the rules read. A rule whose predicate is null is not broken.
    """
    if not rules:
        return pl.Series("rule", [None], dtype=pl.Int32).new_from_index(0, frame.height)
    return frame.select(_first_broken(rules)).get_column("rule")


@lru_cache(maxsize=16)
def _first_broken(rules: tuple[JudgedRule, ...]) -> pl.Expr:
    broken = [pl.when(judged.predicate.expr).then(pl.lit(i, dtype=pl.Int32)) for i, judged in enumerate(rules)]
    return pl.coalesce(broken).alias("rule")


def reasons(indices: pl.Series, rules: Sequence[JudgedRule]) -> pl.Series:
    """Returns the names of the rules at ``indices``; null stays null."""
    names = pl.Series("reason", [judged.rule.name for judged in rules], dtype=pl.String)
    return names.gather(indices) if rules else indices.cast(pl.String).alias("reason")


def evidence(frame: pl.DataFrame, indices: pl.Series, rules: Sequence[JudgedRule]) -> pl.Series:
    """Returns for every row with an index what its rule compared, null for the others."""
    hit = indices.is_not_null().arg_true()
    if len(hit) == 0:
        return pl.Series("detail", [None], dtype=pl.String).new_from_index(0, frame.height)
    hit = hit.gather(indices.gather(hit).arg_sort())  # so that the rows of one rule are together
    runs = indices.gather(hit).rle().struct.unnest()
    details, start = [], 0
    for count, index in zip(runs["len"], runs["value"], strict=True):
        measured = frame.select(sorted(rules[index].predicate.columns))[hit[start : start + count]]
        details.append(measured.select(rules[index].evidence.alias("detail")).get_column("detail"))
        start += count
    place = pl.Series("place", [None], dtype=pl.Int64).new_from_index(0, frame.height)
    place = place.scatter(hit, pl.int_range(len(hit), dtype=pl.Int64, eager=True))
    return pl.concat(details).gather(place).alias("detail")
