"""Lists of removals: what they match is what a person would say, and nothing is lost on the way to the disk."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.errors import ConfigError, FormatError
from dataeng.formats.removal_list import COLUMNS, LIST_NAME, RemovalList, load_removals, plain_host, removal_list


def matched(listed: RemovalList, documents: list[tuple[str, str | None]]) -> list[str | None]:
    ids = pl.Series("id", [identifier for identifier, _ in documents], pl.String)
    hosts = pl.Series("host", [host for _, host in documents], pl.String)
    return listed.matches(ids, hosts).get_column("because").to_list()


def because(listed: RemovalList, identifier: str, host: str | None) -> str | None:
    """The obvious way: entry by entry."""
    entries = list(listed.entries.select("kind", "value").iter_rows())
    if ("id", identifier) in entries:
        return "id"
    if host is None:
        return None
    name = plain_host(host)
    if ("host", name) in entries:
        return f"host {name}"
    while name:
        if ("domain", name) in entries:
            return f"domain {name}"
        name = name.partition(".")[2]
    return None


def test_by_id_by_host_and_by_everything_below_a_host() -> None:
    listed = removal_list(["1", "2"], ["a.example", "*.b.example", ".c.example"], "asked", "now")
    documents: list[tuple[str, str | None]] = [
        ("1", None), ("12", None), ("3", "a.example"), ("3", "www.a.example"), ("3", "b.example"),
        ("3", "x.y.b.example"), ("3", "notb.example"), ("3", "c.example"), ("2", "b.example"), ("3", "A.Example."),
        ("3", "example"), ("3", ""),
    ]  # fmt: skip
    assert matched(listed, documents) == [
        "id", None, "host a.example", None, "domain b.example", "domain b.example",
        None, "domain c.example", "id", "host a.example", None, None,
    ]  # fmt: skip


def test_international_hosts_in_either_spelling() -> None:
    listed = removal_list([], ["Straße.example", "*.xn--bcher-kva.example"], "", "")
    documents: list[tuple[str, str | None]] = [
        ("1", "xn--strae-oqa.example"), ("2", "straße.example"), ("3", "bücher.example"), ("4", "www.BÜCHER.example"),
    ]  # fmt: skip
    assert [found is not None for found in matched(listed, documents)] == [True] * 4


names = st.text("ab.", max_size=6) | st.sampled_from(["a.b", "b.a.b", "a", "b"])


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from("0123456789"), max_size=3),
    st.lists((names | names.map("*.{}".format)).filter(plain_host), max_size=4),
    st.lists(st.tuples(st.sampled_from("0123456789"), st.none() | names), max_size=12),
)
def test_matches_are_those_of_the_obvious_way(
    ids: list[str], hosts: list[str], documents: list[tuple[str, str | None]]
) -> None:
    listed = removal_list(ids, hosts, "asked", "now")
    expected = [because(listed, *document) for document in documents]
    assert matched(listed, documents) == expected
    frame = listed.matches(*(pl.Series([d[i] for d in documents], dtype=pl.String) for i in (0, 1)))
    assert frame.get_column("reason").to_list() == ["asked" if found else None for found in expected]


@pytest.mark.parametrize("host", ["", ".", "*.", " . "])
def test_no_entry_stands_for_documents_without_a_host(host: str) -> None:
    with pytest.raises(ConfigError, match=r"'.*' is no host"):
        removal_list([], ["a.example", host], "", "")


def test_the_reason_is_that_of_the_entry() -> None:
    listed = removal_list(["1"], [], "first", "").and_also(removal_list(["1", "2"], ["*.a"], "second", ""))
    found = listed.matches(pl.Series(["2", "1", "3"]), pl.Series(["a", "a", "b.a"]))
    assert found.rows() == [("id", "second"), ("id", "first"), ("domain a", "second")]
    assert len(listed) == 3 and len(listed.and_also(listed)) == 3


def test_documents_without_hosts() -> None:
    listed = removal_list(["1"], ["a"], "", "")
    assert listed.matches(pl.Series(["1", "2"]), None).get_column("because").to_list() == ["id", None]


def test_saved_and_loaded(tmp_path: Path) -> None:
    assert load_removals(tmp_path) is None
    listed = removal_list(["1", "1", "ü"], ["*.a"], "asked", "2026-01-01T00:00:00+00:00")
    listed.save(tmp_path / LIST_NAME)
    loaded = load_removals(tmp_path)
    assert loaded is not None and loaded.entries.equals(listed.entries) and len(loaded) == 3
    assert tuple(loaded.entries.columns) == COLUMNS


def test_a_list_that_is_damaged_stops_the_run_and_is_not_taken_for_none(tmp_path: Path) -> None:
    removal_list(["1"], [], "", "").save(tmp_path / LIST_NAME)
    whole = (tmp_path / LIST_NAME).read_bytes()
    for content in (b"", whole[:20], whole[:-1]):
        (tmp_path / LIST_NAME).write_bytes(content)
        with pytest.raises(FormatError, match=r"removals\.parquet cannot be read .*\. Restore it\."):
            load_removals(tmp_path)
    pl.DataFrame({"id": ["1"]}).write_parquet(tmp_path / LIST_NAME)
    with pytest.raises(FormatError, match=r"removals\.parquet has the columns id; expected kind, value, reason, added"):
        load_removals(tmp_path)
