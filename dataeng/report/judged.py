"""The documents that a rules step judged, read back from a run with their stored signals, part by part.

A document that the step's phase kept is in ``documents/<phase>`` with all its columns; one that it dropped is in
``rejects/<phase>``, and its signals are in ``signals/``. No text is read unless asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from dataeng.document import ERROR_PREFIX, TEXT
from dataeng.engine.records import TaskRecord
from dataeng.engine.runner import load_records
from dataeng.errors import ConfigError, nearest
from dataeng.formats.atomic import read_json
from dataeng.formats.pack import folder_of
from dataeng.predicate import parse_predicate
from dataeng.presets import Preset, own_name
from dataeng.stages.quality.apply_rules import ApplyRules

RULES = "apply_rules"
SHOWN = ("id", "url", "domain", "language")


@dataclass(frozen=True)
class RulesStep:
    """A step of a run that applied rule presets."""

    name: str
    phase: str
    presets: tuple[Preset, ...]
    where: str | None
    whitespace_words: bool
    """Whether the signals before it were counted on words between white space."""


class StoredRun:
    """The tables of a run, as its records name them."""

    def __init__(self, run_dir: Path) -> None:
        if not (run_dir / "run.json").is_file():
            raise ConfigError(f"there is no run at {run_dir}.")
        self.run_dir = run_dir
        self.run = read_json(run_dir / "run.json")
        records = load_records(run_dir)
        kinds = {phase["name"]: phase["kind"] for phase in self.run["phases"]}
        self.phases: dict[str, list[TaskRecord]] = {
            name: group for name, group in records.items() if kinds[name] == "rows"
        }
        """Complete row phases, in order."""

    def rules_steps(self) -> list[RulesStep]:
        """Returns the rules steps of the phases that are complete, with the presets as they were applied.

        Raises:
          ConfigError: a preset file that the run used is gone or wrong.
        """
        steps, whitespace = [], False
        for entry in self.run["pipeline"]["stages"]:
            if "quality_signals" in entry:
                whitespace = entry["quality_signals"].get("words") == "whitespace"
            phase = self._phase_of(entry["name"])
            if RULES in entry and phase is not None:
                stage = ApplyRules(**entry[RULES])
                steps.append(RulesStep(entry["name"], phase, stage.loaded_presets(), entry.get("where"), whitespace))
        return steps

    def _phase_of(self, step: str) -> str | None:
        return next((name for name, group in self.phases.items() if group and step in group[0].counts), None)

    @cached_property
    def signals(self) -> dict[str, list[str]]:
        """The signals that each phase measured."""
        return {
            name: [column for column in pl.read_parquet_schema(self.run_dir / file.name) if column != "id"]
            for name, group in self.phases.items()
            for file in [group[0].file("signals") if group else None]
            if file is not None
        }

    def parts(self, phase: str) -> int:
        """Returns the number of parts of a phase."""
        return len(self.phases[phase])

    def columns(self, phase: str) -> dict[str, pl.DataType]:
        """Returns what can be asked of every document that came into a phase, dropped or not, with its types.

        That is the identity and the signals; a column that only documents have is not known of those dropped.
        """
        schema: dict[str, pl.DataType] = dict(pl.read_parquet_schema(self._file(phase, 0, "rejects")))
        schema.pop(TEXT, None)
        for name in self.signals:
            if self._upto(name, phase):
                schema |= pl.read_parquet_schema(self._file(name, 0, "signals"))
        return schema

    def _upto(self, phase: str, last: str) -> bool:
        names = list(self.phases)
        return names.index(phase) <= names.index(last)

    def _file(self, phase: str, part: int, kind: str) -> Path:
        file = self.phases[phase][part].file(kind)
        if file is None:
            raise ConfigError(f"{self.run_dir}: phase '{phase}' has no {kind}, part {part}. Run the pipeline again.")
        return self.run_dir / file.name

    def rows(self, phase: str, part: int, columns: Sequence[str]) -> pl.DataFrame:
        """Returns a row for every document that came into one part of a phase.

        Columns are `SHOWN`, ``stage, reason, num_bytes`` (null where the phase kept the document), and ``columns``.
        """
        wanted = [column for column in dict.fromkeys(columns) if column not in SHOWN]
        kept = self._read(self._file(phase, part, "documents"), [*SHOWN, *wanted])
        dropped = self._read(self._file(phase, part, "rejects"), [*SHOWN, "stage", "reason", "num_bytes", *wanted])
        kept, dropped = (self._with_signals(frame, phase, part, wanted) for frame in (kept, dropped))
        rows = pl.concat([kept, dropped], how="diagonal_relaxed")
        return rows.with_columns(pl.lit(None, dtype=pl.String).alias(c) for c in SHOWN if c not in rows.columns)

    def _with_signals(self, frame: pl.DataFrame, phase: str, part: int, wanted: list[str]) -> pl.DataFrame:
        for name, signals in self.signals.items():
            missing = [column for column in wanted if column in signals and column not in frame.columns]
            if missing and self._upto(name, phase):
                stored = self._read(self._file(name, part, "signals"), ["id", *missing])
                frame = frame.join(stored, on="id", how="left", maintain_order="left")
        return frame

    def _read(self, path: Path, columns: Sequence[str]) -> pl.DataFrame:
        scan = pl.scan_parquet(path)
        there = scan.collect_schema()
        return scan.select([column for column in columns if column in there]).collect()

    def texts(self, phase: str, part: int, ids: Sequence[str], characters: int) -> dict[str, str | None]:
        """Returns the first characters of documents, kept or dropped, by id."""
        found: dict[str, str | None] = {}
        for kind in ("documents", "rejects"):
            scan = pl.scan_parquet(self._file(phase, part, kind)).filter(pl.col("id").is_in(list(ids)))
            if TEXT in scan.collect_schema():
                rows = scan.select("id", pl.col(TEXT).str.slice(0, characters)).collect()
                found |= dict(rows.iter_rows())
        return found

    def text_bytes(self, phase: str, part: int, ids: pl.Series) -> pl.DataFrame:
        """Returns ``id`` and ``text_bytes`` of documents that a phase kept."""
        scan = pl.scan_parquet(self._file(phase, part, "documents")).filter(pl.col("id").is_in(ids.implode()))
        return scan.select("id", pl.col(TEXT).str.len_bytes().cast(pl.Int64).alias("text_bytes")).collect()

    def packed(self, part: int) -> pl.DataFrame | None:
        """Returns ``id, domain, language, num_tokens, text_bytes`` of one part's packed documents, or None."""
        names = list(self.phases)
        record = self.phases[names[-1]][part] if names else None
        paths = [
            self.run_dir / "packs" / folder_of(shard) / shard["shard"]["files"]["docs"]["name"]
            for shards in (record.shards.values() if record else ())
            for shard in shards
            if "docs" in shard.get("shard", {}).get("files", {})
        ]
        if not paths:
            return None
        schema = {"id": pl.String(), "domain": pl.String(), "language": pl.String()}
        empty = pl.DataFrame(schema={**schema, "num_tokens": pl.Int64(), "text_bytes": pl.Int64()})
        return pl.concat([empty, *(self._read(path, empty.columns) for path in paths)], how="diagonal_relaxed")


def missing_signal(column: str) -> str:
    """Returns what to do about a signal that a run did not measure; empty for any other column."""
    from dataeng.stages.quality.quality_signals import documented_signals

    default, more = documented_signals().values()
    if column in more:
        return ": the run did not measure it; run the pipeline with `quality_signals: {signals: all}`"
    return ": the run did not measure it; run a pipeline with `quality_signals`" if column in default else ""


def judged_rows(stored: StoredRun, step: RulesStep, part: int, columns: Sequence[str]) -> pl.DataFrame:
    """Returns the rows of one part that reached a rules step and that its ``where`` matches.

    Adds ``old``: the reason that the step gave, null where it kept the document. Documents on which the step itself
    broke are left out.

    Raises:
      ConfigError: ``where`` reads a column that the run does not keep for dropped documents.
    """
    predicate = parse_predicate(step.where) if step.where else None
    needed = [*columns, *(sorted(predicate.columns) if predicate else ())]
    known = stored.columns(step.phase)
    for column in needed:
        if column not in known:
            raise ConfigError(
                f"'{step.name}' reads '{column}', which the run does not keep for the documents that it dropped"
                f"{nearest(column, known)}"
            )
    rows = stored.rows(step.phase, part, needed)
    stations = list(stored.phases[step.phase][part].counts)
    if step.name not in stations:
        return rows.clear().with_columns(pl.lit(None, dtype=pl.String).alias("old"))
    before = stations[: stations.index(step.name)]
    here = pl.col("stage") == step.name
    broken = here & pl.col("reason").str.starts_with(ERROR_PREFIX)
    rows = rows.filter(~pl.col("stage").is_in(before).fill_null(False) & ~broken.fill_null(False))
    if predicate is not None:
        rows = rows.filter(predicate.expr.fill_null(False) | here.fill_null(False))
    return rows.with_columns(pl.when(here).then("reason").alias("old"))


def choose_step(stored: StoredRun, name: str | None, parameters: Sequence[str]) -> RulesStep:
    """Returns the rules step of that name, or the only one whose presets have all ``parameters``.

    Raises:
      ConfigError: there is none, or more than one; the message lists them.
    """
    steps = stored.rules_steps()
    if not steps:
        raise ConfigError(f"{stored.run_dir} has no finished step '{RULES}', so there is no decision to look at again.")
    names = [step.name for step in steps]
    if name is not None:
        if name not in names:
            raise ConfigError(f"the run has no rules step '{name}'{nearest(name, names)}")
        return next(step for step in steps if step.name == name)
    fitting = [step for step in steps if all(_has(step, parameter) for parameter in parameters)]
    if not fitting:
        known = {f"{p.family}.{name}" for step in steps for p in step.presets for name in (*p.parameters, *p.aliases)}
        for parameter in parameters:
            if not any(_has(step, parameter) for step in steps):
                raise ConfigError(
                    f"no rules step of the run has the parameter '{parameter}'{nearest(parameter, known)}"
                )
        raise ConfigError(f"no single rules step has all of {', '.join(parameters)}; change one step at a time")
    if len(fitting) > 1:
        raise ConfigError(
            "several steps of the run apply such rules; choose one: "
            + " or ".join(f"--step {step.name}" for step in fitting)
        )
    return fitting[0]


def _has(step: RulesStep, parameter: str) -> bool:
    return any(own_name(preset, parameter) is not None for preset in step.presets)
