"""A training run's folder as others find it: what its ``training.json`` says, and what to say where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dataeng.errors import FormatError

DESCRIPTION_NAME = "training.json"
PIPELINE_NAME = "run.json"
RUNS_NAMED = 5
DEPTHS = ("*", "training/*", "*/training/*")  # where runs lie in a folder of runs, a pipeline's, a folder of those


def read_description(folder: Path) -> dict[str, Any]:
    """Returns ``training.json`` of a run, finished or not.

    Raises `FormatError` that says what the folder is instead, and where training runs are near it.
    """
    path = folder / DESCRIPTION_NAME
    try:
        described = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise FormatError(f"{folder} is no training run: {found_instead(folder)}.") from None
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise FormatError(f"{path} is not JSON: {error}.") from error
    if not isinstance(described, dict) or "config" not in described or "domains" not in described:
        raise FormatError(f"{path} does not describe a training run.")
    return described


def found_instead(folder: Path) -> str:
    """Says what a folder without ``training.json`` is, and names the training runs in it or around it."""
    if not folder.exists():
        return "there is no such folder"
    if not folder.is_dir():
        return "it is a file"
    around = [parent for parent in (folder.parent, folder.parent.parent) if (parent / DESCRIPTION_NAME).exists()]
    if around:
        return f"it lies in one, {around[0]}"
    is_pipeline = (folder / PIPELINE_NAME).exists()
    inside = [run.parent for depth in DEPTHS for run in sorted(folder.glob(f"{depth}/{DESCRIPTION_NAME}"))]
    if inside:
        more = f" and {len(inside) - RUNS_NAMED} more" if len(inside) > RUNS_NAMED else ""
        holds = f"holds {', '.join(map(str, inside[:RUNS_NAMED]))}{more}"
        return f"it is a pipeline's, and {holds}" if is_pipeline else f"it {holds}"
    if is_pipeline:
        return "it is a pipeline's, and nobody has trained on it yet (`trainer --mixture MANIFEST`)"
    return f"it has no {DESCRIPTION_NAME}"
