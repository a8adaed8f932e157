"""What a fingerprint is made of: options, code, libraries, model files, and the environment that all of them share."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import platform
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Any

from dataeng.config import Step
from dataeng.errors import InputError
from dataeng.formats.atomic import sha256_file
from dataeng.stage import ExchangeStage

ALWAYS = ("polars", "pyarrow")
"""Libraries that decide the output of every stage."""


def environment() -> dict[str, str]:
    """Returns what every stage depends on, whether it knows or not."""
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "unicode": unicodedata.unidata_version,
    }


def step_recipe(step: Step, emits: bool = False) -> dict[str, Any]:
    """Returns what decides a step's output, apart from the data: its options, code, libraries and models.

    Args:
      emits: only what decides the rows that an exchange emits.
    """
    stage = step.stage
    config = json.loads(stage.model_dump_json())
    if emits and isinstance(stage, ExchangeStage):
        config = {name: value for name, value in config.items() if name not in stage.not_emitted}
    return {
        "stage": step.key,
        "config": config,
        "where": step.where,
        "version": stage.version,
        "source": _source_hash(type(stage), bool(stage.kernels)),
        "libraries": {name: _library_version(name) for name in (*ALWAYS, *stage.libraries)},
        "models": _model_hashes(step),
        "side_inputs": {} if emits else dict(stage.side_inputs()),
    }


def _model_hashes(step: Step) -> dict[str, str]:
    """Returns the SHA-256 of every model file by name; of files with the same name, the later ones are numbered."""
    hashes: dict[str, str] = {}
    for path in step.stage.model_files():
        name, count = path.name, 1
        while name in hashes:
            count += 1
            name = f"{path.name} ({count})"
        try:
            hashes[name] = sha256_file(path)
        except OSError as error:
            raise InputError(f"'{step.name}' cannot read {path}: {error.strerror}.") from error
    return hashes


@lru_cache(maxsize=256)
def _library_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _source_hash(cls: type, uses_kernels: bool) -> str:
    """Returns a hash of the code that decides a stage's output, so that nobody has to think of raising a version.

    That is every module in the folder of the stage's: what a stage imports from beside it is as much its own as what
    is in the same file. So is what is in folders below, for stages of ours. Kernels are hashed all together.
    """
    try:
        module = Path(inspect.getfile(cls)).resolve()
    except (OSError, TypeError):
        return "unknown"
    shared = module.parent.name in ("site-packages", "dist-packages")  # a module that is a whole distribution
    ours = Path(__file__).parent in module.parents
    sources = [module] if shared else list(module.parent.glob("**/*.py" if ours else "*.py"))
    if uses_kernels:
        sources += (Path(__file__).parent / "kernels").glob("*.py")
    return _hash_files(tuple(sorted(sources)), tuple(path.stat().st_mtime_ns for path in sorted(sources)))


@lru_cache(maxsize=256)
def _hash_files(paths: tuple[Path, ...], modified_ns: tuple[int, ...]) -> str:
    """The modification times only decide what is remembered between plans of one process."""
    sources = hashlib.sha256()
    for path in paths:
        sources.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return sources.hexdigest()[:16]


def digest(value: Any) -> str:
    """Returns 32 hex digits that stand for any JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]
