"""What a person sees: crawled text is shown and never obeyed."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dataeng.engine.ledger import StageCount
from dataeng.report.explain import explain
from dataeng.report.funnel import FunnelRow
from dataeng.report.terminal import ROWS_SHOWN, funnel_table, print_rows, print_story, print_tables, size
from dataeng.report.visible import visible
from tests.small_run import HOSTILE_URL, SmallRun


def terminal(width: int = 200) -> Console:
    """A console that takes itself for a colour terminal."""
    return Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=width, emoji=False)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_sizes() -> None:
    numbers = [0, 999, 1000, 1_234_567, 2.5e9, 3e12, 4e15]
    assert [size(n) for n in numbers] == ["0 B", "999 B", "1.0 kB", "1.2 MB", "2.5 GB", "3.0 TB", "4,000.0 TB"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("\x07\x00\x7f\x9b", "\\x07\\x00\\x7f\\x9b"),
        ("back\rspace\b", "back\\x0dspace\\x08"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\U000e0041", "\\U000e0041"),
        ("line\n\ttab", "line\n\ttab"),
        ("東京\u3000駅 a\u00a0b", "東京\u3000駅 a\u00a0b"),
        ("क\u094dष می\u200cخواهم 👩\u200d👧", "क\u094dष می\u200cخواهم 👩\u200d👧"),
    ],
)
def test_visible(text: str, expected: str) -> None:
    assert visible(text) == expected


@given(st.text())
def test_visible_text_never_commands_a_terminal(text: str) -> None:
    shown = visible(text)
    assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u2028\u2029")


def test_a_story_shows_markup_and_escape_sequences_as_they_are(finished: SmallRun) -> None:
    console = terminal()
    print_story(console, explain(finished.run_dir, HOSTILE_URL))
    output = printed(console)
    assert (
        "Read [bold red]this[/bold red] \\x1b]0;owned\\x07\\x1b[2Jnow :warning: \\u202egnp.exe and the rest \\ "
        in output
    )
    assert "https://evil.example/[link=x]\\x1b[31m" in output
    assert "\x1b]" not in output and "\x1b[2J" not in output and "\x07" not in output and "\x1b[31m" not in output


def test_a_querys_answer_does_too(finished: SmallRun) -> None:
    console = terminal()
    rows = [("[bold]x[/bold]", None, 1.23456789), ("\x1b[2J:smile: \\", "[/]", 2.0), ("x" * 600, "\\", 3.0)]
    print_rows(console, ["[red]text", "b\x1b[1m", "c"], rows)
    output = printed(console)
    assert "[bold]x[/bold]" in output and "\\x1b[2J:smile: \\" in output and "[red]text" in output
    assert "\x1b[2J" not in output and "null" in output and "1.23457" in output
    assert "x" * 500 not in output.replace("\n", "").replace(" ", "") and "…" in output


def test_a_long_answer_is_cut_and_says_so() -> None:
    console = Console(file=io.StringIO(), width=100)
    print_rows(console, ["n"], [(i,) for i in range(ROWS_SHOWN + 1)])
    lines = printed(console).splitlines()
    assert len(lines) == ROWS_SHOWN + 2 and lines[-1].startswith(f"… the first {ROWS_SHOWN} rows; --format csv or json")
    console = Console(file=io.StringIO(), width=100)
    print_rows(console, ["n"], [(i,) for i in range(ROWS_SHOWN)])
    assert len(printed(console).splitlines()) == ROWS_SHOWN + 1


def test_an_empty_answer_says_so() -> None:
    console = Console(file=io.StringIO(), width=100)
    print_rows(console, ["n"], [])
    assert printed(console).split() == ["n", "no", "rows"]


def test_long_texts_and_many_duplicates_are_cut_and_counted() -> None:
    from dataeng.report.explain import Story

    console = Console(file=io.StringIO(), width=100)
    print_story(console, Story({"id": "a"}, "kept", removed_for_it=[f"d{i}" for i in range(25)], text="y" * 2000))
    output = printed(console)
    assert "25 duplicates were dropped in its favour" in output and "and 15 more" in output
    assert output.count("y") == 1500 and "500 more characters" in output.replace("\n", " ")
    console = Console(file=io.StringIO(), width=100)
    print_story(console, Story({"id": "a"}, "kept", removed_for_it=["d0"]))
    assert "1 duplicate was dropped in its favour" in printed(console)


def test_the_funnel_shows_the_largest_reasons_first_and_leaves_out_what_counts_nothing() -> None:
    dropped = {f"reason_{i}": [i, i] for i in range(1, 9)} | {"[bold]odd": [100, 1]}
    rows = [
        FunnelRow("read", "rule", StageCount(2000, 5_000_000, 1864, 4_000_000, dropped, 1.25)),
        FunnelRow("read", "emit:same", StageCount(seconds=1.0)),
        FunnelRow("read", "quiet", StageCount(1864, 4_000_000, 1864, 4_000_000, {}, 0.0)),
    ]
    console = Console(file=io.StringIO(), width=200)
    console.print(funnel_table(rows))
    header, rule, quiet = printed(console).splitlines()
    assert header.split() == [
        "stage", "documents", "in", "bytes", "in", "kept", "bytes", "kept", "seconds", "dropped", "by", "reason",
    ]  # fmt: skip
    assert rule.split("   ")[0].startswith("rule") and "2,000" in rule and "5.0 MB" in rule and "1,864" in rule
    assert "[bold]odd 100, reason_8 8, reason_7 7, reason_6 6, reason_5 5, reason_4 4, 3 more reasons" in rule
    assert quiet.startswith("quiet") and quiet.rstrip().endswith("–")


def test_the_list_of_tables_counts_columns_that_begin_alike() -> None:
    measured = ", ".join(f"quality_{number}" for number in range(8))
    few = ", ".join(f"c4_{number}" for number in range(7))
    console = terminal()
    print_tables(console, {"signals": f"id, {measured}, privacy_ips, quality_9", "rules": few}, Path("runs/a"))
    shown = [" ".join(line.split()) for line in re.sub("\x1b\\[[0-9;]*m", "", printed(console)).splitlines()]
    assert shown[1:] == [
        "signals id, quality_* (9 columns), privacy_ips",
        f"rules {few}",
        "",
        'Every column of a table with its type: dataeng sql runs/a "DESCRIBE signals"',
    ]
