from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dataeng import kernels
from dataeng.kernels.compiling import cache_folder, sources_fingerprint


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_second_process_does_not_compile(tmp_path: Path) -> None:
    code = (
        "from dataeng import kernels\n"
        "compiled = kernels.prepare(['simhash', 'hashing'], on_compile=lambda names: print('compiling', *names))\n"
        "from dataeng.kernels import hashing, simhash\n"
        "misses = [k.stats.cache_misses for k in (simhash.hash_blocks, hashing.hash_texts_kernel)]\n"
        "print(compiled, [sum(m.values()) for m in misses])"
    )
    first = run(code, NUMBA_CACHE_DIR=str(tmp_path))
    assert first == "compiling simhash hashing\n['simhash', 'hashing'] [1, 1]"
    assert run(code, NUMBA_CACHE_DIR=str(tmp_path)) == "[] [0, 0]"


def test_a_copy_of_the_package_in_another_place_does_not_compile(tmp_path: Path) -> None:
    """A checkout and what is installed from it, or the same version in two environments."""
    code = (
        "import dataeng; from dataeng import kernels; kernels.prepare(['hashing'])\n"
        "from dataeng.kernels.hashing import hash_texts_kernel as kernel\n"
        "print(dataeng.__file__, sum(kernel.stats.cache_misses.values()))"
    )
    package = Path(kernels.__file__).parents[1]
    shutil.copytree(package, tmp_path / "other/dataeng", ignore=shutil.ignore_patterns("sample", "__pycache__"))
    cache = str(tmp_path / "cache")
    assert (
        run(code, NUMBA_CACHE_DIR=cache, PYTHONPATH=str(package.parent), PYTHONSAFEPATH="1")
        == f"{package}/__init__.py 1"
    )
    copied = run(code, NUMBA_CACHE_DIR=cache, PYTHONPATH=str(tmp_path / "other"), PYTHONSAFEPATH="1")
    assert copied == f"{tmp_path}/other/dataeng/__init__.py 0"


def test_each_kernel_has_one_signature() -> None:
    """Polars and pyarrow columns, views and copies must not each be compiled for."""
    import polars as pl
    import pyarrow as pa

    from dataeng.kernels import hashing, minhash, signals
    from dataeng.kernels.text import text_buffers

    kernels = (signals.measure, hashing.hash_texts_kernel, minhash.sign_texts, minhash.hash_bands)
    counts = []
    for column in (pl.Series(["a b c"]), pa.array(["a b c"]), pa.array(["x", "a b c"]).slice(1), pl.Series(["", "a"])):
        buffers = text_buffers(column)
        signals.count_signals(buffers)
        hashing.hash_texts(buffers)
        minhash.band_keys(minhash.minhash(buffers, minhash.permutations(4)).minima, bands=2, rows=2)
        counts.append([len(kernel.signatures) for kernel in kernels])  # type: ignore[attr-defined]
    # Other tests may have compiled for 64-bit signatures before; no column after the first adds anything.
    assert counts == [counts[0]] * 4


def test_cache_folder_is_where_the_environment_says(tmp_path: Path) -> None:
    code = "from dataeng.kernels.compiling import cache_folder; print(cache_folder())"
    fingerprint = sources_fingerprint()
    assert run(code, NUMBA_CACHE_DIR=str(tmp_path / "a")) == str(tmp_path / "a" / fingerprint)
    xdg = {"NUMBA_CACHE_DIR": "", "XDG_CACHE_HOME": str(tmp_path / "b")}
    assert run(code, **xdg) == str(tmp_path / "b" / "dataeng" / "kernels" / fingerprint)


def test_without_a_writable_home_a_private_folder_is_used(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    code = "from dataeng.kernels.compiling import cache_folder; print(cache_folder())"
    found = Path(run(code, NUMBA_CACHE_DIR="", XDG_CACHE_HOME=str(blocked), TMPDIR=str(tmp_path)))
    assert found.is_relative_to(tmp_path)
    assert found.is_dir()
    assert found.parent.stat().st_mode & 0o077 == 0


def test_unknown_kernels_are_named() -> None:
    with pytest.raises(ValueError, match="unknown kernel 'signal'; known: signals, extended_signals, minhash"):
        kernels.prepare(["signal"])


def test_cache_folder_exists() -> None:
    assert cache_folder().is_dir()
