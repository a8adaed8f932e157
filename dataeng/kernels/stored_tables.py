"""Tables that take long to build, kept on disk beside the compiled kernels.

The folder's name changes with the kernels' sources and with Python (`compiling.cache_folder`); the file's name carries
the version of the Unicode data. A file that cannot be read is built anew: it is a cache, nothing depends on it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import cache_folder

Arrays = dict[str, NDArray[Any]]


def stored_table(name: str, build: Callable[[], Mapping[str, NDArray[Any]]]) -> Arrays:
    """Returns the arrays that ``build`` makes, read-only, from the cache folder if they are there."""
    path = cache_folder() / f"{name}-unicode-{unicodedata.unidata_version}.npz"
    arrays = _load(path)
    if arrays is None:
        arrays = dict(build())
        _save(path, arrays)
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def _load(path: Path) -> Arrays | None:
    try:
        with np.load(path, allow_pickle=False) as stored:  # checks the CRC of every array
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None


def _save(path: Path, arrays: Arrays) -> None:
    """Writes under a name of its own, then renames: other processes see all of the file or nothing."""
    with contextlib.suppress(OSError):  # a full or read-only disk costs the next process the time to build, no more
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
