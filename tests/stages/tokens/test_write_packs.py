"""Packs: the tokens are the tokenizer's, the files say the same thing in their own ways, and errors are clear."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from dataeng.engine.outputs import TaskOutputs
from dataeng.errors import ConfigError, FormatError
from dataeng.formats.pack import Pack, load_manifest
from dataeng.formats.pack_verification import verify_pack
from dataeng.stages.tokens.encoded import Encoded
from dataeng.stages.tokens.encoders import Ids
from dataeng.stages.tokens.objectives.ends import Ends
from dataeng.stages.tokens.objectives.objective import Objective
from dataeng.stages.tokens.pack_tokenizer import PackTokenizer, load_tokenizer
from dataeng.stages.tokens.train_tokenizer import TOKENIZER_FILE, TrainTokenizer
from dataeng.stages.tokens.write_packs import WritePacks
from tests.stages.exchange import run_exchange

EOS = "<|endoftext|>"
Batch = list[tuple[str, str]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    stage = TrainTokenizer(vocab_size=300, special_tokens=(EOS, "<|pad|>"))
    run_exchange(stage, [["the quick brown fox jumps over the lazy dog, the fox and the dog"] * 3], folder)
    return folder / TOKENIZER_FILE


def frame(rows: Batch, first: int = 0) -> pl.DataFrame:
    domains, texts = ([row[k] for row in rows] for k in (0, 1))
    return pl.DataFrame({"domain": domains, "text": texts}, schema={"domain": pl.String(), "text": pl.String()}).select(
        (pl.lit("id") + (pl.int_range(pl.len()) + first).cast(pl.String)).alias("id"),
        pl.lit("https://example.org/").alias("url"),
        pl.lit("file").alias("source"),
        (pl.int_range(pl.len(), dtype=pl.Int64) + first).alias("source_offset"),
        "domain",
        "text",
        pl.lit(1.5).alias("quality_signal"),
    )


def write(stage: WritePacks, run_dir: Path, parts: list[list[Batch]], artifacts: dict[str, Path] | None = None) -> Any:
    """Runs the sink over parts of batches, commits, and finishes. Returns what `finish` returns."""
    stage.setup(artifacts or {})
    shards: list[dict[str, Any]] = []
    for part, batches in enumerate(parts):
        outputs = TaskOutputs(run_dir)
        writer, first = stage.open(part, outputs), 0
        for rows in batches:
            writer.write(frame(rows, first))
            first += len(rows)
        shards += json.loads(json.dumps(writer.close()))  # as they travel through the task's record
        outputs.commit()
    return stage.finish(run_dir, shards)


PARTS: list[list[Batch]] = [
    [[("web", "the quick fox"), ("code", "x = 1"), ("web", "")], [("web", "dog"), ("code", "東京 🙂")]],
    [],
    [[("books", "over and over"), ("web", "the end")]],
]


def test_columns_that_are_kept_are_in_the_documents_of_the_pack(trained: Path, tmp_path: Path) -> None:
    stage = WritePacks(tokenizer=trained, keep=("quality_signal",))
    stage.check()
    assert "quality_signal" in stage.columns().reads
    write(stage, tmp_path, [[[("web", "some text"), ("web", "more of it")]]])
    for name in ("00000.docs.parquet", "00000.parquet"):
        assert pl.read_parquet(tmp_path / "packs/web" / name).get_column("quality_signal").to_list() == [1.5, 1.5]


@pytest.mark.parametrize("keep", [("url",), ("num_tokens",), ("text",), ("tokens",), ("a", "a")])
def test_columns_that_cannot_be_kept(trained: Path, keep: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=rf"write_packs\.keep names '{keep[0]}', which packs have already"):
        WritePacks(tokenizer=trained, keep=keep).check()


def test_tokens_are_the_tokenizers_and_every_document_ends_with_eos(tmp_path: Path, trained: Path) -> None:
    write(WritePacks(tokenizer=trained), tmp_path, PARTS)
    tokenizer = Tokenizer.from_file(str(trained))
    expected = {
        "web": [["the quick fox", "", "dog"], ["the end"]],
        "code": [["x = 1", "東京 🙂"]],
        "books": [["over and over"]],
    }
    assert sorted(path.name for path in (tmp_path / "packs").iterdir()) == sorted(expected)
    for domain, shards in expected.items():
        pack = Pack(tmp_path / "packs" / domain)
        assert [len(shard.lengths) for shard in pack.shards] == [len(texts) for texts in shards]
        for shard, texts in zip(pack.shards, shards, strict=True):
            for index, text in enumerate(texts):
                ids = shard.document(index).tolist()
                assert ids == [*tokenizer.encode(text).ids, tokenizer.token_to_id(EOS)]
                assert tokenizer.decode(ids[:-1]) == text
                assert shard.lengths[index] == len(ids)
        assert verify_pack(tmp_path / "packs" / domain) == []


def test_counts_hashes_and_tokenizer_in_the_manifest(tmp_path: Path, trained: Path) -> None:
    finished = write(WritePacks(tokenizer=trained), tmp_path, PARTS)
    vocab_size = Tokenizer.from_file(str(trained)).get_vocab_size()
    manifests = {domain: load_manifest(tmp_path / "packs" / domain) for domain in ("web", "code", "books")}
    assert {d: (m.num_documents, m.text_bytes) for d, m in manifests.items()} == {
        "web": (4, len("the quick fox" + "dog" + "the end")),
        "code": (2, len("x = 1") + len("東京 🙂".encode())),
        "books": (1, len("over and over")),
    }
    for domain, manifest in manifests.items():
        assert manifest.num_tokens == sum(len(shard.tokens) for shard in Pack(tmp_path / "packs" / domain).shards)
        assert (manifest.vocab_size, manifest.eos_id, manifest.dtype) == (vocab_size, 0, "uint16")
        assert (tmp_path / "packs" / domain / manifest.tokenizer).read_bytes() == trained.read_bytes()
    assert set(finished) == {
        tmp_path / TOKENIZER_FILE,
        *(tmp_path / "packs" / domain / "pack.json" for domain in manifests),
    }


def test_rows_of_docs_and_parquet_are_the_documents_of_the_pack(tmp_path: Path, trained: Path) -> None:
    write(WritePacks(tokenizer=trained), tmp_path, PARTS)
    pack = Pack(tmp_path / "packs" / "web")
    for shard in pack.shards:
        docs = pl.read_parquet(pack.folder / f"{shard.name}.docs.parquet")
        table = pl.read_parquet(pack.folder / f"{shard.name}.parquet")
        assert docs.columns == ["id", "url", "source", "source_offset", "domain", "num_tokens", "text_bytes"]
        assert table.drop("tokens").equals(docs)
        assert docs.get_column("num_tokens").to_list() == shard.lengths.tolist()
        lists = table.get_column("tokens")
        assert lists.dtype == pl.List(pl.UInt16)
        assert [tokens.to_list() for tokens in lists] == [shard.document(i).tolist() for i in range(len(shard.lengths))]
    first = pl.read_parquet(pack.folder / "00000.docs.parquet")
    assert first.get_column("id").to_list() == ["id0", "id2", "id3"]
    assert first.get_column("text_bytes").to_list() == [13, 0, 3]


def test_how_documents_come_in_batches_changes_no_token(tmp_path: Path, trained: Path) -> None:
    rows = [row for batch in PARTS[0] for row in batch]
    write(WritePacks(tokenizer=trained), tmp_path / "two", [PARTS[0]])
    write(WritePacks(tokenizer=trained), tmp_path / "one", [[rows]])
    write(WritePacks(tokenizer=trained), tmp_path / "each", [[[row] for row in rows]])
    for name in ("web/00000.bin", "web/00000.idx", "web/00000.docs.parquet", "code/00000.bin", "code/00000.idx"):
        contents = {(tmp_path / run / "packs" / name).read_bytes() for run in ("one", "two", "each")}
        assert len(contents) == 1, name


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=6))
def test_every_text_can_be_read_back(trained: Path, tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    stage = WritePacks(tokenizer=trained)
    stage.setup({})
    encoded = stage.encode(frame([("web", text) for text in texts]))
    tokens, lengths = encoded.tokens, encoded.lengths
    tokenizer = Tokenizer.from_file(str(trained))
    stops = np.cumsum(lengths)
    documents = [tokens[stop - length : stop].tolist() for stop, length in zip(stops, lengths, strict=True)]
    assert [tokenizer.decode(ids[:-1], skip_special_tokens=False) for ids in documents] == texts
    assert all(ids[-1] == 0 and 0 not in ids[:-1] for ids in documents)


@pytest.mark.parametrize("text", [EOS, f"a{EOS}b", "<|pad|><|pad|>", f" {EOS} "])
def test_what_looks_like_a_special_token_in_a_text_stays_text(tmp_path: Path, trained: Path, text: str) -> None:
    write(WritePacks(tokenizer=trained), tmp_path, [[[("web", text), ("web", "b")]]])
    shard = Pack(tmp_path / "packs" / "web").shards[0]
    assert np.flatnonzero(shard.tokens == 0).tolist() == (shard.offsets[1:] - 1).tolist()
    assert 1 not in shard.tokens.tolist()
    assert Tokenizer.from_file(str(trained)).decode(shard.document(0)[:-1].tolist()) == text


def word_tokenizer(path: Path, vocab_size: int, gap: int = 0) -> Path:
    """A tokenizer of whole words w0 … with ``<|endoftext|>`` last, ``gap`` ids after the last word."""
    vocabulary = {f"w{i}": i for i in range(vocab_size - 1 - gap)} | {EOS: vocab_size - 1}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(EOS, special=True)])
    tokenizer.save(str(path))
    return path


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_499, "uint16"), (65_500, "int32"), (70_000, "int32")])
def test_the_vocabulary_decides_between_two_and_four_bytes(tmp_path: Path, vocab_size: int, dtype: str) -> None:
    path = word_tokenizer(tmp_path / "tokenizer.json", vocab_size)
    write(WritePacks(tokenizer=path), tmp_path / "run", [[[("web", f"w1 w{vocab_size - 2}")]]])
    pack = Pack(tmp_path / "run" / "packs" / "web")
    assert pack.manifest.dtype == dtype and pack.manifest.vocab_size == vocab_size
    assert pack.shards[0].tokens.tolist() == [1, vocab_size - 2, vocab_size - 1]
    assert (pack.folder / "00000.bin").stat().st_size == 3 * np.dtype(dtype).itemsize
    assert pl.read_parquet(pack.folder / "00000.parquet").get_column("tokens").to_list() == [
        [1, vocab_size - 2, vocab_size - 1]
    ]


def test_vocabulary_size_covers_the_largest_id_where_ids_have_gaps(tmp_path: Path) -> None:
    path = word_tokenizer(tmp_path / "tokenizer.json", 70_000, gap=69_000)
    assert Tokenizer.from_file(str(path)).get_vocab_size() == 1_000
    write(WritePacks(tokenizer=path), tmp_path / "run", [[[("web", "w1")]]])
    pack = Pack(tmp_path / "run" / "packs" / "web")
    assert pack.manifest.vocab_size == 70_000 and pack.manifest.dtype == "int32"
    assert pack.shards[0].tokens.tolist() == [1, 69_999] and verify_pack(pack.folder) == []


def test_formats_can_be_chosen(tmp_path: Path, trained: Path) -> None:
    for formats, suffixes in ((("megatron",), {".bin", ".idx"}), (("parquet",), {".parquet"})):
        folder = tmp_path / formats[0]
        write(WritePacks.model_validate({"tokenizer": trained, "formats": formats}), folder, PARTS)
        names = {path.name for path in (folder / "packs" / "web").iterdir()}
        assert names == {"pack.json"} | {
            f"{part}{suffix}" for part in ("00000", "00002") for suffix in (".docs.parquet", *suffixes)
        }
        assert verify_pack(folder / "packs" / "web") == []
    binary, parquet = (Pack(folder / "packs/web").shards for folder in (tmp_path / "megatron", tmp_path / "parquet"))
    assert [shard.tokens[:].tolist() for shard in binary] == [shard.tokens[:].tolist() for shard in parquet]
    with pytest.raises(ValidationError):
        WritePacks(formats=())


def test_a_domain_that_is_no_longer_made_leaves_no_pack(tmp_path: Path, trained: Path) -> None:
    write(WritePacks(tokenizer=trained), tmp_path, PARTS)
    (tmp_path / "packs" / "notes.txt").write_text("a person's own")
    before = (tmp_path / "packs/web/00000.bin").read_bytes()
    write(WritePacks(tokenizer=trained), tmp_path, PARTS[:2])
    assert sorted(path.name for path in (tmp_path / "packs").iterdir()) == ["code", "notes.txt", "web"]
    assert not list((tmp_path / "packs" / "web").glob("00002*"))
    assert (tmp_path / "packs/web/00000.bin").read_bytes() == before
    assert verify_pack(tmp_path / "packs" / "web") == []


def test_no_document_is_no_pack(tmp_path: Path, trained: Path) -> None:
    assert write(WritePacks(tokenizer=trained), tmp_path, [[], []]) == [tmp_path / TOKENIZER_FILE]
    assert not (tmp_path / "packs").exists()


@pytest.mark.parametrize("domain", ["../web", "web/en", "", ".hidden", "a b", None])
def test_a_domain_that_is_no_folder_name_is_refused(tmp_path: Path, trained: Path, domain: str) -> None:
    with pytest.raises(FormatError, match=r"\(id id1\) has the domain .* becomes a folder"):
        write(WritePacks(tokenizer=trained), tmp_path / "run", [[[("web", "fine"), (domain, "text")]]])
    assert not (tmp_path / "web").exists()


def test_a_trained_tokenizer_comes_as_an_artifact(tmp_path: Path, trained: Path) -> None:
    stage = WritePacks()
    assert stage.needs_artifacts() == ("tokenizer",) and stage.model_files() == ()
    assert WritePacks(tokenizer=trained).needs_artifacts() == ()
    assert WritePacks(tokenizer=trained).model_files() == (trained,)
    finished = write(stage, tmp_path, [[[("web", "fox")]]], {"tokenizer": trained})
    assert finished == [tmp_path / "packs/web/pack.json"]


def test_padding_and_truncation_of_a_tokenizer_file_are_switched_off(tmp_path: Path, trained: Path) -> None:
    tokenizer = Tokenizer.from_file(str(trained))
    num_tokens = len(tokenizer.encode("one two three four").ids)
    assert num_tokens > 8
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=8)
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    write(WritePacks(tokenizer=path), tmp_path, [[[("web", "x"), ("web", "one two three four")]]])
    assert Pack(tmp_path / "packs" / "web").shards[0].lengths.tolist() == [2, 1 + num_tokens]


def test_a_tokenizer_that_is_missing_broken_or_without_eos_is_named(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the tokenizer .*nothing\.json: No such file"):
        WritePacks(tokenizer=tmp_path / "nothing.json").setup({})
    for content in (b"", b"{", b'{"model": 3}', b"\xff\xfe", trained.read_bytes()[:500]):
        broken = tmp_path / "broken.json"
        broken.write_bytes(content)
        with pytest.raises(FormatError, match=r"broken\.json is not a tokenizer\.json"):
            WritePacks(tokenizer=broken).setup({})
    with pytest.raises(ConfigError, match=r"has no token '</s>'; set write_packs\.eos_token"):
        WritePacks(tokenizer=trained, eos_token="</s>").setup({})


def test_published_tokenizers_work(tmp_path: Path, test_data: Path) -> None:
    for name, eos, dtype in (
        ("gpt-neox-20b", "<|endoftext|>", "uint16"),
        ("torchtitan-test", "<|end_of_text|>", "uint16"),
    ):
        path = test_data / "tokenizers" / name / "tokenizer.json"
        text = "It costs 3.50 €; naïve 東京 🙂\n\n\tindented <|endoftext|>"
        write(WritePacks(tokenizer=path, eos_token=eos), tmp_path / name, [[[("web", text)]]])
        pack = Pack(tmp_path / name / "packs" / "web")
        tokenizer = Tokenizer.from_file(str(path))
        assert pack.manifest.dtype == dtype and verify_pack(pack.folder) == []
        document = pack.shards[0].document(0).tolist()
        assert document[-1] == tokenizer.token_to_id(eos) and document.count(document[-1]) == 1
        tokenizer.encode_special_tokens = True
        assert document[:-1] == tokenizer.encode(text, add_special_tokens=False).ids


def test_bos_and_no_eos(tmp_path: Path, trained: Path) -> None:
    plain = Tokenizer.from_file(str(trained))
    ids = {text: plain.encode(text).ids for _, text in PARTS[0][0] + PARTS[0][1]}
    for eos, bos in (("append", "<|pad|>"), ("none", None), ("none", "<|pad|>")):
        folder = tmp_path / f"{eos}{bos is None}"
        stage = WritePacks.model_validate({"tokenizer": trained, "eos": eos, "bos_token": bos})
        write(stage, folder, PARTS[:1])
        pack = Pack(folder / "packs" / "web")
        assert (pack.manifest.eos, pack.manifest.eos_id, pack.manifest.bos_id) == (eos, 0, 1 if bos else None)
        for index, text in enumerate(("the quick fox", "", "dog")):
            expected = [1] * (bos is not None) + ids[text] + [0] * (eos == "append")
            assert pack.shards[0].document(index).tolist() == expected
        assert verify_pack(pack.folder) == []
    with pytest.raises(ConfigError, match=r"has no token '<s>'; set write_packs\.bos_token"):
        WritePacks(tokenizer=trained, bos_token="<s>").setup({})


class AnswersOnly(Objective):
    """Trains on nothing but every second token, as an objective with masks would."""

    kind: str = "answers_only"
    masks: ClassVar[bool] = True

    def columns(self) -> tuple[str, ...]:
        return ("url",)

    def encode(self, rows: pl.DataFrame, tokenizer: PackTokenizer, ends: Ends) -> Encoded:
        encoded = tokenizer.encode(rows.select(pl.col("url") + pl.col("text")).to_series())
        mask = np.resize(np.array([1, 0], np.uint8), len(encoded.tokens))
        return ends.around(Encoded(encoded.tokens, encoded.lengths, mask))


def test_an_objective_sees_other_columns_and_its_masks_are_written(tmp_path: Path, trained: Path) -> None:
    stage = WritePacks.model_construct(
        **{**WritePacks(tokenizer=trained, bos_token="<|pad|>").__dict__, "objective": AnswersOnly()}
    )
    assert stage.columns().reads == ("id", "text", "domain", "url")
    write(stage, tmp_path, PARTS)
    plain = Tokenizer.from_file(str(trained))
    pack = Pack(tmp_path / "packs" / "web")
    assert pack.manifest.objective == {"kind": "answers_only"} and verify_pack(pack.folder) == []
    shard = pack.shards[0]
    assert shard.mask is not None
    encoded = [plain.encode("https://example.org/" + text).ids for text in ("the quick fox", "", "dog")]
    for index, ids in enumerate(encoded):
        assert shard.document(index).tolist() == [1, *ids, 0]
        mask = shard.mask[shard.offsets[index] : shard.offsets[index + 1]]
        assert (mask[0], mask[-1]) == (0, 1)
    # What an objective says of its own tokens is kept: here a pattern that goes on through a batch.
    inner = [shard.mask[a + 1 : b - 1] for a, b in zip(shard.offsets[:2], shard.offsets[1:3], strict=True)]
    assert np.concatenate(inner).tolist() == [1 - i % 2 for i in range(sum(map(len, encoded[:2])))]
    table = pl.read_parquet(pack.folder / "00000.parquet")
    assert table.get_column("mask").explode().to_list() == shard.mask.tolist()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(2, 9), max_size=4), max_size=5),
    st.sampled_from([None, 0]),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_ends_are_put_around_every_document(
    documents: list[list[int]], bos_id: int | None, eos_id: int | None, masked: bool
) -> None:
    flat = np.array([token for tokens in documents for token in tokens], np.uint16)
    lengths = np.array([len(tokens) for tokens in documents], np.int32)
    mask = (flat % 2).astype(np.uint8) if masked else None
    found = Ends(bos_id, eos_id).around(Encoded(flat, lengths, mask))
    first, last = ([] if token is None else [token] for token in (bos_id, eos_id))
    assert found.tokens.tolist() == [token for tokens in documents for token in first + tokens + last]
    assert found.tokens.dtype == np.uint16 and found.lengths.dtype == np.int32
    assert found.lengths.tolist() == [len(tokens) + len(first) + len(last) for tokens in documents]
    if masked:
        assert found.mask is not None
        expected = [[0] * len(first) + [t % 2 for t in tokens] + [1] * len(last) for tokens in documents]
        assert found.mask.tolist() == [bit for row in expected for bit in row]


def test_an_id_above_the_vocabulary_is_an_error_that_names_both(trained: Path) -> None:
    tokenizer = load_tokenizer(trained)

    class Faulty:
        name = "faulty"

        def encode(self, texts: pl.Series) -> Ids:
            return Ids(np.array([5, 70_000], np.uint32), np.array([2], np.int64))

    tokenizer.encoder = Faulty()
    message = r"faulty returned the token id 70000 for the tokenizer .*tokenizer\.json, whose ids end at 292"
    with pytest.raises(FormatError, match=message):
        tokenizer.encode(pl.Series(["x"]))


def unigram_tokenizer(path: Path) -> Path:
    """A Unigram model whose special tokens are pieces, as in those converted from SentencePiece."""
    letters = [(letter, -3.0) for letter in "▁abcs</>[]"]
    model = models.Unigram([("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *letters, ("ab", -2.0)], 0, False)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.save(str(path))
    return path


def test_a_special_token_that_a_model_finds_by_itself_is_spelled_out(tmp_path: Path) -> None:
    path = unigram_tokenizer(tmp_path / "tokenizer.json")
    plain = Tokenizer.from_file(str(path))
    plain.encode_special_tokens = True
    assert 1 in plain.encode("a<s>b").ids, "otherwise there is nothing to repair"
    texts = ["a<s>b", "ab", "</s>", "", "c</s><s> <s>", "</s"]
    tokenizer = load_tokenizer(path)
    encoded = tokenizer.encode(pl.Series(texts))
    assert not {1, 2} & set(encoded.tokens.tolist())
    stops = np.cumsum(encoded.lengths)
    documents = [encoded.tokens[b - n : b].tolist() for b, n in zip(stops, encoded.lengths, strict=True)]
    assert [plain.decode(ids, skip_special_tokens=False) for ids in documents] == texts
    assert documents[1] == plain.encode("ab").ids


def test_a_special_token_without_another_spelling_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, EOS: 1}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([EOS])
    tokenizer.save(str(tmp_path / "words.json"))
    with pytest.raises(FormatError, match=r"contains '<\|endoftext\|>', which the tokenizer .* cannot write"):
        load_tokenizer(tmp_path / "words.json").encode(pl.Series(["a", f"a {EOS} a"]))
