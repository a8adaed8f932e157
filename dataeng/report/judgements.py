"""How the rules of a run's steps judged one document: what each compared, and what in the text it was about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from dataeng.errors import ConfigError
from dataeng.predicate import parse_predicate
from dataeng.presets.judgement import JudgedRule, first_broken_rule, rules_in_order
from dataeng.report.judged import RulesStep
from dataeng.report.marks import Marks, find_marks

SIGNAL_PREFIX = "quality_"


@dataclass(frozen=True)
class RuleOutcome:
    """One rule and one document."""

    rule: str
    drop: str
    """The predicate."""
    value: float | None
    """Its left side, if the predicate is one comparison; None where it is not known."""
    operator: str
    threshold: float | None
    broken: bool


@dataclass(frozen=True)
class StepJudgement:
    """All rules of one step and one document, in order."""

    step: str
    outcomes: tuple[RuleOutcome, ...]
    first_broken: int | None
    """Index into ``outcomes``: the rule that is the document's reason."""
    marks: Marks | None = None
    """Where in the text that rule fired."""


def judge_document(
    steps: Sequence[RulesStep], order: Sequence[str], document: Mapping[str, Any], signals: Mapping[str, Any]
) -> list[StepJudgement]:
    """Returns how the rules steps that a document reached judged it.

    Args:
      order: names of the pipeline's steps.
      document: its row, with ``stage`` if it was dropped.
      signals: its signals.
    """
    values = {**signals, **{key: value for key, value in document.items() if key != "text"}}
    frame = pl.DataFrame({key: _column(key, value) for key, value in values.items()})
    stage = document.get("stage")
    if stage is not None and stage not in order:
        return []
    reached = list(order)[: order.index(stage) + 1] if stage is not None else list(order)
    found = []
    for step in steps:
        if step.name not in reached or not (step.name == stage or _matches(step.where, frame)):
            continue
        rules = rules_in_order(step.presets)
        if all(set(judged.predicate.columns) <= set(frame.columns) for judged in rules):
            found.append(_judge(step, rules, frame, document.get("text")))
    return found


def _column(name: str, value: Any) -> pl.Series:
    if value is None:
        return pl.Series([None], dtype=pl.Int64 if name.startswith(SIGNAL_PREFIX) else pl.String)
    return pl.Series([value])


def _matches(where: str | None, frame: pl.DataFrame) -> bool:
    if where is None:
        return True
    predicate = parse_predicate(where)
    try:
        predicate.check(frame.columns)
    except ConfigError:
        return False  # the run does not keep that column for dropped documents: not known to have reached the step
    return bool(frame.select(predicate.expr.fill_null(False)).item())


def _judge(step: RulesStep, rules: tuple[JudgedRule, ...], frame: pl.DataFrame, text: str | None) -> StepJudgement:
    first = first_broken_rule(frame, rules).item()
    outcomes = tuple(_outcome(judged, frame) for judged in rules)
    marks = None
    if first is not None and text:
        outcome, columns = outcomes[first], rules[first].predicate.columns
        measured = sorted(column.removeprefix(SIGNAL_PREFIX) for column in columns)
        language = frame["language"].item() if "language" in frame.columns else None
        marks = find_marks(text, measured, outcome.operator, outcome.threshold, step.whitespace_words, language)
    return StepJudgement(step.name, outcomes, first, marks)


def _outcome(judged: JudgedRule, frame: pl.DataFrame) -> RuleOutcome:
    predicate = judged.predicate
    value, operator, threshold = None, "", None
    if predicate.sides is not None:
        left, operator, right = predicate.sides
        value, threshold = (_number(frame.select(side.alias("side")).item()) for side in (left, right))
    broken = bool(frame.select(predicate.expr.fill_null(False).alias("broken")).item())
    return RuleOutcome(judged.rule.name, judged.rule.drop, value, operator, threshold, broken)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
