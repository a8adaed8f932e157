"""From a preset's YAML file to a `Preset`, with errors that name file, line and column."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from dataeng.errors import ConfigError, nearest
from dataeng.predicate import LANGUAGE, PredicateError
from dataeng.presets import Parameter, Preset, Rule
from dataeng.yaml_file import YamlFile

PRESET_KEYS = ("name", "source", "note", "parameters", "aliases", "columns", "rules")
RULE_KEYS = ("name", "drop", "source", "note")


def read_preset(path: Path) -> Preset:
    """Reads and checks a preset; what it may hold is in `dataeng.presets`.

    Raises:
      ConfigError: it is not YAML, has unknown or missing keys, or a predicate is wrong.
    """
    file = YamlFile(path, "preset", PRESET_KEYS)
    root = file.root
    _check_keys(file, root, "a preset", PRESET_KEYS, ("name", "source", "rules"))
    source = str(root["source"])
    rules = root["rules"]
    if not isinstance(rules, list) or not rules:
        raise file.error("'rules' is a list with at least one rule", root, "rules", value=True)
    preset = Preset(
        name=str(root["name"]),
        source=source,
        parameters=_parameters(file, root),
        rules=tuple(_rule(file, rules, index, source) for index in range(len(rules))),
        note=str(root.get("note") or ""),
        aliases=_aliases(file, root),
        columns=_columns(file, root),
    )
    _check_rules(file, rules, preset)
    return preset


def _parameters(file: YamlFile, root: Any) -> dict[str, Parameter]:
    node = root.get("parameters")
    if node is None:
        return {}
    _check_keys(file, root, "'parameters'", key="parameters")
    for name, value in node.items():
        if not isinstance(value, dict):
            _check_number(file, node, name, name)
            continue
        _check_keys(file, node, f"parameter '{name}'", key=name)
        for language in value:
            _check_number(file, value, language, f"{name}.{language}")
    plain: dict[str, Parameter] = file.plain(node)
    return plain


def _check_number(file: YamlFile, node: Any, key: str, name: str) -> None:
    value = node[key]
    if isinstance(value, bool) or not isinstance(value, float | int | None):
        raise file.error(
            f"parameter '{name}' is {file.plain(value)!r}; expected a number or null", node, key, value=True
        )


def _aliases(file: YamlFile, root: Any) -> dict[str, str]:
    node = root.get("aliases")
    if node is None:
        return {}
    _check_keys(file, root, "'aliases'", key="aliases")
    parameters = root.get("parameters") or {}
    for alias, name in node.items():
        if alias in parameters:
            raise file.error(f"alias '{alias}' is a parameter already", node, alias)
        if name not in parameters:
            raise file.error(f"alias of no parameter '{name}'{nearest(str(name), parameters)}", node, alias, value=True)
    plain: dict[str, str] = file.plain(node)
    return plain


def _columns(file: YamlFile, root: Any) -> dict[str, str]:
    if root.get("columns") is None:
        return {}
    _check_keys(file, root, "'columns'", key="columns")
    return {name: str(hint) for name, hint in root["columns"].items()}


def _rule(file: YamlFile, rules: Any, index: int, source: str) -> Rule:
    _check_keys(file, rules, "a rule", RULE_KEYS, ("name", "drop"), key=index)
    node = rules[index]
    return Rule(
        name=str(node["name"]),
        drop=str(node["drop"]),
        source=str(node.get("source", source)),
        note=str(node.get("note") or ""),
        place=file.place(node, "drop", value=True),
    )


def _check_rules(file: YamlFile, rules: Any, preset: Preset) -> None:
    used: set[str] = set()
    names: set[str] = set()
    read: set[str] = set()
    for node, rule in zip(rules, preset.rules, strict=True):
        if rule.name in names:
            message = f"two rules are called '{rule.name}'; a name is the reason that documents get"
            raise file.error(message, node, "name", value=True)
        names.add(rule.name)
        try:
            predicate = rule.predicate(preset.parameters)
            used |= predicate.parameters
            if all(column == LANGUAGE or column.startswith("quality_") for column in predicate.columns):
                counts: dict[str, pl.DataType] = dict.fromkeys(predicate.columns, pl.Float64())
                predicate.check_type(counts | {LANGUAGE: pl.String()})
        except ConfigError as error:
            place = rule.place.at(error.offset if isinstance(error, PredicateError) else None) if rule.place else ""
            raise ConfigError(f"{place}: rule '{rule.name}': {error}") from error
        read |= predicate.columns
    for name in preset.parameters:
        if name not in used:
            raise file.error(f"no rule uses the parameter '{name}'", file.root["parameters"], name)
    for name in preset.columns:
        if name not in read:
            raise file.error(f"no rule reads the column '{name}'", file.root["columns"], name)


def _check_keys(
    file: YamlFile, node: Any, what: str, known: tuple[str, ...] = (), required: tuple[str, ...] = (), key: Any = None
) -> None:
    """Checks that a node (or its item ``key``) is a mapping of names to values, with the keys that it should have."""
    content = node if key is None else node[key]
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise file.error(f"{what} is a mapping of names to values", node, key, value=key is not None)
    for name in content:
        if known and name not in known:
            raise file.error(f"unknown key '{name}' in {what}{nearest(name, known)}", content, name)
    for name in required:
        if name not in content:
            raise file.error(f"{what} needs the key '{name}'", content)
