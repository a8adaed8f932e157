"""Verification of packs: every kind of damage is found, named and counted, and none of it hides another."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dataeng.errors import FormatError
from dataeng.formats import pack_verification
from dataeng.formats.atomic import sha256_file
from dataeng.formats.megatron_index import idx_bytes
from dataeng.formats.pack import Pack, write_manifest
from dataeng.formats.pack_verification import check_pack, verify_pack
from tests.formats.pack_files import ALL, EOS, document_table, list_column, parquet_bytes, write_pack

DOCUMENTS = [[[5, 6, EOS], [7, EOS]], [[EOS], [8, 9, 10, EOS]]]
MASKS = [[[0, 1, 1], [0, 1]], [[1], [0, 0, 1, 1]]]
ENDS = "00000: {} of {} documents do not end with EOS (0), the first of them is document {}"


@pytest.mark.parametrize("kind", ["bin", "idx"])
def test_missing_short_and_altered_files(tmp_path: Path, kind: str) -> None:
    def damaged(damage: Any) -> list[str]:
        write_pack(tmp_path, DOCUMENTS)
        path = tmp_path / f"00001.{kind}"
        damage(path)
        return verify_pack(tmp_path)

    assert damaged(Path.unlink) == [f"{tmp_path}/00001.{kind} is missing"]
    with pytest.raises(FormatError, match="The pack is incomplete"):
        Pack(tmp_path)
    (problem,) = damaged(lambda path: path.write_bytes(path.read_bytes()[:-2]))
    assert f"00001.{kind} has" in problem and "expected" in problem
    with pytest.raises(FormatError, match=rf"00001\.{kind} has \d+ bytes"):
        Pack(tmp_path)
    (problem,) = damaged(lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x7f"))
    assert problem == f"{tmp_path}/00001.{kind} was altered: its SHA-256 is not the manifest's"


@pytest.mark.parametrize(
    ("documents", "changes", "problem"),
    [
        ([[[5, 100, EOS]]], {}, "00000: token id 100 ≥ vocabulary 100"),
        ([[[5, -1, EOS]]], {"dtype": "int32"}, "00000: token id -1 < 0"),
        ([[[5, EOS], [6, 7]]], {}, ENDS.format(1, 2, 1)),
        ([[[5, EOS], []]], {}, ENDS.format(1, 2, 1)),  # nothing, after another's EOS
        ([[[], [5, EOS]]], {}, ENDS.format(1, 2, 0)),
        ([[[9], [5, 7], [EOS], [8]]], {}, ENDS.format(3, 4, 0)),
        (DOCUMENTS, {"num_tokens": 11}, "pack.json: num_tokens is 11, its shards have 10"),
        (DOCUMENTS, {"num_documents": 3}, "pack.json: num_documents is 3, its shards have 4"),
    ],
)
def test_content_that_contradicts_the_manifest(
    tmp_path: Path, documents: list[list[list[int]]], changes: dict[str, Any], problem: str
) -> None:
    write_pack(tmp_path, documents, **changes)
    assert verify_pack(tmp_path) == [f"{tmp_path}/{problem}"]


@pytest.mark.parametrize("kinds", [("bin", "idx"), ("parquet",), ("bin", "idx", "parquet"), ALL])
@pytest.mark.parametrize("dtype", ["uint16", "int32"])
def test_content_is_checked_in_every_format(tmp_path: Path, kinds: Sequence[str], dtype: str) -> None:
    shards = [[[5, 6, EOS], [7, EOS], [8, EOS]], [], [[101, EOS], [], [9], [8, 9, 102, EOS]]]
    write_pack(tmp_path, shards, dtype, kinds)
    assert verify_pack(tmp_path) == [
        f"{tmp_path}/00002: token id 102 ≥ vocabulary 100",
        f"{tmp_path}/00002: 2 of 4 documents do not end with EOS (0), the first of them is document 1",
    ]


@pytest.mark.parametrize("kinds", [("bin", "idx"), ("parquet",)])
def test_how_documents_begin_and_end_is_what_the_manifest_says(tmp_path: Path, kinds: Sequence[str]) -> None:
    documents = [[1, 5, EOS], [6, EOS], [1, 7], [8], []]
    write_pack(tmp_path, [documents], kinds=kinds, eos="none")
    assert verify_pack(tmp_path) == []
    write_pack(tmp_path, [documents], kinds=kinds, bos_id=1)
    assert verify_pack(tmp_path) == [
        f"{tmp_path}/00000: 3 of 5 documents do not begin with BOS (1), the first of them is document 1",
        f"{tmp_path}/00000: 3 of 5 documents do not end with EOS (0), the first of them is document 2",
    ]


def test_large_files_are_looked_at_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_verification, "CHUNK_BYTES", 8)
    monkeypatch.setattr(pack_verification, "CHUNK_DOCUMENTS", 2)
    documents = [[1, 2, 3, 4, EOS], [5, 6, EOS], [7], [EOS], [8, 9], [99, EOS]]
    write_pack(tmp_path, [documents], vocab_size=99)
    assert verify_pack(tmp_path) == [
        f"{tmp_path}/00000: token id 99 ≥ vocabulary 99",
        f"{tmp_path}/{ENDS.format(2, 6, 2)}",
    ]


def rewritten(folder: Path, kind: str, content: bytes, shard: int = 0) -> None:
    """Replaces a file and says in the manifest that it should be so: what only a faulty writer would do."""
    manifest = Pack(folder).manifest
    file = manifest.shards[shard].files[kind]
    (folder / file.name).write_bytes(content)
    new = file.model_copy(update={"size_bytes": len(content), "sha256": sha256_file(folder / file.name)})
    changed = manifest.shards[shard].model_copy(update={"files": {**manifest.shards[shard].files, kind: new}})
    shards = [changed if i == shard else old for i, old in enumerate(manifest.shards)]
    write_manifest(folder, manifest.model_copy(update={"shards": shards}))


def docs(documents: list[list[int]]) -> bytes:
    return parquet_bytes(document_table(0, documents), 1000)


def rows(documents: list[list[int]], masks: list[list[int]] | None, dtype: str = "uint16") -> bytes:
    table = document_table(0, documents).append_column("tokens", list_column(documents, dtype))
    return parquet_bytes(table if masks is None else table.append_column("mask", list_column(masks, "uint8")))


FIRST = DOCUMENTS[0]
LENGTHS = "{}: 1 documents have another number of tokens than in the index; document 1 has 3, there 2"
NULLS = parquet_bytes(
    document_table(0, FIRST).append_column("tokens", pa.array([[5, 6, 0], [7, None]], pa.large_list(pa.uint16())))
)


@pytest.mark.parametrize(
    ("kind", "content", "problem"),
    [
        ("mask", b"\0\1\1\0\2", "00000: .mask holds a 2; expected 0 and 1 alone"),
        ("mask", b"\0\1\1\0", "00000: .mask has 4 bytes for 5 tokens"),
        ("docs", docs(FIRST[:1]), "00000.docs.parquet has 1 rows for 2 documents"),
        ("docs", docs([[1, 2, 3], [4, 5, 6]]), LENGTHS.format("00000.docs.parquet")),
        ("docs", b"PAR1 and no more", "00000.docs.parquet is not a whole Parquet file"),
        ("docs", parquet_bytes(pa.table({"id": ["a", "b"]})), "00000.docs.parquet has no column 'num_tokens'"),
        ("parquet", rows(FIRST[:1], None), "00000.parquet has 1 rows for 2 documents"),
        ("parquet", rows([[5, 6, EOS], [7, 8, EOS]], None), LENGTHS.format("00000.parquet")),
        ("parquet", rows([[5, 6, EOS], [8, EOS]], None), "00000.parquet: tokens 0 to 5 differ from those of .bin"),
        ("parquet", rows(FIRST, [[0, 1, 1], [1, 1]]), "00000.parquet: tokens 0 to 5 differ from those of .mask"),
        ("parquet", NULLS, "00000.parquet has rows or tokens that are null"),
        ("parquet", parquet_bytes(document_table(0, FIRST)), "00000.parquet has no column 'tokens'"),
        (
            "idx",
            idx_bytes(np.array([3, 3], np.int32), "uint16"),
            "00000: .idx describes 12 bytes of .bin, which has 10",
        ),
        (
            "idx",
            idx_bytes(np.array([3, 2], np.int32), "int32"),
            "00000.idx: version 1, dtype code 4; expected version 1",
        ),
        ("idx", struct.pack("<Q", 7) * 9, "00000.idx is not a Megatron index"),
        ("bin", np.array([5, 6, EOS, 7], "<u2").tobytes(), "00000: .idx describes 10 bytes of .bin, which has 8"),
    ],
)
def test_files_that_contradict_each_other(tmp_path: Path, kind: str, content: bytes, problem: str) -> None:
    write_pack(tmp_path, DOCUMENTS, kinds=(*ALL, "mask"), masks=MASKS)
    assert verify_pack(tmp_path) == []
    rewritten(tmp_path, kind, content)
    problems = verify_pack(tmp_path)
    assert any(found.startswith(f"{tmp_path}/{problem}") for found in problems), problems
    assert all("/00000" in found for found in problems)


def test_all_problems_of_all_shards_are_listed(tmp_path: Path) -> None:
    write_pack(tmp_path, [*DOCUMENTS, [[100, EOS]], [[4]]], kinds=(*ALL, "mask"), masks=[*MASKS, [[1, 3]], [[1]]])
    (tmp_path / "00000.idx").unlink()
    (tmp_path / "00000.docs.parquet").write_bytes(b"")
    (tmp_path / "00001.bin").write_bytes(bytes(10))
    problems = verify_pack(tmp_path)
    assert [problem.replace(f"{tmp_path}/", "").split(" (")[0] for problem in problems] == [
        "00000.idx is missing",
        f"00000.docs.parquet has 0 bytes, expected {len(docs(FIRST))}",
        "00001.bin was altered: its SHA-256 is not the manifest's",
        "00002: token id 100 ≥ vocabulary 100",
        "00002: .mask holds a 3; expected 0 and 1 alone",
        "00002.parquet: a mask holds a 3; expected 0 and 1 alone",
        "00003: 1 of 1 documents do not end with EOS",
    ]


def test_a_manifest_that_cannot_be_read_is_a_problem_like_others(tmp_path: Path) -> None:
    (problem,) = verify_pack(tmp_path)
    assert problem.startswith(f"no pack at {tmp_path}")


def test_a_file_with_two_names_in_the_manifest(tmp_path: Path) -> None:
    manifest = write_pack(tmp_path, DOCUMENTS)
    shards = [manifest.shards[0], manifest.shards[0]]
    totals = {"num_documents": 4, "num_tokens": 10}
    write_manifest(tmp_path, manifest.model_copy(update={"shards": shards, **totals}))
    assert verify_pack(tmp_path) == [
        f"{tmp_path}/pack.json: 00000.bin is named 2 times",
        f"{tmp_path}/pack.json: 00000.idx is named 2 times",
    ]


def test_the_tokenizer_is_the_pack_s(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "other.json").write_text("[]")
    digest = sha256_file(tmp_path / "tokenizer.json")
    write_pack(tmp_path / "pack", DOCUMENTS, tokenizer_sha256=digest)
    check = check_pack(tmp_path / "pack")
    assert check.problems == [] and check.unchecked == []
    assert (check.num_files, check.num_bytes) == (4, 20 + 2 * (34 + 2 * 12 + 3 * 8))
    wrong = f"{tmp_path}/other.json is not the tokenizer of {tmp_path}/pack: its SHA-256 is "
    (problem,) = check_pack(tmp_path / "pack", tmp_path / "other.json").problems
    assert problem.startswith(wrong) and problem.endswith(f"the pack's {digest[:12]}…")
    assert check_pack(tmp_path / "pack", tmp_path / "none.json").problems == [
        f"the tokenizer is not at {tmp_path}/none.json"
    ]
    (tmp_path / "tokenizer.json").unlink()  # a pack that was moved is whole without it
    check = check_pack(tmp_path / "pack")
    assert check.problems == [] and check.unchecked == [f"the tokenizer is not at {tmp_path}/pack/../tokenizer.json"]
