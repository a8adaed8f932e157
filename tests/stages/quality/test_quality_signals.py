from __future__ import annotations

import polars as pl
import pytest

from dataeng.errors import ConfigError
from dataeng.kernels.counters import COUNTERS
from dataeng.kernels.stop_words import MAX_STOP_WORDS
from dataeng.stages.quality.quality_signals import QualitySignals
from dataeng.stages.quality.stop_words import STOP_WORDS


def applied(rows: list[tuple[str | None, str | None]], **options: object) -> pl.DataFrame:
    stage = QualitySignals(**options)  # type: ignore[arg-type]
    stage.setup({})
    batch = pl.DataFrame(rows, schema={"text": pl.String, "language": pl.String}, orient="row")
    return stage.apply(batch)


def test_all_signals_are_there_with_their_type() -> None:
    declared = QualitySignals().columns()
    assert declared.reads == ("text", "language")
    assert set(declared.signals) == {f"quality_{name}" for name in COUNTERS}
    found = applied([("One line, and no more.", "en")])
    for name, dtype in declared.signals.items():
        assert found.schema[name] == dtype
    assert "reason" not in found.columns


def test_words_by_option() -> None:
    rows: list[tuple[str | None, str | None]] = [("One line, and no more.", "en")]
    assert applied(rows)["quality_words"].to_list() == [7]
    assert applied(rows, words="whitespace")["quality_words"].to_list() == [5]


def test_stop_words_follow_the_language() -> None:
    rows: list[tuple[str | None, str | None]] = [
        ("the cat and der Hund und die Maus", "en"),
        ("the cat and der Hund und die Maus", "de"),
        ("the cat and der Hund und die Maus", "zh"),
        ("the cat and der Hund und die Maus", None),
    ]
    assert applied(rows)["quality_stop_words"].to_list() == [2, 3, None, None]
    assert applied(rows, stop_words={"zh": ("cat",)})["quality_stop_words"].to_list() == [2, 3, 1, None]


def test_one_language_for_all() -> None:
    stage = QualitySignals(language="en")
    assert stage.columns().reads == ("text",)
    stage.setup({})
    assert stage.apply(pl.DataFrame({"text": ["the cat and", "und"]}))["quality_stop_words"].to_list() == [2, 0]


def test_empty_texts_and_batches() -> None:
    found = applied([("", "en"), (None, "en")])
    assert found["quality_chars"].to_list() == [0, 0]
    assert applied([]).height == 0


def test_too_many_stop_words() -> None:
    with pytest.raises(ConfigError, match="quality_signals: 65 stop words for 'en'"):
        applied([], stop_words={"en": tuple(f"w{i}" for i in range(MAX_STOP_WORDS + 1))})


def test_stop_word_lists() -> None:
    assert STOP_WORDS["en"] == ("the", "be", "to", "of", "and", "that", "have", "with")
    assert len(STOP_WORDS) >= 20
    for language, words in STOP_WORDS.items():
        assert 5 <= len(set(words)) == len(words) <= MAX_STOP_WORDS, language


def test_all_signals() -> None:
    declared = QualitySignals(signals="all").columns().signals
    found = applied(
        [("SHIT happens, bullshit too. (shit)", "en"), ("聖職者", "ja"), ("x", "xx"), ("", None)], signals="all"
    )
    assert {name: found.schema[name] for name in declared} == declared
    assert len(declared) > 80
    assert found["quality_bad_words"].to_list() == [3, 0, None, None]
    assert found["quality_stop_word_occurrences"].to_list() == [0, None, None, None]
    assert found["quality_uppercase_words"].to_list() == [1, 0, 0, 0]
    assert applied([], signals="all").height == 0


def test_compression_tells_repetition() -> None:
    repeated, varied = "the same words " * 100, " ".join(str(i * 7919 % 10007) for i in range(300))
    found = applied([(repeated, "en"), (varied, "en")], signals="all")
    ratio = found["quality_zstd_bytes"] / found["quality_bytes"]
    assert ratio[0] < 0.1 < 0.3 < ratio[1]


def test_bad_words_are_found_as_datatrove_finds_them() -> None:
    import re

    from dataeng.stages.quality.bad_words import bad_word_languages, bad_words
    from dataeng.stages.quality.quality_signals import count_bad_words

    assert len(bad_word_languages()) == 27
    for language in bad_word_languages():
        words = [re.escape(word) for word in bad_words(language)]
        theirs = re.compile(
            "|".join(words) if language in ("ja", "th", "zh") else rf"(?:\W|^)({'|'.join(words)})(?:\W|$)"
        )
        texts = [f"a {bad_words(language)[i]}. b" for i in (0, -1)] + [
            "x" + bad_words(language)[0] + "x",
            "harmless",
            "",
        ]
        found = count_bad_words(pl.Series(texts), pl.Series([language] * len(texts)))
        assert [count > 0 for count in found] == [theirs.search(text) is not None for text in texts], language
