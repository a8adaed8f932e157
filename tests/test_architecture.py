"""The house's own rules: which module may import which, how large one may be, and that every stage has its place."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

import dataeng
from dataeng.stages import STAGES

ROOT = Path(dataeng.__file__).parents[1]
TESTS = Path(__file__).parent
MAX_LINES = 400
#: Larger ones, each with its reason, and how far they may grow.
MAX_LINES_OF = {
    "dataeng.kernels.fasttext": 450,  # one model format, read and evaluated: the parts share every array
    "dataeng.stages.quality.stop_words": 600,  # a table
}

LEAVES = {"dataeng.errors"}
#: Package or module → what it may import of `dataeng` and `trainer`, besides modules of its own package.
ALLOWED: dict[str, set[str]] = {
    "dataeng.errors": set(),
    "dataeng.interruption": set(),
    "dataeng.document": LEAVES,
    "dataeng.predicate": LEAVES,
    "dataeng.yaml_file": LEAVES,
    "dataeng.formats": LEAVES,
    "dataeng.kernels": LEAVES | {"dataeng.document"},
    "dataeng.presets": LEAVES | {"dataeng.predicate", "dataeng.yaml_file"},
    "dataeng.mixture": LEAVES | {"dataeng.formats", "dataeng.kernels"},
    "dataeng.packing": LEAVES | {"dataeng.formats", "dataeng.kernels"},
    "dataeng.exports": LEAVES | {"dataeng.formats"},
    "dataeng.stage": LEAVES | {"dataeng.document", "dataeng.formats"},
    "dataeng.stages": LEAVES
    | {"dataeng", "dataeng.document", "dataeng.predicate", "dataeng.formats", "dataeng.kernels", "dataeng.stage"}
    | {"dataeng.presets"},
    "dataeng.config": LEAVES
    | {"dataeng.stage", "dataeng.stages", "dataeng.predicate", "dataeng.document", "dataeng.yaml_file"},
    "dataeng.fingerprint": LEAVES | {"dataeng.config", "dataeng.formats", "dataeng.stage", "dataeng.stages"},
    "dataeng.column_check": LEAVES | {"dataeng.config", "dataeng.predicate", "dataeng.stage"},
    "dataeng.plan": LEAVES
    | {
        "dataeng.column_check",
        "dataeng.config",
        "dataeng.document",
        "dataeng.fingerprint",
        "dataeng.predicate",
        "dataeng.stage",
    },
    "dataeng.engine": LEAVES
    | {"dataeng", "dataeng.config", "dataeng.document", "dataeng.formats", "dataeng.kernels", "dataeng.plan"}
    | {"dataeng.predicate", "dataeng.stage", "dataeng.stages"}
    | {"dataeng.mixture"},  # documents that are taken out of packs count in mixtures, too
    "dataeng.report": LEAVES
    | {"dataeng", "dataeng.config", "dataeng.document", "dataeng.engine", "dataeng.formats", "dataeng.mixture"}
    | {"dataeng.plan", "dataeng.predicate", "dataeng.stage", "dataeng.stages", "dataeng.fingerprint"}
    | {"dataeng.presets", "dataeng.kernels", "dataeng.yaml_file"}  # rules are decided again, and signals are described
    | {"dataeng.exports", "dataeng.packing"},
    "trainer": LEAVES | {"dataeng.formats", "dataeng.mixture", "dataeng.packing"},
}
#: Stages that the planner puts behind others; nobody names them in a pipeline.
FOLLOWERS = {"RecordIndex"}
ENTRY_POINTS = {
    "dataeng.cli",
    "dataeng.cli_export",
    "dataeng.cli_index",
    "dataeng.cli_mix",
    "dataeng.cli_packs",
    "dataeng.cli_rows",
    "dataeng.cli_tokenizer",
    "dataeng.__main__",
    "dataeng",
}


@lru_cache
def modules() -> dict[str, Path]:
    """Returns every module of both packages by its dotted name."""
    found = {}
    for package in ("dataeng", "trainer"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@lru_cache
def parsed(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text())


def imports(name: str) -> Iterator[tuple[str, int]]:
    """Yields what a module imports of both packages, wherever in it the import stands, with its line."""
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: relative import"
            module = node.module or ""
            targets = [f"{module}.{alias.name}" for alias in node.names]
            targets = [target if target in modules() else module for target in targets]
        else:
            continue
        for target in targets:
            if target.split(".")[0] in ("dataeng", "trainer"):
                yield target, node.lineno


def room(name: str) -> str:
    """Returns the part of the house a module is in: the longest entry of `ALLOWED` that it is below."""
    inside = [entry for entry in ALLOWED if name == entry or name.startswith(f"{entry}.")]
    return max(inside, key=len) if inside else name


def test_every_module_belongs_to_a_room() -> None:
    assert len(modules()) > 60
    homeless = [name for name in modules() if room(name) not in ALLOWED and name not in ENTRY_POINTS]
    assert not homeless, f"say in ALLOWED what these may import: {homeless}"


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_flow_one_way(name: str) -> None:
    if name in ENTRY_POINTS:
        return
    here = room(name)
    wrong = [
        f"{name}:{line} imports {target}"
        for target, line in imports(name)
        if room(target) != here and room(target) not in ALLOWED[here]
    ]
    assert not wrong, f"{here} may import {sorted(ALLOWED[here])}: {wrong}"


def test_the_rooms_themselves_have_no_cycle() -> None:
    """The table above is checked, too: no room may reach itself through others."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        pending = list(ALLOWED[start])
        while pending:
            entry = pending.pop()
            if entry not in seen:
                seen.add(entry)
                pending += ALLOWED.get(entry, ())
        return seen

    assert [entry for entry in ALLOWED if entry in reachable(entry)] == []


def test_imports_at_the_top_of_modules_have_no_cycle() -> None:
    graph = {
        name: {t for node in parsed(name).body for t, line in imports(name) if line == node.lineno and t != name}
        for name in modules()
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join((*path, name))
        if name not in done:
            for target in graph.get(name, ()):
                visit(target, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("name", sorted(modules()))
def test_modules_are_small_documented_and_named_after_what_they_hold(name: str) -> None:
    path = modules()[name]
    lines = path.read_text().count("\n")
    assert lines <= MAX_LINES_OF.get(name, MAX_LINES), f"{name} has {lines} lines"
    assert name.rsplit(".", 1)[-1] not in ("utils", "util", "common", "helpers", "helper", "manager", "misc", "base")
    if lines:  # an empty __init__.py has nothing to explain
        assert ast.get_docstring(parsed(name)), f"{name} has no docstring"


@pytest.mark.parametrize("name", sorted(modules()))
def test_nothing_happens_at_import_but_definitions(name: str) -> None:
    """Statements that call for their effect do not stand at the top of a module."""
    if name in ("dataeng.engine.preload", "dataeng.__main__", "trainer.__main__"):  # that is what they are for
        return
    if name == "dataeng.cli":  # takes in the commands of another module, as decorators do with its own
        return
    effects = [
        f"{name}:{node.lineno}"
        for node in parsed(name).body
        if isinstance(node, ast.While | ast.With) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
    ]
    assert not effects


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_its_own_module_and_test_file(stage: str) -> None:
    module_name, _, class_name = STAGES[stage].partition(":")
    assert module_name.rsplit(".", 1)[-1] == stage, "a stage's module is named like the stage"
    folder = module_name.split(".")[-2]
    assert class_name == "".join(word.capitalize() for word in stage.split("_")) or class_name.startswith(stage.title())
    assert hasattr(importlib.import_module(module_name), class_name)
    assert (TESTS / "stages" / folder / f"test_{stage}.py").exists(), (
        f"tests/stages/{folder}/test_{stage}.py is missing"
    )


def test_stages_are_the_only_stage_classes_of_the_package() -> None:
    from dataeng.stage import ExchangeStage, RowStage, Sink, Source, Stage

    def below(cls: type[Stage]) -> Iterator[type[Stage]]:
        for child in cls.__subclasses__():
            yield child
            yield from below(child)

    for dotted in STAGES.values():
        importlib.import_module(dotted.partition(":")[0])
    contracts = {Source, RowStage, ExchangeStage, Sink}
    ours = {cls for cls in below(Stage) if cls.__module__.startswith("dataeng.")} - contracts
    ours = {cls for cls in ours if cls.__name__ not in FOLLOWERS}
    assert {f"{cls.__module__}:{cls.__name__}" for cls in ours} == set(STAGES.values())


def test_no_two_rooms_of_the_trainer_import_each_other() -> None:
    """A room is a folder, or a module beside them."""

    def room(parts: tuple[str, ...]) -> str:
        return parts[1].removesuffix(".py")

    imports = set()
    for path in (ROOT / "trainer").rglob("*.py"):
        here = room(path.relative_to(ROOT).parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trainer."):
                imports.add((here, room(tuple(str(node.module).split(".")))))
    assert ("run", "recovery") in imports
    assert sorted(pair for pair in imports if pair[0] < pair[1] and pair[::-1] in imports) == []
