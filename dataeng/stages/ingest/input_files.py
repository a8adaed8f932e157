"""From the patterns in a pipeline file to a sorted list of input files."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

import dataeng
from dataeng.errors import InputError
from dataeng.stage import InputFile

SAMPLE_PREFIX = "sample:"
"""Patterns that start so are relative to the data that come with the package."""


def find_input_files(patterns: Iterable[str], base: Path) -> list[InputFile]:
    """Lists the files that match, sorted by name, each once.

    Args:
      patterns: globs (``**`` goes through folders), absolute or relative to ``base``, or ``sample:`` and a pattern
        within the package's sample data.
      base: the folder of the pipeline file.

    Raises:
      InputError: a pattern matches no file, or two different files would have the same name.
    """
    found: dict[str, InputFile] = {}
    for pattern in patterns:
        root, rest = _split_pattern(pattern, base)
        matches = [path for path in root.glob(rest) if path.is_file()] if root.is_dir() else []
        if not matches:
            missing = "" if root.is_dir() else ", which does not exist"
            raise InputError(f"no file matches '{pattern}' (looked for '{rest}' in {root}{missing}).")
        for path in matches:
            name, status = path.relative_to(root).as_posix(), path.stat()
            file = InputFile(str(path), name, status.st_size, status.st_mtime_ns)
            if found.setdefault(name, file).path != file.path:
                raise InputError(
                    f"'{found[name].path}' and '{file.path}' would both be called '{name}', and document ids are made "
                    "from that name. Use one pattern with a wildcard that covers both folders."
                )
    return [found[name] for name in sorted(found)]


def _split_pattern(pattern: str, base: Path) -> tuple[Path, str]:
    """Returns the folder before the first wildcard, resolved, and the rest of the pattern."""
    if pattern.startswith(SAMPLE_PREFIX):
        folder, pattern = Path(dataeng.__file__).parent / "sample", pattern.removeprefix(SAMPLE_PREFIX)
    else:
        folder = base
    parts = Path(pattern).expanduser().parts
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return folder.joinpath(*parts[:fixed]).resolve(), str(Path(*parts[fixed:]))
