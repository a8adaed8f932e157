"""Takes documents out of a finished pack: affected shards are written anew, the others stay as they are.

    new files under new names (00000.r1.bin …) ─► pack.json names them, revision + 1 ─► the old files are removed

So the pack is whole at every moment: before ``pack.json`` is replaced it is the old one, afterwards the new one. What
an interruption leaves beside it is removed by `remove_leftovers`, which only knows names that shards have. A reader
that has the old files open keeps them until it closes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dataeng.errors import FormatError
from dataeng.formats.atomic import AtomicFile, commit_all, fs, sha256_file
from dataeng.formats.megatron_index import idx_bytes, read_idx
from dataeng.formats.pack import MANIFEST_NAME, PackManifest, Shard, ShardFile, load_manifest, write_manifest
from dataeng.formats.parquet_tokens import document_offsets, open_parquet
from dataeng.formats.removal_list import RemovalList

CHUNK_TOKENS = 4 << 20
BATCH_ROWS = 1 << 16
COMPRESSION = {"compression": "zstd", "compression_level": 1, "use_dictionary": False}
REVISED = re.compile(r"(?P<base>.+?)(?:\.r(?P<revision>[0-9]+))?")
REMOVED_COLUMNS: dict[str, type[pl.DataType]] = {
    "id": pl.String, "url": pl.String, "host": pl.String, "num_tokens": pl.Int64, "text_bytes": pl.Int64,
    "document": pl.Int64, "because": pl.String, "reason": pl.String,
}  # fmt: skip
LEFTOVER = re.compile(
    r"(?:[0-9]{5,}(?:\.r[0-9]+)?\.(?:bin|idx|mask|parquet|docs\.parquet)|removed\.r[0-9]+\.parquet"
    r"|\.(?:[0-9]{5,}|removed|pack)\..+\.[0-9a-f]{12}\.tmp)"
)


@dataclass(frozen=True)
class ShardRemoval:
    """What goes of one shard."""

    shard: Shard
    keep: npt.NDArray[np.bool_]
    """[documents]: whether each one stays."""
    removed: pl.DataFrame
    """A row for each that does not: id, url, host, num_tokens, text_bytes, document, because, reason."""

    @property
    def num_tokens(self) -> int:
        return int(self.removed.get_column("num_tokens").sum())


@dataclass(frozen=True)
class PackRemoval:
    """What goes of one pack: the shards that are affected."""

    folder: Path
    manifest: PackManifest
    shards: tuple[ShardRemoval, ...]

    @property
    def num_documents(self) -> int:
        return sum(shard.removed.height for shard in self.shards)

    @property
    def num_tokens(self) -> int:
        return sum(shard.num_tokens for shard in self.shards)

    @property
    def text_bytes(self) -> int:
        return sum(int(shard.removed.get_column("text_bytes").sum()) for shard in self.shards)


def base_name(shard: str) -> str:
    """Returns a shard's name as it was first written, without its revision: ``00000`` for ``00000.r2``."""
    match = REVISED.fullmatch(shard)
    assert match is not None
    return match["base"]


def plan_removal(folder: Path, removals: RemovalList) -> PackRemoval:
    """Finds the documents of a pack that are on the list, and hashes the files that will be rewritten for it.

    Raises:
      FormatError: documents cannot be named, because a shard has no rows about them; or such a file is damaged.
    """
    manifest = load_manifest(folder)
    planned = [_plan_shard(folder, shard, removals) for shard in manifest.shards]
    plan = PackRemoval(folder, manifest, tuple(shard for shard in planned if not shard.keep.all()))
    for removal in plan.shards:
        _check_whole(folder, [file for kind, file in removal.shard.files.items() if kind != _rows_kind(removal.shard)])
    if manifest.removed is not None:
        _check_whole(folder, [manifest.removed])
    return plan


def _plan_shard(folder: Path, shard: Shard, removals: RemovalList) -> ShardRemoval:
    keep = np.ones(shard.num_documents, np.bool_)
    removed = [pl.DataFrame(schema=REMOVED_COLUMNS)]
    first = 0
    for rows in _document_rows(folder, shard):
        if first + rows.height > shard.num_documents:
            raise FormatError(f"{folder / shard.name}: more rows than the {shard.num_documents} documents.")
        matched = removals.matches(rows.get_column("id"), rows.get_column("host"))
        gone = pl.concat([rows, matched], how="horizontal").with_row_index("document", first)
        gone = gone.filter(pl.col("because").is_not_null())
        keep[gone.get_column("document").to_numpy()] = False
        removed.append(gone.select(pl.col(name).cast(dtype) for name, dtype in REMOVED_COLUMNS.items()))
        first += rows.height
    if first != shard.num_documents:
        raise FormatError(f"{folder / shard.name}: {first} rows for {shard.num_documents} documents. Restore the pack.")
    return ShardRemoval(shard, keep, pl.concat(removed))


def _rows_kind(shard: Shard) -> str | None:
    """Returns the kind of file that has a row per document."""
    return next((kind for kind in ("docs", "parquet") if kind in shard.files), None)


def _document_rows(folder: Path, shard: Shard) -> Iterator[pl.DataFrame]:
    """Yields what is known of a shard's documents, a batch at a time: id, url, host, num_tokens, text_bytes."""
    kind = _rows_kind(shard)
    if kind is None:
        raise FormatError(
            f"{folder / shard.name} has no docs.parquet ({', '.join(sorted(shard.files))}): nobody knows which "
            "documents are in it. Write the pack again without those that must go."
        )
    path = folder / shard.files[kind].name
    _check_whole(folder, [shard.files[kind]])  # a row that was lost would be a document that stays
    file = open_parquet(path)
    if missing := {"id", "num_tokens", "text_bytes"} - set(file.schema_arrow.names):
        raise FormatError(f"{path} has no column '{min(missing)}'; documents cannot be taken out of it.")
    names = [name for name in ("id", "url", "host", "num_tokens", "text_bytes") if name in file.schema_arrow.names]
    absent = [pl.lit(None, pl.String).alias(name) for name in ("url", "host") if name not in names]
    try:
        for batch in file.iter_batches(BATCH_ROWS, columns=names):
            yield pl.DataFrame(batch).with_columns(absent)
    except (OSError, ValueError) as error:  # Arrow's are among these
        raise FormatError(f"cannot read {path}: {' '.join(str(error).split())[:200]}") from error


def apply_removal(plan: PackRemoval, when: str) -> PackManifest:
    """Rewrites the affected shards of a pack and returns its new manifest; `remove_leftovers` takes the old files away.

    A shard without documents is left out of the manifest. What was removed is added to ``removed.rN.parquet``.

    Args:
      plan: made by `plan_removal` while nobody else could change the pack.
      when: the time to note, ISO 8601.
    """
    if not plan.shards:
        return plan.manifest
    folder, manifest = plan.folder, plan.manifest
    revision = manifest.revision + 1
    removals = {removal.shard.name: removal for removal in plan.shards}
    files: list[AtomicFile] = []
    try:
        shards, record = _write_all(plan, removals, revision, when, files)
        commit_all(files)
    except BaseException:
        for file in files:
            with suppress(OSError):
                file.discard()
        raise
    new = manifest.model_copy(
        update={
            "shards": shards,
            "num_documents": manifest.num_documents - plan.num_documents,
            "num_tokens": manifest.num_tokens - plan.num_tokens,
            "text_bytes": max(0, manifest.text_bytes - plan.text_bytes),
            "revision": revision,
            "removed": record,
        }
    )
    write_manifest(folder, new)
    return new


def _check_whole(folder: Path, files: Sequence[ShardFile]) -> None:
    """Refuses to make anything of files that are damaged."""
    for file in files:
        path = folder / file.name
        if not path.exists() or path.stat().st_size != file.size_bytes or sha256_file(path) != file.sha256:
            raise FormatError(
                f"{path} is not what {MANIFEST_NAME} says (missing, or altered). Restore or rebuild the pack first; "
                "nothing was removed."
            )


def _write_all(
    plan: PackRemoval, removals: dict[str, ShardRemoval], revision: int, when: str, files: list[AtomicFile]
) -> tuple[list[Shard], ShardFile]:
    """Writes all new files under temporary names; appends them to ``files`` as it does."""

    def create(name: str) -> AtomicFile:
        files.append(AtomicFile(plan.folder / name))
        return files[-1]

    shards: list[Shard] = []
    for shard in plan.manifest.shards:
        removal = removals.get(shard.name)
        if removal is None:
            shards.append(shard)
        elif removal.keep.any():
            shards.append(_rewrite(plan, removal, revision, create))
    record = create(f"removed.r{revision}.parquet")
    _write_record(plan, revision, when, record)
    record.finish()
    return shards, ShardFile(name=record.target.name, size_bytes=record.size_bytes, sha256=record.sha256)


def _rewrite(plan: PackRemoval, removal: ShardRemoval, revision: int, create: Any) -> Shard:
    """Writes a shard again, without the documents that go."""
    old, keep, folder, dtype = removal.shard, removal.keep, plan.folder, plan.manifest.dtype
    match = REVISED.fullmatch(old.name)
    assert match is not None
    name = f"{match['base']}.r{max(revision, int(match['revision'] or 0) + 1)}"
    written: dict[str, ShardFile] = {}
    for kind, file in old.files.items():
        path = folder / file.name
        new = create(f"{name}.docs.parquet" if kind == "docs" else f"{name}.{kind}")
        if kind == "idx":
            new.write(idx_bytes(read_idx(path, dtype)[0][keep], dtype))
        elif kind in ("bin", "mask"):
            _copy_kept(path, np.dtype("uint8" if kind == "mask" else dtype), _lengths(folder, old, dtype), keep, new)
        elif kind in ("docs", "parquet"):
            _copy_rows(path, keep, new)
        else:
            raise FormatError(f"{path}: files of kind '{kind}' cannot be rewritten by this version.")
        new.finish()
        written[kind] = ShardFile(name=new.target.name, size_bytes=new.size_bytes, sha256=new.sha256)
    return Shard(
        name=name,
        num_documents=int(keep.sum()),
        num_tokens=old.num_tokens - removal.num_tokens,
        files=written,
    )


def _lengths(folder: Path, shard: Shard, dtype: str) -> npt.NDArray[np.int64]:
    if "idx" in shard.files:
        return read_idx(folder / shard.files["idx"].name, dtype)[0].astype(np.int64)
    return document_offsets(folder / shard.files["parquet"].name)[0].astype(np.int64)


def _copy_kept(
    path: Path, dtype: np.dtype[Any], lengths: npt.NDArray[np.int64], keep: npt.NDArray[np.bool_], out: AtomicFile
) -> None:
    """Copies the values of documents that stay, a few million at a time."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if path.stat().st_size != offsets[-1] * dtype.itemsize:
        raise FormatError(
            f"{path} has {path.stat().st_size} bytes; its index describes {offsets[-1] * dtype.itemsize}."
        )
    if not offsets[-1]:
        return
    values = np.memmap(path, dtype, mode="r")
    first = 0
    while first < len(lengths):
        last = int(np.searchsorted(offsets, offsets[first] + CHUNK_TOKENS, side="right")) - 1
        last = min(max(last, first + 1), len(lengths))
        chosen = np.repeat(keep[first:last], lengths[first:last])
        if chosen.any():
            out.write(values[offsets[first] : offsets[last]][chosen].data)
        first = last


def _copy_rows(path: Path, keep: npt.NDArray[np.bool_], out: AtomicFile) -> None:
    """Copies the rows of documents that stay, a row group at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = open_parquet(path)
    first = 0
    with pq.ParquetWriter(out, file.schema_arrow, **COMPRESSION) as writer:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            kept = table.filter(pa.array(keep[first : first + table.num_rows]))
            first += table.num_rows
            if kept.num_rows:
                writer.write_table(kept, row_group_size=kept.num_rows)


def _write_record(plan: PackRemoval, revision: int, when: str, out: AtomicFile) -> None:
    """Writes what was removed before and what is now: ids, addresses and numbers, no text."""
    import pyarrow.parquet as pq

    rows = [
        removal.removed.select(
            "id", "url", "host", "num_tokens", shard=pl.lit(removal.shard.name), document="document",
            because="because", reason="reason", removed=pl.lit(when), revision=pl.lit(revision, pl.Int64),
        )
        for removal in plan.shards
    ]  # fmt: skip
    before = plan.manifest.removed
    earlier = [pl.read_parquet(plan.folder / before.name, memory_map=False)] if before else []
    table = pl.concat([*earlier, *rows]).to_arrow()
    pq.write_table(table, out, **COMPRESSION)


def remove_leftovers(folder: Path) -> list[str]:
    """Removes files that look like parts of a pack and are not named by its manifest; returns their names."""
    manifest = load_manifest(folder)
    named = {file.name for shard in manifest.shards for file in shard.files.values()}
    named |= {manifest.removed.name} if manifest.removed else set()
    strangers = sorted(
        path.name for path in folder.iterdir() if path.name not in named and LEFTOVER.fullmatch(path.name)
    )  # fmt: skip
    for name in strangers:
        fs.remove(folder / name)
    if strangers:
        fs.sync_folder(folder)
    return strangers
