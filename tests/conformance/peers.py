"""The readers of other libraries, imported without what they do not need to read files of this machine.

Two stand-ins, neither of which touches a reader: packages whose ``__init__`` imports all of the library (images,
models) are entered past it, and in place of the client of remote object stores that OLMo-core imports a function
returns the paths of local files.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest

INSTALL = "pip install --no-deps -r tests/conformance/peers.txt"


def load(module: str, *past: str) -> Any:
    """Imports a module of a library from ``peers.txt``, past the ``__init__`` of the packages ``past``."""
    try:
        for package in past:
            _enter(package)
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        pytest.fail(f"{error}: the tests of exports read them with the libraries that they are for: {INSTALL}")


def _enter(package: str) -> None:
    if package in sys.modules:
        return
    found = importlib.util.find_spec(package)
    if found is None:
        raise ModuleNotFoundError(f"No module named '{package}'")
    entered = types.ModuleType(package)
    entered.__path__ = list(found.submodule_search_locations or ())
    sys.modules[package] = entered


def load_olmo_data() -> Any:
    """Imports ``olmo_core.data`` without its client of remote stores (``cached_path``)."""
    if "cached_path" not in sys.modules and importlib.util.find_spec("cached_path") is None:
        package, schemes = (types.ModuleType(name) for name in ("cached_path", "cached_path.schemes"))
        vars(package).update(cached_path=lambda path, **_: Path(path))
        client = type("SchemeClient", (), {"recoverable_errors": ()})
        vars(schemes).update(S3Client=client, SchemeClient=client, add_scheme_client=lambda _: None)
        sys.modules.update({package.__name__: package, schemes.__name__: schemes})
    return load("olmo_core.data")
