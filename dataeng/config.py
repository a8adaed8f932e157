"""From a pipeline file to a `Pipeline`: YAML 1.2, checked, with errors that name file, line and column.

A pipeline file::

    name: cc_clean
    seed: 0
    sources:
      - read_warc: {paths: ["crawl/*.warc.gz"], domain: web}
    stages:
      - extract_text
      - deduplicate_minhash: {bands: 14, rows: 8}
        where: domain == 'web'        # rows that do not match pass by untouched
        name: near_duplicates         # what --set and the reports call it; default: the stage's name

YAML 1.2 matters: in 1.1 the language ``no`` in a list is the boolean false.
"""

from __future__ import annotations

import importlib
import inspect
import re
import reprlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from dataeng.errors import ConfigError, nearest
from dataeng.predicate import PredicateError
from dataeng.stage import ExchangeStage, RowStage, Sink, Source, Stage
from dataeng.stages import STAGES
from dataeng.yaml_file import Place, YamlFile, unwrapped

BOUNDS: dict[str, tuple[float, float, str]] = {
    "max_error_share": (0, 1, "a share from 0 to 1"),
    "alarm_cluster_share": (0, 1, "a share from 0 to 1"),
    "alarm_source_share": (0, 1, "a share from 0 to 1"),
    "worker_memory_mb": (256, 1 << 20, "at least 256"),
}
SCALAR_KEYS = ("name", "description", "seed", "run", "keep_rejected_text", *BOUNDS)
PIPELINE_KEYS = (*SCALAR_KEYS, "sources", "stages")
STEP_KEYS = ("where", "name")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Step:
    """One entry of a pipeline: a stage, its name in this pipeline, and which rows it sees."""

    name: str
    key: str
    """The registered name or dotted path that the file uses."""
    stage: Stage
    where: str | None = None
    places: Mapping[str, Place] = field(default_factory=dict, compare=False, repr=False)
    """Where in the file the step is (``""``), its ``where``, its options and their items (``set.gopher.min_words``)."""

    def place(self, option: str = "", offset: int | None = None) -> str:
        """Returns ``file:line:column: `` of an option, or of the step; empty for a step that is from no file.

        Args:
          offset: a character of the option's value.
        """
        return _place(self.places, option, offset)


def _place(places: Mapping[str, Place], option: str, offset: int | None) -> str:
    found = places.get(option) or places.get(option.partition(".")[0]) or places.get("")
    return f"{found.at(offset)}: " if found else ""


@dataclass(frozen=True)
class Pipeline:
    """A whole pipeline file, checked."""

    name: str
    path: Path
    sources: tuple[Step, ...]
    steps: tuple[Step, ...]
    seed: int = 0
    """Given to every stage that has a `seed` option, unless it sets its own."""
    run: str | None = None
    description: str = ""
    max_error_share: float = 0.05
    """A task fails when more than this share of a stage's documents (and more than 20) raise errors in it."""
    keep_rejected_text: bool = True
    """Whether rejects keep their text, so that `explain` can show it."""
    worker_memory_mb: int = 1024
    """What one worker should get by with; decides how finely the corpus-wide steps cut their tables."""
    alarm_cluster_share: float = 0.1
    """`dataeng run` warns when a cluster of duplicates takes more than this share of a step's documents; 1 is never."""
    alarm_source_share: float = 0.5
    """… and when an input file or a domain loses more than this share of its documents to one deduplication."""

    @property
    def base(self) -> Path:
        """The folder that relative input patterns start from."""
        return self.path.resolve().parent

    @property
    def run_dir(self) -> Path:
        """The run folder: ``run:`` in the file, else ``runs/<name>`` in the current folder."""
        return Path(self.run or f"runs/{self.name}").expanduser()

    @property
    def kernels(self) -> tuple[str, ...]:
        """The kernel modules that the stages call."""
        return tuple(sorted({name for step in iter_steps(self) for name in step.stage.needed_kernels()}))

    @property
    def uses_own_code(self) -> list[str]:
        """The dotted paths of stages that are not ours."""
        return [step.key for step in (*self.sources, *self.steps) if step.key not in STAGES]


def load_pipeline(path: Path, overrides: list[str] | None = None, allow_code: bool = False) -> Pipeline:
    """Reads a pipeline file and applies ``--set`` overrides.

    Args:
      path: the YAML file.
      overrides: ``step.field=value`` or ``key=value``; values are YAML.
      allow_code: whether stages may be classes named by dotted path, importable from here or beside the file.

    Raises:
      ConfigError: names file, line, column, what was found, and the nearest right name.
    """
    file = YamlFile(path, "pipeline", PIPELINE_KEYS)
    root = file.root
    for key in root:
        if key not in PIPELINE_KEYS:
            raise file.error(f"unknown key '{key}'{nearest(str(key), PIPELINE_KEYS)}", root, key)
    taken: set[str] = set()
    entries = {kind: _entries(file, kind, taken) for kind in ("sources", "stages")}
    for override in overrides or []:
        _apply_override(override, root, [entry for kind in entries.values() for entry in kind])
    for kind in ("sources", "stages"):
        if kind == "sources" and not entries[kind]:
            raise file.error("a pipeline needs at least one entry under 'sources', e.g. '- read_warc: {…}'", root)
    folder = str(path.resolve().parent)
    if allow_code and folder not in sys.path:  # stays: workers import the same classes again by name
        sys.path.insert(0, folder)
    scalars = _scalars(file, root)
    seed = scalars.get("seed")
    sources = tuple(_build(file, entry, Source, allow_code, seed) for entry in entries["sources"])
    kinds = (RowStage, ExchangeStage, Sink)
    steps = tuple(_build(file, entry, kinds, allow_code, seed) for entry in entries["stages"])
    return Pipeline(path=path, sources=sources, steps=steps, **scalars)


@dataclass
class _Entry:
    """One list item of a pipeline file, before its stage is built."""

    node: Any
    position: tuple[CommentedSeq, int]
    key: str
    name: str
    where: str | None
    fields: dict[str, Any]


def _entries(file: YamlFile, kind: str, taken: set[str]) -> list[_Entry]:
    sequence = file.root.get(kind)
    if sequence is None:
        return []
    if not isinstance(sequence, CommentedSeq):
        raise file.error(f"'{kind}' is a list of stages, each on a line that starts with '- '", file.root, kind)
    entries: list[_Entry] = []
    for index, node in enumerate(sequence):
        entry = _entry(file, sequence, index, node)
        base, count = entry.name, 1
        while entry.name in taken:
            count += 1
            entry.name = f"{base}_{count}"
        taken.add(entry.name)
        entries.append(entry)
    return entries


def _entry(file: YamlFile, sequence: CommentedSeq, index: int, node: Any) -> _Entry:
    position = (sequence, index)
    if isinstance(node, str):
        return _Entry(node, position, node, _default_name(node), None, {})
    if not isinstance(node, CommentedMap):
        raise file.error(f"expected a stage, found {reprlib.repr(node)}", sequence, index)
    keys = [key for key in node if key not in STEP_KEYS]
    if len(keys) != 1:
        found = ", ".join(map(str, keys)) or "none"
        raise file.error(f"a list item names exactly one stage (and perhaps 'where' or 'name'); found {found}", node)
    key = str(keys[0])
    raw = node[keys[0]]
    if raw is not None and not isinstance(raw, CommentedMap):
        raise file.error(
            f"'{key}' takes a mapping of its options, found {reprlib.repr(unwrapped(raw))}", node, keys[0], value=True
        )
    where, name = node.get("where"), node.get("name", _default_name(key))
    if where is not None and not isinstance(where, str):
        raise file.error("'where' is a predicate over columns, e.g. where: domain == 'web'", node, "where", value=True)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise file.error(f"name {name!r} must match {NAME.pattern}", node, "name", value=True)
    return _Entry(node, position, key, name, where, file.plain(raw) if raw is not None else {})


def _default_name(key: str) -> str:
    """Returns the step name of a stage that the file does not name: the stage's own, made safe for a path."""
    return re.sub(r"[^a-z0-9_-]+", "_", key.rsplit(":", 1)[-1].lower()).strip("_-") or "stage"


def _scalars(file: YamlFile, root: CommentedMap) -> dict[str, Any]:
    expected: dict[str, type | tuple[type, ...]] = {
        "name": str, "description": str, "seed": int, "run": str,
        "max_error_share": (int, float), "keep_rejected_text": bool, "worker_memory_mb": int,
        "alarm_cluster_share": (int, float), "alarm_source_share": (int, float),
    }  # fmt: skip
    values: dict[str, Any] = {"name": re.sub(r"[^a-z0-9_-]+", "_", file.path.stem.lower()).strip("_-") or "pipeline"}
    for key, kinds in expected.items():
        value = unwrapped(root.get(key))
        if value is None:
            continue
        wrong = not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool)
        if wrong:
            names = kinds.__name__ if isinstance(kinds, type) else "number"
            raise file.error(f"'{key}' is a {names}, found {reprlib.repr(unwrapped(value))}", root, key, value=True)
        values[key] = value
    for key, (least, most, expected_number) in BOUNDS.items():
        if not least <= values.get(key, least) <= most:
            raise file.error(f"'{key}' is {values[key]}, expected {expected_number}", root, key, value=True)
    if not NAME.fullmatch(values["name"]):
        raise file.error(f"name {values['name']!r} must match {NAME.pattern}", root, "name", value=True)
    return values


def _apply_override(override: str, root: CommentedMap, entries: list[_Entry]) -> None:
    """Changes one value of the parsed file; ``override`` is ``seed=1`` or ``step.field.subfield=value``."""
    target, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"--set {override}: expected NAME=VALUE, e.g. --set deduplicate_minhash.bands=20")
    try:
        value = YAML(typ="safe", pure=True).load(text) if text else ""
    except YAMLError as error:
        raise ConfigError(f"--set {override}: {text!r} is not a YAML value") from error
    first, *rest = target.split(".")
    if not rest:
        if first not in SCALAR_KEYS:
            raise ConfigError(f"--set {override}: no key '{first}'{nearest(first, SCALAR_KEYS)}")
        root[first] = value
        return
    names = {entry.name: entry for entry in entries}
    if first not in names:
        raise ConfigError(f"--set {override}: the pipeline has no step '{first}'{nearest(first, names)}")
    entry = names[first]
    if rest == ["where"]:
        if not isinstance(value, str | None) or value == "":
            raise ConfigError(
                f"--set {override}: expected a predicate, e.g. {first}.where=\"domain == 'web'\", or null"
            )
        entry.where = value
        return
    # Fields may hold dotted keys themselves (apply_rules' `set: {gopher.min_words: 20}`): the rest is one key.
    fields = entry.fields
    if len(rest) > 1:
        nested = fields.setdefault(rest[0], {})
        if not isinstance(nested, dict):
            raise ConfigError(f"--set {override}: '{first}.{rest[0]}' is not a mapping")
        nested[".".join(rest[1:])] = value
    else:
        fields[rest[0]] = value


def _build(file: YamlFile, entry: _Entry, kinds: Any, allow_code: bool, seed: int | None) -> Step:
    sequence, index = entry.position
    cls = _stage_class(file, entry, allow_code)
    if not issubclass(cls, kinds):
        other = "stages" if kinds is Source else "sources"
        raise file.error(f"'{entry.key}' belongs under '{other}'", sequence, index)
    fields = dict(entry.fields)
    if "seed" in cls.model_fields and seed is not None:
        fields.setdefault("seed", seed)
    places = _places(file, entry)
    try:
        stage = cls.model_validate(fields, context={"base": file.path.resolve().parent})
    except ValidationError as error:
        raise _field_error(file, entry, cls, error) from error
    except PredicateError as error:
        raise ConfigError(f"{_place(places, error.option, error.offset)}{entry.key}: {error}") from error
    if entry.where is not None and not issubclass(cls, RowStage):
        raise file.error("'where' works on stages that look at one document at a time", entry.node, "where")
    return Step(entry.name, entry.key, stage, entry.where, places)


def _places(file: YamlFile, entry: _Entry) -> dict[str, Place]:
    """Returns where in the file a step, its options and their items are; what an override changed is not in it."""
    places = {"": file.place(*entry.position)}
    if not isinstance(entry.node, CommentedMap):
        return places
    if entry.node.get("where") == entry.where is not None:
        places["where"] = file.place(entry.node, "where", value=True)
    options = entry.node[next(key for key in entry.node if key not in STEP_KEYS)]
    _note_places(file, options, "", 3, places)
    return places


def _note_places(file: YamlFile, node: Any, prefix: str, depth: int, places: dict[str, Place]) -> None:
    if not depth or not isinstance(node, CommentedMap | CommentedSeq):
        return
    for key in node if isinstance(node, CommentedMap) else range(len(node)):
        places[f"{prefix}{key}"] = file.place(node, key, value=True)
        _note_places(file, node[key], f"{prefix}{key}.", depth - 1, places)


def _stage_class(file: YamlFile, entry: _Entry, allow_code: bool) -> type[Stage]:
    sequence, index = entry.position
    node, key = (entry.node, entry.key) if isinstance(entry.node, CommentedMap) else (sequence, index)
    dotted = STAGES.get(entry.key)
    if dotted is None:
        if ":" not in entry.key:
            raise file.error(f"unknown stage '{entry.key}'{nearest(entry.key, STAGES)}", node, key)
        if not allow_code:
            raise file.error(f"'{entry.key}' is code outside dataeng; add --allow-code to import and run it", node, key)
        dotted = entry.key
    module_name, _, class_name = dotted.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # code outside dataeng may raise anything
        raise file.error(f"cannot import stage '{dotted}': {type(error).__name__}: {error}", node, key) from error
    if not (isinstance(found, type) and issubclass(found, Stage)):
        raise file.error(f"'{dotted}' is not a subclass of dataeng.stage.Stage", node, key)
    if inspect.isabstract(found):
        raise file.error(f"'{dotted}' is abstract; name a class that implements it", node, key)
    return found


def _field_error(file: YamlFile, entry: _Entry, cls: type[Stage], error: ValidationError) -> ConfigError:
    """Turns one of pydantic's complaints into one that points into the file."""
    problems = error.errors()
    # A misspelt option first: where it is a required one, "missing" is a complaint about the same mistake.
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    location, unknown = first["loc"], first["type"] == "extra_forbidden"
    path = ".".join(map(str, location))
    if unknown and len(location) == 1:
        message = f"'{entry.key}' has no option '{path}'{nearest(path, cls.model_fields)}"
    elif unknown:
        message = f"{entry.key}.{path}: there is no such option"
    else:
        said = first["msg"].removeprefix("Value error, ")
        found = "" if first["type"] == "missing" else f", found {reprlib.repr(first['input'])}"
        message = f"{entry.key}.{path}: {said}{found}" if path else f"{entry.key}: {said}"
    node: Any = entry.node[entry.key] if isinstance(entry.node, CommentedMap) else None
    place: tuple[Any, Any, bool] = (*entry.position, False)
    for part in location:  # as deep into the file as it has what the complaint is about
        if not (part in node if isinstance(node, CommentedMap) else isinstance(node, CommentedSeq)):
            break
        place, node = (node, part, not unknown), node[part]
    return file.error(message, *place)


def iter_steps(pipeline: Pipeline) -> Iterator[Step]:
    """Yields every step, sources first."""
    yield from pipeline.sources
    yield from pipeline.steps
