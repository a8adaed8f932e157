"""Exports to flat token files, read back by their own readers: the same tokens, documents and masks.

- ``.ds`` by datatrove: its folder dataset (tokens and positions), and its checker of datasets.
- ``.npy`` by OLMo-core: its dataset of fixed lengths with label masks, and its iterator over documents.
- ``.bin/.idx`` by megatron-core's indexed dataset.
- llm.c's ``.bin`` by a reader after ``_load_data_shard`` of its train_gpt2.py and train_llama3.py, and documents found
  as modded-nanogpt's ``Shard`` finds them; both are scripts, not libraries.
"""

from __future__ import annotations

import glob
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings

from dataeng.exports.export import export
from dataeng.exports.layout import Options
from tests.conformance import peers
from tests.exports.packs import EOS, VOCABULARIES, Content, contents, write_pack, write_run

FEW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SPECIAL = Content(
    [[[1, 2, 3], [], [5] * 300], [], [[EOS, 59_999]]],
    [[[0, 1, 1, 1], [1], [1] * 150 + [0] * 151], None, None],
)


def fresh(tmp_path: Path) -> Path:
    """Returns an empty folder for one example."""
    folder = tmp_path / "example"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def exported(tmp_path: Path, content: Content, form: str, **choices: Any) -> Path:
    folder = fresh(tmp_path)
    export(write_pack(folder / "web", content), form, folder / "out", **choices)
    return folder / "out"


# --- datatrove


@FEW
@example(SPECIAL)
@given(contents())
def test_datatrove_reads_the_same_tokens_documents_and_masks(tmp_path: Path, content: Content) -> None:
    from datatrove.utils.dataset import DatatroveFolderDataset

    out = exported(tmp_path, content, "datatrove")
    size = np.dtype(content.dtype).itemsize
    # Windows of one token, so that none is left out at the end of a file.
    dataset = DatatroveFolderDataset(str(out), seq_len=0, token_size=size)
    assert [int(dataset[item]["input_ids"][0]) for item in range(len(dataset))] == content.tokens()
    ends: list[list[int]] = []
    loss = b""
    for path in sorted(out.glob("*.ds")):
        ends.append(np.fromfile(f"{path}.index", "<u8").tolist())
        loss += Path(f"{path}.loss").read_bytes() if content.masked else b""
    assert ends == [np.cumsum([len(document) for document in shard]).tolist() for shard in content.per_shard()]
    assert list(loss) == (content.mask() if content.masked else [])


@FEW
@example(SPECIAL)
@given(contents())
def test_datatroves_positions_start_at_every_document(tmp_path: Path, content: Content) -> None:
    from datatrove.utils.dataset import DatatroveFolderDataset

    window = 16
    out = exported(tmp_path, content, "datatrove")
    size = np.dtype(content.dtype).itemsize
    dataset = DatatroveFolderDataset(str(out), seq_len=window - 1, token_size=size, return_positions=True)
    expected = []
    for shard in content.per_shard():
        positions = [position for document in shard for position in range(len(document))]
        for start in range(0, len(positions) - window + 1, window):
            row = positions[start : start + window]
            first_end = next((at for at, position in enumerate(row) if position == 0), window)
            expected.append([*range(first_end), *row[first_end:]])  # a document's rest counts from the window's start
    assert [dataset[item]["positions"].tolist() for item in range(len(dataset))] == expected


def test_datatroves_checker_finds_nothing_wrong(tmp_path: Path) -> None:
    from datatrove.io import get_datafolder
    from datatrove.tools.check_dataset import check_dataset

    content = Content([[[1, 2, 3], []], [[9] * 70]], [[[0, 1, 1, 1], [0]], None])
    out = exported(tmp_path, content, "datatrove")
    check_dataset(get_datafolder(str(out)), str(out / "tokenizer" / "tokenizer.json"), "<eos>")
    wrong = out / "web_00001_unshuffled.ds"
    wrong.write_bytes(wrong.read_bytes()[:-2] + b"\x01\x00")
    with pytest.raises(AssertionError, match="no EOS"):
        check_dataset(get_datafolder(str(out)), str(out / "tokenizer" / "tokenizer.json"), "<eos>")


def test_a_folder_has_what_nanotron_looks_for(tmp_path: Path) -> None:
    """As ``Nanoset`` finds files, and as `NanosetDatasetsArgs` reads the metadata (nanotron 2411b02)."""
    run = write_run(tmp_path / "run", {"web": SPECIAL, "code": Content([[[4, 5]]], [None])})
    out = tmp_path / "out"
    lines = export(run, "datatrove", out, Options(tokenizer_name="org/name")).lines
    for domain, num_files in (("web", 2), ("code", 1)):
        folder = str(out / domain)
        assert len(glob.glob(f"{folder}/*.ds")) == num_files  # filename_pattern=os.path.join(dataset_folder, "*.ds")
        for path in glob.glob(f"{folder}/*.metadata"):
            first_line, tokens, _ = Path(path).read_text().split("\n")
            name, size = first_line.split("|")
            assert (name, size) == ("org/name", "2")
            assert int(tokens) * 2 == Path(path.removesuffix(".metadata")).stat().st_size
        assert f"  - {folder}" in lines
    assert "  dataset_weights: [0.00961538, 0.990385]" in lines  # 3 tokens and 309


@pytest.mark.parametrize("count", [1, 9, 12, 999, 1000, 1234, 9999, 99_960, 123_456, 999_999, 12_345_678, 5 * 10**12])
def test_counts_for_people_are_datatroves(count: int) -> None:
    import humanize

    from dataeng.exports.datatrove import _for_people

    assert _for_people(count) == humanize.metric(count, unit="T")


@pytest.mark.parametrize(("vocab_size", "itemsize"), [(65_534, 2), (65_535, 4)])
def test_two_bytes_are_used_where_nanotron_expects_them(tmp_path: Path, vocab_size: int, itemsize: int) -> None:
    content = Content([[[1, 2, 65_000]]], [None], "int32")
    folder = write_pack(tmp_path / "web", content, vocab_size=vocab_size)
    export(folder, "datatrove", tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*.ds")
    assert np.fromfile(path, f"<u{itemsize}").tolist() == content.tokens()


# --- OLMo-core


@FEW
@example(SPECIAL)
@given(contents())
def test_olmo_core_reads_the_same_documents(tmp_path: Path, content: Content) -> None:
    data = peers.load_olmo_data()
    out = exported(tmp_path, content, "olmo")
    dtype = np.uint16 if content.dtype == "uint16" else np.uint32
    documents, masks = [], []
    for path in sorted(out.glob("*.npy")):
        for start, end in data.utils.iter_document_indices(str(path), dtype=dtype, use_array_if_local=False):
            documents.append(data.utils.load_array_slice(str(path), start, end, dtype).tolist())
            if content.masked:
                mask = str(path).replace(".npy", ".label_mask")
                masks.append(data.utils.load_array_slice(mask, start, end, np.bool_).astype(int).tolist())
    assert documents == content.documents()
    assert masks == (content.document_masks() if content.masked else [])


@FEW
@example(SPECIAL)
@given(contents(masked=True))
def test_olmo_cores_dataset_takes_files_and_label_masks(tmp_path: Path, content: Content) -> None:
    data = peers.load_olmo_data()
    length = 8
    out = exported(tmp_path, content, "olmo")
    paths = sorted(map(str, out.glob("*.npy")))
    dataset = data.NumpyFSLDataset(
        *paths,
        sequence_length=length,
        pad_token_id=0,
        eos_token_id=EOS,
        vocab_size=VOCABULARIES[content.dtype],
        dtype=np.uint16 if content.dtype == "uint16" else np.uint32,
        label_mask_paths=sorted(map(str, out.glob("*.label_mask"))),
    )
    masks = iter(content.document_masks())
    tokens, flags = [], []
    for shard in content.per_shard():
        flat = [token for document in shard for token in document]
        flat_mask = [value for _ in shard for value in next(masks)]
        for start in range(0, len(flat) - length + 1, length):
            tokens.append(flat[start : start + length])
            flags.append(flat_mask[start : start + length])
    items = [dataset[item] for item in range(len(dataset))]
    assert [item["input_ids"].tolist() for item in items] == tokens
    assert [item["label_mask"].int().tolist() for item in items] == flags


def test_olmo_core_infers_the_type_that_was_written() -> None:
    data = peers.load_olmo_data()
    from dataeng.exports.corpus import narrowest_dtype

    for vocab_size in (257, 65_499, 65_500, 65_536, 65_537, 200_000):
        tokenizer = data.TokenizerConfig(vocab_size=vocab_size, eos_token_id=0, pad_token_id=0)
        config = data.NumpyFSLDatasetConfig(tokenizer=tokenizer, paths=["x"], sequence_length=8)
        assert np.dtype(config.get_dtype()) == narrowest_dtype(vocab_size)


# --- Megatron


@FEW
@given(contents(masked=False))
def test_megatron_core_reads_the_same_documents(tmp_path: Path, content: Content) -> None:
    indexed = peers.load("megatron.core.datasets.indexed_dataset")
    out = exported(tmp_path, content, "megatron")
    dataset = indexed.IndexedDataset(str(out / "web"))
    assert [dataset[item].tolist() for item in range(len(dataset))] == content.documents()
    assert dataset.document_indices.tolist() == list(range(len(content.documents()) + 1))
    assert dataset.sequence_lengths.tolist() == [len(document) for document in content.documents()]


def test_megatron_core_reads_packs_as_they_are(tmp_path: Path) -> None:
    indexed = peers.load("megatron.core.datasets.indexed_dataset")
    folder = write_pack(tmp_path / "web", SPECIAL)
    for number, shard in ((0, SPECIAL.per_shard()[0]), (2, SPECIAL.per_shard()[1])):
        dataset = indexed.IndexedDataset(str(folder / f"{number:05d}"))
        assert [dataset[item].tolist() for item in range(len(dataset))] == shard


# --- llm.c


def load_data_shard(path: Path, magic: int, version: int, dtype: type) -> list[int]:
    """As llm.c's ``_load_data_shard`` in train_gpt2.py and train_llama3.py."""
    with path.open("rb") as file:
        header = np.frombuffer(file.read(256 * 4), np.int32)
        assert header[0] == magic and header[1] == version
        tokens = np.frombuffer(file.read(), dtype)
    assert len(tokens) == header[2]
    return tokens.tolist()


@FEW
@given(contents(masked=False))
def test_llmc_reads_documents_behind_their_end_of_text_token(tmp_path: Path, content: Content) -> None:
    two_bytes = content.dtype == "uint16"
    out = exported(tmp_path, content, "llmc" if two_bytes else "llmc-llama3")
    kind = (20240520, 1, np.uint16) if two_bytes else (20240801, 7, np.uint32)
    files = [load_data_shard(path, *kind) for path in sorted(out.glob("web_train_*.bin"))]
    assert files == [[token for document in shard for token in [EOS, *document[:-1]]] for shard in content.per_shard()]


def test_documents_are_where_modded_nanogpt_finds_them(tmp_path: Path) -> None:
    content = Content([[[1, 2, 3], [4, 5]], [[6]]], [None, None])
    out = exported(tmp_path, content, "llmc")
    documents = []
    for path in sorted(out.glob("*.bin")):
        tokens = np.array(load_data_shard(path, 20240520, 1, np.uint16))
        starts = (tokens == EOS).nonzero()[0]  # `Shard.bos_idx`
        ends = [*starts[1:], len(tokens)]
        documents += [tokens[start:end].tolist() for start, end in zip(starts, ends, strict=True)]
    assert documents == [[EOS, 1, 2, 3], [EOS, 4, 5], [EOS, 6]]


def test_the_copied_tokenizer_is_the_packs(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    out = exported(tmp_path, SPECIAL, "olmo")
    assert Tokenizer.from_file(str(out / "tokenizer/tokenizer.json")).token_to_id("<eos>") == EOS
    assert json.loads((out / "tokenizer/tokenizer_config.json").read_text())["eos_token"] == "<eos>"
