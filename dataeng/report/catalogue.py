"""The stages and their options, read from the classes themselves."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dataeng.errors import ConfigError, nearest
from dataeng.stage import ExchangeStage, Sink, Source, Stage
from dataeng.stages import STAGES


def stage_class(name: str) -> type[Stage]:
    """Returns the class of a registered stage."""
    if name not in STAGES:
        raise ConfigError(f"unknown stage '{name}'{nearest(name, STAGES)}")
    module, _, cls = STAGES[name].partition(":")
    found: type[Stage] = getattr(importlib.import_module(module), cls)
    return found


def kind(cls: type[Stage]) -> str:
    """Returns what a stage is: a source, a row stage, an exchange or a sink."""
    for base, word in ((Source, "source"), (ExchangeStage, "corpus-wide"), (Sink, "sink")):
        if issubclass(cls, base):
            return word
    return "row"


def summary(cls: type[Stage]) -> str:
    """Returns the first sentence of a stage's docstring."""
    return " ".join(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].split())


def options(cls: type[BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    """Yields name, type, default and description of every option of a stage, or of an option with options."""
    for name, info in cls.model_fields.items():
        annotation = inspect.formatannotation(info.annotation)
        annotation = re.sub(r"Optional\[Annotated\[([\w.]+), .*\]\]", r"\1 | None", annotation)
        annotation = re.sub(r"Annotated\[([\w.| ]+), FieldInfo\(.*\)\]", r"\1", annotation)
        annotation = re.sub(r"\b[a-z_]+(?:\.[a-z_]+)*\.(?=[A-Z])", "", annotation)
        value = info.get_default(call_default_factory=True, validated_data={})
        default = "required" if value is PydanticUndefined else repr(value)
        yield name, annotation, default, info.description or ""


def print_stages(console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("stage", "kind", "what it does"):
        table.add_column(column, overflow="fold")
    for name in STAGES:
        cls = stage_class(name)
        table.add_row(name, kind(cls), escape(summary(cls)))
    console.print(table)


def print_stage(console: Console, name: str) -> None:
    cls = stage_class(name)
    console.print(escape(inspect.cleandoc(cls.__doc__ or "")), highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("option", "type", "default", ""):
        table.add_column(column, overflow="fold")
    for row in options(cls):
        table.add_row(*(escape(cell) for cell in row))
    console.print()
    console.print(table)


def markdown() -> str:
    """Returns the reference of all stages as Markdown; ``docs/stages.md`` holds it, and a test compares."""
    lines = ["| stage | kind | what it does |", "| --- | --- | --- |"]
    lines += [
        f"| [`{name}`](#{name}) | {kind(stage_class(name))} | {_cell(summary(stage_class(name)))} |" for name in STAGES
    ]
    for name in STAGES:
        cls = stage_class(name)
        lines += ["", f"### {name}", "", inspect.cleandoc(cls.__doc__ or "").replace("``", "`"), ""]
        lines += _options_table(cls)
    return "\n".join(lines) + "\n"


def objectives_markdown() -> str:
    """Returns the options of all objectives, the end of ``docs/objectives.md``."""
    from dataeng.stages.ingest.conversations import Conversation
    from dataeng.stages.tokens.objectives import OBJECTIVES

    described: dict[str, type[BaseModel]] = {**OBJECTIVES, "conversation (of read_files)": Conversation}
    lines = []
    for name, cls in described.items():
        lines += [
            f"### {name}",
            "",
            inspect.cleandoc(cls.__doc__ or "").replace("``", "`"),
            "",
            *_options_table(cls),
            "",
        ]
    return "\n".join(lines)


def _options_table(cls: type[BaseModel]) -> list[str]:
    rows = [f"| `{o}` | `{_cell(t)}` | `{_cell(d)}` | {_cell(text)} |" for o, t, d, text in options(cls) if o != "kind"]
    return ["| option | type | default | |", "| --- | --- | --- | --- |", *rows] if rows else []


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def signals_markdown() -> str:
    """Returns the tables of all quality signals, the end of ``docs/signals.md``."""
    from dataeng.stages.quality.quality_signals import documented_signals

    lines = []
    for title, signals in documented_signals().items():
        lines += [f"## {title}", "", "| column | meaning |", "|---|---|"]
        lines += [f"| `{name}` | {meaning.replace('|', chr(92) + '|')} |" for name, meaning in signals.items()]
        lines.append("")
    return "\n".join(lines)
