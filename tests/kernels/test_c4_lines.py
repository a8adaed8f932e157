from __future__ import annotations

import time

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.kernels.c4_lines import COUNTS, REASONS, C4Limits, remove_c4_lines
from dataeng.kernels.text import text_buffers
from tests.kernels.lines_reference import Result, c4

Options = dict[str, object]


def limits(options: dict[str, object]) -> C4Limits:
    marks = np.zeros(128, np.uint8)
    marks[[ord(mark) for mark in str(options["marks"])]] = 1
    numbers = [int(str(options[name])) for name in ("long", "min_words", "min_sentences")]
    return C4Limits(
        numbers[0], True, marks, numbers[1], not options["count_citations"], True, True, True, True, numbers[2]
    )


def edited(texts: list[str], options: Options) -> list[Result]:
    found = remove_c4_lines(text_buffers(pl.Series(texts, dtype=pl.String)), limits(options))
    counts = [{k: v for k, v in zip(COUNTS, row, strict=True) if v} for row in found.counts.tolist()]
    reasons = [REASONS[code] for code in found.reasons]
    return [
        (None if reason else text, count, reason)
        for text, count, reason in zip(found.texts.to_list(), counts, reasons, strict=True)
    ]


def expected(texts: list[str], options: Options) -> list[Result]:
    results = [c4(text, **options) for text in texts]  # type: ignore[arg-type]
    return [(text, {k: v for k, v in counts.items() if v}, reason) for text, counts, reason in results]


T5: Options = {"marks": '.?!"', "min_words": 5, "count_citations": False, "min_sentences": 3, "long": 1000}
DATATROVE: Options = {"marks": ".?!\"'", "min_words": 3, "count_citations": True, "min_sentences": 5, "long": 1000}
LOOSE: Options = {"marks": "", "min_words": 2, "count_citations": True, "min_sentences": 0, "long": 9}

WORDS = (
    "word", "Words.", "it", "ends.", "Really?", "...", "wait...", '"Quoted."', "it's'", "[1]", "[12]", "[edit]", "[",
    "[citation", "needed]", "[citation needed]", "[٣]", "[a]", "java[1]script", "JavaScript", "lorem ipsum", "Lorem",
    "ipsum.", "{", "x{y}.", "terms of use", "Privacy", "Policy", "cookie policy.", "we use cookies.", "use of cookies",
    "été.", "größe!", "文字。", "ends.[3]", "ends. [3]", "longlonglonglong", "\U0001f600.", "J.", "U.S.",
)  # fmt: skip
GAPS = (
    "\n",
    "\r\n",
    "\r",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x85",
    "\u2028",
    "\u2029",
    " ",
    "\u00a0",
    "\u3000",
    "\t",
    "",
    "\x1f",
)
TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(WORDS * 2 + (" ",) * 60 + GAPS), max_size=60).map("".join),
)


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(TEXTS, max_size=4), options=st.sampled_from([T5, DATATROVE, LOOSE]))
@example(texts=["", "[1] First word here.\nAnd [edit] then it is done."], options=LOOSE)
@example(texts=["One two three[1].\r\n\r\nFour five six seven eight."], options=T5)
def test_equals_the_plain_reference(texts: list[str], options: Options) -> None:
    assert edited(texts, options) == expected(texts, options)


def test_an_example_line_by_line() -> None:
    lines = [
        "  A first sentence. And a second, with a note.[12]  ",
        "no full stop at the end of this line",
        "Too short.",
        "Please enable JavaScript to read this.",
        "By reading you accept our Privacy Policy, they say.",
        "x" * 1001 + " is a long word.",
        "Third sentence here. Fourth sentence here. Fifth one!",
        "An ellipsis is not an end of a sentence...",
    ]
    [(text, counts, reason)] = edited(["\n".join(lines)], DATATROVE)
    assert text == "A first sentence. And a second, with a note.\nThird sentence here. Fourth sentence here. Fifth one!"
    assert reason == "" and counts == {
        "lines": 8, "removed": 6, "removed_long_word": 1, "removed_unterminated": 2, "removed_short": 1,
        "removed_javascript": 1, "removed_policy": 1, "sentences": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Here is the famous Lorem Ipsum text.", "lorem_ipsum"),
        ("Here is some code { like this }.", "curly_bracket"),
        ("Here is some code { that does not end", "too_few_sentences"),  # an earlier rule removes the line
        ("Here is lorem ipsum and javascript.", "lorem_ipsum"),
        ("Here is javascript and { too.", "too_few_sentences"),
    ],
)
def test_rules_that_drop_the_page(line: str, reason: str) -> None:
    assert edited([line], DATATROVE)[0][2] == reason


def test_time_grows_with_the_text_only() -> None:
    """One line, one word, brackets without end, line feeds only: twice the text takes about twice the time."""
    for piece in ("word and word ", "x", "[", "[1", "\n", "java", "use of ", ".", "“"):
        seconds = []
        for size in (1 << 20, 1 << 22):
            column = text_buffers(pl.Series([piece * (size // len(piece.encode()))]))
            start = time.process_time()
            remove_c4_lines(column, limits(LOOSE))
            seconds.append(time.process_time() - start)
        assert seconds[1] < 12 * seconds[0] + 0.05, (piece, seconds)
