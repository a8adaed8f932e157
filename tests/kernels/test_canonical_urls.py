"""Canonical keys of serialized URLs, against plain string operations."""

from __future__ import annotations

import re

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.kernels.canonical_urls import canonical_keys, dropped_parameters
from dataeng.kernels.text import text_buffers

DROPPED = [("utm_*", 0), ("gclid", 0), ("sid", 4), ("Ref", 0)]
UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")


def reference_percents(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        if not match[1]:
            return "%25"
        character = chr(int(match[1], 16))
        return character if UNRESERVED.fullmatch(character) else f"%{match[1].upper()}"

    return re.sub("%([0-9A-Fa-f]{2})?", one, text)


def reference_is_dropped(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    for listed, least in DROPPED:
        listed = listed.lower()
        if listed.endswith("*") and name.lower().startswith(listed[:-1]):
            return True
        if name.lower() == listed and (least == 0 or re.fullmatch(f"[A-Za-z0-9]{{{least},}}", value)):
            return True
    return False


def reference(href: str) -> str:
    href = href.partition("#")[0]
    scheme = re.match("https?://", href, re.IGNORECASE)
    if not scheme:
        return href
    rest = reference_percents(href[scheme.end() :])
    before, _, query = rest.partition("?")
    authority, slash, path = before.partition("/")
    authority = authority.rpartition("@")[2]
    host, port = re.fullmatch(r"(\[[^\]]*\]?[^:]*|[^:]*)(.*)", authority, re.DOTALL).groups()  # type: ignore[union-attr]
    host = host[:1] + host[1:].rstrip(".")
    while host.lower().startswith("www.") and "." in host[4:]:
        host = host[4:]
    path = re.sub(r";jsessionid=[^/]*", "", slash + path, flags=re.IGNORECASE).rstrip("/")
    parameters = [p for p in query.replace("+", "%20").split("&") if p and not reference_is_dropped(p)]
    parameters.sort(key=lambda p: p.partition("=")[0])
    return host + port + path + ("?" + "&".join(parameters) if parameters else "")


def keys(hrefs: list[str]) -> list[str]:
    found = canonical_keys(text_buffers(pl.Series(hrefs, dtype=pl.String)), dropped_parameters(DROPPED))
    data = found.data.tobytes()
    return [data[a:b].decode() for a, b in zip(found.offsets[:-1], found.offsets[1:], strict=True)]


@pytest.mark.parametrize(
    ("href", "key"),
    [
        ("http://example.org/", "example.org"),
        ("https://www.example.org/a/", "example.org/a"),
        ("http://www.com/", "www.com"),
        ("http://user:secret@example.org:8080/#top", "example.org:8080"),
        ("http://example.org./a//", "example.org/a"),
        ("http://[::1]:8/", "[::1]:8"),
        ("http://h.x/%7euser/%c3%A9%2f%zz%4", "h.x/~user/%C3%A9%2F%25zz%254"),
        ("http://h.x/a;jsessionid=1F?x#y", "h.x/a?x"),
        ("http://h.x/a;JSessionID=1F/b;v=1", "h.x/a/b;v=1"),
        ("http://h.x/?b=2&a=1&b=1&&a=0", "h.x?a=1&a=0&b=2&b=1"),
        ("http://h.x/a+b?a+b", "h.x/a+b?a%20b"),
        ("http://h.x/?utm_source=x&UTM_=y&utmost=1", "h.x?utmost=1"),
        ("http://h.x/?sid=12&x=1", "h.x?sid=12&x=1"),
        ("http://h.x/?sid=12ab&x=1", "h.x?x=1"),
        ("http://h.x/?sid=12-b&x=1", "h.x?sid=12-b&x=1"),
        ("http://h.x/?%72ef=1", "h.x"),
        ("mailto:a@b.c?x#y", "mailto:a@b.c?x"),
        ("", ""),
    ],
)
def test_examples(href: str, key: str) -> None:
    assert keys(["http://before.x/?z", href, "http://after.x"]) == ["before.x?z", key, "after.x"]
    assert reference(href) == key


PIECES = st.sampled_from(
    [
        *"/?&=#+%:;@.[]wWaAzZ09-_~",
        "www.",
        ";jsessionid=",
        "%2",
        "%7e",
        "%C3%a9",
        "utm_",
        "gclid",
        "ref=",
        "sid=",
        "abcd",
    ]
)
HREFS = st.builds(
    lambda scheme, rest: scheme + "".join(rest),
    st.sampled_from(["http://", "https://", "HTTP://", "ftp://", "http:/", ""]),
    st.lists(PIECES, max_size=25),
)


@settings(max_examples=600, deadline=None)
@given(st.lists(st.one_of(HREFS, st.text(max_size=20)), max_size=4))
@example(["http://" + "%" * 50, "http://?" + "+" * 50, "http://[", "http://@", "http://w?" + "b&a&" * 40])
@example(["http://www.www.a.b/", "http://.", "http://..", "http://./", "http://[::1].:8"])
def test_equals_the_plain_reference(hrefs: list[str]) -> None:
    assert keys(hrefs) == [reference(href) for href in hrefs]


def test_many_parameters_are_sorted_in_reasonable_time() -> None:
    names = [f"p{i * 7919 % 20_011}" for i in range(20_011)]
    assert keys(["http://h.x/?" + "&".join(names)]) == ["h.x?" + "&".join(sorted(names))]


@pytest.mark.parametrize("name", ["", "*", "ü", "x" * 65])
def test_names_that_cannot_be_listed(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 64 ASCII characters"):
        dropped_parameters([(name, 0)])
