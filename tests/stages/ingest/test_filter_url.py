from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from dataeng.errors import InputError
from dataeng.stages.ingest.filter_url import FilterUrl
from dataeng.stages.ingest.urls import host_of


def verdicts(urls: list[str | None], **options: object) -> list[tuple[str | None, str | None]]:
    stage = FilterUrl.model_validate(options)
    stage.setup({})
    batch = pl.DataFrame({"url": urls}, {"url": pl.String}).with_columns(host_of("url").alias("host"))
    result = stage.apply(batch)
    assert result.select("url", "host").equals(batch)
    alone = [stage.apply(batch[i : i + 1]) for i in range(batch.height)]
    assert pl.concat([stage.apply(batch[:0]), *alone]).equals(result)
    return list(zip(result["reason"], result["detail"], strict=True))


def reasons(urls: list[str | None], **options: object) -> list[str | None]:
    return [reason for reason, _ in verdicts(urls, **options)]


def test_without_lists() -> None:
    urls = [
        "http://a.test/",
        "HTTPS://A.test",
        None,
        "",
        "  ",
        "ftp://a.test/",
        "metadata://x",
        "a.test/x",
        "http:///x",
        "dns:a",
    ]
    missing, scheme = "url:missing", "url:scheme"
    assert reasons(urls) == [None, None, missing, missing, missing, scheme, scheme, scheme, "url:no_host", scheme]
    assert reasons([None, "ftp://a.test/"], require_url=False, schemes=["ftp"]) == [None, None]
    assert verdicts(["FTP://a.test"]) == [("url:scheme", "ftp")]


def test_blocked_domains() -> None:
    urls = [
        "http://bad.com/",
        "http://www.BAD.com",
        "http://notbad.com",
        "http://bad.com.org",
        "http://x.co.uk",
        "http://bad.com.",
    ]
    assert verdicts(urls, blocked_domains=["Bad.com", "*.y.z", ".co.uk"]) == [
        ("url:blocked_domain", "bad.com"),
        ("url:blocked_domain", "bad.com"),
        (None, None),
        (None, None),
        ("url:blocked_domain", "co.uk"),
        ("url:blocked_domain", "bad.com"),
    ]


def test_blocked_urls_in_any_spelling() -> None:
    urls = [
        "https://www.a.test:443/x/?utm_source=y#z",
        "http://a.test/x?q=2&p=1",
        "http://a.test/xy",
        "http://b\u00fc.test/\u00fc",
    ]
    lists = ["a.test/x", "http://A.test/x?p=1&q=2", "http://xn--b-eha.test/%C3%BC/"]
    blocked = "url:blocked_url"
    assert reasons(urls, blocked_urls=lists) == [blocked, blocked, None, blocked]
    assert verdicts(urls[:1], blocked_urls=lists) == [(blocked, urls[0])]


def test_international_hosts_in_either_spelling() -> None:
    urls = ["http://www.b\u00fc.test/", "http://xn--b-eha.test/", "http://b.test/"]
    for name in ("b\u00fc.test", "xn--b-eha.test"):
        assert reasons(urls, blocked_domains=[name]) == ["url:blocked_domain", "url:blocked_domain", None]


def test_blocked_urls() -> None:
    urls = ["http://a.test/X", "http://a.test/x/", "http://a.test/x?y", "http://b.test/"]
    assert reasons(urls, blocked_urls=["http://A.test/x", "http://b.test"]) == ["url:blocked_url"] * 2 + [
        None,
        "url:blocked_url",
    ]


def test_words() -> None:
    urls = [
        "http://a.test/Free-CASINO/x",
        "http://a.test/casinos",
        "http://casino.test/",
        "http://a.test/ca-sino",
        "http://a.test/%20casino",
    ]
    hit = ("url:banned_word", "casino")
    assert verdicts(urls, banned_words=["Casino", "zzz"]) == [hit, (None, None), hit, (None, None), (None, None)]


def test_soft_words() -> None:
    urls = ["http://a.test/win-money", "http://a.test/win-win", "http://a.test/win", "http://money.test/?win=1"]
    hit = ("url:soft_words", "money win")
    assert verdicts(urls, soft_words=["win", "money"]) == [hit, (None, None), (None, None), hit]
    assert reasons(urls, soft_words=["win", "money"], soft_word_threshold=1) == ["url:soft_words"] * 4


def test_substrings() -> None:
    urls = ["http://a.test/ca-si_no", "http://ca.sino.test/", "http://a.test/cas1no"]
    hit = ("url:banned_substring", "casino")
    assert verdicts(urls, banned_substrings=["Ca-sino", "!"]) == [hit, hit, (None, None)]


def test_a_reason_is_kept() -> None:
    stage = FilterUrl(banned_words=("x",))
    stage.setup({})
    batch = pl.DataFrame({"url": ["http://x.test/x"], "host": ["x.test"], "reason": ["earlier"], "detail": ["why"]})
    assert stage.apply(batch).equals(batch)


def test_lists_from_files(tmp_path: Path) -> None:
    path = tmp_path / "domains.txt"
    path.write_text("# comment\n\nBad.com\n  worse.com \n")
    options = {"blocked_domains": [f"file:{path}", "third.com"]}
    assert reasons(["http://bad.com", "http://worse.com", "http://third.com", "http://ok.com"], **options) == [
        *["url:blocked_domain"] * 3,
        None,
    ]
    assert FilterUrl.model_validate(options).model_files() == (path,)
    with pytest.raises(InputError, match="cannot read the list"):
        FilterUrl(soft_words=("file:/nowhere/list",)).setup({})


@pytest.mark.timeout(60)  # every URL against every entry would be 200 million comparisons
def test_large_lists_are_fast() -> None:
    stage = FilterUrl(blocked_domains=tuple(f"site{i}.test" for i in range(200_000)))
    stage.setup({})
    urls = pl.DataFrame({"url": [f"http://www.site{i}.test/" for i in range(0, 1_000_000, 1000)]})
    batch = urls.with_columns(host_of("url").alias("host"))
    result = stage.apply(batch)
    assert result["reason"].is_not_null().sum() == 200
