"""Removes from a finished run folder what no record names: leftovers of killed attempts and of old configurations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from dataeng.engine.records import TaskRecord, manifest_path, read_phase_manifest, record_path
from dataeng.formats.atomic import fs

OWNED = ("documents", "rejects", "signals", "exchange", "dedup", "phases")
"""Folders that belong to the engine alone. Elsewhere only temporary files are removed, where tasks or sinks write."""
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")


def prune(run_dir: Path, records: Mapping[str, list[TaskRecord]]) -> int:
    """Deletes unnamed files below the engine's own folders, and temporary ones elsewhere; returns how many."""
    manifests = [read_phase_manifest(run_dir, phase) for phase in records]
    finished = [run_dir / name for manifest in manifests if manifest for name in manifest["finished"]]
    named = {run_dir / file.name for group in records.values() for record in group for file in record.files}
    for phase, group in records.items():
        named.add(manifest_path(run_dir, phase))
        named.update(record_path(run_dir, phase, record.index) for record in group)
    named.add(run_dir / "dedup/clusters.parquet")  # written when a run ends, from what the records name
    removed = 0
    for top in OWNED:
        for path in sorted((run_dir / top).rglob("*"), reverse=True):
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path not in named:
                fs.remove(path)
                removed += 1
    for folder in {run_dir, run_dir / "stats", *(path.parent for path in (*named, *finished))}:
        for path in sorted(folder.glob(".*.tmp")):
            if TEMPORARY.fullmatch(path.name) and not path.name.startswith(".lease.json."):  # the heartbeat's
                fs.remove(path)
                removed += 1
    return removed
