"""What a finished task leaves behind: its record, and the manifest of a finished phase.

    runs/NAME/phases/PHASE/task-00000.json   one per task: its fingerprint, its files with SHA-256, its counts
    runs/NAME/phases/PHASE/phase.json        written last: the phase is complete; names every record by SHA-256

A file that no record names with the right size and hash does not exist. Nothing is found by listing folders.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dataeng.engine.ledger import StageCount
from dataeng.formats.atomic import fs, read_json, sha256_file, write_json


@dataclass(frozen=True)
class OutputFile:
    """One committed file."""

    name: str
    """Relative to the run folder."""
    kind: str
    """documents, rejects, signals, exchange, artifact or sink."""
    size_bytes: int
    sha256: str
    modified_ns: int
    num_rows: int = 0
    row_groups: dict[str, list[int]] = field(default_factory=dict)
    """For exchange tables: partition → row groups."""


@dataclass(frozen=True)
class TaskRecord:
    """Everything that is known about one finished task."""

    phase: str
    index: int
    fingerprint: str
    token: str
    """Unique to the attempt that wrote this; tells one's own success from somebody else's."""
    input: str
    files: list[OutputFile]
    counts: dict[str, StageCount]
    shards: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Sink name → descriptions of the shards that it wrote."""
    seconds: float = 0.0
    changed: int = 0
    """For a step that is repeated: rows that say it has to run again."""

    def file(self, kind: str) -> OutputFile | None:
        """Returns the file of a kind that a task has at most one of."""
        return next((file for file in self.files if file.kind == kind), None)


def phase_folder(run_dir: Path, phase: str) -> Path:
    return run_dir / "phases" / phase


def record_path(run_dir: Path, phase: str, index: int) -> Path:
    return phase_folder(run_dir, phase) / f"task-{index:05d}.json"


def manifest_path(run_dir: Path, phase: str) -> Path:
    return phase_folder(run_dir, phase) / "phase.json"


def write_record(run_dir: Path, record: TaskRecord) -> str:
    """Commits a task: from here on it is done."""
    value = asdict(record)
    value["counts"] = {name: count.to_json() for name, count in record.counts.items()}
    return write_json(record_path(run_dir, record.phase, record.index), value)


def read_record(run_dir: Path, phase: str, index: int) -> TaskRecord | None:
    """Reads a record; None if there is none, or if it cannot be understood."""
    try:
        value = read_json(record_path(run_dir, phase, index))
        value["files"] = [OutputFile(**file) for file in value["files"]]
        value["counts"] = {name: StageCount.from_json(count) for name, count in value["counts"].items()}
        return TaskRecord(**value)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def damaged_file(run_dir: Path, record: TaskRecord, thorough: bool = False) -> str | None:
    """Returns what is wrong with a record's files, or None.

    A file whose size and modification time are the recorded ones is trusted unless ``thorough``; one that was only
    touched is hashed again, so that copying a run folder does not make it stale.
    """
    for file in record.files:
        path = run_dir / file.name
        try:
            status = path.stat()
        except OSError:
            return f"shard missing: {file.name}"
        if status.st_size != file.size_bytes:
            return f"shard altered: {file.name} has {status.st_size} bytes, expected {file.size_bytes}"
        if (thorough or status.st_mtime_ns != file.modified_ns) and sha256_file(path) != file.sha256:
            return f"shard altered: {file.name} is not what was committed (SHA-256)"
    return None


def write_phase_manifest(
    run_dir: Path, phase: str, recipe: dict[str, Any], records: list[TaskRecord], finished: list[Path]
) -> None:
    """Declares a phase complete. ``finished`` are the files that its sinks wrote at the end."""
    value = {
        "format_version": 1,
        "phase": phase,
        "recipe": recipe,
        "finished": {_name_of(path, run_dir): sha256_file(path) for path in finished},
        "tasks": [
            {"fingerprint": r.fingerprint, "sha256": sha256_file(record_path(run_dir, phase, r.index))} for r in records
        ],
    }
    write_json(manifest_path(run_dir, phase), value)


def _name_of(path: Path, run_dir: Path) -> str:
    """Returns a path relative to the run folder; what is elsewhere (an index) by its whole path."""
    return str(path.relative_to(run_dir) if path.is_relative_to(run_dir) else path.resolve())


def read_phase_manifest(run_dir: Path, phase: str) -> dict[str, Any] | None:
    """Reads a phase's manifest; None if the phase is not complete."""
    try:
        value = read_json(manifest_path(run_dir, phase))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and {"recipe", "tasks", "finished"} <= value.keys() else None


def damaged_record(run_dir: Path, record: TaskRecord, manifest: dict[str, Any] | None) -> str | None:
    """Returns what is wrong with a record itself, held against the phase's manifest, or None.

    Without a manifest, or where it names another attempt, there is nothing to hold it against.
    """
    tasks = manifest["tasks"] if manifest else []
    if record.index >= len(tasks) or tasks[record.index]["fingerprint"] != record.fingerprint:
        return None
    path = record_path(run_dir, record.phase, record.index)
    altered = sha256_file(path) != tasks[record.index]["sha256"]
    return f"record altered: {path.relative_to(run_dir)}" if altered else None


def damaged_finish(run_dir: Path, manifest: dict[str, Any]) -> str | None:
    """Returns what is wrong with the files that a phase's sinks wrote at its end, or None."""
    for name, digest in manifest["finished"].items():
        try:
            if sha256_file(run_dir / name) != digest:
                return f"manifest altered: {name}"
        except OSError:
            return f"manifest missing: {name}"
    return None


def forget_phase(run_dir: Path, phase: str) -> None:
    """Takes back "complete" before any of a phase's files are replaced."""
    path = manifest_path(run_dir, phase)
    if path.exists():
        fs.remove(path)
        fs.sync_folder(path.parent)


def complete_records(run_dir: Path, phase: str) -> list[TaskRecord]:
    """Returns the records of a complete phase in order of task; empty if it is not complete."""
    manifest = read_phase_manifest(run_dir, phase)
    records = []
    for index, task in enumerate(manifest["tasks"] if manifest else []):
        record = read_record(run_dir, phase, index)
        if record is None or sha256_file(record_path(run_dir, phase, index)) != task["sha256"]:
            return []
        records.append(record)
    return records
