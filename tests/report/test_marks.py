"""What is marked in a text, for every signal that has something to mark."""

from __future__ import annotations

import io
import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dataeng.report.judgements import RuleOutcome, StepJudgement
from dataeng.report.marks import Marks, find_marks, lines, paragraphs, text_lines
from dataeng.report.terminal_marks import marked_text, print_judgement


def marked(
    text: str, signal: str, operator: str = ">", threshold: float | None = None, whitespace: bool = False
) -> list[str]:
    marks = find_marks(text, [signal], operator, threshold, whitespace)
    assert marks is not None
    return [text[start:end] for start, end in marks.spans]


REPEATED = "one line\nother\n\n\nother\none line"


@pytest.mark.parametrize(
    ("signal", "text", "expected"),
    [
        ("hashes", "a # b ## c", ["#", "##"]),
        ("ellipses", "a... b…", ["...", "…"]),
        ("bullet_lines", "- a\n  • b\nc - d", ["- a", "  • b"]),
        ("ellipsis_lines", "a...\nb… \nc", ["a...", "b… "]),
        ("dup_break_lines", REPEATED, ["other", "one line"]),
        ("dup_break_line_chars", REPEATED, ["other", "one line"]),
        ("dup_text_line_chars", REPEATED, ["other", "one line"]),
        ("dup_paragraphs", "a\nb\n\na\nb\n\n\nc", ["a\nb"]),
        ("top_2_gram_chars", "to be or not to be", ["to be", "to be"]),
        ("top_3_gram_chars", "a b c x a b c y a b c", ["a b c", "a b c", "a b c"]),
        ("dup_5_gram_chars", "a b c d e. a b c d e f", ["a b c d e"]),
        ("short_lines", "short\n" + "x" * 31 + "\n\nalso", ["short", "also"]),
        ("c4_terminal_lorem_ipsum_lines", "Lorem Ipsum dolor\nno", ["Lorem Ipsum dolor"]),
        ("c4_curly_bracket_lines", "a { b\nc", ["a { b"]),
        ("c4_javascript_lines", "turn on JavaScript\nno", ["turn on JavaScript"]),
        ("c4_policy_lines", "our Privacy Policy\nno", ["our Privacy Policy"]),
    ],
)
def test_too_many(signal: str, text: str, expected: list[str]) -> None:
    assert marked(text, signal) == expected


@pytest.mark.parametrize(
    ("signal", "text", "expected"),
    [
        ("alpha_words", "in 1999 , x2", ["1999", ","]),
        ("terminal_lines", "Yes.\nno\n\nNein!", ["no"]),
        (
            "c4_terminal_sentences",
            "One two three.\nno end here\ntwo words.\nWait a bit...",
            ["no end here", "two words.", "Wait a bit..."],
        ),
        ("c4_sentences", "no end here\ntwo words", ["two words"]),
    ],
)
def test_too_few(signal: str, text: str, expected: list[str]) -> None:
    assert marked(text, signal, "<") == expected


def test_words_longer_and_shorter_than_the_limit() -> None:
    assert marked("a verylongword !!!!!!!!!!!!", "symbol_free_chars", ">", 10) == ["verylongword"]
    assert marked("a bb ccc", "symbol_free_chars", "<", 3) == ["a", "bb"]


def test_words_between_white_space() -> None:
    assert marked("it's 1. it's 1.", "top_2_gram_chars", whitespace=True) == ["it's 1.", "it's 1."]


def test_rules_that_nothing_is_to_blame_for() -> None:
    assert find_marks("few words", ["symbol_free_words"], "<", 50, False) is None
    assert find_marks("few words", ["my_signal"], ">", 50, False) is None


@given(st.text())
def test_lines_are_those_that_python_cuts(text: str) -> None:
    assert [text[start:end] for start, end in lines(text)] == text.splitlines()
    assert [text[start:end] for start, end in text_lines(text)] == [line for line in text.split("\n") if line.strip()]
    assert [text[start:end] for start, end in paragraphs(text)] == re.split(r"\n{2,}", text.strip())


def plain(text: str, marks: Marks | None, shown: int = 100) -> str:
    return marked_text(text, marks, shown, plain=True).plain


def test_marks_in_plain_output_and_in_colour() -> None:
    marks = Marks("x", ((2, 4), (6, 7)))
    assert plain("abcdefgh", marks) == "ab>>cd<<ef>>g<<h"
    coloured = marked_text("abcdefgh", marks, 100, plain=False)
    assert coloured.plain == "abcdefgh"
    assert [(span.start, span.end) for span in coloured.spans if span.style] == [(2, 4), (6, 7)]


def test_hostile_text_is_shown_and_not_obeyed() -> None:
    text = "a\x1b[2Jb\u202ec[red]"
    assert plain(text, Marks("x", ((1, 5),))) == "a>>\\x1b[2J<<b\\u202ec[red]"


def test_long_texts_are_shown_around_the_first_mark() -> None:
    text = "x" * 1000 + "MARK" + "y" * 1000
    shown = plain(text, Marks("x", ((1000, 1004),)), shown=500)
    assert shown.startswith("800 characters before …\n" + "x" * 200 + ">>MARK<<" + "y")
    assert shown.endswith("… 704 more characters")
    assert plain(text, None, shown=10) == "x" * 10 + "\n… 1,994 more characters"


def test_the_table_of_rules() -> None:
    console = Console(file=io.StringIO(), width=200)
    outcomes = (
        RuleOutcome("own_ok", "a > x", 1.0, ">", 2.0, False),
        RuleOutcome("own_first", "b / c > x", 0.123456, ">", 0.1, True),
        RuleOutcome("own_off", "a < y", 1.0, "<", None, False),
        RuleOutcome("own_second", "a > 0 and b > 0", None, "", None, True),
    )
    print_judgement(console, StepJudgement("rules", outcomes, 1))
    assert isinstance(console.file, io.StringIO)
    rows = [" ".join(line.split()) for line in console.file.getvalue().splitlines() if "own_" in line]
    assert rows == [
        "own_ok 1 > 2 ok a > x",
        "own_first 0.1235 > 0.1 BROKEN FIRST b / c > x",
        "own_off 1 off ok a < y",
        "own_second – broken a > 0 and b > 0",
    ]


def test_bad_words_are_marked_as_they_are_counted() -> None:
    from dataeng.stages.quality.bad_words import bad_words
    from dataeng.stages.quality.quality_signals import count_bad_words

    word = next(word for word in bad_words("en") if word.isalpha())
    text = f"İ {word.upper()} and x{word}y, {word}."
    marks = find_marks(text, ["bad_words"], ">", 0.0, False, "en")
    assert marks is not None and [text[a:b].lower() for a, b in marks.spans] == [word, word]
    assert count_bad_words(pl.Series([text]), pl.Series(["en"])).to_list() == [2]
    assert find_marks(text, ["bad_words"], ">", 0.0, False, None) == Marks("bad words", ())


def test_raw_words_are_cut_at_white_space_only() -> None:
    marks = find_marks("f(x)(y)(z) is 42 ...", ["non_alpha_words", "raw_words"], "<", 0.8, False)
    assert marks is not None and marks.what == "words without a letter"
    assert ["f(x)(y)(z) is 42 ..."[a:b] for a, b in marks.spans] == ["42", "..."]
    marks = find_marks("* one\n● two\nthree", ["bullet_point_lines"], ">", 0.9, False)
    assert marks is not None and len(marks.spans) == 2
