"""The reference of signals and presets as Markdown, read from the code; ``docs/quality.md`` holds it."""

from __future__ import annotations

from collections.abc import Mapping

from dataeng.presets import Parameter, Preset, load_preset, preset_names
from dataeng.stages.quality.quality_signals import PREFIX


def markdown() -> str:
    """Returns the tables of all signals and of all presets with their rules."""
    from dataeng.kernels.counters import COUNTERS

    lines = ["### Signals", "", "| signal | what it counts |", "| --- | --- |"]
    lines += [f"| `{PREFIX}{name}` | {_cell(meaning)} |" for name, meaning in COUNTERS.items()]
    presets = [load_preset(name) for name in preset_names()]
    lines += ["", "### Presets", "", "| preset | rules | source |", "| --- | --- | --- |"]
    lines += [f"| [`{p.name}`](#{_anchor(p.name)}) | {len(p.rules)} | {_cell(p.source)} |" for p in presets]
    for preset in presets:
        lines += ["", f"#### {preset.name}", "", f"Source: {preset.source}.", "", preset.note.strip(), ""]
        lines += ["| rule | drops a document if | note |", "| --- | --- | --- |"]
        lines += [f"| `{rule.name}` | `{_cell(rule.drop)}` | {_cell(rule.note)} |" for rule in preset.rules]
        if preset.parameters:
            lines += ["", "Parameters: " + "; ".join(_parameters(preset)) + "."]
    return "\n".join(lines) + "\n"


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
