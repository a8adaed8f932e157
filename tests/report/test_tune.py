"""Deciding again, checked by hand and against a run that really used the other values."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dataeng.errors import ConfigError
from dataeng.report.judged import StoredRun, choose_step, judged_rows
from dataeng.report.sql import query
from dataeng.report.terminal_rules import print_tuned
from dataeng.report.tune import changes, parse_values, tune
from tests.rules_run import EIGHT, HASHES, MINE, REPEATED, THREE, RulesRun
from tests.small_run import SmallRun


def tokens_of(run: RulesRun, url: str) -> int:
    found = query(run.run_dir, f"SELECT num_tokens FROM packs WHERE url = '{url}'")[1]
    return int(str(found[0][0]))


def web_ratio(run: RulesRun) -> float:
    rows = query(run.run_dir, "SELECT sum(num_tokens) / sum(text_bytes) FROM packs WHERE domain = 'web'")[1]
    return float(str(rows[0][0]))


def flips(run: RulesRun, values: dict[str, Any], **options: Any) -> list[tuple[object, ...]]:
    return tune(run.run_dir, values, **options).flips.rows()


def test_nothing_changes_nothing(ruled: RulesRun) -> None:
    for step, judged, kept in (("web_rules", 5, 2), ("code_rules", 2, 1)):
        found = tune(ruled.run_dir, {}, step_name=step)
        assert (found.judged, found.kept_before, found.kept_after) == (judged, kept, kept)
        assert found.flips.is_empty() and found.examples == [] and found.changes == []


def test_a_dropped_document_would_stay(ruled: RulesRun) -> None:
    found = tune(ruled.run_dir, {"mine.min_words": 3})
    assert (found.step, found.changes) == ("web_rules", ["mine.min_words 5 → 3"])
    assert (found.judged, found.kept_before, found.kept_after) == (5, 2, 3)
    estimate = round(len(THREE) * web_ratio(ruled))
    assert found.flips.rows() == [("dropped → kept", "web", None, "mine_short", None, 1, len(THREE), estimate, 0)]
    (example,) = found.examples
    assert (example.url, example.old, example.new, example.detail, example.text) == (
        "https://a.example/three", "mine_short", None, None, THREE,
    )  # fmt: skip


def test_kept_documents_would_go_and_another_rule_is_the_reason(ruled: RulesRun) -> None:
    found = tune(ruled.run_dir, {"mine.min_words": 10})
    # Both copies reached the rules; only one of them is in a pack, so the other's tokens are estimated.
    tokens = tokens_of(ruled, "https://a.example/eight") + round(len(EIGHT) * web_ratio(ruled))
    assert found.flips.rows() == [
        ("kept → dropped", "web", None, None, "mine_short", 2, 2 * len(EIGHT), tokens, 1),
        (
            "other reason",
            "web",
            None,
            "mine_hashes",
            "mine_short",
            1,
            len(HASHES),
            round(len(HASHES) * web_ratio(ruled)),
            0,
        ),
    ]
    assert [example.detail for example in found.examples] == ["quality_words=8 min_words=10"] * 3
    assert [example.kind for example in found.examples] == ["kept → dropped"] * 2 + ["other reason"]


def test_a_rule_switched_off(ruled: RulesRun) -> None:
    found = flips(ruled, {"mine.max_hash_ratio": None, "mine.max_dup_lines": 0.34})
    assert [(row[0], row[3], row[4], row[6]) for row in found] == [
        ("dropped → kept", "mine_dup_lines", None, len(REPEATED)),
        ("dropped → kept", "mine_hashes", None, len(HASHES)),
    ]


def test_only_documents_that_where_matches_are_judged(ruled: RulesRun) -> None:
    found = tune(ruled.run_dir, {"other.min_words": 100})
    assert (found.step, found.judged) == ("code_rules", 2)
    assert [row[1:6] for row in found.flips.rows()] == [("code", None, None, "other_short", 1)]


def test_the_same_as_a_run_with_those_values(ruled: RulesRun, tmp_path: Path) -> None:
    other = RulesRun(tmp_path / "other")
    other.mine.write_text(
        MINE.replace("min_words: 5", "min_words: 9").replace("max_hash_ratio: 0.2", "max_hash_ratio: 0.3")
    )
    other.run()
    statement = "SELECT coalesce(url, ''), reason FROM rejects WHERE stage = 'web_rules'"
    before, after = (dict(query(run.run_dir, statement)[1]) for run in (ruled, other))
    found = tune(ruled.run_dir, {"mine.min_words": 9, "mine.max_hash_ratio": 0.3}, examples=100)
    assert {(e.url, e.old, e.new) for e in found.examples} == {
        (url, before.get(url), after.get(url)) for url in before | after if before.get(url) != after.get(url)
    }
    assert found.kept_after == found.judged - len(after)


def test_a_whole_preset(ruled: RulesRun, tmp_path: Path) -> None:
    path = tmp_path / "strict.yaml"
    path.write_text("name: strict@home\nsource: me\nrules: [{name: strict_all, drop: quality_words > 0}]\n")
    found = tune(ruled.run_dir, {}, [str(path)], "web_rules")
    assert found.changes == ["presets mine@home → strict@home"] and found.kept_after == 0
    path.write_text("name: own@home\nsource: me\nrules: [{name: own_x, drop: quality_wrods > 0}]\n")
    with pytest.raises(ConfigError, match=r"reads 'quality_wrods', which is not there; did you mean 'quality_words'\?"):
        tune(ruled.run_dir, {}, [str(path)], "web_rules")
    with pytest.raises(ConfigError, match="choose one: --step web_rules or --step code_rules"):
        tune(ruled.run_dir, {}, ["gopher@paper"])


@pytest.mark.parametrize(
    ("values", "step", "message"),
    [
        (
            {"mine.min_word": 3},
            None,
            "no rules step of the run has the parameter 'mine.min_word'; did you mean 'mine.min_words'",
        ),
        ({"mine.min_words": 3}, "web_rule", "the run has no rules step 'web_rule'; did you mean 'web_rules'"),
        ({"mine.min_words": 3}, "code_rules", "unknown parameter 'mine.min_words'; did you mean 'other.min_words'"),
        ({"mine.min_words": 3, "other.min_words": 3}, None, "no single rules step has all of"),
    ],
)
def test_wrong_names(ruled: RulesRun, values: dict[str, Any], step: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tune(ruled.run_dir, values, step_name=step)


def test_runs_without_rules_and_no_runs(finished: SmallRun, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no finished step 'apply_rules'"):
        tune(finished.run_dir, {"mine.min_words": 3})
    with pytest.raises(ConfigError, match="there is no run at"):
        tune(tmp_path, {"mine.min_words": 3})


def test_texts_that_the_run_did_not_keep(tmp_path: Path) -> None:
    made = RulesRun(tmp_path / "own")
    made.run("keep_rejected_text=false")
    found = tune(made.run_dir, {"mine.min_words": 3})
    assert [example.text for example in found.examples] == [None]
    assert found.flips["bytes"].to_list() == [len(THREE)]


def test_a_preset_file_that_is_gone(tmp_path: Path) -> None:
    made = RulesRun(tmp_path / "own")
    made.run()
    made.mine.unlink()
    with pytest.raises(ConfigError, match=r"preset file .*mine\.yaml does not exist"):
        tune(made.run_dir, {"other.min_words": 3})


def test_where_a_column_is_not_kept_for_dropped_documents(ruled: RulesRun) -> None:
    stored = StoredRun(ruled.run_dir)
    step = choose_step(stored, "web_rules", ())
    with pytest.raises(ConfigError, match="'web_rules' reads 'source_ofset', which the run does not keep"):
        judged_rows(stored, step, 0, ["source_ofset"])


def test_values_of_the_command_line() -> None:
    assert parse_values(["a.b=3", "a.c=0.5", "a.d=null", "a.e.de=1e3"]) == {
        "a.b": 3, "a.c": 0.5, "a.d": None, "a.e.de": 1000,
    }  # fmt: skip
    for wrong in ("a.b", "b=3", "a.b=many", "a.b=nan", "a.b="):
        with pytest.raises(ConfigError, match="--set "):
            parse_values([wrong])


def test_changes_of_numbers_per_language() -> None:
    from dataeng.presets import load_preset, override_parameters

    old = (load_preset("fineweb2@code"),)
    new = override_parameters(old, {"fineweb2.top_2_gram.de": 0.5, "fineweb2.new_line_ratio": 0.3})
    assert changes(old, new) == [
        "fineweb2.top_2_gram.de 0.169 → 0.5",
        "fineweb2.new_line_ratio per language → 0.3",
    ]


def test_crawled_text_is_shown_and_not_obeyed(ruled: RulesRun) -> None:
    found = tune(ruled.run_dir, {"mine.min_words": 3})
    hostile = "https://evil.example/[link=x]\x1b[2J\u202e"
    found.examples = [replace(found.examples[0], url=hostile, text="[bold]x[/bold]\x1b]0;owned\x07 \\")]
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    print_tuned(console, found)
    assert isinstance(console.file, io.StringIO)
    output = console.file.getvalue()
    assert "https://evil.example/[link=x]\\x1b[2J\\u202e" in output
    assert "[bold]x[/bold]\\x1b]0;owned\\x07 \\" in output
    assert "\x1b[2J" not in output and "\x1b]" not in output and "\u202e" not in output
