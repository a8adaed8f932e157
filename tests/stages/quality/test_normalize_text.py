from __future__ import annotations

import unicodedata

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.stages.quality.normalize_text import NormalizeText, _suspect_pattern


def normalized(text: str | None, **options: object) -> str | None:
    return rows([text], **options)[0]["text"]


def rows(texts: list[str | None], **options: object) -> list[dict[str, object]]:
    stage = NormalizeText(**options)  # type: ignore[arg-type]
    return stage.apply(pl.DataFrame({"text": texts}, schema={"text": pl.String})).to_dicts()


def test_one_text_with_everything() -> None:
    text = "\ufeffschÃ¶n\r\ncafe\u0301   \r\n\r\n\r\n\r\n\r\nzero\u200bwidth\x00 and\u00ad soft\x0cnext\u2028last\t\n\n"
    row = rows([text])[0]
    assert row["text"] == "schön\ncafé\n\n\nzerowidth and soft\nnext\nlast"
    assert row["normalize_changed"] is True and row["normalize_mojibake_lines"] == 1
    assert row["normalize_chars_removed"] == len(text) - len(str(row["text"]))
    assert row["reason"] is None


def test_mojibake_is_repaired_line_by_line() -> None:
    text = "Voilà, c’est juste.\nVoilÃ\xa0, câ€™est faux.\n日本語 stays.\nL’éàö"
    row = rows([text])[0]
    assert row["text"] == "Voilà, c’est juste.\nVoilà, c’est faux.\n日本語 stays.\nL’éàö"
    assert row["normalize_mojibake_lines"] == 1 and row["normalize_changed"] is True
    assert normalized(text, mojibake=False) == text


@pytest.mark.parametrize(
    ("option", "value", "text", "expected"),
    [
        ("line_separators", False, "a\u2028b\x0bc", "a\u2028bc"),
        ("control_characters", False, "a\x00b", "a\x00b"),
        ("invisible", False, "a\u200bb", "a\u200bb"),
        ("form", None, "e\u0301", "e\u0301"),
        ("form", "NFKC", "ﬁ①", "fi1"),
        ("form", "NFD", "é", "e\u0301"),
        ("trailing_spaces", False, "a  \nb", "a  \nb"),
        ("collapse_spaces", True, "a \t\u00a0 b\n  c", "a b\n c"),
        ("max_blank_lines", 0, "\n\na\n\n\nb\n", "a\nb"),
        ("max_blank_lines", 1, "a\n\n\nb", "a\n\nb"),
        ("max_blank_lines", None, "\n\na\n\n\n\n\n\nb\n", "\n\na\n\n\n\n\n\nb\n"),
    ],
)
def test_options(option: str, value: object, text: str, expected: str) -> None:
    assert normalized(text, **{option: value}) == expected


def test_what_stays() -> None:
    for text in ("  indented\n\tcode\n\n\n    more", "می‌خواهم", "👩‍👩‍👧", "a\u00a0b", "x" * 1000):
        assert normalized(text) == text
        assert rows([text])[0]["normalize_changed"] is False


def test_nothing_left_is_a_reason_and_null_is_null() -> None:
    found = rows([" \n\u200b", None, ""])
    assert [row["reason"] for row in found] == ["empty_text", None, "empty_text"]
    assert found[1]["text"] is None and found[1]["normalize_changed"] is None


TEXTS = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("ÃÂâ€œ\x80\x85\u2028\r\n\n \t\u0301\u0300\u1100\u1161\u11a8각\u200b\u00ad\ufeffÅ"),
    ),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, form=st.sampled_from(["NFC", "NFKC", "NFD", "NFKD"]))
@example(text="\u1100\u1161\u11a8 a\u0301", form="NFC")
def test_normal_form_is_pythons(text: str, form: str) -> None:
    """Only texts that may change are given to the library; none is missed."""
    only = {"mojibake": False, "line_separators": False, "control_characters": False, "invisible": False,
            "trailing_spaces": False, "max_blank_lines": None}  # fmt: skip
    # Characters newer than this Python's tables have no form to compare.
    if all(unicodedata.category(character) != "Cn" for character in text):
        assert normalized(text, form=form, **only) == unicodedata.normalize(form, text)


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_a_second_run_changes_nothing(text: str) -> None:
    once = normalized(text, mojibake=False)
    assert normalized(once, mojibake=False) == once
    assert once is not None and "\r" not in once and "\n\n\n\n" not in once and once == once.rstrip()


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(TEXTS, max_size=5))
@example(texts=["Â x", "a Â x", "x\nÃ ", "œ ", "à²", "Ã\xa0", "β€®"])
def test_suspects_are_those_that_ftfy_takes_for_bad(texts: list[str]) -> None:
    from ftfy.badness import is_bad

    found = pl.Series(texts, dtype=pl.String).str.contains(_suspect_pattern()).to_list()
    for text, suspect in zip(texts, found, strict=True):
        assert suspect or not any(is_bad(line) for line in text.split("\n"))


@pytest.mark.timeout(120)  # with anything quadratic it would take hours
@pytest.mark.parametrize("piece", [" ", "\n", "a ", "\u0301", "\r", "\u200b", " \n", "x"])
def test_time_grows_with_the_text_only(piece: str) -> None:
    text = "a" + piece * (1 << 21) + "b"
    found = normalized(text)
    assert found is not None and found.startswith(("a", "á")) and found.endswith("b")
