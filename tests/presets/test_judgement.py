"""The first broken rule: against one rule after the other, and by hand."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.errors import ConfigError
from dataeng.presets import load_preset, preset_names
from dataeng.presets.judgement import (
    JudgedRule,
    check_rules,
    columns_read,
    evidence,
    first_broken_rule,
    reasons,
    rules_in_order,
)

NUMBERS = st.one_of(st.none(), st.integers(0, 300))


def rules_of(text: str, folder: Path) -> tuple[JudgedRule, ...]:
    path = folder / "own.yaml"
    path.write_text(f"name: own@here\nsource: me\n{text}")
    return rules_in_order((load_preset(str(path)),))


@settings(max_examples=20, deadline=None)  # a frame a row is slow, and that is not the question
@given(data=st.data())
@pytest.mark.parametrize("name", preset_names())
def test_it_is_what_one_rule_after_the_other_gives(name: str, data: st.DataObject) -> None:
    rules = rules_in_order((load_preset(name),))
    columns = columns_read(rules)
    rows = data.draw(st.integers(0, 5))
    frame = pl.DataFrame(
        {
            column: pl.Series(
                data.draw(st.lists(st.sampled_from(["de", "zh", "en", None]), min_size=rows, max_size=rows)),
                dtype=pl.String,
            )
            if column == "language"
            else pl.Series(data.draw(st.lists(NUMBERS, min_size=rows, max_size=rows)), dtype=pl.Int64)
            for column in columns
        }
    )
    expected: list[int | None] = [None] * rows
    for row in range(rows):
        for index, judged in enumerate(rules):
            if frame[row].select(judged.predicate.expr).item() is True:
                expected[row] = index
                break
    found = first_broken_rule(frame, rules)
    assert found.to_list() == expected
    assert reasons(found, rules).to_list() == [None if i is None else rules[i].rule.name for i in expected]
    details = evidence(frame, found, rules).to_list()
    assert [detail is None for detail in details] == [i is None for i in expected]


def test_by_hand(tmp_path: Path) -> None:
    rules = rules_of(
        "parameters: {least: 5, most: 0.5}\n"
        "rules:\n  - {name: own_few, drop: quality_words < least}\n"
        "  - {name: own_many, drop: quality_hashes / quality_words > most}\n",
        tmp_path,
    )
    frame = pl.DataFrame({"quality_words": [4, 5, 6, 0, None, 10], "quality_hashes": [4, 2, 4, 0, 9, 5]})
    found = first_broken_rule(frame, rules)
    assert found.to_list() == [0, None, 1, 0, None, None]
    assert evidence(frame, found, rules).to_list() == [
        "quality_words=4 least=5",
        None,
        "quality_hashes=4 quality_words=6 most=0.5",
        "quality_words=0 least=5",
        None,
        None,
    ]


def test_a_parameter_per_language(tmp_path: Path) -> None:
    rules = rules_of(
        'parameters: {least: {de: 5, "no": null, fr: 2.5}}\nrules: [{name: own_few, drop: quality_words < least}]\n',
        tmp_path,
    )
    assert columns_read(rules) == ("language", "quality_words")
    frame = pl.DataFrame({"language": ["de", "no", "fr", "fr", "xx", None], "quality_words": [4, 1, 2, 3, 0, 0]})
    found = first_broken_rule(frame, rules)
    assert found.to_list() == [0, None, 0, None, None, None]
    assert evidence(frame, found, rules)[0] == "language=de quality_words=4 least=5.0"


def test_nothing_to_judge_and_nothing_to_judge_by(tmp_path: Path) -> None:
    rules = rules_of("parameters: {}\nrules: [{name: own_few, drop: quality_words < 2}]\n", tmp_path)
    empty = pl.DataFrame(schema={"quality_words": pl.Int64()})
    assert first_broken_rule(empty, rules).to_list() == []
    assert evidence(empty, first_broken_rule(empty, rules), rules).to_list() == []
    assert first_broken_rule(pl.DataFrame({"quality_words": [1, 2]}), ()).to_list() == [None, None]


def test_columns_that_are_not_there_or_do_not_fit(tmp_path: Path) -> None:
    rules = rules_of("rules: [{name: own_few, drop: quality_wrds < 2}]\n", tmp_path)
    with pytest.raises(
        ConfigError,
        match="rule 'own_few' of own@here reads 'quality_wrds', which is not there; did you mean 'quality_words'",
    ):
        check_rules(rules, {"quality_words": pl.Int64()})
    rules = rules_of("rules: [{name: own_few, drop: url < 2}]\n", tmp_path)
    with pytest.raises(ConfigError, match="rule 'own_few' of own@here: predicate 'url < 2' does not fit"):
        check_rules(rules, {"url": pl.String()})
