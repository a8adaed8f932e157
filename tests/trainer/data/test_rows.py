"""Rows from packs, across shards; shares of tokens and rows; and packs that do not fit the manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import trainer.data.rows
from dataeng.errors import ConfigError, FormatError
from dataeng.formats.mixture import Domain, MixtureManifest, MixtureStage, Order, Policy
from dataeng.formats.pack import idx_bytes
from trainer.data.rows import MixtureRows

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
    assert rows.num_rows == [3]  # 7 labels, 3 a row
    batch = rows.batch(np.array([0, 0, 0]), np.array([1, 0, 2]))
    assert batch.tokens.tolist() == [[4, 5, 6, 7], [1, 2, 3, 4], [7, 8, 256, 256]]
    assert batch.labels.tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0]]
    assert batch.documents.tolist() == [[0, 0, 0, 1], [0, 0, 1, 2], [0, 0, 1, 1]]


@pytest.mark.parametrize("length", [1, 2, 3, 5, 9])
def test_every_token_but_the_first_is_a_label_once(write_pack: WritePack, tmp_path: Path, length: int) -> None:
    write_pack(tmp_path / "p", "web", [[[0, 1, 2, 3], [4]], [[5, 6, 7, 8, 9, 10]]])
    rows = MixtureRows(manifest_of({"web": (["p"], 3, 11)}), tmp_path / "mix.json", length)
    count = rows.num_rows[0]
    batch = rows.batch(np.zeros(count, np.int64), np.arange(count))
    counts = batch.labels == 1
    assert batch.tokens[:, 1:][counts].tolist() == list(range(1, 11))
    assert batch.tokens[:, :-1][counts].tolist() == list(range(10))
    assert rows.num_labels == [10]


def test_the_packing_is_the_manifest_s_or_the_one_asked_for(write_pack: WritePack, tmp_path: Path) -> None:
    write_pack(tmp_path / "p", "web", [[[1, 2, 3], [4, 5, 6, 7], [8, 9]]])
    manifest = manifest_of({"web": (["p"], 3, 9)}).model_copy(update={"packing": "best-fit"})
    rows = MixtureRows(manifest, tmp_path / "mix.json", 5)
    everything = (np.zeros(2, np.int64), np.arange(2))
    assert rows.batch(*everything).tokens.tolist() == [[1, 2, 3, 256, 256, 256], [4, 5, 6, 7, 8, 9]]
    assert rows.batch(*everything).labels.tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 0, 1]]
    assert rows.sources(0, 1)[1].document == 2
    rows = MixtureRows(manifest, tmp_path / "mix.json", 5, "aligned")
    assert rows.batch(*everything).tokens.tolist() == [[1, 2, 3, 256, 256, 256], [4, 5, 6, 7, 8, 9]]


def test_weights_are_shares_of_tokens_and_losses_shares_of_labels(write_pack: WritePack, tmp_path: Path) -> None:
    write_pack(tmp_path / "web", "web", [[[1] * 10, [1] * 10]])
    write_pack(tmp_path / "qa", "qa", [[[2] * 5, [2] * 6]])
    manifest = manifest_of({"web": (["web"], 2, 20), "qa": (["qa"], 2, 11)})
    rows = MixtureRows(manifest, tmp_path / "mix.json", 9, "best-fit")  # web's rows are full, qa's hold 5 or 6 of 10
    assert rows.num_rows == [2, 2]
    shares = rows.row_shares([0.5, 0.5])
    assert shares.tolist() == pytest.approx([5.5 / 15.5, 10 / 15.5])
    labels = rows.label_shares(shares)
    assert labels.tolist() == pytest.approx([9 * 5.5 / (9 * 5.5 + 4.5 * 10), 4.5 * 10 / (9 * 5.5 + 4.5 * 10)])
    stages = rows.planned_stages(1000)
    sampler = rows.sampler(stages, 0)
    batch = rows.batch(*sampler.take(1000))
    tokens = [int((batch.documents[batch.domains == i] < [[9], [1]][i]).sum()) for i in (0, 1)]
    assert tokens[0] / sum(tokens) == pytest.approx(0.5, abs=0.01)
    counted = [int(batch.labels[batch.domains == i].sum()) for i in (0, 1)]
    assert counted[0] / sum(counted) == pytest.approx(labels[0], abs=0.01)


def test_a_schedule_becomes_stages_of_rows(write_pack: WritePack, tmp_path: Path) -> None:
    write_pack(tmp_path / "web", "web", [[[1] * 101]])
    write_pack(tmp_path / "qa", "qa", [[[2] * 101]])
    manifest = manifest_of({"web": (["web"], 1, 101), "qa": (["qa"], 1, 101)}, qa=2)
    schedule = [
        MixtureStage(name="most", until=0.75, weights={"web": 1.0, "qa": 0.0}),
        MixtureStage(name="last", until=1.0, weights={"web": 0.0, "qa": 1.0}),
    ]
    rows = MixtureRows(manifest.model_copy(update={"schedule": schedule}), tmp_path / "mix.json", 10)
    stages = rows.planned_stages(80)
    assert [(stage.until_row, stage.shares) for stage in stages] == [(60, (1.0, 0.0)), (None, (0.0, 1.0))]
    assert rows.sampler(stages, 0).take(80)[0].tolist() == [0] * 60 + [1] * 20
    with pytest.raises(ConfigError, match=r"stage 'last' draws 21 in all, but the epoch caps .* allow 20"):
        rows.planned_stages(84)


@pytest.mark.parametrize("followed", [None, [0.1, 0.1, 0.8]])
def test_what_a_later_stage_needs_is_left_for_it(
    write_pack: WritePack, tmp_path: Path, followed: list[float] | None
) -> None:
    """A stage of pairs alone: an earlier one would use up their cap by rounding, or by following learned weights."""
    domains = {}
    for token, (name, count) in enumerate({"web": 101, "code": 101, "qa": 51}.items()):
        write_pack(tmp_path / name, name, [[[token] * count]])
        domains[name] = ([name], 1, count)
    schedule = [
        MixtureStage(name="most", until=0.7, weights={"web": 0.4, "code": 0.4, "qa": 0.2}),
        MixtureStage(name="last", until=1.0, weights={"web": 0.0, "code": 0.0, "qa": 1.0}),
    ]
    manifest = manifest_of(domains, qa=1).model_copy(update={"schedule": schedule})
    rows = MixtureRows(manifest, tmp_path / "mix.json", 10)
    sampler = rows.sampler(rows.planned_stages(12), 0)  # stages of 8 and 4 rows; 5 of qa are there
    if followed is not None:
        sampler.set_shares(followed)
    assert np.bincount(sampler.take(8)[0]).tolist()[2] <= 1
    assert sampler.take(4)[0].tolist() == [2] * 4


def test_a_curriculum_s_rows_are_not_shuffled(write_pack: WritePack, tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "web", "web", [[[3] * 5, [1] * 5, [2] * 5]])
    pl.DataFrame({"perplexity": [30.0, 10.0, 20.0]}).write_parquet(folder / "00000.docs.parquet")
    values = json.loads((folder / "pack.json").read_text())
    values["shards"][0]["files"]["docs"] = {"name": "00000.docs.parquet", "size_bytes": 0, "sha256": ""}
    (folder / "pack.json").write_text(json.dumps(values))
    manifest = manifest_of({"web": (["web"], 3, 15)})
    domain = manifest.domains["web"].model_copy(update={"order": Order(by="perplexity", descending=True)})
    rows = MixtureRows(manifest.model_copy(update={"domains": {"web": domain}}), tmp_path / "mix.json", 4, "aligned")
    drawn = rows.sampler(rows.planned_stages(6), 5).take(6)
    assert rows.batch(*drawn).tokens[:, 0].tolist() == [3, 2, 1, 3, 2, 1]


def test_the_domain_of_a_row_decides_the_pack(write_pack: WritePack, tmp_path: Path) -> None:
    write_pack(tmp_path / "web", "web", [[[1, 1, 1, 1]]])
    write_pack(tmp_path / "code", "code", [[[2, 2, 2, 2, 2]]])
    manifest = manifest_of({"web": (["web"], 1, 4), "code": (["code"], 1, 5)})
    rows = MixtureRows(manifest, tmp_path / "mix.json", 2)
    assert rows.num_rows == [2, 2]
    assert rows.batch(np.array([1, 0, 1]), np.array([1, 0, 0])).tokens.tolist() == [[2, 2, 2], [1, 1, 1], [2, 2, 2]]


def test_planned_shares_keep_epoch_caps(write_pack: WritePack, tmp_path: Path) -> None:
    write_pack(tmp_path / "web", "web", [[[1] * 101]])
    write_pack(tmp_path / "code", "code", [[[2] * 21]])
    manifest = manifest_of({"web": (["web"], 1, 101), "code": (["code"], 1, 21)}, code=1.5, web=2)
    rows = MixtureRows(manifest, tmp_path / "mix.json", 10)
    assert rows.num_rows == [10, 2]
    assert rows.max_rows == [20, 3]
    assert rows.planned_stages(6)[0].shares == pytest.approx(rows.row_shares([0.5, 0.5]))
    assert rows.planned_stages(12)[0].shares == (0.75, 0.25)
    with pytest.raises(ConfigError, match=r"24 rows are asked for.*after 23 \(web 20, code 3\)"):
        rows.planned_stages(24)


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
    pinned = manifest_of({"web": (["web"], 1, 10)})
    pinned.domains["web"].pack_sha256 = ["0" * 64]
    with pytest.raises(FormatError, match=r"web.pack\.json \(domain 'web'\) has SHA-256 .*the pack has changed"):
        MixtureRows(pinned, path, 4)
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
    assert rows.batch(np.array([0]), np.array([0])).tokens.tolist() == [[1, 70_000, 2, 99_999]]


def test_a_token_outside_the_vocabulary_names_the_file(write_pack: WritePack, tmp_path: Path) -> None:
    write_pack(tmp_path / "web", "web", [[[1] * 5], [[1, 300, 1, 1, 1]]])
    rows = MixtureRows(manifest_of({"web": (["web"], 2, 10)}), tmp_path / "mix.json", 3)
    assert rows.batch(np.array([0]), np.array([0])).tokens.tolist() == [[1, 1, 1, 1]]
    with pytest.raises(FormatError, match=r"00001.bin: token id 300 in document 0, vocabulary 257"):
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
    monkeypatch.setattr(trainer.data.rows, "VERIFIED_BYTES", 1)  # packs too large to be verified without being asked
    rows.verify()
    with pytest.raises(FormatError, match="was altered"):
        rows.verify(always=True)
