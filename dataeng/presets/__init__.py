"""Rule presets as data: which thresholds over which signals some published pipeline uses.

A preset is a YAML file::

    name: gopher@datatrove            # family@what it reproduces
    source: where that is written
    parameters: {min_doc_words: 50}
    rules:
      - name: gopher_short_doc        # the reason that a dropped document gets
        drop: quality_symbol_free_words < min_doc_words
        source: optional, where this rule differs from the preset's source
        note: optional

Rules apply in order, and the first one that a document breaks is its reason. A parameter that is null switches its
rules off. A parameter may be a mapping from language to number; its rules then judge documents in those languages only.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from dataeng.errors import ConfigError, nearest
from dataeng.predicate import LANGUAGE, Predicate, parse_predicate

Parameter = float | int | None | Mapping[str, float | int | None]

_FOLDER = Path(__file__).parent
_PRESET_KEYS = {"name", "source", "parameters", "rules", "note"}
_RULE_KEYS = {"name", "drop", "source", "note"}


@dataclass(frozen=True)
class Rule:
    """One reason to drop a document."""

    name: str
    drop: str
    source: str
    note: str = ""

    def predicate(self, parameters: Mapping[str, Parameter]) -> Predicate:
        """Returns the rule's predicate, with these values for its parameters."""
        return parse_predicate(self.drop, parameters)


@dataclass(frozen=True)
class Preset:
    """Rules with the parameters that their predicates name."""

    name: str
    source: str
    parameters: Mapping[str, Parameter]
    rules: tuple[Rule, ...]
    note: str = ""

    @property
    def family(self) -> str:
        """``gopher`` of ``gopher@datatrove``; what a parameter is addressed by."""
        return self.name.partition("@")[0]


def preset_names() -> tuple[str, ...]:
    """Returns the names of the presets that come with the package, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def preset_path(name: str) -> Path:
    """Returns the file of a preset, given its name, or the path of a file of one's own.

    Raises:
      ConfigError: there is none; the message has the nearest name.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(f"preset file {name} does not exist")
        return path
    if name not in preset_names():
        raise ConfigError(f"unknown preset '{name}'{nearest(name, preset_names())}")
    return _FOLDER / f"{name}.yaml"


def load_preset(name: str) -> Preset:
    """Reads a preset by name or path; see `preset_path` and the module's description.

    Raises:
      ConfigError: it does not exist, is not YAML, has unknown or missing keys, or a predicate is wrong.
    """
    path = preset_path(name)
    return _read(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _read(path: Path, modified_ns: int) -> Preset:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (YAMLError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a readable YAML file: {error}") from error
    content = _mapping(content, path, "a preset", _PRESET_KEYS, ("name", "source", "rules"))
    parameters = _mapping(content.get("parameters") or {}, path, "'parameters'")
    for key, value in parameters.items():
        by_language = _mapping(value, path, f"parameter '{key}'") if isinstance(value, dict) else {"": value}
        for language, number in by_language.items():
            if isinstance(number, bool) or not isinstance(number, float | int | None):
                where = f"{key}.{language}" if language else key
                raise ConfigError(f"{path}: parameter '{where}' is {number!r}; expected a number or null")
    rules = content["rules"]
    if not isinstance(rules, list) or not rules:
        raise ConfigError(f"{path}: 'rules' is a list with at least one rule")
    preset = Preset(
        name=str(content["name"]),
        source=str(content["source"]),
        parameters=parameters,
        rules=tuple(_rule(rule, path, str(content["source"])) for rule in rules),
        note=str(content.get("note", "")),
    )
    _check(preset, path)
    return preset


def _rule(content: Any, path: Path, source: str) -> Rule:
    content = _mapping(content, path, "a rule", _RULE_KEYS, ("name", "drop"))
    return Rule(
        name=str(content["name"]),
        drop=str(content["drop"]),
        source=str(content.get("source", source)),
        note=str(content.get("note", "")),
    )


def _check(preset: Preset, path: Path) -> None:
    used: set[str] = set()
    names: set[str] = set()
    for rule in preset.rules:
        if rule.name in names:
            raise ConfigError(f"{path}: two rules are called '{rule.name}'; a name is the reason that documents get")
        names.add(rule.name)
        try:
            predicate = rule.predicate(preset.parameters)
            used |= predicate.parameters
            if all(column == LANGUAGE or column.startswith("quality_") for column in predicate.columns):
                counts: dict[str, pl.DataType] = dict.fromkeys(predicate.columns, pl.Float64())
                predicate.check_type(counts | {LANGUAGE: pl.String()})
        except ConfigError as error:
            raise ConfigError(f"{path}, rule '{rule.name}': {error}") from error
    for name in sorted(set(preset.parameters) - used):
        raise ConfigError(f"{path}: no rule uses the parameter '{name}'")


def _mapping(
    content: Any, path: Path, what: str, known: set[str] | None = None, required: tuple[str, ...] = ()
) -> dict[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path}: {what} is a mapping of names to values")
    for key in content:
        if known is not None and key not in known:
            raise ConfigError(f"{path}: unknown key '{key}' in {what}{nearest(key, known)}")
    for key in required:
        if key not in content:
            raise ConfigError(f"{path}: {what} needs the key '{key}'")
    return content


def override_parameters(presets: tuple[Preset, ...], values: Mapping[str, Parameter]) -> tuple[Preset, ...]:
    """Returns the presets with other parameter values.

    Args:
      values: keys are ``family.parameter``, e.g. ``gopher.min_doc_words``, or ``family.parameter.language`` for one
        language of a parameter that has a number per language.

    Raises:
      ConfigError: no preset has such a parameter; the message has the nearest name.
    """
    known = {f"{preset.family}.{name}" for preset in presets for name in preset.parameters}
    for key in values:
        if key not in known and not (_of_one_language(key, presets) and key.rpartition(".")[0] in known):
            raise ConfigError(f"unknown parameter '{key}'{nearest(key, known)}")
    return tuple(replace(preset, parameters=_overridden(preset, values)) for preset in presets)


def _of_one_language(key: str, presets: tuple[Preset, ...]) -> bool:
    """Whether a key is that of a parameter which some preset has per language, with a language at its end."""
    name, _, language = key.rpartition(".")
    return bool(language) and any(
        f"{preset.family}.{parameter}" == name and isinstance(value, Mapping)
        for preset in presets
        for parameter, value in preset.parameters.items()
    )


def _overridden(preset: Preset, values: Mapping[str, Parameter]) -> dict[str, Parameter]:
    parameters: dict[str, Parameter] = {}
    for name, value in preset.parameters.items():
        key = f"{preset.family}.{name}"
        value = values.get(key, value)
        if isinstance(value, Mapping):
            single = {k.removeprefix(f"{key}."): v for k, v in values.items() if k.startswith(f"{key}.")}
            value = {**value, **{language: v for language, v in single.items() if not isinstance(v, Mapping)}}
        parameters[name] = value
    return parameters
