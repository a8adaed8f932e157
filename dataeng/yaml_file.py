"""YAML 1.2 files that a person wrote, read so that an error can say file, line and column.

YAML 1.2 matters: in 1.1 the language ``no`` in a list is the boolean false.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from dataeng.errors import ConfigError

MAX_FILE_BYTES = 1 << 20
MAX_NODES = 100_000  # aliases can make a small file enormous


@dataclass(frozen=True)
class Place:
    """A place in a file; it reads ``file:line:column``, or ``file`` where no more is known."""

    path: Path
    line: int = 0
    """From 1; 0 is not known."""
    column: int = 0
    text_column: int = 0
    """Where the characters of a value begin, from 1, if the file has them there as they are; 0 if it has not."""

    def at(self, offset: int | None) -> Place:
        """Returns the place of one character of the value, where that can be said."""
        if offset is None or not self.text_column:
            return self
        return replace(self, column=self.text_column + offset)

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}" if self.line else str(self.path)


class YamlFile:
    """A parsed file that can say where in it something is."""

    def __init__(self, path: Path, what: str, keys: Sequence[str]) -> None:
        """Reads a mapping.

        Args:
          what: what the file is, for messages: "pipeline", "preset".
          keys: those that the mapping may have, for messages.

        Raises:
          ConfigError: the file cannot be read, or is no YAML mapping.
        """
        self.path = path
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read {what} file {path}: {error.strerror}.") from error
        if len(data) > MAX_FILE_BYTES:
            raise ConfigError(f"{path} has {len(data)} bytes; a {what} file has at most {MAX_FILE_BYTES}.")
        try:
            text = data.decode("utf-8")
            self.root = YAML(typ="rt", pure=True).load(text)
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise ConfigError(f"{path}:{line}: not UTF-8: byte {error.start} of the file is invalid.") from error
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
            problem = (error.problem or error.context or "invalid YAML").splitlines()[0]
            raise ConfigError(f"{path}{where}: {problem}") from error
        except YAMLError as error:
            found = data[: getattr(error, "position", 0)].count(b"\n") + 1  # a character that YAML does not allow
            raise ConfigError(f"{path}:{found}: {str(error).splitlines()[0]}") from error
        except RecursionError as error:
            raise ConfigError(f"{path}: lists or mappings are nested too deeply.") from error
        self.lines = text.splitlines()
        if not isinstance(self.root, CommentedMap):
            raise ConfigError(f"{path}:1:1: a {what} is a mapping with the keys {', '.join(keys)}.")

    def place(self, node: Any, key: Any = None, value: bool = False) -> Place:
        """Returns where ``node[key]`` is (its value if ``value``), or ``node``."""
        try:
            if key is None:
                line, column = node.lc.line, node.lc.col
            elif isinstance(node, CommentedSeq):
                line, column = node.lc.item(key)
            else:
                line, column = node.lc.value(key) if value else node.lc.key(key)
        except (AttributeError, KeyError, IndexError, TypeError):
            return Place(self.path)
        text = 0
        if value and line < len(self.lines):
            rest = self.lines[line][column:]
            quote = 2 if rest[:1] in ("'", '"') else 1
            text = column + quote if rest[quote - 1 :].startswith(str(node[key])) else 0
        return Place(self.path, line + 1, column + 1, text)

    def error(self, message: str, node: Any, key: Any = None, value: bool = False) -> ConfigError:
        """Returns an error that begins with the `place`."""
        return ConfigError(f"{self.place(node, key, value)}: {message}")

    def plain(self, node: Any) -> Any:
        """Returns ruamel's round-trip nodes as plain dicts, lists and scalars."""
        budget = iter(range(MAX_NODES))

        def convert(value: Any) -> Any:
            if next(budget, None) is None:
                raise ConfigError(f"{self.path}: more than {MAX_NODES} values, probably through aliases.")
            if isinstance(value, dict):
                return {str(key): convert(item) for key, item in value.items()}
            if isinstance(value, list):
                return [convert(item) for item in value]
            return unwrapped(value)

        try:
            return convert(node)
        except RecursionError as error:
            raise ConfigError(f"{self.path}: values are nested too deeply, probably an alias of itself.") from error


def unwrapped(value: Any) -> Any:
    """Returns the plain value of a scalar; ruamel subclasses them to remember how they were written."""
    if isinstance(value, ScalarBoolean):  # of an int, as nothing can subclass bool
        return bool(value)
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value
