"""Predicates: what they mean, by hand-computed examples, and what they refuse."""

from __future__ import annotations

import time

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataeng.errors import ConfigError
from dataeng.predicate import MAX_CHARACTERS, MAX_DEPTH, parse_predicate

FRAME = pl.DataFrame(
    {
        "n": [1, 2, None, 0],
        "m": [0, 4, 3, 0],
        "x": [0.5, -1.0, 2.0, None],
        "s": ["en", None, "no", ""],
        "flag": [True, False, None, True],
    },
    schema_overrides={"n": pl.Int32, "m": pl.Int64},
)


def values(text: str, **parameters: float | str | bool) -> list[bool | None]:
    predicate = parse_predicate(text, parameters)
    predicate.check_type(FRAME.schema)
    return FRAME.select(predicate.expr.alias("mask")).get_column("mask").to_list()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n > 1", [False, True, None, False]),
        ("n >= m", [True, False, None, True]),
        ("n != 1", [False, True, None, True]),
        ("1 < m < 4", [False, False, True, False]),
        ("0 <= n < m <= 4", [False, True, None, False]),
        ("n == None", [False, False, True, False]),
        ("n != None", [True, True, False, True]),
        ("s == 'en'", [True, None, False, False]),
        ("not s == 'en'", [False, None, True, True]),
        ("s in ('en', 'no')", [True, None, True, False]),
        ("s not in ['en', 'no']", [False, None, False, True]),
        ("n in {2, 0}", [False, True, None, True]),
        ("x in (-1.0, 2)", [False, True, True, None]),
        ("n in ()", [False, False, None, False]),
        ("flag", [True, False, None, True]),
        ("not flag", [False, True, None, False]),
        # Unknown or true is true; unknown and false is false.
        ("flag or n == None", [True, False, True, True]),
        ("flag and m == 0", [True, False, False, True]),
        ("flag and m == 3 and n > 0", [False, False, None, False]),
        ("not (flag or m == 4)", [False, False, None, False]),
        # and binds closer than or, comparison closer than not, * closer than +
        ("m == 4 or m == 3 and x > 1", [False, True, True, False]),
        ("not m == 4 and m == 0", [True, False, False, True]),
        ("m + 2 * 3 == 6", [True, False, False, True]),
        ("(m + 2) * 3 == 6", [True, False, False, True]),
        ("m - 1 - 1 == 2", [False, True, False, False]),
        ("-x < 0", [True, False, True, None]),
        ("m / 8 == 0.5", [False, True, False, False]),
        # A quotient by nothing is unknown, never infinite: no rule may fire on it.
        ("n / m > 0.1", [None, True, None, None]),
        ("n / m <= 0.1", [None, False, None, None]),
        ("s + '!' == 'no!'", [False, None, True, False]),
        ("m > 0x3", [False, True, False, False]),
        ("  m\t> 3  # a comment", [False, True, False, False]),
    ],
)
def test_meaning(text: str, expected: list[bool | None]) -> None:
    assert values(text) == expected


def test_parameters_come_before_columns_and_are_reported() -> None:
    predicate = parse_predicate("n > m and s == lang", {"m": 1, "lang": "en"})
    assert predicate.columns == {"n", "s"} and predicate.parameters == {"m", "lang"}
    assert values("n > m", m=1) == [False, True, None, False]
    assert values("s == lang", lang="no") == [False, None, True, False]


def test_an_unknown_column_is_named_with_the_nearest() -> None:
    predicate = parse_predicate("langauge == 'en'")
    with pytest.raises(ConfigError, match="no column 'langauge'; did you mean 'language'"):
        predicate.check(["language", "text"])


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "open('x')",
        "n.__class__ == 1",
        "s.str.len_bytes() > 1",
        "n[0] > 1",
        "(lambda: 1)() > n",
        "[x for x in n]",
        "n if m else x",
        "n := 1",
        "f'{n}' == 'x'",
        "n ** 9999 > 1",
        "n % 2 == 1",
        "n // 2 == 1",
        "n << 60 > 1",
        "n @ m == 1",
        "~flag",
        "n is None",
        "None",
        "...",
        "b'x' == s",
        "1j > n",
        "(n, m)",
        "*n",
        "await n",
        "yield n",
        "s in 'en'",
        "s in ('en')",
        "s in m",
        "s in ('en', 1)",
        "n in (True, 2)",
        "n in (1, (2,))",
        "n in (-'x',)",
        "n > 9999999999999999999",
        "n in (99999999999999999999999,)",
        "import os",
        "n; m",
        "n = 1",
        "n >",
        "'unclosed",
        "",
        "   ",
        "\x00",
        "n >\n1",
        "…",
        "\ud800 > 1",
    ],
)
def test_everything_else_is_refused_by_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError, match="predicate"):
        parse_predicate(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n > 1 and s.upper() == 'X'", r"at 's\.upper\(\)' \(character 11\)"),
        ("s == 'žluť' and m[0] > 1", r"at 'm\[0\]' \(character 17\)"),  # characters, not bytes
        ("s in 'en'", r"after 'in' comes a list, e\.g\. \('en', 'de'\)"),
        ("n is m", "use == != < <= > >= or in"),
        ("n = 1", "not an expression at character 3"),
        ("n > 9999999999999999999", "at most 63 bits"),
    ],
)
def test_refusals_say_what_and_where(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_predicate(text)


@pytest.mark.parametrize(
    "text",
    [
        "not " * 5000 + "flag",
        "-" * 5000 + "n > 1",
        "+".join(["n"] * 3000) + " > 1",
        "(" * 4000 + "n" + ")" * 4000 + " > 1",
        "n / (" * 1500 + "n" + ")" * 1500,
        "n > 1 and " * 2000 + "n > 1",
        "not " * (MAX_DEPTH + 1) + "flag",
    ],
)
def test_hostile_size_and_nesting_are_refused_quickly(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ConfigError) as caught:
        parse_predicate(text)
    assert time.perf_counter() - start < 5
    assert len(str(caught.value)) < MAX_CHARACTERS + 200


@pytest.mark.parametrize(
    "text", ["n / (" * 90 + "n" + ")" * 90 + " > 1", "not " * 90 + "flag", "+".join("n" * 90) + " > 1"]
)
def test_what_is_accepted_is_evaluated_in_time_linear_in_its_depth(text: str) -> None:
    start = time.perf_counter()
    assert len(values(text)) == FRAME.height
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s > 1", "does not fit its columns: cannot compare string"),
        ("n + 1", "is Int32; expected a comparison"),
        ("s", "is String; expected"),
        ("-s == 'x'", "does not fit its columns"),
        ("n in ('a', 'b')", "does not fit its columns"),
        ("1 == 1", "names no column"),
    ],
)
def test_a_predicate_that_does_not_fit_its_columns_is_found_without_any_row(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_predicate(text).check_type(FRAME.schema)


NUMBER = st.sampled_from(["n", "m", "x", "1", "2.5", "0"])


@given(NUMBER, NUMBER, NUMBER, *[st.sampled_from([" < ", " <= ", " == ", " != ", " > ", " >= "])] * 2)
def test_a_chain_is_the_conjunction_of_its_links(a: str, b: str, c: str, first: str, second: str) -> None:
    chain = parse_predicate(f"{a}{first}{b}{second}{c}").expr
    links = parse_predicate(f"({a}{first}{b}) and ({b}{second}{c})").expr
    result = FRAME.with_columns(chain.alias("chain"), links.alias("links"))
    assert result.get_column("chain").equals(result.get_column("links"))


@given(st.text(max_size=60))
def test_any_text_is_a_predicate_or_a_config_error(text: str) -> None:
    try:
        parse_predicate(text)
    except ConfigError as error:
        assert "predicate" in str(error)


def test_the_sides_of_a_lone_comparison() -> None:
    predicate = parse_predicate("a / b > most", {"most": 0.5})
    assert predicate.sides is not None
    left, operator, right = predicate.sides
    assert operator == ">" and predicate.columns == {"a", "b"}
    assert pl.DataFrame({"a": [3], "b": [4]}).select(left.alias("l"), right.alias("r")).row(0) == (0.75, 0.5)
    for text in ("a > 1 and b > 1", "1 < a < 2", "a in (1, 2)", "a == None", "not a > 1"):
        assert parse_predicate(text).sides is None, text


def test_a_parameter_per_language_reads_the_language() -> None:
    predicate = parse_predicate("a < least", {"least": {"de": 5, "fr": None}})
    assert predicate.columns == {"a", "language"} and predicate.parameters == {"least"}
    frame = pl.DataFrame({"a": [1, 1, 1, 9], "language": ["de", "fr", None, "de"]})
    assert frame.select(predicate.expr.alias("x"))["x"].to_list() == [True, None, None, False]
    predicate.check_type({"a": pl.Int64(), "language": pl.String()})
