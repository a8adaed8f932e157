"""A fast encoder that differs is found, is replaced by the reference, and leaves no token behind."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from dataeng.engine.outputs import TaskOutputs
from dataeng.formats.pack import Pack
from dataeng.stage import StartAgain
from dataeng.stages.tokens.encoders import Ids, TokenizersEncoder
from dataeng.stages.tokens.pack_tokenizer import load_tokenizer
from dataeng.stages.tokens.proof import EVERY_TEXT, FIRST_TEXTS, ProvedEncoder, first_difference, hard_texts
from dataeng.stages.tokens.vocabulary import Vocabulary, vocabulary_of_tokenizer_json
from dataeng.stages.tokens.write_packs import WritePacks

EOS = "<|endoftext|>"


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of single bytes."""
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([EOS])
    path = tmp_path_factory.mktemp("bytes") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


class Wrong:
    """The reference, but for texts with a certain word in them."""

    name = "fastokens"

    def __init__(self, reference: TokenizersEncoder, word: str, fault: str = "id") -> None:
        self.reference, self.word, self.fault = reference, word, fault

    def encode(self, texts: pl.Series) -> Ids:
        ids = self.reference.encode(texts)
        hits = texts.str.contains(self.word, literal=True).to_numpy()
        if self.fault == "raise" and hits.any():
            raise RuntimeError("regex: match\nlimit exceeded")
        tokens, lengths = ids.tokens.copy(), ids.lengths.copy()
        if self.fault == "length" and hits.any():
            return Ids(np.append(tokens, np.uint32(0)), lengths + (np.arange(len(lengths)) == len(lengths) - 1))
        tokens[np.repeat(hits, lengths)] ^= 1
        return Ids(tokens, lengths)


def reference(words: Path) -> TokenizersEncoder:
    return TokenizersEncoder(words.read_bytes(), words)


@pytest.mark.parametrize("fault", ["id", "length"])
def test_the_first_difference_is_described(words: Path, fault: str) -> None:
    plain = reference(words)
    texts = pl.Series(["fine", "", "ab odd"])
    assert first_difference(plain, plain, texts) is None
    found = first_difference(Wrong(plain, "odd", fault), plain, texts)
    assert found is not None and found.startswith("fastokens encodes 'ab odd' as [")
    assert ("from token 0 on, tokenizers as [" if fault == "id" else "from token 6 on, tokenizers as []") in found
    assert first_difference(Wrong(plain, "odd"), plain, texts[:2]) is None


def test_agreeing_texts_are_the_fast_encoders_and_some_are_compared(words: Path) -> None:
    plain = reference(words)
    proved = ProvedEncoder(Wrong(plain, "odd"), plain)
    texts = pl.Series([f"text {i}" for i in range(2 * EVERY_TEXT + 1)])
    assert proved.encode(texts).lengths.tolist() == plain.encode(texts).lengths.tolist()
    assert (proved.proof.num_texts, proved.proof.difference) == (len(texts), None)
    assert proved.proof.num_compared == FIRST_TEXTS + 2 and proved.name == "fastokens"


def test_what_is_compared_does_not_depend_on_batches(words: Path) -> None:
    plain = reference(words)
    texts = pl.Series([f"text {i} " * (1 + 400 * (i % EVERY_TEXT == 0)) for i in range(3 * EVERY_TEXT)])
    seen: list[list[str]] = []
    for size in (1, 100, len(texts)):
        compared: list[str] = []

        class Watched:
            name = "tokenizers"

            def encode(self, column: pl.Series, compared: list[str] = compared) -> Ids:
                compared.extend(column.to_list())
                return plain.encode(column)

        proved = ProvedEncoder(Wrong(plain, "odd"), Watched())
        for start in range(0, len(texts), size):
            proved.encode(texts[start : start + size])
        seen.append(compared)
    assert seen[0] == seen[1] == seen[2] and len(seen[0]) == FIRST_TEXTS + 2
    assert any(not text.startswith("text") or not text.endswith(" ") for text in seen[0]), "windows of long texts"


@pytest.mark.parametrize("fault", ["id", "length", "raise"])
def test_a_difference_at_the_start_lets_the_reference_encode(words: Path, fault: str) -> None:
    plain = reference(words)
    proved = ProvedEncoder(Wrong(plain, "odd", fault), plain)
    texts = pl.Series(["an odd text", "fine"])
    assert proved.encode(texts).tokens.tolist() == plain.encode(texts).tokens.tolist()
    assert proved.name == "tokenizers" and proved.proof.difference is not None
    if fault == "raise":
        assert proved.proof.difference == "fastokens failed: RuntimeError: regex: match limit exceeded"
    assert proved.encode(texts).tokens.tolist() == plain.encode(texts).tokens.tolist()


def test_a_panic_of_a_library_is_a_difference(words: Path) -> None:
    class Panic(BaseException):
        pass

    class Panicking:
        name = "fastokens"

        def encode(self, texts: pl.Series) -> Ids:
            raise Panic("index out of bounds")

    class Interrupted(Panicking):
        def encode(self, texts: pl.Series) -> Ids:
            raise KeyboardInterrupt

    plain = reference(words)
    proved = ProvedEncoder(Panicking(), plain)
    assert len(proved.encode(pl.Series(["a"])).tokens) == 1
    assert proved.proof.difference == "fastokens failed: Panic: index out of bounds"
    with pytest.raises(KeyboardInterrupt):
        ProvedEncoder(Interrupted(), plain).encode(pl.Series(["a"]))


def test_a_difference_later_on_starts_the_part_again(words: Path) -> None:
    plain = reference(words)
    proved = ProvedEncoder(Wrong(plain, "odd"), plain)
    proved.encode(pl.Series(["fine"]))
    with pytest.raises(StartAgain, match="encodes 'odd' as"):
        proved.encode(pl.Series(["odd"]))


def test_a_part_that_starts_again_is_the_references_whatever_was_written(words: Path, tmp_path: Path) -> None:
    """As the engine does it: the files of the first attempt are thrown away, and the second has no trace of it."""
    stage = WritePacks(tokenizer=words)
    stage.setup({})
    tokenizer = stage.recipe.tokenizer
    assert isinstance(tokenizer.encoder, ProvedEncoder)
    plain = tokenizer.encoder.reference
    tokenizer.encoder = ProvedEncoder(Wrong(plain, "odd"), plain)  # type: ignore[arg-type]

    def part(number: int, *texts: str) -> list[dict[str, Any]]:
        outputs = TaskOutputs(tmp_path)
        try:
            writer = stage.open(number, outputs)
            for text in texts:
                writer.write(pl.DataFrame({"id": ["x"], "text": [text], "domain": ["web"]}))
            shards = writer.close()
            outputs.commit()
        except BaseException:
            outputs.discard()
            raise
        return shards

    texts = ("hidden for now", "an odd one", "the end")
    with pytest.raises(StartAgain):
        part(3, *texts)
    assert not list(tmp_path.rglob("*.bin"))
    shards = part(3, *texts) + part(4, "fine")
    stage.finish(tmp_path, shards)
    accounts = [shard["encoding"] for shard in shards]
    assert [account["encoder"] for account in accounts] == ["tokenizers", "fastokens"]
    assert "encodes 'an odd one' as" in accounts[0]["difference"] and accounts[1]["difference"] is None
    pack = Pack(tmp_path / "packs" / "web")
    expected = [plain.encode(pl.Series([text])).tokens.tolist() for text in texts]
    assert [pack.shards[0].document(i).tolist()[:-1] for i in range(3)] == expected


def test_a_tokenizer_that_differs_on_hard_texts_is_not_used_at_all(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differing(content: bytes) -> Wrong:
        return Wrong(TokenizersEncoder(content, words), "\u3000")

    monkeypatch.setattr("dataeng.stages.tokens.pack_tokenizer.FastokensEncoder", differing)
    path = tmp_path / "other.json"
    path.write_bytes(words.read_bytes())
    loaded = load_tokenizer(path)
    assert loaded.encoder.name == "tokenizers"
    assert loaded.not_faster is not None and "fastokens encodes '\\u3000' as" in loaded.not_faster


def test_hard_texts_hold_every_category_and_the_names_of_special_tokens() -> None:
    ids = {"<s>": 0, "<think>": 1, "<0x0A>": 2, "▁word": 3}
    vocabulary = Vocabulary(ids=ids, size=4, special=("<s>",), added=("<think>",), unmerged=("<0x0A>",))
    texts = hard_texts(vocabulary)
    together = "".join(texts.to_list())
    categories = {unicodedata.category(character) for character in together}
    assert categories == {unicodedata.category(chr(code)) for code in range(0x110000)} - {"Cs"}
    assert {"<s>", "a<s>b", "<think><think>", "<0x0A>", " word", ""} <= set(texts.to_list())
    assert texts.str.len_bytes().sum() < 150_000, "comparing them takes a moment at the start of every worker"
    assert texts.equals(hard_texts(vocabulary))


def test_what_tokens_stand_for() -> None:
    assert Vocabulary(ids={}, size=0, special=(), byte_level=True).text_of("ĠÃ©Ċ") == " é\n"
    assert Vocabulary(ids={}, size=0, special=(), byte_level=True).text_of("Ã") == "\ufffd"
    assert Vocabulary(ids={}, size=0, special=(), byte_level=True).text_of("▁漢 added") == "▁漢 added"
    assert Vocabulary(ids={}, size=0, special=()).text_of("▁a▁b") == " a b"


def test_tokens_that_no_merge_makes_are_known(words: Path) -> None:
    """Both ways of writing merges, and those that are there for other reasons."""
    for merges in ([["a", "b"]], ["a b"]):
        model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "<0x0A>": 3, "abab": 4}, "merges": merges}
        content = json.dumps({"model": model}).encode()
        plain = Tokenizer(models.BPE(model["vocab"], [("a", "b")]))
        assert vocabulary_of_tokenizer_json(plain, content).unmerged == ("<0x0A>", "abab")
    assert load_tokenizer(words).vocabulary.unmerged == ()
