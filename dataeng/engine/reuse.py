"""What a run folder already holds of a plan, and, for the rest, why it has to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataeng.engine.records import (
    TaskRecord,
    damaged_file,
    damaged_finish,
    damaged_record,
    read_phase_manifest,
    read_record,
)
from dataeng.plan import Phase, Plan, Task, with_round


@dataclass(frozen=True)
class PhaseState:
    """One phase of a plan, held against the run folder."""

    phase: Phase
    tasks: tuple[Task, ...]
    done: Mapping[int, TaskRecord]
    """Tasks that need not run."""
    todo: tuple[int, ...]
    reasons: tuple[str, ...]
    """Why the phase is not complete."""
    complete: bool
    """Whether the phase's manifest stands, so that there is nothing at all to do."""


def inspect_phase(plan: Plan, phase: Phase, run_dir: Path, thorough: bool = False, upstream: str = "") -> PhaseState:
    """Compares one phase with what is on disk.

    Args:
      thorough: hash every file instead of trusting size and modification time.
      upstream: the name of an earlier phase that will run again, if any.
    """
    manifest = read_phase_manifest(run_dir, phase.name)
    done: dict[int, TaskRecord] = {}
    todo: list[int] = []
    damage: list[str] = []
    for task in plan.tasks[phase.name]:
        record = read_record(run_dir, phase.name, task.index)
        if record is None or record.fingerprint != task.fingerprint:
            todo.append(task.index)
            continue
        problem = damaged_record(run_dir, record, manifest) or damaged_file(run_dir, record, thorough)
        if problem is None:
            done[task.index] = record
        else:
            todo.append(task.index)
            damage.append(problem)
    named = [task["fingerprint"] for task in manifest["tasks"]] if manifest else None
    finish_damage = damaged_finish(run_dir, manifest) if manifest else None
    complete = not todo and named == [task.fingerprint for task in plan.tasks[phase.name]] and finish_damage is None
    if damage:
        reasons = tuple(damage)
    elif finish_damage is not None and not todo:
        reasons = (finish_damage,)
    else:
        reasons = () if complete else _reasons(plan, phase, manifest, len(done), len(todo), upstream)
    return PhaseState(phase, plan.tasks[phase.name], done, tuple(todo), reasons, complete)


def inspect_plan(plan: Plan, run_dir: Path, thorough: bool = False) -> list[PhaseState]:
    """Compares every phase of a plan with what is on disk, in order."""
    states: list[PhaseState] = []
    upstream = ""
    phases = list(plan.phases)
    while phases:
        phase = phases.pop(0)
        state = inspect_phase(plan, phase, run_dir, thorough, upstream)
        if phase.repeats and state.complete and any(record.changed for record in state.done.values()):
            plan, following = with_round(plan, phase)
            phases.insert(0, following)
        if state.todo and not upstream:
            upstream = phase.name
        states.append(state)
    return states


def _reasons(
    plan: Plan, phase: Phase, manifest: dict[str, Any] | None, done: int, todo: int, upstream: str
) -> tuple[str, ...]:
    if manifest is None:
        return ("unfinished: it was stopped before its last task was committed",) if done else ("not run yet",)
    differences = _compare(manifest["recipe"], plan.recipes[phase.name])
    if differences:
        return tuple(differences)
    if upstream:
        return (f"input: '{upstream}' runs again",)
    return ("record missing or unreadable",) if todo else ()


def _compare(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Names the differences between two recipes, the ones a user made first."""
    found: list[str] = []
    before, after = old.get("steps", {}), new["steps"]
    found += [f"config: '{name}' is new here" for name in after if name not in before]
    found += [f"config: '{name}' is no longer here" for name in before if name not in after]
    for name in after:
        if name in before:
            found += _compare_step(name.partition(":")[2] or name, before[name], after[name])
    if list(before) != list(after) and not found:
        found.append("config: the stages are in another order")
    if old.get("keep_rejected_text") != new["keep_rejected_text"]:
        found.append(f"config: keep_rejected_text {old.get('keep_rejected_text')} → {new['keep_rejected_text']}")
    for name, now in new["environment"].items():
        was = old.get("environment", {}).get(name)
        if was != now:
            found.append(f"code: {name} {was} → {now}")
    if old.get("engine") != new["engine"]:
        found.append(f"code: engine version {old.get('engine')} → {new['engine']}")
    found += _compare_input(old.get("input", {}), new.get("input", {}))
    return found


def _compare_step(name: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    found = []
    if old["stage"] != new["stage"]:
        return [f"config: '{name}' is another stage: {old['stage']} → {new['stage']}"]
    for key in sorted({*old["config"], *new["config"]}):
        was, now = old["config"].get(key), new["config"].get(key)
        if was != now:
            found.append(f"config: {name}.{key} {_short(was)} → {_short(now)}")
    if old["where"] != new["where"]:
        found.append(f"config: {name}.where {_short(old['where'])} → {_short(new['where'])}")
    if old["version"] != new["version"]:
        found.append(f"code: {name} version {old['version']} → {new['version']}")
    elif old.get("source") != new["source"]:
        found.append(f"code: the source of {name} changed")
    for library, version in new["libraries"].items():
        if old["libraries"].get(library) != version:
            found.append(f"code: {library} {old['libraries'].get(library)} → {version} (used by {name})")
    found += _compare_side_inputs(old.get("side_inputs", {}), new["side_inputs"])
    for model, content in new["models"].items():
        if old["models"].get(model) != content:
            found.append(f"config: the file {model} of {name} changed")
    return found


def _compare_side_inputs(old: dict[str, str], new: dict[str, str]) -> list[str]:
    found = [f"{name} is new" for name in new if name not in old]
    found += [f"{name} is gone" for name in old if name not in new]
    return found + [f"{name} changed" for name in new if name in old and old[name] != new[name]]


def _compare_input(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    added = [name for name in new if name not in old]
    gone = [name for name in old if name not in new]
    changed = [name for name in new if name in old and old[name] != new[name]]
    found = []
    for names, what in ((added, "new"), (gone, "gone"), (changed, "changed")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            found.append(f"input: {names[0].partition(':')[2]}{more} {what}")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
