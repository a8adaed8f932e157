from __future__ import annotations

import time

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.kernels.refinedweb_lines import COUNTS, REASONS, RefinedWebLimits, remove_refinedweb_lines
from dataeng.kernels.text import text_buffers
from tests.kernels.lines_reference import Result, refinedweb

Options = dict[str, float]
DCLM: Options = {"upper": 0.5, "numeric": 0.999999, "min_words": 2, "short": 10, "share": 0.05}
LOOSE: Options = {"upper": 0.3, "numeric": 0.4, "min_words": 0, "short": 3, "share": 1.0}


def limits(options: Options) -> RefinedWebLimits:
    return RefinedWebLimits(
        options["upper"], options["numeric"], True, int(options["min_words"]), int(options["short"]), options["share"]
    )


def edited(texts: list[str], options: Options) -> list[Result]:
    found = remove_refinedweb_lines(text_buffers(pl.Series(texts, dtype=pl.String)), limits(options))
    counts = [{k: v for k, v in zip(COUNTS, row, strict=True) if v} for row in found.counts.tolist()]
    reasons = [REASONS[code] for code in found.reasons]
    return [
        (None if reason else text, count, reason)
        for text, count, reason in zip(found.texts.to_list(), counts, reasons, strict=True)
    ]


def expected(texts: list[str], options: Options) -> list[Result]:
    results = [refinedweb(text, **options) for text in texts]  # type: ignore[arg-type]
    return [(text, {k: v for k, v in counts.items() if v}, reason) for text, counts, reason in results]


WORDS = (
    "word", "two words", "LOUD", "LOUD WORDS", "Éa", "ÀÉ", "ǅ", "Ⅷ", "3", "12", "²", "٣", "3 likes", "1.2k followers",
    "(5,000 Views)", "3 likes!", "_3 likes", "7m downloads", "7 m downloads", "3 likes and more", "Items in cart",
    "items in cart", "Read more...", "read more>>>", "Read moreééé", "Read more", "Sign-in", "sign-in", "Sign-in now",
    "文字", "\U0001f600", "!!!", "a",
)  # fmt: skip
GAPS = ("\n", "\n\n", "\r", "\x0c", "\x85", "\u2028", " ", "  ", "\u00a0", "\t", "\0", "\x1f", "")
TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(WORDS + ("\n",) * 20 + (" ",) * 8 + GAPS), max_size=60).map("".join),
)


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(TEXTS, max_size=4), options=st.sampled_from([DCLM, LOOSE, {**DCLM, "share": 0.9}]))
@example(texts=["", "\n", " \n  a b \n ", "items in cart items in cartitems in cart x"], options=LOOSE)
@example(texts=["one two\n\n\nSign-in\n", "a  items in cartitems in cart"], options={**DCLM, "share": 0.9})
def test_equals_the_plain_reference(texts: list[str], options: Options) -> None:
    assert edited(texts, options) == expected(texts, options)


def test_an_example_line_by_line() -> None:
    body = "A long paragraph of the page, with enough words that a few lines less do not matter. " * 8
    lines = [
        "BUY NOW", "2024", "1,234 likes", "12.5k followers!", "Menu", "", body, "Three items in cart today",
        "The rest of it. Read more...", "Read more>>>", "Sign-in to comment", "Sign-in",
    ]  # fmt: skip
    [(text, counts, reason)] = edited(["\n".join(lines)], {**DCLM, "share": 0.2})
    assert reason == "" and text is not None
    assert text.split("\n") == [body, "Three today", "The rest of it.", "to comment"]
    # "Sign-in" alone is one word and goes before its phrase is looked for; "Read more>>>" is two words.
    assert {name: count for name, count in counts.items() if not name.startswith("words")} == {
        "lines": 12, "removed": 7, "removed_uppercase": 1, "removed_numeric": 1, "removed_counter": 2,
        "removed_short": 2, "removed_phrase": 1, "edited": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("?? !!", "no_words"),
        ("MENU\n\nHOME\n", "no_lines"),
        ("", "no_lines"),
        ("twenty words " * 10 + "\nHOME", ""),  # 1 of 21
        ("twenty words " * 10 + "\nHOME HOME", "words_removed"),  # 2 of 22
    ],
)
def test_rules_that_drop_the_page(text: str, reason: str) -> None:
    assert edited([text], DCLM)[0][2] == reason


def test_time_grows_with_the_text_only() -> None:
    """One line, one word, phrases without end, line feeds only: four times the text takes about that much longer."""
    for piece in ("word and word ", "x", "\n", "a b\n", "items in cart ", "Read more...", "3,", "- ", "“"):
        seconds = []
        for size in (1 << 20, 1 << 22):
            column = text_buffers(pl.Series([piece * (size // len(piece.encode()))]))
            start = time.process_time()
            remove_refinedweb_lines(column, limits({**DCLM, "short": 1e9}))
            seconds.append(time.process_time() - start)
        assert seconds[1] < 12 * seconds[0] + 0.05, (piece, seconds)
