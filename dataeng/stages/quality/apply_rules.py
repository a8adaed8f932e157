"""Drops documents by rule presets: named predicates over signals, see ``dataeng/presets``."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from pydantic import Field

from dataeng.document import drop_where
from dataeng.presets import Preset, Rule, load_preset, override_parameters, preset_path
from dataeng.stage import Columns, RowStage


class ApplyRules(RowStage):
    """Gives each document the name of the first rule that it breaks as its reason, in the order of the presets.

    The detail says what was measured and what was allowed. A rule whose signal is null (not measured) or whose
    parameter is null (switched off) drops nothing.
    """

    presets: tuple[str, ...] = Field(min_length=1)
    """Names of presets that come with the package (``gopher@datatrove``), or paths of YAML files of one's own."""
    set: dict[str, float | None] = Field(default_factory=dict)
    """Other values for parameters, e.g. ``{gopher.max_symbol_word_ratio: 0.15}``; null switches the rule off."""

    def loaded_presets(self) -> tuple[Preset, ...]:
        """Returns the presets with the parameters of this stage.

        Raises:
          ConfigError: an unknown preset or parameter, or a preset file that is wrong.
        """
        return override_parameters(tuple(load_preset(name) for name in self.presets), self.set)

    def columns(self) -> Columns:
        reads: dict[str, None] = {}
        for preset in self.loaded_presets():
            for rule in preset.rules:
                reads |= dict.fromkeys(sorted(rule.predicate(preset.parameters).columns))
        return Columns(reads=tuple(reads))

    def model_files(self) -> tuple[Path, ...]:
        return tuple(preset_path(name) for name in self.presets)

    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        for preset in self.loaded_presets():
            for rule in preset.rules:
                predicate = rule.predicate(preset.parameters)
                batch = drop_where(batch, predicate.expr, rule.name, _evidence(preset, rule))
        return batch


def _evidence(preset: Preset, rule: Rule) -> pl.Expr:
    """Spells out what a rule compared: ``quality_words=12 min_words=50``."""
    predicate = rule.predicate(preset.parameters)
    measured = [
        pl.format(name + "={}", pl.col(name).cast(pl.String).fill_null("null")) for name in sorted(predicate.columns)
    ]
    allowed = [pl.lit(f"{name}={preset.parameters[name]}") for name in sorted(predicate.parameters)]
    return pl.concat_str([*measured, *allowed], separator=" ")
