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
    aliases: {least_words: min_doc_words}   # optional: other names of parameters, such as the source's own
    columns: {perplexity: a stage of your own adds it}   # optional: where a column comes from that no signal stage adds

Rules apply in order, and the first one that a document breaks is its reason. A parameter that is null switches its
rules off. A parameter may be a mapping from language to number; its rules then judge documents in those languages only.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dataeng.errors import ConfigError, nearest
from dataeng.predicate import Predicate, parse_predicate

if TYPE_CHECKING:
    from dataeng.yaml_file import Place

Parameter = float | int | None | Mapping[str, float | int | None]

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Rule:
    """One reason to drop a document."""

    name: str
    drop: str
    source: str
    note: str = ""
    place: Place | None = field(default=None, compare=False)
    """Where the predicate is written."""

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
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names of parameters → the parameters; ``set`` takes both."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Columns that no signal stage adds → where they come from; said where one is missing."""

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
      ConfigError: it does not exist, is not YAML, has unknown or missing keys, or a predicate is wrong; with file, line
        and column.
    """
    path = preset_path(name)
    return _read(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _read(path: Path, modified_ns: int) -> Preset:
    from dataeng.presets.reading import read_preset

    return read_preset(path)


def override_parameters(presets: tuple[Preset, ...], values: Mapping[str, Parameter]) -> tuple[Preset, ...]:
    """Returns the presets with other parameter values.

    Args:
      values: keys are ``family.parameter``, e.g. ``gopher.min_words``, or ``family.parameter.language`` for one
        language of a parameter that has a number per language. An alias will do for the parameter.

    Raises:
      ConfigError: no preset has such a parameter (the message has the nearest name), or one is given twice.
    """
    used: dict[tuple[str, str], str] = {}
    changed: dict[str, dict[str, Parameter]] = {preset.name: {} for preset in presets}
    for key, value in values.items():
        found = [(preset, name) for preset in presets if (name := own_name(preset, key)) is not None]
        if not found:
            known = {f"{preset.family}.{name}" for preset in presets for name in (*preset.parameters, *preset.aliases)}
            raise ConfigError(f"unknown parameter '{key}'{nearest(key, known)}", option=f"set.{key}")
        for preset, name in found:
            other = used.setdefault((preset.name, name), key)
            if other != key:
                raise ConfigError(f"'{other}' and '{key}' are the same parameter of {preset.name}", option=f"set.{key}")
            changed[preset.name][name] = value
    return tuple(replace(preset, parameters=_overridden(preset, changed[preset.name])) for preset in presets)


def own_name(preset: Preset, key: str) -> str | None:
    """Returns what a preset calls the parameter that ``family.parameter`` means to it, or None if it has none.

    A key of one language, ``family.parameter.language``, gives ``parameter.language``.
    """
    family, _, name = key.partition(".")
    name, _, language = name.partition(".")
    name = preset.aliases.get(name, name)
    if family != preset.family or name not in preset.parameters:
        return None
    if not language:
        return name
    return f"{name}.{language}" if isinstance(preset.parameters[name], Mapping) else None


def _overridden(preset: Preset, values: Mapping[str, Parameter]) -> dict[str, Parameter]:
    parameters: dict[str, Parameter] = {}
    for name, value in preset.parameters.items():
        value = values.get(name, value)
        if isinstance(value, Mapping):
            single = {k.removeprefix(f"{name}."): v for k, v in values.items() if k.startswith(f"{name}.")}
            value = {**value, **{language: v for language, v in single.items() if not isinstance(v, Mapping)}}
        parameters[name] = value
    return parameters
