"""Rows from packs: every token a label once, across shards; and packs that do not fit the manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import trainer.data
from dataeng.errors import ConfigError, FormatError
from dataeng.formats.mixture import Domain, MixtureManifest, Policy
from dataeng.formats.pack import idx_bytes
from trainer.data import MixtureRows

WritePack = Callable[..., Path]
TOKENIZER = "b" * 64


def manifest_of(domains: dict[str, tuple[list[str], int, int]], **caps: float) -> MixtureManifest:
    """A manifest with equal weights over ``name: (packs, documents, tokens)``."""
    return MixtureManifest(
        tokenizer_sha256=TOKENIZER,
        vocab_size=257,
        domains={
            name: Domain(
                packs=packs,
                num_documents=documents,
                num_tokens=tokens,
                weight=1 / len(domains),
                max_epochs=caps.get(name),
            )
            for name, (packs, documents, tokens) in domains.items()
        },
        policy=Policy(name="given"),
    )


def test_rows_cross_documents_shards_and_packs(write_pack: WritePack, tmp_path: Path) -> None:
    write_pack(tmp_path / "one", "web", [[[1, 2], [3]], [], [[4, 5, 6]]])
    write_pack(tmp_path / "two", "web", [[[7, 8]]])
    rows = MixtureRows(manifest_of({"web": (["one", "two"], 4, 8)}), tmp_path / "mix.json", 3)
    assert rows.num_rows == [2]  # 7 labels, 3 a row; the last one is left out
    assert rows.batch(np.array([0, 0]), np.array([1, 0])).tolist() == [[4, 5, 6, 7], [1, 2, 3, 4]]


@pytest.mark.parametrize("length", [1, 2, 3, 5, 9])
def test_every_token_but_the_first_is_a_label_once(write_pack: WritePack, tmp_path: Path, length: int) -> None:
    write_pack(tmp_path / "p", "web", [[[0, 1, 2, 3], [4]], [[5, 6, 7, 8, 9, 10]]])
    rows = MixtureRows(manifest_of({"web": (["p"], 3, 11)}), tmp_path / "mix.json", length)
    count = rows.num_rows[0]
    batch = rows.batch(np.zeros(count, np.int64), np.arange(count))
    labels = batch[:, 1:].flatten().tolist()
    assert labels == list(range(1, len(labels) + 1))
    assert 10 - len(labels) < length
    assert batch[:, :-1].flatten().tolist() == list(range(len(labels)))


def test_the_domain_of_a_row_decides_the_pack(write_pack: WritePack, tmp_path: Path) -> None:
    write_pack(tmp_path / "web", "web", [[[1, 1, 1, 1]]])
    write_pack(tmp_path / "code", "code", [[[2, 2, 2, 2, 2]]])
    manifest = manifest_of({"web": (["web"], 1, 4), "code": (["code"], 1, 5)})
    rows = MixtureRows(manifest, tmp_path / "mix.json", 2)
    assert rows.num_rows == [1, 2]
    assert rows.batch(np.array([1, 0, 1]), np.array([1, 0, 0])).tolist() == [[2, 2, 2], [1, 1, 1], [2, 2, 2]]


def test_planned_shares_keep_epoch_caps(write_pack: WritePack, tmp_path: Path) -> None:
    write_pack(tmp_path / "web", "web", [[[1] * 101]])
    write_pack(tmp_path / "code", "code", [[[2] * 21]])
    manifest = manifest_of({"web": (["web"], 1, 101), "code": (["code"], 1, 21)}, code=1.5, web=2)
    rows = MixtureRows(manifest, tmp_path / "mix.json", 10)
    assert rows.num_rows == [10, 2]
    assert rows.max_rows == [20, 3]
    assert rows.planned_shares([0.5, 0.5], 6) == [0.5, 0.5]
    assert rows.planned_shares([0.5, 0.5], 12) == [0.75, 0.25]
    with pytest.raises(ConfigError, match=r"24 rows are asked for.*after 23 \(web 20, code 3\)"):
        rows.planned_shares([0.5, 0.5], 24)


def test_a_row_longer_than_a_domain_is_refused(write_pack: WritePack, tmp_path: Path) -> None:
    write_pack(tmp_path / "web", "web", [[[1] * 100]])
    manifest = manifest_of({"web": (["web"], 1, 100)})
    assert MixtureRows(manifest, tmp_path / "mix.json", 99).num_rows == [1]
    with pytest.raises(FormatError, match=r"domain 'web' has 100 tokens.*100 \+ 1; use --sequence-length 99"):
        MixtureRows(manifest, tmp_path / "mix.json", 100)


def test_packs_that_are_not_the_manifests_are_refused(write_pack: WritePack, tmp_path: Path) -> None:
    write_pack(tmp_path / "web", "web", [[[1] * 10]])
    write_pack(tmp_path / "other", "web", [[[1] * 10]], tokenizer="c" * 64)
    path = tmp_path / "mix.json"

    def problem(packs: list[str], documents: int, tokens: int, name: str = "web") -> str:
        with pytest.raises(FormatError) as caught:
            MixtureRows(manifest_of({name: (packs, documents, tokens)}), path, 4)
        return str(caught.value)

    assert "no pack at" in problem(["gone"], 1, 10)
    assert f"tokenizer_sha256 {'c' * 64}" in problem(["other"], 1, 10)
    assert "have changed: num_tokens is 10" in problem(["web"], 1, 11)
    assert "have changed: num_documents is 1" in problem(["web"], 2, 10)
    assert "is of domain 'web'" in problem(["web"], 1, 10, name="code")
    (tmp_path / "web" / "00000.bin").write_bytes(b"\1\0" * 9)
    assert "00000.bin has 18 bytes; its index describes 20" in problem(["web"], 1, 10)
    (tmp_path / "web" / "00000.bin").unlink()
    assert "The pack is incomplete" in problem(["web"], 1, 10)


def test_a_pack_of_another_dtype_than_its_index_is_refused(write_pack: WritePack, tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "web", "web", [[[1] * 10]])
    manifest = (folder / "pack.json").read_text()
    (folder / "pack.json").write_text(manifest.replace('"dtype": "uint16"', '"dtype": "int32"'))
    with pytest.raises(FormatError, match="expected version 1 and dtype int32"):
        MixtureRows(manifest_of({"web": (["web"], 1, 10)}), tmp_path / "mix.json", 4)


def test_packs_of_large_vocabularies_have_four_byte_tokens(write_pack: WritePack, tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "web", "web", [[[0] * 4]])
    (folder / "00000.bin").write_bytes(np.array([1, 70_000, 2, 99_999], "<i4").tobytes())
    (folder / "00000.idx").write_bytes(idx_bytes(np.array([4], np.int32), "int32"))
    values = json.loads((folder / "pack.json").read_text())
    (folder / "pack.json").write_text(json.dumps({**values, "dtype": "int32", "vocab_size": 100_000}))
    manifest = manifest_of({"web": (["web"], 1, 4)}).model_copy(update={"vocab_size": 100_000})
    rows = MixtureRows(manifest, tmp_path / "mix.json", 3)
    assert rows.batch(np.array([0]), np.array([0])).tolist() == [[1, 70_000, 2, 99_999]]


def test_a_token_outside_the_vocabulary_names_the_file(write_pack: WritePack, tmp_path: Path) -> None:
    write_pack(tmp_path / "web", "web", [[[1] * 5], [[1, 300, 1, 1, 1]]])
    rows = MixtureRows(manifest_of({"web": (["web"], 2, 10)}), tmp_path / "mix.json", 3)
    assert rows.batch(np.array([0]), np.array([0])).tolist() == [[1, 1, 1, 1]]
    with pytest.raises(FormatError, match=r"00001.bin: token id 300, vocabulary 257"):
        rows.batch(np.array([0, 0]), np.array([0, 1]))


@pytest.mark.parametrize("suffix", ["bin", "idx"])
def test_an_altered_file_of_the_same_size_is_found(
    write_pack: WritePack, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pack(tmp_path / "web", "web", [[[1] * 5], [[1, 2, 3, 4, 5]]])
    manifest, path = manifest_of({"web": (["web"], 2, 10)}), tmp_path / "web" / f"00001.{suffix}"
    rows = MixtureRows(manifest, tmp_path / "mix.json", 3)
    rows.verify()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(FormatError, match=rf"00001.{suffix} was altered.*pack.json.*Restore the file, or rebuild"):
        rows.verify()
    monkeypatch.setattr(trainer.data, "VERIFIED_BYTES", 1)  # packs too large to be verified without being asked
    rows.verify()
    with pytest.raises(FormatError, match="was altered"):
        rows.verify(always=True)
