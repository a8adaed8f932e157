"""Drops documents by rule presets: named predicates over signals, see ``dataeng/presets``."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from pydantic import Field, PrivateAttr, ValidationInfo, field_validator

from dataeng.document import DETAIL, REASON, with_reason_columns
from dataeng.errors import ConfigError
from dataeng.presets import Preset, load_preset, override_parameters, preset_path
from dataeng.presets.judgement import JudgedRule, columns_read, evidence, first_broken_rule, reasons, rules_in_order
from dataeng.stage import Columns, RowStage, beside_pipeline


class ApplyRules(RowStage):
    """Gives each document the name of the first rule that it breaks as its reason, in the order of the presets.

    The detail says what was measured and what was allowed. A rule whose signal is null (not measured) or whose
    parameter is null (switched off) drops nothing. `dataeng presets` lists the presets, `dataeng tune` tells what other
    thresholds would do.
    """

    presets: tuple[str, ...] = Field(min_length=1)
    """Names of presets that come with the package (``gopher@datatrove``), or paths of YAML files of one's own."""
    set: dict[str, float | None] = Field(default_factory=dict)
    """Other values for parameters, e.g. ``{gopher.max_symbol_ratio: 0.15}``; null switches the rule off."""

    _rules: tuple[JudgedRule, ...] = PrivateAttr(default=())

    @field_validator("presets")
    @classmethod
    def _files_beside_pipeline(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return tuple(
            str(beside_pipeline(Path(name), info)) if name.endswith((".yaml", ".yml")) else name for name in names
        )

    def loaded_presets(self) -> tuple[Preset, ...]:
        """Returns the presets with the parameters of this stage.

        Raises:
          ConfigError: an unknown preset or parameter, or a preset file that is wrong.
        """
        presets = []
        for index, name in enumerate(self.presets):
            try:
                presets.append(load_preset(name))
            except ConfigError as error:
                raise ConfigError(str(error), option=f"presets.{index}") from error
        return override_parameters(tuple(presets), self.set)

    def columns(self) -> Columns:
        read_by: dict[str, str] = {}
        hints: dict[str, str] = {}
        for index, preset in enumerate(self.loaded_presets()):
            hints |= preset.columns
            for column in columns_read(rules_in_order((preset,))):
                read_by.setdefault(column, f"presets.{index}")
        return Columns(reads=tuple(read_by), read_by=read_by, hints=hints)

    def model_files(self) -> tuple[Path, ...]:
        return tuple(preset_path(name) for name in self.presets)

    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        if not self._rules:
            self._rules = rules_in_order(self.loaded_presets())
        batch = with_reason_columns(batch)
        broken = first_broken_rule(batch, self._rules).set(batch.get_column(REASON).is_not_null(), None)
        if broken.null_count() == batch.height:
            return batch
        return batch.with_columns(
            pl.coalesce(REASON, reasons(broken, self._rules)),
            pl.coalesce(evidence(batch, broken, self._rules), DETAIL),
        )
