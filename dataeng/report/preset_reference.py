"""The reference of signals and presets as Markdown, read from the code; ``docs/quality.md`` holds it."""

from __future__ import annotations

from collections.abc import Mapping

from dataeng.presets import Parameter, Preset, load_preset, preset_names
from dataeng.presets.judgement import columns_read, rules_in_order
from dataeng.stages.quality.quality_signals import PREFIX, documented_signals


def markdown() -> str:
    """Returns the tables of all signals and of all presets with their rules."""
    lines = ["### Signals", "", "| signal | what it counts | measured with |", "| --- | --- | --- |"]
    for with_option, signals in zip(("any", "`all`"), documented_signals().values(), strict=True):
        lines += [f"| `{name}` | {_cell(meaning)} | {with_option} |" for name, meaning in signals.items()]
    presets = [load_preset(name) for name in preset_names()]
    lines += ["", "### Presets", "", "| preset | rules | needs | source |", "| --- | --- | --- | --- |"]
    lines += [
        f"| [`{p.name}`](#{_anchor(p.name)}) | {len(p.rules)} | {needs(p)} | {_cell(p.source)} |" for p in presets
    ]
    for preset in presets:
        lines += ["", f"#### {preset.name}", "", f"Source: {preset.source}.", "", preset.note.strip(), ""]
        lines += ["| rule | drops a document if | note |", "| --- | --- | --- |"]
        lines += [f"| `{rule.name}` | `{_cell(rule.drop)}` | {_cell(rule.note)} |" for rule in preset.rules]
        if preset.parameters:
            lines += ["", "Parameters: " + "; ".join(_parameters(preset)) + "."]
        if preset.aliases:
            named = [f"`{preset.family}.{alias}` is `{name}`" for alias, name in preset.aliases.items()]
            lines += ["", "Other names: " + "; ".join(named) + "."]
        lines += ["", *(f"The column `{name}`: {hint.strip()}." for name, hint in preset.columns.items())]
        if not preset.columns:
            lines.pop()
    return "\n".join(lines) + "\n"


def needs(preset: Preset) -> str:
    """Returns what a preset needs besides `quality_signals` as it is by default, in Markdown."""
    _, more = documented_signals().values()
    read = columns_read(rules_in_order((preset,)))
    found = ["`signals: all`"] if set(read) & set(more) else []
    return ", ".join([*found, *(f"`{name}`" for name in read if not name.startswith(PREFIX))])


def _parameters(preset: Preset) -> list[str]:
    return [f"`{preset.family}.{name}` {_value(value)}" for name, value in preset.parameters.items()]


def _value(value: Parameter) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{language} {_value(number)}" for language, number in value.items()) + ")"
    return "off" if value is None else f"{value:g}"


def _anchor(name: str) -> str:
    """Returns what Markdown makes of a heading: lower case, without signs."""
    return "".join(c for c in name.lower() if c.isalnum() or c in "_-")


def _cell(text: str) -> str:
    return text.strip().replace("|", "\\|")
