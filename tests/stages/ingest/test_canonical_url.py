"""Canonical URLs of a column: what is one page, what is not, and what is no URL."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import ada_url
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.stages.ingest.canonical_url import canonical_urls, resolved, serialized


def canonical(*urls: str | None, **options: tuple[str, ...]) -> list[str | None]:
    return canonical_urls(pl.Series("url", urls, dtype=pl.String), **options).to_list()


@pytest.mark.parametrize(
    "group",
    [
        ["http://example.org", "https://example.org/", "HTTP://WWW.Example.Org:80/", "https://example.org:443/#top"],
        ["http://example.org/a/b", "http://example.org/a/./c/../b/", "http://example.org\\a\\b", " http://example.org/a/b\n"],
        ["http://bücher.example/ü", "http://xn--bcher-kva.example/%C3%BC", "http://www.BÜCHER.example/%c3%bc/"],
        ["http://例え.テスト/", "https://xn--r8jz45g.xn--zckzah"],
        ["http://h.example/~u", "http://h.example/%7Eu", "http://h.example/%7eu?"],
        ["http://h.example/?b=2&a=1", "http://h.example/?a=1&b=2", "http://h.example?a=1&b=2&utm_source=x&fbclid=y"],
        ["http://h.example/p", "http://h.example/p;jsessionid=0A", f"http://h.example/p?sid={'0a' * 16}"],
        ["http://h.example/?q=a+b", "http://h.example/?q=a%20b", "http://h.example/?q=a b"],
        ["http://127.0.0.1/", "http://0x7f.1/", "http://2130706433/"],
    ],
)  # fmt: skip
def test_spellings_of_one_page(group: list[str]) -> None:
    found = canonical(*group)
    assert found[0] is not None
    assert set(found) == {found[0]}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("http://h.example/a", "http://h.example/A"),
        ("http://h.example/a", "http://h.example:8080/a"),
        ("http://h.example/a%2Fb", "http://h.example/a/b"),
        ("http://h.example/?a=1", "http://h.example/?a=2"),
        ("http://h.example/?a=1&a=2", "http://h.example/?a=2&a=1"),
        ("http://h.example/?sid=7", "http://h.example/?sid=8"),
        ("http://h.example/?lang=de", "http://h.example/?lang=fr"),
        ("http://en.h.example/", "http://h.example/"),
        ("http://www.com/", "http://com/"),
        ("ftp://h.example/", "http://h.example/"),
    ],
)
def test_different_pages(first: str, second: str) -> None:
    found = canonical(first, second)
    assert None not in found
    assert found[0] != found[1]


def test_what_is_no_url_has_no_canonical_form() -> None:
    assert canonical(None, "", "   ", "example.org/a", "http://", "http://a b/", "http://[::1/", "/a/b") == [None] * 8


def test_nothing_but_the_column_matters() -> None:
    urls = ["http://h.example/a", None, "http://Ü.example/", "nope", "http://h.example/b?utm_source=1"]
    whole = canonical(*urls)
    assert whole == [canonical(url)[0] for url in urls] == ["h.example/a", None, "xn--tda.example", None, "h.example/b"]
    assert canonical() == []
    assert canonical_urls(pl.Series("url", urls)[1:4]).to_list() == whole[1:4]


def test_the_list_of_parameters_is_the_callers() -> None:
    url = "http://h.example/?print=1&utm_source=x&page_a=1"
    assert canonical(url, dropped=()) == ["h.example?page_a=1&print=1&utm_source=x"]
    assert canonical(url, dropped=("@tracking", "Print", "page_*")) == ["h.example"]
    with pytest.raises(ValueError, match="@tracing"):
        canonical(url, dropped=("@tracing",))


def test_targets_of_redirects() -> None:
    urls = pl.Series(["http://h.x/a/b?c", "http://h.x/a", "http://h.x", "nope", None, "https://h.x/a"])
    targets = pl.Series(["../z", "//o.x/p", None, "/a", "http://h.x", "http://[", ])  # fmt: skip
    assert resolved(urls, targets).to_list() == ["http://h.x/z", "http://o.x/p", None, None, None, None]


HOSTS = st.lists(st.sampled_from(["a", "b-c", "1", "0x1", "www", "xn--tda", "ü", "A", "", "a_b"]), min_size=1).map(
    ".".join
)
PATH_PIECES = [*"/?&=#+%:;@.[]{}|\\^`<>\"' \t~-_", "..", "/.", "%2e", "%2E", "é", "%C3", "x", "utm_source="]
PATHS = st.lists(st.sampled_from(PATH_PIECES), max_size=12).map("".join)
URLS = st.builds(lambda s, h, p: f"{s}://{h}{p}", st.sampled_from(["http", "https", "HTTP", "ftp"]), HOSTS, PATHS)


@settings(max_examples=800, deadline=None)
@given(st.one_of(URLS, st.text(max_size=20)))
@example("http://a.b?x")
@example("http://a.1/")
@example("http://a.b/x/.%2e/y")
def test_urls_that_skip_the_parser_are_what_it_would_give(url: str) -> None:
    """But for the slash of an empty path, which the canonical form is without."""
    url = url.encode("utf-8", "replace").decode()
    try:
        expected = ada_url.normalize_url(url)
    except ValueError:
        expected = None
    (found,) = serialized(pl.Series([url]))
    if found != expected:
        assert expected is not None and found is not None
        head = found.split("?")[0]
        assert expected == found.replace(head, head + "/", 1) and head.count("/") == 2
    assert found is None or found.isascii() or not found.startswith("http")


@settings(max_examples=300, deadline=None)
@given(
    st.builds(
        lambda scheme, host, path: f"{scheme}://{host}.test{path}", st.sampled_from(["http", "https"]), HOSTS, PATHS
    )
)
def test_canonical_of_canonical_is_itself(url: str) -> None:
    (once,) = canonical(url)
    if once is not None:
        assert canonical(f"http://{once}") == [once]


def test_a_crawl_of_labelled_urls(test_data: Path) -> None:
    """Aliases that differ in a tracking or session parameter are found; no two different pages are merged."""
    with gzip.open(test_data / "crawl" / "recorded" / "truth.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["status"] == "200"]
    keys = dict(zip([row["url"] for row in rows], canonical(*(row["url"] for row in rows)), strict=True))
    listed = [row for row in rows if row["kind"] == "alias" and re.search("[?](ref|utm_|sessionid)", row["url"])]
    assert len(listed) == 32
    assert all(keys[row["url"]] == keys[row["dup_of"]] is not None for row in listed)
    others = {row["url"] for row in rows} - {row["url"] for row in listed}
    assert len({keys[url] for url in others}) == len(others)
