"""What is exported: packs, runs and mixtures are found, checked, and refused where they do not go together."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataeng.errors import ConfigError, FormatError
from dataeng.exports.corpus import documents_file, narrowest_dtype, open_corpus
from tests.exports.packs import Content, write_mixture, write_pack, write_run

WEB = Content([[[1, 2, 3], []], [], [[4]]], [None, None, None])
CODE = Content([[[5]]], [[[1, 0]]])


def test_a_pack_alone_goes_straight_into_the_output(tmp_path: Path) -> None:
    corpus = open_corpus(write_pack(tmp_path / "web", WEB))
    (domain,) = corpus.domains
    assert corpus.alone and corpus.folder(tmp_path / "out", domain) == tmp_path / "out"
    assert (domain.name, domain.num_documents, domain.num_tokens) == ("web", 3, 7)
    assert [shard.name for shard in domain.shards()] == ["00000", "00002"]  # an empty shard has nothing to export
    assert corpus.weights() == {"web": 1.0} and not corpus.masked


def test_a_run_is_all_its_domains(tmp_path: Path) -> None:
    corpus = open_corpus(write_run(tmp_path / "run", {"web": WEB, "code": CODE}))
    assert [domain.name for domain in corpus.domains] == ["code", "web"]
    assert corpus.weights() == {"code": pytest.approx(2 / 9), "web": pytest.approx(7 / 9)}
    assert corpus.masked and not corpus.alone
    assert corpus.folder(tmp_path, corpus.domains[0]) == tmp_path / "code"
    assert corpus.tokenizer == tmp_path / "run/packs/code/../tokenizer.json"


def test_a_mixture_gives_weights_and_joins_packs(tmp_path: Path) -> None:
    first, second = (write_pack(tmp_path / name / "web", WEB) for name in ("one", "two"))
    code = write_pack(tmp_path / "code", CODE, "code")
    path = write_mixture(tmp_path / "mix.json", {"web": 0.25, "code": 0.75}, {"web": [first, second], "code": [code]})
    corpus = open_corpus(path)
    assert corpus.weights() == {"web": 0.25, "code": 0.75}
    assert [(domain.name, domain.num_tokens) for domain in corpus.domains] == [("web", 14), ("code", 2)]


def test_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"neither a pack .* nor a run .* nor a mixture"):
        open_corpus(tmp_path)
    empty = write_pack(tmp_path / "empty", Content([[]], [None]))
    with pytest.raises(FormatError, match="'web' has no tokens"):
        open_corpus(empty)


@pytest.mark.parametrize("kind", ["bin", "idx", "docs.parquet", "mask"])
@pytest.mark.parametrize("damage", ["cut", "altered", "missing"])
def test_a_damaged_pack_is_refused(tmp_path: Path, kind: str, damage: str) -> None:
    folder = write_pack(tmp_path / "web", CODE)
    path = folder / f"00000.{kind}"
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(FormatError, match=f"00000.{kind}.*Nothing was exported"):
        open_corpus(folder)


@pytest.mark.parametrize(
    "changes", [{"vocab_size": 60_001}, {"eos_id": 7, "tokenizer_sha256": "a" * 64, "tokenizer": "none.json"}]
)
def test_packs_that_do_not_go_together_are_named(tmp_path: Path, changes: dict[str, object]) -> None:
    write_pack(tmp_path / "run/packs/a", WEB, "a")
    write_pack(tmp_path / "run/packs/b", WEB, "b", **changes)
    field = "vocab_size is 60000" if "vocab_size" in changes else "tokenizer_sha256"
    with pytest.raises(FormatError, match=f"packs/a and .*packs/b do not go together: {field}"):
        open_corpus(tmp_path / "run")


def test_two_dtypes_do_not_go_together(tmp_path: Path) -> None:
    write_pack(tmp_path / "run/packs/a", WEB, "a")
    write_pack(tmp_path / "run/packs/b", Content(WEB.shards, WEB.masks, "int32"), "b", vocab_size=60_000)
    with pytest.raises(FormatError, match="dtype is uint16 in one and int32"):
        open_corpus(tmp_path / "run")


def test_a_tokenizer_that_is_not_the_packs_is_refused(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "web", WEB)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(FormatError, match="tokenizer"):
        open_corpus(folder)
    (tmp_path / "tokenizer.json").unlink()
    assert open_corpus(folder, verify=False).tokenizer is None


def test_documents_without_a_row_are_refused(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "web", WEB)
    pq.write_table(pa.table({"id": ["a"]}), folder / "00000.docs.parquet")
    (domain,) = open_corpus(folder, verify=False).domains
    with pytest.raises(FormatError, match="1 rows for 2 documents"):
        documents_file(next(domain.shards()))


@pytest.mark.parametrize(("vocab_size", "name"), [(1, "uint16"), (65_536, "uint16"), (65_537, "uint32")])
def test_narrowest_type(vocab_size: int, name: str) -> None:
    assert narrowest_dtype(vocab_size).name == name
