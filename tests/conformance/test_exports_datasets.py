"""Exports to datasets of samples, read back by their own readers: the same tokens, documents, ids and masks.

- MDS by MosaicML Streaming: its local dataset, its streaming dataset, and its writer's files byte for byte.
- Token chunks by litData's streaming dataset with `TokensLoader`, tokens and masks in parallel.
- Parquet by Hugging Face's `load_dataset`.
"""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dataeng.exports import blocks, huggingface, litdata, mds
from dataeng.exports.export import export
from dataeng.exports.layout import Options
from tests.conformance import peers
from tests.exports.packs import EOS, Content, contents, document_ids, write_pack, write_run

FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SPECIAL = Content(
    [[[1, 2, 3], [], [5] * 300], [], [[EOS, 59_999]]],
    [[[0, 1, 1, 1], [1], [1] * 150 + [0] * 151], None, None],
)
LONG = Content([[[number % 50_000 for number in range(70_000)], [1]]], [None], "uint16")


def exported(tmp_path: Path, content: Content, form: str, length: int | None = None) -> Path:
    folder = tmp_path / "example"
    shutil.rmtree(folder, ignore_errors=True)
    export(write_pack(folder / "web", content), form, folder / "out", Options(sequence_length=length))
    return folder / "out"


def rows(values: list[int], length: int) -> list[list[int]]:
    return [values[start : start + length] for start in range(0, len(values) - length + 1, length)]


# --- MosaicML Streaming


def read_mds(out: Path) -> list[dict[str, Any]]:
    dataset = peers.load("streaming.base.local", "streaming", "streaming.base").LocalDataset(str(out))
    return [dataset[item] for item in range(len(dataset))]


@FEW
@example(SPECIAL)
@example(LONG)
@given(contents())
def test_streaming_reads_a_document_a_sample(tmp_path: Path, content: Content) -> None:
    samples = read_mds(exported(tmp_path, content, "mds"))
    assert [sample["tokens"].tolist() for sample in samples] == content.documents()
    assert [sample["id"] for sample in samples] == document_ids("web", content)
    assert {str(sample["tokens"].dtype) for sample in samples} == {content.dtype}
    masks = [sample["loss_mask"].tolist() for sample in samples if "loss_mask" in sample]
    assert masks == (content.document_masks() if content.masked else [])


@FEW
@example(SPECIAL, 7)
@given(contents(), st.integers(1, 40))
def test_streaming_reads_rows_of_one_length(tmp_path: Path, content: Content, length: int) -> None:
    length = min(length, len(content.tokens()))
    samples = read_mds(exported(tmp_path, content, "mds", length))
    assert [sample["tokens"].tolist() for sample in samples] == rows(content.tokens(), length)
    masks = [sample["loss_mask"].tolist() for sample in samples if "loss_mask" in sample]
    assert masks == (rows(content.mask(), length) if content.masked else [])


def write_mds(folder: Path, samples: list[dict[str, Any]], columns: dict[str, str], size_limit: int) -> None:
    writer = peers.load("streaming.base.format.mds.writer", "streaming", "streaming.base").MDSWriter
    with writer(columns=columns, out=str(folder), size_limit=size_limit) as file:
        for sample in samples:
            file.write(sample)


def same_files(ours: Path, theirs: Path) -> int:
    """Asserts that all of their files are among ours, byte for byte, and returns their number."""
    names = sorted(path.name for path in theirs.iterdir())
    for name in names:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    return len(names)


def test_samples_of_documents_are_those_of_streamings_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mds, "SHARD_BYTES", 1200)
    content = Content(SPECIAL.shards[:1], SPECIAL.masks[:1])
    out = exported(tmp_path, content, "mds")
    samples = [
        {"id": name, "loss_mask": np.array(mask, np.uint8), "tokens": np.array(tokens, np.uint16)}
        for name, mask, tokens in zip(
            document_ids("web", content), content.document_masks(), content.documents(), strict=True
        )
    ]
    columns = {"id": "str", "loss_mask": "ndarray:uint8", "tokens": "ndarray:uint16"}
    write_mds(tmp_path / "theirs", samples, columns, 1200)
    assert same_files(out, tmp_path / "theirs") == 3


@pytest.mark.parametrize("content", [SPECIAL, LONG], ids=["masked", "plain"])
def test_samples_of_rows_are_those_of_streamings_writer(
    tmp_path: Path, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the shards of the pack, shards of MDS are filled."""
    monkeypatch.setattr(mds, "SHARD_BYTES", 700)
    out = exported(tmp_path, content, "mds", 16)
    samples = [
        {"loss_mask": np.array(mask, np.uint8), "tokens": np.array(tokens, np.uint16)}
        for mask, tokens in zip(rows(content.mask(), 16), rows(content.tokens(), 16), strict=True)
    ]
    columns = {"tokens": "ndarray:uint16:16"} | ({"loss_mask": "ndarray:uint8:16"} if content.masked else {})
    write_mds(tmp_path / "theirs", [{name: sample[name] for name in columns} for sample in samples], columns, 700)
    assert same_files(out, tmp_path / "theirs") > 2


def test_streaming_dataset_and_llm_foundry_read_rows(tmp_path: Path) -> None:
    """`StreamingDataset` itself; LLM-Foundry then cuts ``tokens`` to its length and makes them int64."""
    import torch

    out = exported(tmp_path, SPECIAL, "mds", 16)
    dataset = peers.load("streaming.base.dataset", "streaming", "streaming.base").StreamingDataset(
        local=str(out), batch_size=1, shuffle=False, num_canonical_nodes=1
    )
    tokens = [torch.from_numpy(sample["tokens"][:16].copy()).to(torch.int64).tolist() for sample in dataset]
    assert tokens == rows(SPECIAL.tokens(), 16)


# --- litData


def read_litdata(folder: Path, block: int) -> list[list[int]]:
    litdata_package = peers.load("litdata")
    loader = litdata_package.TokensLoader(block_size=block)
    return [item.tolist() for item in litdata_package.StreamingDataset(str(folder), item_loader=loader)]


@settings(FEW, max_examples=4)
@example(SPECIAL)
@given(contents())
def test_litdata_reads_the_same_tokens_and_masks(tmp_path: Path, content: Content) -> None:
    out = exported(tmp_path, content, "litdata")
    assert [token for (token,) in read_litdata(out, 1)] == content.tokens()
    if content.masked:
        assert [value for (value,) in read_litdata(out / "loss_mask", 1)] == content.mask()
    assert litdata_documents(out, content.dtype) == content.documents()


def litdata_documents(out: Path, dtype: str) -> list[list[int]]:
    """The items of all chunks, by the layout in litData's ``_create_chunk``."""
    documents = []
    for chunk in json.loads((out / "index.json").read_text())["chunks"]:
        data = (out / chunk["filename"]).read_bytes()
        assert chunk["chunk_bytes"] == len(data)
        count = int(np.frombuffer(data, np.uint32, 1)[0])
        offsets = np.frombuffer(data, np.uint32, count + 1, 4)
        assert chunk["chunk_size"] == count and offsets[0] == 4 * (count + 2) and offsets[-1] == len(data)
        documents += [np.frombuffer(data[i:j], dtype).tolist() for i, j in pairwise(offsets)]
    return documents


def test_litdata_blocks_of_tokens_and_masks_agree_across_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litdata, "CHUNK_TOKENS", 100)
    monkeypatch.setattr(blocks, "BLOCK_TOKENS", 7)
    out = exported(tmp_path, SPECIAL, "litdata", 16)  # chunks of 96
    shards = [[token for document in shard for token in document] for shard in SPECIAL.per_shard()]
    mask = SPECIAL.mask()
    flags = [mask[: len(shards[0])], mask[len(shards[0]) :]]
    expected = [
        (tokens, flag)
        for t, m in zip(shards, flags, strict=True)
        for tokens, flag in zip(rows(t, 16), rows(m, 16), strict=True)
    ]
    package = peers.load("litdata")
    loader = package.TokensLoader
    parallel = package.ParallelStreamingDataset(
        [
            package.StreamingDataset(str(folder), item_loader=loader(block_size=16))
            for folder in (out, out / "loss_mask")
        ]
    )
    assert [(tokens.tolist(), flag.tolist()) for tokens, flag in parallel] == expected
    chunks = json.loads((out / "index.json").read_text())["chunks"]
    assert [chunk["dim"] for chunk in chunks] == [96, 96, 96, 18, 3]
    exported_rows = json.loads((out / "export.json").read_text())["domains"]["web"]
    assert exported_rows["num_rows"] == len(expected) and exported_rows["num_tokens_left_out"] == 309 - 16 * len(
        expected
    )


def test_litdatas_numbers_of_types_are_those_we_write() -> None:
    constants = peers.load("litdata.constants")
    for name, number in litdata.TORCH_DTYPES.items():
        assert str(constants._TORCH_DTYPES_MAPPING[number]) == f"torch.{name}"


# --- Hugging Face


def load_dataset(out: Path, name: str, tmp_path: Path) -> Any:
    from datasets import load_dataset, logging

    logging.disable_progress_bar()
    return load_dataset(str(out), name, split="train", cache_dir=str(tmp_path / "cache"))


@settings(FEW, max_examples=5)
@example(SPECIAL)
@given(contents())
def test_datasets_loads_a_document_a_row(tmp_path: Path, content: Content) -> None:
    loaded = load_dataset(exported(tmp_path, content, "huggingface"), "web", fresh_cache(tmp_path))
    assert loaded["input_ids"][:] == content.documents()
    assert loaded["id"][:] == document_ids("web", content)
    assert loaded["num_tokens"][:] == [len(document) for document in content.documents()]
    assert ("labels" in loaded.column_names) == content.masked
    if content.masked:
        labels = [
            [token if flag else huggingface.IGNORED for token, flag in zip(document, mask, strict=True)]
            for document, mask in zip(content.documents(), content.document_masks(), strict=True)
        ]
        assert loaded["labels"][:] == labels


def fresh_cache(tmp_path: Path) -> Path:
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    return tmp_path


def test_datasets_loads_rows_and_every_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "TOKENS_A_FILE", 100)
    monkeypatch.setattr(blocks, "BLOCK_TOKENS", 64)
    code = Content([[[4] * 40]], [None])
    run = write_run(tmp_path / "run", {"web": SPECIAL, "code": code})
    out = tmp_path / "out"
    export(run, "huggingface", out, Options(sequence_length=16))
    web = load_dataset(out, "web", tmp_path)
    assert web["input_ids"][:] == rows(SPECIAL.tokens(), 16)
    flags = np.array(rows(SPECIAL.mask(), 16))
    assert web["labels"][:] == np.where(flags, np.array(web["input_ids"][:]), -100).tolist()
    assert len(list((out / "web").glob("train-*-of-00004.parquet"))) == 4  # 19 rows, 6 in a file
    assert load_dataset(out, "code", tmp_path)["labels"][:] == rows(code.tokens(), 16)
    assert web.with_format("torch")[0]["input_ids"].dtype.is_signed


def test_the_lines_that_are_printed_are_code_that_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    run = write_run(tmp_path / "run", {"web": SPECIAL, "cc-news": Content([[[4] * 40]], [None])})
    # Of litData's rows each is from one shard.
    shards = [[token for document in shard for token in document] for shard in SPECIAL.per_shard()]
    flat = [*shards, [4] * 40, SPECIAL.tokens()]
    known = {tuple(row) for tokens in flat for row in rows(tokens, 16)}
    for form, module in (("huggingface", "datasets"), ("litdata", "litdata")):
        lines = "\n".join(export(run, form, tmp_path / form, Options(sequence_length=16)).lines)
        read, again = (rows_of(form, lines, module) for _ in range(2))
        assert read == again  # what is drawn is drawn from a seed
        assert len(read) > 3 and set(read) <= known and {(4,) * 16, (5,) * 16} <= set(read)


def rows_of(form: str, lines: str, module: str) -> list[tuple[int, ...]]:
    scope = dict(vars(peers.load(module)))
    exec(lines, scope)
    return [tuple(item["input_ids"] if form == "huggingface" else item[0].tolist()) for item in scope["dataset"]]


def test_masks_of_a_mixture_stay_with_their_tokens(tmp_path: Path) -> None:
    """Every token's mask is its parity, so that a pair out of step would show."""
    domains = {
        name: Content([[tokens]], [[[token % 2 for token in tokens] + [EOS % 2]]])
        for name, tokens in (("a", list(range(500))), ("b", [number * 3 + 1 for number in range(300)]))
    }
    result = export(write_run(tmp_path / "run", domains), "litdata", tmp_path / "out", Options(sequence_length=8))
    scope = dict(vars(peers.load("litdata")))
    exec("\n".join(result.lines), scope)
    pairs = [(tokens.tolist(), mask.tolist()) for tokens, mask in scope["dataset"]]
    assert len(pairs) > 30 and all([token % 2 for token in tokens] == mask for tokens, mask in pairs)
