"""Marks in text: found, taken out, and nothing else changed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dataeng.stages.tokens.marked_text import (
    ESCAPED_RESERVED,
    RESERVED,
    TRAINED_START,
    TRAINED_STOP,
    Spans,
    mark_special,
    special_pattern,
    training_spans,
    without_marks,
)


def test_the_longest_token_is_found() -> None:
    pattern = special_pattern(["<s>", "<s>x", "", "[a]"])
    assert pattern is not None and pattern.findall("<s><s>xx[a]a") == ["<s>", "<s>x", "[a]"]
    assert special_pattern([""]) is None


@given(st.lists(st.tuples(st.booleans(), st.text(max_size=5).filter(lambda t: not RESERVED.search(t))), max_size=8))
def test_spans_are_where_the_marks_were(pieces: list[tuple[bool, str]]) -> None:
    marked = "".join(f"{TRAINED_START}{text}{TRAINED_STOP}" if trained else text for trained, text in pieces)
    found = training_spans(marked)
    assert found.text == without_marks(marked) == "".join(text for _, text in pieces)
    assert [found.text[start:stop] for start, stop in found.trained] == [text for trained, text in pieces if trained]


def test_a_span_within_a_span_adds_nothing() -> None:
    inner = f"a{TRAINED_START}b{TRAINED_START}c{TRAINED_STOP}d{TRAINED_STOP}e"
    assert training_spans(inner) == Spans("abcde", [(1, 4)])


def test_marks_are_recognised_in_json_too() -> None:
    assert without_marks(mark_special("<s>")) == "<s>"
    assert ESCAPED_RESERVED.search(r'{"name": "\ufdd0"}') and ESCAPED_RESERVED.search(r"\uFDDA")
    assert not ESCAPED_RESERVED.search(r"\ufde0 \ufdc0")
