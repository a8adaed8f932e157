"""From the patterns in a pipeline file to a sorted list of input files."""

from __future__ import annotations

import fnmatch
import glob
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from dataeng.errors import InputError
from dataeng.stage import SAMPLE_PREFIX, InputFile, sample_folder

_EXAMPLES = "A pattern names files, such as 'crawl/*.warc.gz' or 'data/**/*.jsonl'"


def find_input_files(patterns: Iterable[str], base: Path) -> list[InputFile]:
    """Lists the files that match, sorted by name, each once.

    What cannot be read is an error and never left out: a corpus with a hole looks just like a smaller corpus.

    Args:
      patterns: globs (``**`` goes through folders, but not through links to folders), absolute or relative to
        ``base``, or ``sample:`` and a pattern within the package's sample data.
      base: the folder of the pipeline file.

    Raises:
      InputError: a pattern names no file or matches none, a folder below it cannot be read, a link that matches leads
        nowhere, or two different files would have the same name.
    """
    found: dict[str, InputFile] = {}
    for pattern in patterns:
        root, parts = _split_pattern(pattern, base)
        status = _status(str(root))
        exists = status is not None and stat.S_ISDIR(status.st_mode)
        matches = list(_matches(str(root), parts)) if exists else []
        if not matches:
            missing = "" if exists else ", which does not exist"
            raise InputError(
                f"no file matches '{pattern}' (looked for '{Path(*parts)}' in {root}{missing}). {_EXAMPLES}."
            )
        for path, status in matches:
            name = Path(path).relative_to(root).as_posix()
            file = InputFile(path, name, status.st_size, status.st_mtime_ns)
            if found.setdefault(name, file).path != file.path:
                raise InputError(
                    f"'{found[name].path}' and '{file.path}' would both be called '{name}', and document ids are made "
                    "from that name. Use one pattern with a wildcard that covers both folders."
                )
    return [found[name] for name in sorted(found)]


def _split_pattern(pattern: str, base: Path) -> tuple[Path, tuple[str, ...]]:
    """Returns the folder before the first wildcard, resolved, and the parts of the rest of the pattern."""
    if pattern.startswith(SAMPLE_PREFIX):
        folder, path = sample_folder(), Path(pattern.removeprefix(SAMPLE_PREFIX))
    else:
        folder, path = base, Path(pattern)
    if path.parts in ((), (path.anchor,)) or "\0" in pattern:
        raise InputError(f"the pattern '{pattern}' names no file. {_EXAMPLES}.")
    if any("**" in part and part != "**" for part in path.parts):
        raise InputError(f"in the pattern '{pattern}', '**' must stand alone between slashes. {_EXAMPLES}.")
    try:
        parts = path.expanduser().parts
        fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
        return folder.joinpath(*parts[:fixed]).resolve(), parts[fixed:]
    except (OSError, RuntimeError) as error:  # a loop of links, an unknown user's home
        raise InputError(f"the pattern '{pattern}' cannot be followed: {error}. {_EXAMPLES}.") from error


def _matches(root: str, parts: tuple[str, ...]) -> Iterator[tuple[str, os.stat_result]]:
    """Yields the files below ``root`` that match, in no order; some twice, if ``**`` occurs twice.

    `Path.glob` does the same, but passes over folders that it may not read and links that lead nowhere.
    """
    pending = [(root, 0)]
    while pending:
        folder, i = pending.pop()
        part, is_last = parts[i], i == len(parts) - 1
        if part == "**":
            if not is_last:
                pending.append((folder, i + 1))
            pending += [(entry.path, i) for entry in _entries(folder) if entry.is_dir(follow_symlinks=False)]
            continue
        if glob.has_magic(part):
            paths = [entry.path for entry in _entries(folder) if fnmatch.fnmatch(entry.name, part)]
        else:
            paths = [str(Path(folder, part))]
        for path in paths:
            status = _status(path)
            if status is None:
                continue
            if is_last and stat.S_ISREG(status.st_mode):
                yield path, status
            elif not is_last and stat.S_ISDIR(status.st_mode):
                pending.append((path, i + 1))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise InputError(
            f"the folder '{folder}' cannot be read ({error.strerror}), so the files in it would be missing. "
            "Make it readable, or use a pattern that does not go there."
        ) from error


def _status(path: str) -> os.stat_result | None:
    """Follows links; None where there is nothing."""
    try:
        return Path(path).stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        if not Path(path).is_symlink():
            return None
        raise InputError(
            f"the link '{path}' leads to '{Path(path).readlink()}', which does not exist. "
            "Restore that, remove the link, or use a pattern that does not match it."
        ) from error
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}.") from error
