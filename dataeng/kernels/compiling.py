"""How kernels are compiled, and where the machine code is kept.

A kernel is compiled by Numba on its first call and kept on disk, so that a machine compiles once. Numba notices a
changed source file only where the kernel itself is written, not in the functions that it calls; therefore the cache
folder's name carries a hash of all kernel sources, and a changed line anywhere starts a fresh folder. Numba would also
keep apart what was compiled from copies of one source file in several places (a checkout and what is installed from
it, or two environments); here copies with the same sources share their machine code.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

#: Set by a user who wants the machine code elsewhere; Numba's own variable.
CACHE_VARIABLE = "NUMBA_CACHE_DIR"


@functools.cache
def cache_folder() -> Path:
    """Returns the folder for compiled kernels, made if need be.

    ``$NUMBA_CACHE_DIR`` if set, else ``$XDG_CACHE_HOME`` or ``~/.cache``, else (home not writable) a private folder
    below the system's temporary one. The last part of the name depends on the kernels' sources, on Python and on Numba.
    """
    fingerprint = sources_fingerprint()
    chosen = os.environ.get(CACHE_VARIABLE)
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for base in [Path(chosen)] if chosen else [caches / "dataeng" / "kernels", _private_temporary_folder()]:
        folder = base / fingerprint
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    # Nowhere to write: compile in every process rather than fail.
    return Path(tempfile.mkdtemp(prefix="dataeng-kernels-"))


def sources_fingerprint() -> str:
    """Returns 16 hex digits that change with any kernel source, Python, Numba or the processor type."""
    processor = importlib.import_module("llvmlite.binding").get_host_cpu_name()
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    libraries = [importlib.metadata.version(name) for name in ("numba", "llvmlite")]  # numba itself takes long to load
    versions = (sys.version, *libraries, platform.machine(), processor)
    digest.update(repr(versions).encode())
    return digest.hexdigest()


def _private_temporary_folder() -> Path:
    """A folder that only this user can write: compiled code from others must never be loaded."""
    folder = Path(tempfile.gettempdir()) / f"dataeng-kernels-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid == os.getuid() and not status.st_mode & 0o077 and not folder.is_symlink():
        return folder
    return Path(tempfile.mkdtemp(prefix="dataeng-kernels-"))


def kernel(function: Function) -> Function:
    """Marks a function that Python calls: compiled on first use, kept on disk, runs without the GIL."""
    numba: Any = importlib.import_module("numba")
    compiled = numba.njit(nogil=True, boundscheck=False)(function)
    compiled._cache = _cache_type()(function)  # what `cache=True` sets, with another place for the files
    kernel: Function = compiled
    return kernel


@functools.cache
def _cache_type() -> Any:
    """Returns Numba's cache of compiled functions, made to keep them in `cache_folder`, wherever their source is."""
    caching: Any = importlib.import_module("numba.core.caching")

    class Locator(caching._CacheLocator):  # type: ignore[misc]
        def __init__(self, function: Callable[..., Any]) -> None:
            self._line = function.__code__.co_firstlineno

        def get_cache_path(self) -> str:
            return str(cache_folder() / "numba")

        def get_source_stamp(self) -> str:
            return cache_folder().name  # the sources' hash

        def get_disambiguator(self) -> str:
            return str(self._line)

        @classmethod
        def from_function(cls, function: Callable[..., Any], _file: str) -> Locator:
            located = cls(function)
            located.ensure_cache_path()
            return located

    class Implementation(caching.CompileResultCacheImpl):  # type: ignore[misc]
        _locator_classes = (Locator,)

    class KernelCache(caching.FunctionCache):  # type: ignore[misc]
        _impl_class = Implementation

    return KernelCache


def inlined(function: Function) -> Function:
    """Marks a small function that only kernels call, copied into each of them by the optimizer."""
    return _part_of_kernels(function, forceinline=True)


def called(function: Function) -> Function:
    """Marks a function that only kernels call and that is too large to be copied."""
    return _part_of_kernels(function, forceinline=False)


def _part_of_kernels(function: Function, *, forceinline: bool) -> Function:
    """Compiles without Numba's reference counting: such a function may index its arrays, but not make any.

    Otherwise every call counts each array argument up and down with atomic instructions, and the signal kernel runs
    at a third of its speed.
    """
    numba: Any = importlib.import_module("numba")
    compiled: Function = numba.njit(nogil=True, boundscheck=False, forceinline=forceinline, _nrt=False)(function)
    return compiled
