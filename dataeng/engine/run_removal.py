"""Takes documents out of the packs of a run, for good: nothing that the run does later brings them back.

    removals.pending ─► removals.parquet ─► packs: new shards, pack.json ─► records, phase manifest ─► old files

Tasks that are done again later drop what is on the list right before the sink
(`dataeng.engine.rows`); they are rejects of the station `STATION`, without their text. It does not count for
fingerprints: a task whose shards were rewritten here is still done, so its record is brought up to date. While
``removals.pending`` is there, somebody was interrupted in between; the next removal or run finishes the work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from dataeng.document import DETAIL, REASON, TEXT, with_reason_columns
from dataeng.engine.records import (
    OutputFile,
    TaskRecord,
    forget_phase,
    read_phase_manifest,
    read_record,
    write_phase_manifest,
    write_record,
)
from dataeng.errors import ConfigError, FormatError
from dataeng.formats.atomic import fs, read_json, write_json
from dataeng.formats.pack import MANIFEST_NAME, Shard, folder_of, load_manifest
from dataeng.formats.pack_removal import PackRemoval, apply_removal, base_name, plan_removal, remove_leftovers
from dataeng.formats.parquet_tokens import open_parquet
from dataeng.formats.removal_list import LIST_NAME, RemovalList, load_removals

PENDING = "removals.pending"
STATION = "dataeng remove"
"""What the books call it; no step of a pipeline can have a space in its name."""
REMOVED = "removed"


def run_packs(run_dir: Path) -> list[Path]:
    """Returns the pack folders of a run."""
    return sorted(path.parent for path in run_dir.glob(f"packs/*/{MANIFEST_NAME}"))


def run_of_pack(folder: Path) -> Path | None:
    """Returns the run folder that a pack is part of, or None."""
    folder = folder if folder.parent.name == "packs" else folder.resolve()
    run_dir = folder.parent.parent
    return run_dir if folder.parent.name == "packs" and (run_dir / "run.json").exists() else None


def check_complete(run_dir: Path) -> None:
    """Raises `ConfigError` where a run is not complete: what it has yet to write cannot be taken out."""
    try:
        status = str(read_json(run_dir / "run.json")["status"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{run_dir} holds no run that can be read ({error}).") from error
    if status != "complete":
        raise ConfigError(f"the run {run_dir} is {status}, not complete: finish it first (dataeng run), then remove.")


def remove_from_run(run_dir: Path, removals: RemovalList, plans: list[PackRemoval], when: str) -> None:
    """Takes documents out of a run's packs; the caller holds the run's lease.

    Args:
      removals: the run's whole list from now on.
      plans: what that means for each of the run's packs.
    """
    write_json(run_dir / PENDING, {"since": when})
    removals.save(run_dir / LIST_NAME)
    for plan in plans:
        apply_removal(plan, when)
    _settle(run_dir)


def finish_removal(run_dir: Path) -> bool:
    """Finishes a removal that was interrupted; returns whether there was one. The caller holds the run's lease.

    Where a pack was damaged since, so that nothing can be taken out of it, its tasks are done again instead.
    """
    if not (run_dir / PENDING).exists():
        return False
    removals = load_removals(run_dir)
    when = str(read_json(run_dir / PENDING)["since"])
    try:
        if removals is not None:
            for folder in run_packs(run_dir):
                apply_removal(plan_removal(folder, removals), when)
        _settle(run_dir)
    except FormatError:
        for phase in _packing_phases(run_dir):
            forget_phase(run_dir, phase)
            for path in sorted((run_dir / "phases" / phase).glob("task-*.json")):
                fs.remove(path)
        fs.remove(run_dir / PENDING)
    return True


def _settle(run_dir: Path) -> None:
    """Brings the run's records in line with its packs, and removes what is no longer named."""
    for phase in _packing_phases(run_dir):
        _update_phase(run_dir, phase)
    for folder in run_packs(run_dir):
        remove_leftovers(folder)
    fs.remove(run_dir / PENDING)
    fs.sync_folder(run_dir)


def _packing_phases(run_dir: Path) -> list[str]:
    """Returns the phases that wrote packs."""
    phases = read_json(run_dir / "run.json")["phases"]
    return [phase["name"] for phase in phases if any(_shards_of(r) for r in _records(run_dir, phase["name"]))]


def _records(run_dir: Path, phase: str) -> list[TaskRecord]:
    """Returns a phase's records as they are; some may be newer than its manifest."""
    manifest = read_phase_manifest(run_dir, phase)
    found = [read_record(run_dir, phase, index) for index in range(len(manifest["tasks"]) if manifest else 0)]
    return [record for record in found if record is not None]


def _shards_of(record: TaskRecord) -> list[dict[str, Any]]:
    return [shard for shards in record.shards.values() for shard in shards if "shard" in shard and "domain" in shard]


def _update_phase(run_dir: Path, phase: str) -> None:
    """Writes records anew that name shards which were rewritten, and then the phase's manifest."""
    present = {
        (folder.name, base_name(shard.name)): shard
        for folder in run_packs(run_dir)
        for shard in load_manifest(folder).shards
    }
    records = [_updated(run_dir, record, present) for record in _records(run_dir, phase)]
    for record in records:
        if record != read_record(run_dir, phase, record.index):
            write_record(run_dir, record)
    manifest = read_phase_manifest(run_dir, phase)
    assert manifest is not None
    write_phase_manifest(
        run_dir, phase, manifest["recipe"], records, [run_dir / name for name in manifest["finished"]]
    )  # fmt: skip


def _updated(run_dir: Path, record: TaskRecord, present: Mapping[tuple[str, str], Shard]) -> TaskRecord:
    """Returns a record that names the shards that are present now."""
    gone: set[str] = set()
    new: list[OutputFile] = []
    shards: dict[str, list[dict[str, Any]]] = {}
    for sink, described in record.shards.items():
        shards[sink] = []
        for entry in described:
            if entry not in _shards_of(record):
                shards[sink].append(entry)
                continue
            folder = f"packs/{folder_of(entry)}"
            old = Shard.model_validate(entry["shard"])
            shard = present.get((folder_of(entry), base_name(old.name)))
            if shard is None or shard.name != old.name:
                gone |= {f"{folder}/{file.name}" for file in old.files.values()}
            if shard is None:
                continue
            if shard.name != old.name:
                new += [_output(run_dir, f"{folder}/{file.name}", file.sha256) for file in shard.files.values()]
                entry = {**entry, "shard": shard.model_dump(mode="json")}
                entry["text_bytes"] = _text_bytes(run_dir / folder, shard)
            shards[sink].append(entry)
    return replace(record, shards=shards, files=[file for file in record.files if file.name not in gone] + new)


def _output(run_dir: Path, name: str, sha256: str) -> OutputFile:
    status = (run_dir / name).stat()
    return OutputFile(name, "sink", status.st_size, sha256, status.st_mtime_ns)


def _text_bytes(folder: Path, shard: Shard) -> int:
    file = shard.files["docs" if "docs" in shard.files else "parquet"]
    sizes = open_parquet(folder / file.name).read(columns=["text_bytes"]).column(0)
    return int(sizes.to_numpy().sum())


def drop_removed(batch: pl.DataFrame, removals: RemovalList) -> pl.DataFrame:
    """Gives the documents on a list a reason, and takes away their text: a removal is not to be undone by a reject."""
    matched = removals.matches(batch.get_column("id"), batch.get_column("host") if "host" in batch.columns else None)
    hit = matched.get_column("because").is_not_null()
    if not hit.any():
        return with_reason_columns(batch)
    detail = matched.select(pl.format("{}: {}", "because", "reason")).to_series().rename(DETAIL)
    batch = with_reason_columns(batch).with_columns(
        pl.when(hit).then(pl.lit(REMOVED)).otherwise(pl.col(REASON)).alias(REASON),
        pl.when(hit).then(detail).otherwise(pl.col(DETAIL)).alias(DETAIL),
    )
    if TEXT in batch.columns:
        batch = batch.with_columns(pl.when(~hit).then(pl.col(TEXT)).alias(TEXT))
    return batch
