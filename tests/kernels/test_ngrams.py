from __future__ import annotations

import gzip
import json
import unicodedata
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.kernels.ngrams import MAX_NGRAM, MID_BOTH, MID_LETTERS, MID_NUMBERS, SINGLE_RANGES, list_ngrams
from dataeng.kernels.text import text_buffers
from dataeng.kernels.units import list_units


def kind_of(character: str) -> str:
    """Letter, number, joiner, mark, white or other, as the module's docstring says."""
    code_point, category = ord(character), unicodedata.category(character)
    if character.isspace():
        return "white"
    if category in ("Mn", "Mc", "Me", "Cf") or 0xE0000 <= code_point < 0xE01F0:
        return "mark"
    if category[0] == "L" or category == "Nl":
        return "other" if any(a <= code_point <= b for a, b in SINGLE_RANGES) else "letter"
    return {"Nd": "number", "Pc": "joiner"}.get(category, "other")


def tokens_of(text: str) -> list[str]:
    """Word boundaries, by clusters of a character and the marks after it."""
    clusters: list[str] = []
    for character in text:
        if clusters and kind_of(character) == "mark" and kind_of(clusters[-1][0]) != "white":
            clusters[-1] += character
        else:
            clusters.append(character)
    tokens: list[str] = []
    i = 0
    while i < len(clusters):
        kind = kind_of(clusters[i][0])
        token = clusters[i]
        i += 1
        if kind == "white":
            continue
        while kind in ("letter", "number", "joiner") and i < len(clusters):
            following = kind_of(clusters[i][0])
            if following in ("letter", "number", "joiner"):
                token, kind, i = token + clusters[i], following, i + 1
                continue
            sign = clusters[i][0]
            after = kind_of(clusters[i + 1][0]) if i + 1 < len(clusters) else ""
            between_letters = sign in MID_BOTH + MID_LETTERS and kind == after == "letter"
            between_numbers = sign in MID_BOTH + MID_NUMBERS and kind == after == "number"
            if not (between_letters or between_numbers):
                break
            token, i = token + clusters[i] + clusters[i + 1], i + 2
        tokens.append(token)
    return tokens


def ngrams_of(texts: list[str], ngram: int, min_tokens: int) -> list[list[int]]:
    """The keys of each text's lines, by the kernel."""
    buffers = text_buffers(pl.Series(texts, dtype=pl.String))
    units = list_units(buffers, "line")
    found = list_ngrams(buffers, units, ngram, min_tokens)
    assert int(found.num.sum()) == len(found.key)
    keys, at = [], 0
    for number in found.num:
        keys.append(found.key[at : at + number].tolist())
        at += number
    return keys


PIECES = ["don't", "3.14", "1,000", "a.b", "e\u0301", "x", "'", ".", "_", "文字", "ひら", "ไทย", " ", "\u200d", "12",
          "a:b", "::", "é", "-", "1;2", "a;b", "\u0301"]  # fmt: skip
LINE = st.one_of(st.text(max_size=12), st.lists(st.sampled_from(PIECES), max_size=12).map("".join)).map(
    lambda text: text.replace("\n", " ").strip()
)


@settings(max_examples=300, deadline=None)
@given(st.lists(LINE.filter(bool), max_size=6), st.integers(1, 4), st.integers(1, 4))
@example(["a b c d", "a b c d e", "a b", "a", "d c b a"], 3, 2)
def test_equal_ngrams_and_only_they_have_equal_keys(lines: list[str], ngram: int, min_tokens: int) -> None:
    names: dict[tuple[str, ...], int] = {}
    for line, keys in zip(lines, ngrams_of(lines, ngram, min_tokens), strict=True):
        tokens = tokens_of(line)
        expected = [tuple(tokens[i : i + ngram]) for i in range(len(tokens) - ngram + 1)]
        if not expected and len(tokens) >= min_tokens:
            expected = [tuple(tokens)]
        assert len(keys) == len(expected), tokens
        for key, gram in zip(keys, expected, strict=True):
            assert names.setdefault(gram, key) == key
    assert len(set(names.values())) == len(names)


def test_tokens_by_hand() -> None:
    assert tokens_of("Don't pay $3.14, e.g. x_1—文字!") == [
        "Don't", "pay", "$", "3.14", ",", "e.g", ".", "x_1", "—", "文", "字", "!",
    ]  # fmt: skip
    # One key each: the kernel cuts as the reference does.
    assert [len(keys) for keys in ngrams_of(["Don't pay $3.14, e.g. x_1—文字!"], 1, 1)] == [12]


def test_tokens_are_those_of_unicodes_word_boundaries(test_data: Path) -> None:
    """Against the `regex` package's own implementation of UAX #29, on English and many other languages."""
    regex = pytest.importorskip("regex")
    total = differing = 0
    for name in ("c4-rp", "manpages"):
        with gzip.open(test_data / "domains" / f"{name}.jsonl.gz", "rt") as file:
            texts = [json.loads(line)["text"] for line in file][:150]
        for line in (line.strip() for text in texts for line in text.split("\n")[:40]):
            cuts = [match.start() for match in regex.finditer(r"(?wV1)\b", line)]
            theirs = [line[a:b] for a, b in pairwise([0, *cuts, len(line)]) if line[a:b].strip()]
            total += 1
            differing += theirs != tokens_of(line)
    assert total > 4000 and differing <= 0.002 * total, (differing, total)


def test_long_lines_and_limits() -> None:
    # More n-grams than a quarter of the bytes.
    keys = ngrams_of(["!" * 3000], 1, 1)[0]
    assert len(keys) == 3000 and len(set(keys)) == 1
    assert len(ngrams_of(["a " * (MAX_NGRAM + 5)], MAX_NGRAM, 1)[0]) == 6
    buffers = text_buffers(pl.Series(["a"]))
    for ngram in (0, MAX_NGRAM + 1):
        with pytest.raises(ValueError, match="between 1 and 64"):
            list_ngrams(buffers, list_units(buffers, "line"), ngram, 1)
