"""What other thresholds would do to a run: decided again from its stored signals, without running anything.

Only the rules step itself is decided again. What later stages would do with a document that now stays is not known, and
a document that now goes may be one that they dropped anyway.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from dataeng.errors import ConfigError
from dataeng.predicate import Predicate
from dataeng.presets import Parameter, Preset, load_preset, override_parameters
from dataeng.presets.judgement import (
    JudgedRule,
    check_rules,
    columns_read,
    evidence,
    first_broken_rule,
    reasons,
    rules_in_order,
)
from dataeng.report.judged import RulesStep, StoredRun, choose_step, judged_rows, missing_signal

KINDS = ("dropped → kept", "kept → dropped", "other reason")
EXCERPT = 160
FLIPS: dict[str, pl.DataType] = {
    "kind": pl.String(),
    "domain": pl.String(),
    "language": pl.String(),
    "old": pl.String(),
    "new": pl.String(),
    "documents": pl.Int64(),
    "bytes": pl.Int64(),
    "tokens": pl.Int64(),
    "documents_packed": pl.Int64(),
}


@dataclass(frozen=True)
class Example:
    """One document whose decision changes."""

    kind: str
    id: str
    url: str | None
    old: str | None
    """The rule that dropped it; None where it was kept."""
    new: str | None
    detail: str | None
    """What the new rule compared."""
    text: str | None
    """Its first characters, where the run keeps text."""


@dataclass
class RuleChange:
    """A rule with another threshold, judged alone: whatever rules before it say."""

    rule: str
    drop: str
    """The predicate."""
    breaks_before: int = 0
    breaks_after: int = 0
    nearest: float | None = None
    """Of what it compares, the value closest to breaking among documents that do not, with the new threshold."""

    def add(self, before: pl.Series, after: pl.Series, sides: pl.DataFrame | None, operator: str) -> None:
        """Counts the documents of one part."""
        self.breaks_before += int(before.sum())
        self.breaks_after += int(after.sum())
        if sides is not None and operator[0] in "<>":
            found = sides.filter(~after).get_column("left")
            value = found.max() if operator[0] == ">" else found.min()
            known = [float(v) for v in (self.nearest, value) if isinstance(v, int | float)]
            self.nearest = (max(known) if operator[0] == ">" else min(known)) if known else None


@dataclass
class Tuned:
    """What would change in a run."""

    step: str
    changes: list[str]
    """What differs between the presets, a sentence each."""
    rules: list[RuleChange] = field(default_factory=list)
    """The rules whose thresholds changed, each judged alone."""
    judged: int = 0
    """Documents that reached the step."""
    kept_before: int = 0
    kept_after: int = 0
    flips: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=FLIPS))
    """Documents, bytes and tokens per kind, domain, language, old and new reason. Tokens are counted where the document
    is in a pack (``documents_packed`` of them) and estimated from bytes elsewhere; null in a run without packs."""
    examples: list[Example] = field(default_factory=list)
    seconds: float = 0.0


def tune(
    run_dir: Path,
    values: Mapping[str, Parameter],
    presets: Sequence[str] = (),
    step_name: str | None = None,
    examples: int = 3,
) -> Tuned:
    """Decides a rules step of a run again.

    Args:
      values: parameters to change, as for `dataeng.presets.override_parameters`.
      presets: names or files of presets that replace those of the step; empty keeps them.
      step_name: which step, where the run has several that fit.
      examples: how many documents to show of each kind.

    Raises:
      ConfigError: no such run, step, preset, parameter or signal; the message has the nearest name.
    """
    start = time.perf_counter()
    stored = StoredRun(run_dir)
    step = choose_step(stored, step_name, () if presets else tuple(values))
    asked = tuple(load_preset(name) for name in presets) or step.presets
    new = override_parameters(asked, values)
    rules = rules_in_order(new)
    check_rules(rules, stored.columns(step.phase), missing_signal)
    result = Tuned(step.name, changes(step.presets, new))
    changed_rules = _changed_rules(step.presets, new)
    result.rules = [change for change, _, _ in changed_rules]
    ratios = _TokensPerByte(stored)
    found: list[pl.DataFrame] = []
    for part in range(stored.parts(step.phase)):
        rows = judged_rows(stored, step, part, columns_read(rules))
        broken = first_broken_rule(rows, rules)
        rows = rows.with_columns(broken, reasons(broken, rules).alias("new"))
        result.judged += rows.height
        for change, before, after in changed_rules:
            _count_alone(change, before, after, rows)
        result.kept_before += rows.get_column("old").null_count()
        result.kept_after += rows.get_column("new").null_count()
        changed = pl.col("old").ne_missing(pl.col("new"))
        flipped = rows.filter(changed)
        if flipped.height:
            flipped = _with_sizes(flipped.with_columns(_kind().alias("kind")), stored, step, part, ratios)
            found.append(flipped.select("kind", "domain", "language", "old", "new", "bytes", "tokens", "packed"))
            _add_examples(result, _firsts(result, flipped, examples), rules, stored, step, part)
    if found:
        result.flips = _summed(pl.concat(found))
    result.examples.sort(key=lambda example: KINDS.index(example.kind))
    result.seconds = time.perf_counter() - start
    return result


def _changed_rules(old: Sequence[Preset], new: Sequence[Preset]) -> list[tuple[RuleChange, Predicate, Predicate]]:
    """Returns the rules of the same presets whose parameters have other values, as they were and as they would be."""
    if [preset.name for preset in old] != [preset.name for preset in new]:
        return []
    found = []
    for before, after in zip(old, new, strict=True):
        names = {name for name, value in after.parameters.items() if value != before.parameters.get(name)}
        for rule in after.rules:
            predicate = rule.predicate(after.parameters)
            if predicate.parameters & names:
                found.append((RuleChange(rule.name, rule.drop), rule.predicate(before.parameters), predicate))
    return found


def _count_alone(change: RuleChange, before: Predicate, after: Predicate, rows: pl.DataFrame) -> None:
    broken = rows.select(before.expr.fill_null(False).alias("before"), after.expr.fill_null(False).alias("after"))
    sides, operator = None, "?"
    if after.sides is not None:
        left, operator, _ = after.sides
        sides = rows.select(left.alias("left"))
    change.add(broken.get_column("before"), broken.get_column("after"), sides, operator)


def _kind() -> pl.Expr:
    return (
        pl.when(pl.col("new").is_null()).then(pl.lit(KINDS[0]))
        .when(pl.col("old").is_null()).then(pl.lit(KINDS[1]))
        .otherwise(pl.lit(KINDS[2]))
    )  # fmt: skip


def _summed(flipped: pl.DataFrame) -> pl.DataFrame:
    keys = ["kind", "domain", "language", "old", "new"]
    known = pl.col("tokens").is_not_null().all()
    summed = flipped.group_by(keys).agg(
        pl.len().cast(pl.Int64).alias("documents"),
        pl.col("bytes").sum(),
        pl.when(known).then(pl.col("tokens").sum().round().cast(pl.Int64)).alias("tokens"),
        pl.col("packed").sum().cast(pl.Int64).alias("documents_packed"),
    )
    order = pl.col("kind").replace_strict(list(KINDS), list(range(len(KINDS))), return_dtype=pl.Int64)
    return summed.sort(order, -pl.col("documents"), *keys[1:]).select(list(FLIPS)).cast(dict(FLIPS))  # type: ignore[arg-type]


def _with_sizes(
    flipped: pl.DataFrame, stored: StoredRun, step: RulesStep, part: int, ratios: _TokensPerByte
) -> pl.DataFrame:
    """Adds ``bytes`` (as the step saw them), ``tokens`` and whether those are ``packed``."""
    kept = flipped.filter(pl.col("num_bytes").is_null()).get_column("id")
    if len(kept):
        flipped = flipped.join(stored.text_bytes(step.phase, part, kept), on="id", how="left", maintain_order="left")
        flipped = flipped.with_columns(pl.coalesce("num_bytes", "text_bytes").alias("bytes")).drop("text_bytes")
    else:
        flipped = flipped.with_columns(pl.col("num_bytes").alias("bytes"))
    packed = stored.packed(part)
    if packed is None:
        counts = pl.DataFrame(schema={"id": pl.String(), "num_tokens": pl.Int64()})
    else:
        counts = packed.select("id", pl.col("num_tokens").cast(pl.Int64))
    flipped = flipped.join(counts, on="id", how="left", maintain_order="left")
    estimate = flipped.select(ratios.of("domain", "language") * pl.col("bytes")).to_series()
    return flipped.with_columns(
        pl.col("num_tokens").is_not_null().alias("packed"),
        pl.coalesce(pl.col("num_tokens").cast(pl.Float64), estimate).alias("tokens"),
    )


class _TokensPerByte:
    """A run's own ratio of tokens to bytes: per domain and language, else per domain, else over all."""

    def __init__(self, stored: StoredRun) -> None:
        last = list(stored.phases)[-1] if stored.phases else None
        parts = [stored.packed(part) for part in range(stored.parts(last))] if last else []
        frames = [part for part in parts if part is not None]
        self.all: float | None = None
        self.by_domain: dict[str, float] = {}
        self.by_both: dict[str, float] = {}
        if not frames:
            return
        packed = pl.concat(frames, how="diagonal_relaxed")
        sums = [pl.col("num_tokens").sum() / pl.col("text_bytes").sum().replace(0, None)]
        self.all = packed.select(sums).item()
        self.by_domain = _ratios(packed, pl.col("domain"), sums)
        self.by_both = _ratios(packed, _pair("domain", "language"), sums)

    def of(self, domain: str, language: str) -> pl.Expr:
        """Returns the ratio for each row, null in a run without packs."""
        both = _mapped(_pair(domain, language), self.by_both)
        return pl.coalesce(both, _mapped(pl.col(domain), self.by_domain), pl.lit(self.all, dtype=pl.Float64))


def _pair(domain: str, language: str) -> pl.Expr:
    return pl.concat_str(pl.col(domain).fill_null(""), pl.lit("\t"), pl.col(language).fill_null(""))


def _ratios(packed: pl.DataFrame, key: pl.Expr, ratio: list[pl.Expr]) -> dict[str, float]:
    table = packed.group_by(key.alias("key")).agg(ratio[0].alias("ratio")).drop_nulls()
    return dict(table.select("key", "ratio").iter_rows())


def _mapped(key: pl.Expr, values: Mapping[str, float]) -> pl.Expr:
    names, numbers = pl.Series(list(values), dtype=pl.String), pl.Series(list(values.values()), dtype=pl.Float64)
    return key.replace_strict(names, numbers, default=None, return_dtype=pl.Float64)


def _firsts(result: Tuned, flipped: pl.DataFrame, limit: int) -> pl.DataFrame:
    """Returns the first documents of each kind, as the run has them, that there is still room for."""
    room = {kind: limit - sum(example.kind == kind for example in result.examples) for kind in KINDS}
    return pl.concat([flipped.filter(pl.col("kind") == kind).head(room[kind]) for kind in KINDS])


def _add_examples(
    result: Tuned, chosen: pl.DataFrame, rules: tuple[JudgedRule, ...], stored: StoredRun, step: RulesStep, part: int
) -> None:
    if chosen.is_empty():
        return
    chosen = chosen.with_columns(evidence(chosen, chosen.get_column("rule"), rules))
    texts = stored.texts(step.phase, part, chosen.get_column("id").to_list(), EXCERPT)
    for row in chosen.iter_rows(named=True):
        result.examples.append(
            Example(row["kind"], row["id"], row["url"], row["old"], row["new"], row["detail"], texts.get(row["id"]))
        )


def changes(old: Sequence[Preset], new: Sequence[Preset]) -> list[str]:
    """Returns what differs between two lists of presets: other presets, or other values of parameters."""
    if [preset.name for preset in old] != [preset.name for preset in new]:
        return [f"presets {', '.join(preset.name for preset in old)} → {', '.join(preset.name for preset in new)}"]
    found = []
    for before, after in zip(old, new, strict=True):
        for name, value in after.parameters.items():
            previous = before.parameters.get(name)
            if isinstance(value, Mapping) and isinstance(previous, Mapping):
                pairs = {language: (previous.get(language), value.get(language)) for language in {*value, *previous}}
                found += [
                    f"{after.family}.{name}.{language} {_spelled(one)} → {_spelled(other)}"
                    for language, (one, other) in sorted(pairs.items())
                    if one != other
                ]
            elif value != previous:
                found.append(f"{after.family}.{name} {_spelled(previous)} → {_spelled(value)}")
    return found


def _spelled(value: Parameter) -> str:
    return "off" if value is None else "per language" if isinstance(value, Mapping) else f"{value:g}"


def parse_values(assignments: Sequence[str]) -> dict[str, Parameter]:
    """Parses ``--set FAMILY.PARAMETER=NUMBER``; ``null`` switches the rules of a parameter off.

    Raises:
      ConfigError: one of them is something else.
    """
    values: dict[str, Parameter] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or "." not in name:
            raise ConfigError(f"--set {assignment}: expected FAMILY.PARAMETER=NUMBER, e.g. gopher.min_words=20")
        try:
            values[name.strip()] = None if text.strip() == "null" else _number(text)
        except ValueError as error:
            raise ConfigError(f"--set {assignment}: '{text}' is not a number, and not null") from error
    return values


def _number(text: str) -> float | int:
    value = float(text)
    if math.isnan(value):
        raise ValueError("not a number")
    return int(value) if value.is_integer() else value
