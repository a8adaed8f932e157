"""On which documents of a run two presets disagree, from its stored signals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from dataeng.errors import ConfigError
from dataeng.predicate import parse_predicate
from dataeng.presets import load_preset
from dataeng.presets.judgement import check_rules, columns_read, evidence, first_broken_rule, reasons, rules_in_order
from dataeng.report.judged import StoredRun, missing_signal

COLUMNS = ("id", "url", "domain", "language", "first", "second", "first_detail", "second_detail")


@dataclass
class PresetDifference:
    """How two presets decide the same documents."""

    first: str
    second: str
    documents: int = 0
    """Documents whose signals were measured, wherever the run dropped them afterwards."""
    both_keep: int = 0
    both_drop: int = 0
    """For the same or another reason."""
    only_first_drops: int = 0
    only_second_drops: int = 0
    pairs: pl.DataFrame = field(default_factory=pl.DataFrame)
    """``first, second, documents``: every pair of reasons that differ, most frequent first; null is "kept"."""
    disagreements: pl.DataFrame = field(default_factory=pl.DataFrame)
    """`COLUMNS`, a row for each document that one keeps and the other drops, in the order of ``pairs``."""

    @property
    def agreement(self) -> float:
        """The share of documents that both keep or both drop."""
        return (self.both_keep + self.both_drop) / self.documents if self.documents else 1.0


def diff_presets(run_dir: Path, first: str, second: str, where: str | None = None) -> PresetDifference:
    """Applies two presets to all documents of a run whose signals were measured.

    Args:
      first, second: names of presets, or YAML files.
      where: a predicate over identity and signals that chooses documents, e.g. ``language == 'en'``.

    Raises:
      ConfigError: no such run, preset or column, or none of the signals was measured.
    """
    stored = StoredRun(run_dir)
    lists = [rules_in_order((load_preset(name),)) for name in (first, second)]
    phase = _phase_with_signals(stored, [column for rules in lists for column in columns_read(rules)])
    known = stored.columns(phase)
    for rules in lists:
        check_rules(rules, known, missing_signal)
    predicate = parse_predicate(where) if where else None
    if predicate is not None:
        predicate.check(known)
        predicate.check_type(known)
    measured = {column for found in stored.signals.values() for column in found}
    columns = list(dict.fromkeys(column for rules in lists for column in columns_read(rules)))
    signals = [column for column in columns if column in measured]
    asked = [*columns, *(sorted(predicate.columns) if predicate else ())]
    result = PresetDifference(first, second)
    changed: list[pl.DataFrame] = []
    for part in range(stored.parts(phase)):
        rows = stored.rows(phase, part, asked)
        rows = rows.filter(pl.any_horizontal(pl.col(column).is_not_null() for column in signals))
        if predicate is not None:
            rows = rows.filter(predicate.expr.fill_null(False))
        for side, rules in zip(("first", "second"), lists, strict=True):
            broken = first_broken_rule(rows, rules)
            rows = rows.with_columns(broken.alias(f"{side}_rule"), reasons(broken, rules).alias(side))
        _count(result, rows)
        rows = rows.filter(pl.col("first").ne_missing(pl.col("second")))
        for side, rules in zip(("first", "second"), lists, strict=True):
            rows = rows.with_columns(evidence(rows, rows.get_column(f"{side}_rule"), rules).alias(f"{side}_detail"))
        changed.append(rows.select(COLUMNS))
    _list(result, pl.concat(changed, how="diagonal_relaxed"))
    return result


def _phase_with_signals(stored: StoredRun, columns: Sequence[str]) -> str:
    """Returns the last phase that measured any of the columns: from it on, all that were measured are there."""
    phases = [name for name, found in stored.signals.items() if set(found) & set(columns)]
    if not phases:
        raise ConfigError(
            f"{stored.run_dir} has none of the signals that these presets read; run a pipeline with quality_signals."
        )
    return phases[-1]


def _count(result: PresetDifference, rows: pl.DataFrame) -> None:
    first, second = rows.get_column("first").is_null(), rows.get_column("second").is_null()
    result.documents += rows.height
    result.both_keep += int((first & second).sum())
    result.both_drop += int((~first & ~second).sum())
    result.only_first_drops += int((~first & second).sum())
    result.only_second_drops += int((first & ~second).sum())


def _list(result: PresetDifference, changed: pl.DataFrame) -> None:
    pair = ["first", "second"]
    result.pairs = (
        changed.group_by(pair)
        .agg(pl.len().cast(pl.Int64).alias("documents"))
        .sort("documents", *pair, descending=[True, False, False])
    )
    order = result.pairs.with_row_index("pair").drop("documents")
    result.disagreements = (
        changed.filter(pl.col("first").is_null() != pl.col("second").is_null())
        .join(order, on=pair, how="left", nulls_equal=True, maintain_order="left")
        .sort("pair", maintain_order=True)
        .select(COLUMNS)
    )
