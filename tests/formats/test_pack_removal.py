"""Removal from packs: what is left is the pack written without these documents, and it is whole at every moment."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.errors import FormatError
from dataeng.formats import pack_removal
from dataeng.formats.pack import Pack, PackManifest, load_manifest, write_manifest
from dataeng.formats.pack_removal import apply_removal, base_name, plan_removal, remove_leftovers
from dataeng.formats.pack_verification import verify_pack
from dataeng.formats.removal_list import RemovalList, removal_list
from tests.faults.test_every_io_call import MODES, Faults, Killed
from tests.formats.pack_files import ALL, EOS, document_table, write_pack

WHEN = "2026-01-01T00:00:00+00:00"
Shards = list[list[list[int]]]
SHARDS: Shards = [[[5, EOS], [6, 7, EOS], [8, EOS]], [[9, EOS]], [[1, 2, EOS], [3, EOS]]]
MASKS = [[[1 if token > 5 else 0 for token in document] for document in documents] for documents in SHARDS]


def identifier(shard: int, document: int) -> str:
    return str(document_table(shard, [[1]] * (document + 1)).column("id")[document])


def by_id(*places: tuple[int, int]) -> RemovalList:
    return removal_list([identifier(*place) for place in places], [], "asked", WHEN)


def remove(folder: Path, removals: RemovalList) -> PackManifest:
    manifest = apply_removal(plan_removal(folder, removals), WHEN)
    remove_leftovers(folder)
    return manifest


def content(folder: Path) -> list[tuple[str, list[int], list[int] | None]]:
    """Returns every document: id, tokens, mask."""
    found = []
    for shard in Pack(folder).shards:
        kind = "docs" if "docs" in shard.shard.files else "parquet"
        ids = pl.read_parquet(folder / shard.shard.files[kind].name, columns=["id"]).get_column("id")
        for index, name in enumerate(ids):
            begin, end = shard.offsets[index], shard.offsets[index + 1]
            mask = None if shard.mask is None else shard.mask[begin:end].tolist()
            found.append((name, shard.document(index).tolist(), mask))
    return found


KINDS = [("bin", "idx", "docs"), ("parquet", "docs"), ("parquet",), ALL]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.lists(st.integers(1, 99), max_size=4), max_size=5), min_size=1, max_size=3),
    st.sampled_from(KINDS),
    st.sampled_from(["uint16", "int32"]),
    st.booleans(),
    st.sampled_from([1, 3, 1 << 20]),
    st.data(),
)
def test_what_is_left_is_the_pack_without_these_documents(
    tmp_path_factory: pytest.TempPathFactory,
    shards: Shards,
    kinds: tuple[str, ...],
    dtype: str,
    masked: bool,
    chunk: int,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("removed")
    shards = [[[*document, EOS] for document in documents] for documents in shards]
    masks = [[[token % 2 for token in document] for document in documents] for documents in shards] if masked else None
    if masked and "bin" in kinds:
        kinds = (*kinds, "mask")
    write_pack(folder, shards, dtype, kinds, masks)
    before = content(folder)
    places = [(s, d) for s, documents in enumerate(shards) for d in range(len(documents))]
    first, second = (data.draw(st.sets(st.sampled_from(places))) if places else set() for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack_removal, "CHUNK_TOKENS", chunk)
        patch.setattr(pack_removal, "BATCH_ROWS", 2)
        remove(folder, by_id(*first))
        manifest = remove(folder, by_id(*second))  # what is gone already is no error
    gone = {identifier(*place) for place in first | second}
    assert content(folder) == [document for document in before if document[0] not in gone]
    assert verify_pack(folder) == [] and load_manifest(folder) == manifest
    assert manifest.text_bytes == 10 * manifest.num_tokens
    assert manifest.revision == bool(first) + bool(second - first)
    named = {file.name for shard in manifest.shards for file in shard.files.values()} | {"pack.json"}
    named |= {manifest.removed.name} if manifest.removed else set()
    assert {path.name for path in folder.iterdir()} == named
    assert all(shard.num_documents for shard in manifest.shards if base_name(shard.name) != shard.name)
    assert all(file.name.startswith(f"{shard.name}.") for shard in manifest.shards for file in shard.files.values())
    if manifest.removed:
        assert set(pl.read_parquet(folder / manifest.removed.name).get_column("id")) == gone


def test_only_affected_shards_are_rewritten_and_names_never_come_back(tmp_path: Path) -> None:
    before = write_pack(tmp_path, SHARDS, kinds=ALL)
    inodes = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    first = remove(tmp_path, by_id((0, 1)))
    assert [shard.name for shard in first.shards] == ["00000.r1", "00001", "00002"]
    assert first.shards[1:] == before.shards[1:]
    assert all((tmp_path / f"00002.{kind}").stat().st_ino == inodes[f"00002.{kind}"] for kind in ("bin", "parquet"))
    second = remove(tmp_path, by_id((2, 0), (1, 0)))  # all of shard 1
    assert [shard.name for shard in second.shards] == ["00000.r1", "00002.r2"] and second.revision == 2
    third = remove(tmp_path, by_id((0, 0)))
    assert [shard.name for shard in third.shards] == ["00000.r3", "00002.r2"]
    # The manifest was written anew from the shards, so its count of revisions begins again: names must not.
    write_manifest(tmp_path, third.model_copy(update={"revision": 0, "removed": None}))
    assert [shard.name for shard in remove(tmp_path, by_id((0, 2))).shards] == ["00002.r2"]
    write_manifest(tmp_path, load_manifest(tmp_path).model_copy(update={"revision": 0}))
    last = remove(tmp_path, by_id((2, 1)))
    assert last.shards == [] and (last.num_documents, last.num_tokens, last.text_bytes) == (0, 0, 0)
    assert verify_pack(tmp_path) == []


def test_what_was_removed_is_on_record_without_its_text(tmp_path: Path) -> None:
    write_pack(tmp_path, SHARDS, kinds=("bin", "idx", "docs"))
    remove(tmp_path, by_id((0, 1)))
    manifest = remove(tmp_path, removal_list([], ["*.b.example"], "asked again", WHEN))
    assert manifest.removed is not None and manifest.removed.name == "removed.r2.parquet"
    rows = pl.read_parquet(tmp_path / manifest.removed.name).select(pl.exclude("id")).rows()
    assert rows == [
        ("https://b.example/0-1", "b.example", 3, "00000", 1, "id", "asked", WHEN, 1),
        ("https://b.example/1-0", "b.example", 2, "00001", 0, "domain b.example", "asked again", WHEN, 2),
        ("https://code.b.example/2-1", "code.b.example", 2, "00002", 1, "domain b.example", "asked again", WHEN, 2),
    ]
    (tmp_path / manifest.removed.name).write_bytes(b"")
    assert verify_pack(tmp_path) == [
        f"{tmp_path}/removed.r2.parquet has 0 bytes, expected {manifest.removed.size_bytes}"
    ]


def test_nothing_to_remove_changes_nothing(tmp_path: Path) -> None:
    before = write_pack(tmp_path, SHARDS, kinds=ALL)
    digest = (tmp_path / "pack.json").read_bytes()
    assert remove(tmp_path, removal_list(["nobody"], ["c.example"], "", WHEN)) == before
    assert (tmp_path / "pack.json").read_bytes() == digest


@pytest.mark.parametrize("kind", ["bin", "idx", "mask", "parquet", "docs"])
def test_nothing_is_made_of_damaged_files(tmp_path: Path, kind: str) -> None:
    manifest = write_pack(tmp_path, SHARDS, kinds=(*ALL, "mask"), masks=MASKS)
    path = tmp_path / manifest.shards[0].files[kind].name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    names = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(FormatError, match=rf"{path.name} is not what pack\.json says"):
        plan_removal(tmp_path, by_id((0, 0)))
    assert {path.name for path in tmp_path.iterdir()} == names and load_manifest(tmp_path) == manifest
    if kind != "docs":  # which says what goes; of the others, those that are not rewritten do not matter
        assert [shard.shard.name for shard in plan_removal(tmp_path, by_id((2, 0))).shards] == ["00002"]


def test_packs_that_do_not_name_their_documents(tmp_path: Path) -> None:
    write_pack(tmp_path, SHARDS, kinds=("bin", "idx"))
    with pytest.raises(FormatError, match=r"00000 has no docs\.parquet \(bin, idx\): nobody knows which documents"):
        plan_removal(tmp_path, by_id((0, 0)))


def test_only_names_of_shards_are_leftovers(tmp_path: Path) -> None:
    write_pack(tmp_path, SHARDS, kinds=("bin", "idx", "docs"))
    ours = [
        "00000.r1.bin",
        "00007.idx",
        "00001.r12.docs.parquet",
        "removed.r1.parquet",
        ".00000.r1.bin.0123456789ab.tmp",
    ]
    ours += [".pack.json.0123456789ab.tmp", ".removed.r1.parquet.0123456789ab.tmp"]
    others = ["notes.txt", "00000.bin.bak", "lease.json", ".lease.lock", "tokens.parquet", "removed.parquet"]
    for name in [*ours, *others]:
        (tmp_path / name).write_bytes(b"x")
    before = {path.name for path in tmp_path.iterdir()}
    assert remove_leftovers(tmp_path) == sorted(ours)
    assert {path.name for path in tmp_path.iterdir()} == before - set(ours)
    assert remove_leftovers(tmp_path) == [] and verify_pack(tmp_path) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kinds", [(*ALL, "mask"), ("parquet",)])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Arrow's writers, closed after a "kill"
def test_a_pack_is_whole_whatever_call_fails_and_running_again_finishes(
    tmp_path: Path, mode: str, kinds: Sequence[str]
) -> None:
    removals = by_id((0, 0), (1, 0), (2, 1))
    reference = tmp_path / "reference"
    write_pack(reference, SHARDS, kinds=kinds, masks=MASKS)
    before = content(reference)
    with pytest.MonkeyPatch.context() as patch:
        faults = Faults(patch, mode)
        expected = remove(reference, removals)
    after = content(reference)
    assert faults.calls > 15 or mode == "torn write"
    old_or_new = set()
    step = max(1, faults.calls // 5)
    for n in [*range(1, faults.calls, step), faults.calls]:
        folder = tmp_path / f"{n}"
        write_pack(folder, SHARDS, kinds=kinds, masks=MASKS)
        with pytest.MonkeyPatch.context() as patch:
            faults_now = Faults(patch, mode, n)
            with suppress(OSError, Killed):
                remove(folder, removals)
            assert faults_now.met
        found = content(folder)
        assert found in (before, after) and verify_pack(folder) == [], f"{mode} {n}"
        old_or_new.add(found == after)
        assert remove(folder, removals) == expected
        assert {path.name for path in folder.iterdir()} == {path.name for path in reference.iterdir()}
        assert content(folder) == after
    assert True in old_or_new or mode in ("torn write", "disk full")


def test_an_open_reader_keeps_what_it_has(tmp_path: Path) -> None:
    write_pack(tmp_path, SHARDS, kinds=("bin", "idx", "docs"))
    reader = Pack(tmp_path).shards[0]
    remove(tmp_path, by_id((0, 0)))
    assert np.asarray(reader.tokens[:]).tolist() == [5, EOS, 6, 7, EOS, 8, EOS]
