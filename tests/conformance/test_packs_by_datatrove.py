"""Packs against independent code: datatrove's Megatron writer and token reader, and the format's byte layout.

- What `write_packs` leaves is byte for byte what datatrove's `MegatronDocumentTokenizer` writes for the same texts and
  tokenizer, ``.bin`` and ``.idx``.
- datatrove's own reader of token files gives the same tokens.
- A reader written here from the layout alone (``megatron/core/datasets/indexed_dataset.py``), with only `struct`,
  gives the documents back, and each decodes to its text.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from dataeng.config import load_pipeline
from dataeng.engine.executor import Pool
from dataeng.engine.runner import run_plan
from dataeng.formats.pack_verification import verify_pack
from dataeng.plan import make_plan
from tests.engine.conftest import Listener

END_OF_TEXT = "<|endoftext|>"
SPECIAL_LOOK_ALIKE = f"A page about tokenizers: {END_OF_TEXT} and <|pad|> are names, {END_OF_TEXT}{END_OF_TEXT} too."
LARGE_ID_WORD = "⟦zyzzyva⟧"
TEXTS = [
    "The quick brown fox jumps over the lazy dog.\n\nThe dog does not mind.",
    "Ein Müller mahlt Mehl – für 3 € das Pfund.\r\nStraße, Fuß, Ärger.",
    "日本語の文章。漢字とかなとカナ。",
    "Смешанный text с emoji 👩‍👩‍👧‍👦🇩🇪 and combining e\u0301, zero\u200bwidth, and NUL \x00 inside.",
    "x",
    "   leading and trailing spaces   ",
    "def f(x):\n\treturn {'a': [x] * 3}\n",
    f"a rare word {LARGE_ID_WORD} between others",
    "word " * 30_000,  # one document of some 10^4 tokens
]


@dataclass(frozen=True)
class Written:
    """A pack of two shards, the tokenizer that made it, and the texts of each shard."""

    folder: Path
    tokenizer: Path
    parts: list[list[str]]


def save_tokenizer(path: Path, vocab_size: int) -> None:
    """Trains a small byte-level BPE and fills it with words up to ``vocab_size``; `LARGE_ID_WORD` comes last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[END_OF_TEXT, "<|pad|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    # The filling has no merges, so that it costs nothing; the last word is one that a text contains.
    description = json.loads(tokenizer.to_str())
    vocabulary = description["model"]["vocab"]
    vocabulary.update({f"⟦{number}⟧": number for number in range(len(vocabulary), vocab_size - 1)})
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.add_tokens([LARGE_ID_WORD])
    assert tokenizer.get_vocab_size() == vocab_size
    assert tokenizer.token_to_id(LARGE_ID_WORD) == vocab_size - 1
    tokenizer.save(str(path))


def write_pack(folder: Path, vocab_size: int, parts: list[list[str]]) -> Written:
    """Runs a pipeline over one file per part; each becomes a shard."""
    tokenizer = folder / "given.json"
    save_tokenizer(tokenizer, vocab_size)
    (folder / "input").mkdir()
    for number, texts in enumerate(parts):
        lines = [json.dumps({"text": text, "url": f"http://a.test/{number}/{i}"}) for i, text in enumerate(texts)]
        (folder / "input" / f"{number}.jsonl").write_text("\n".join(lines) + "\n")
    file = folder / "packs.yaml"
    source = {"read_files": {"paths": ["input/*.jsonl"], "domain": "books", "batch_documents": 4}}
    stages = [{"write_packs": {"tokenizer": str(tokenizer)}}]
    file.write_text(json.dumps({"name": "packs", "sources": [source], "stages": stages}))
    pipeline = load_pipeline(file, [f"run={folder / 'run'}"])
    pool = Pool("inline", 1)
    try:
        run_plan(make_plan(pipeline), pipeline.run_dir, pool, Listener())
    finally:
        pool.close()
    return Written(pipeline.run_dir / "packs" / "books", tokenizer, parts)


#: Vocabulary sizes for 2-byte and 4-byte tokens; the last word's id needs all the bytes.
VOCABULARIES = {"uint16": 60_000, "int32": 70_000}


@pytest.fixture(scope="module", params=VOCABULARIES)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    dtype: str = request.param
    return write_pack(tmp_path_factory.mktemp(dtype), VOCABULARIES[dtype], [TEXTS, list(reversed(TEXTS[:-1]))])


# --- a reader from the byte layout


def read_megatron(bin_path: Path, idx_path: Path) -> tuple[str, list[list[int]]]:
    """Reads a ``.bin``/``.idx`` pair: the struct format of a token, and the tokens of every document."""
    index = idx_path.read_bytes()
    magic, version, code, num_sequences, num_document_marks = struct.unpack_from("<9sQBQQ", index, 0)
    assert magic == b"MMIDIDX\x00\x00" and version == 1
    form, size = {8: ("H", 2), 4: ("i", 4)}[code]  # numpy.uint16 and numpy.int32 in Megatron's table
    at = struct.calcsize("<9sQBQQ")
    lengths = struct.unpack_from(f"<{num_sequences}i", index, at)
    at += 4 * num_sequences
    pointers = struct.unpack_from(f"<{num_sequences}q", index, at)
    at += 8 * num_sequences
    marks = struct.unpack_from(f"<{num_document_marks}q", index, at)
    assert at + 8 * num_document_marks == len(index), "the index ends with the document marks"
    data = bin_path.read_bytes()
    # One sequence a document: the marks count sequences up.
    assert marks == tuple(range(num_sequences + 1))
    assert sum(lengths) * size == len(data)
    assert all(p + n * size == q for p, n, q in zip(pointers, lengths, (*pointers[1:], len(data)), strict=True))
    return form, [list(struct.unpack_from(f"<{n}{form}", data, p)) for p, n in zip(pointers, lengths, strict=True)]


def test_reader_from_the_byte_layout_gives_every_document_back(written: Written) -> None:
    tokenizer = Tokenizer.from_file(str(written.tokenizer))
    eos, vocab_size = tokenizer.token_to_id(END_OF_TEXT), tokenizer.get_vocab_size()
    for number, texts in enumerate(written.parts):
        form, documents = read_megatron(*(written.folder / f"{number:05d}.{kind}" for kind in ("bin", "idx")))
        assert form == ("H" if vocab_size == VOCABULARIES["uint16"] else "i")
        assert [tokens[-1] for tokens in documents] == [eos] * len(texts)
        assert [tokenizer.decode(tokens[:-1], skip_special_tokens=False) for tokens in documents] == texts
        assert max(max(tokens) for tokens in documents) == vocab_size - 1
        assert all(0 <= token < vocab_size for tokens in documents for token in tokens)


def test_documents_table_describes_the_documents_of_the_pack(written: Written) -> None:
    for number, texts in enumerate(written.parts):
        _, documents = read_megatron(*(written.folder / f"{number:05d}.{kind}" for kind in ("bin", "idx")))
        rows = pq.read_table(written.folder / f"{number:05d}.docs.parquet").to_pylist()
        assert [row["num_tokens"] for row in rows] == [len(tokens) for tokens in documents]
        assert [row["text_bytes"] for row in rows] == [len(text.encode()) for text in texts]
        assert [row["url"] for row in rows] == [f"http://a.test/{number}/{i}" for i in range(len(texts))]
        parquet = pq.read_table(written.folder / f"{number:05d}.parquet").to_pylist()
        assert [row["id"] for row in parquet] == [row["id"] for row in rows]
        assert [row["tokens"] for row in parquet] == documents
    assert verify_pack(written.folder) == []


# --- datatrove's writer and reader


def write_with_datatrove(folder: Path, texts: list[str], tokenizer: Path) -> Path:
    """Returns the path of what datatrove writes, without its suffix."""
    from datatrove.data import Document
    from datatrove.pipeline.tokens.megatron_tokenizer import MegatronDocumentTokenizer

    step = MegatronDocumentTokenizer(
        str(folder), "peer", tokenizer_name_or_path=str(tokenizer), eos_token=END_OF_TEXT, batch_size=3
    )
    step.run(iter([Document(text=text, id=str(i)) for i, text in enumerate(texts)]))
    return folder / "peer_00000_tokens"


def test_files_are_those_of_datatroves_megatron_writer(written: Written, tmp_path: Path) -> None:
    for number, texts in enumerate(written.parts):
        (tmp_path / str(number)).mkdir()
        peer = write_with_datatrove(tmp_path / str(number), texts, written.tokenizer)
        for kind in ("bin", "idx"):
            assert (written.folder / f"{number:05d}.{kind}").read_bytes() == peer.with_suffix(f".{kind}").read_bytes()


def test_datatroves_reader_gives_the_same_tokens(written: Written) -> None:
    from datatrove.utils.dataset import DatatroveFileDataset

    form, documents = read_megatron(written.folder / "00000.bin", written.folder / "00000.idx")
    tokens = [token for document in documents for token in document]
    window = 64
    dataset = DatatroveFileDataset(
        str(written.folder / "00000.bin"), seq_len=window - 1, token_size=struct.calcsize(form)
    )
    assert len(dataset) == len(tokens) // window > 100
    read = [token for item in range(len(dataset)) for token in dataset[item]["input_ids"].tolist()]
    assert read == tokens[: len(read)]


# --- what datatrove does otherwise, on purpose


def test_names_of_special_tokens_in_a_text_stay_text(tmp_path: Path) -> None:
    written = write_pack(tmp_path, 1000, [[SPECIAL_LOOK_ALIKE, TEXTS[0]]])
    tokenizer = Tokenizer.from_file(str(written.tokenizer))
    special = {tokenizer.token_to_id(END_OF_TEXT), tokenizer.token_to_id("<|pad|>")}
    _, documents = read_megatron(written.folder / "00000.bin", written.folder / "00000.idx")
    assert not special & set(documents[0][:-1])
    assert tokenizer.decode(documents[0][:-1], skip_special_tokens=False) == SPECIAL_LOOK_ALIKE
    # datatrove turns them into document ends: the difference is real, not one that the tokenizer hides.
    (tmp_path / "peer").mkdir()
    peer = write_with_datatrove(tmp_path / "peer", [SPECIAL_LOOK_ALIKE], written.tokenizer)
    _, theirs = read_megatron(peer.with_suffix(".bin"), peer.with_suffix(".idx"))
    assert special <= set(theirs[0][:-1])


@pytest.mark.parametrize(("vocab_size", "form"), [(65_499, "H"), (65_500, "i")])
def test_vocabulary_decides_the_token_type_as_in_megatron(tmp_path: Path, vocab_size: int, form: str) -> None:
    # Megatron-LM, DType.optimal_dtype: 2 bytes below 65,500. (datatrove: up to 65,536.)
    written = write_pack(tmp_path, vocab_size, [[TEXTS[7]]])
    found, documents = read_megatron(written.folder / "00000.bin", written.folder / "00000.idx")
    assert found == form
    assert vocab_size - 1 in documents[0]
