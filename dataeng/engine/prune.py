"""Removes from a finished run folder what no record names: leftovers of killed attempts and of old configurations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dataeng.engine.records import TaskRecord, manifest_path, record_path
from dataeng.formats.atomic import fs

OWNED = ("documents", "rejects", "signals", "exchange", "dedup", "phases")
"""Folders that belong to the engine alone. Packs, stats and training output are left to their writers."""


def prune(run_dir: Path, records: Mapping[str, list[TaskRecord]]) -> int:
    """Deletes unnamed files below the engine's own folders; returns how many."""
    named = {run_dir / file.name for group in records.values() for record in group for file in record.files}
    for phase, group in records.items():
        named.add(manifest_path(run_dir, phase))
        named.update(record_path(run_dir, phase, record.index) for record in group)
    removed = 0
    for top in OWNED:
        for path in sorted((run_dir / top).rglob("*"), reverse=True):
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path not in named:
                fs.remove(path)
                removed += 1
    return removed
