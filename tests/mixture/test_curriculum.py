"""Curricula: which columns a domain can be ordered by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dataeng.errors import ConfigError, FormatError
from dataeng.formats.mixture import Order, Policy
from dataeng.mixture.build import build_mixture

WritePack = Callable[..., Path]
DOCS = {"url": ["a", "b"], "quality.words": [3, 5], "perplexity": [0.5, None], "good": [True, False]}


def ordered(folder: Path, column: str, target: Path) -> Order | None:
    built = build_mixture([folder], target, policy=Policy(name="natural"), orders={"web": Order(by=column)})
    return built.domains["web"].order


@pytest.mark.parametrize("column", ["num_tokens", "quality.words", "perplexity", "good"])
def test_numbers_order_documents(write_pack: WritePack, tmp_path: Path, column: str) -> None:
    assert ordered(write_pack("web", [4, 5], docs=DOCS), column, tmp_path / "mix.json") == Order(by=column)


def test_other_columns_are_refused_with_those_there_are(write_pack: WritePack, tmp_path: Path) -> None:
    folder = write_pack("web", [4, 5], docs=DOCS)
    with pytest.raises(
        ConfigError,
        match=r"which is not in .*00000.docs.parquet .write_packs' option keep .*; did you mean 'quality.words'",
    ):
        ordered(folder, "quality.word", tmp_path / "mix.json")
    with pytest.raises(ConfigError, match=r"'url': in .* it is string, expected numbers \(num_tokens, quality.words"):
        ordered(folder, "url", tmp_path / "mix.json")
    (folder / "00000.docs.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(FormatError, match=r"cannot read .*00000.docs.parquet"):
        ordered(folder, "num_tokens", tmp_path / "mix.json")


def test_packs_without_documents_have_no_order(write_pack: WritePack, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"domain 'web' cannot be ordered: .*00000 has no docs.parquet"):
        ordered(write_pack("web", [4, 5]), "num_tokens", tmp_path / "mix.json")
