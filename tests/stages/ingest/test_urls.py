from __future__ import annotations

from urllib.parse import urlsplit

import polars as pl
import pytest

from dataeng.stages.ingest.urls import host_of

CASES = {
    "http://a.test": "a.test",
    "HTTP://A.Test:80/x?y#z": "a.test",
    "http://user:p@ss@a.test/": "a.test",
    "http://a.test?x@y": "a.test",
    "http://[2001:DB8::1]:8080/": "2001:db8::1",
    "http://münchen.test/": "münchen.test",
    "http://a.test:/": "a.test",
    "metadata://gnu.org/x": "gnu.org",
    "http:///x": None,
    "http://": None,
    "mailto:a@b.test": None,
    "a.test/x": None,
    "": None,
    " http://a.test ": "a.test",
}


@pytest.mark.parametrize("url", CASES)
def test_host(url: str) -> None:
    assert pl.DataFrame({"url": [url]}).select(host_of("url")).item() == CASES[url]
    assert urlsplit(url.strip()).hostname == CASES[url]


def test_null() -> None:
    assert pl.DataFrame({"url": [None]}, {"url": pl.String}).select(host_of("url")).item() is None
