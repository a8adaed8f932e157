"""Stage `filter_url`: drops documents by their URL."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
from pydantic import Field, PrivateAttr, ValidationInfo, field_validator

from dataeng.document import drop_where
from dataeng.errors import InputError
from dataeng.stage import Columns, RowStage, beside_pipeline
from dataeng.stages.ingest.canonical_url import ascii_host, canonical_urls

FILE_PREFIX = "file:"
WORD = "[a-z0-9]+"


class FilterUrl(RowStage):
    """Drops documents whose URL is missing or not http(s), or is on a list.

    After datatrove's ``URLFilter`` (FineWeb), except that URLs are lower-cased before they are compared; there, words
    were compared as they are written, so that ``/Casino`` passed a list with ``casino``. Words are what is left
    between characters other than ASCII letters and digits. Whole URLs are compared by their canonical form, as in
    ``deduplicate_exact: {by: url}``, and international host names in either spelling.

    Every list takes entries inline and ``file:PATH`` (one entry a line; empty lines and lines that start with ``#``
    are skipped). Reasons, first match: ``url:missing``, ``url:scheme``, ``url:no_host``, ``url:blocked_domain``,
    ``url:blocked_url``, ``url:banned_word``, ``url:soft_words``, ``url:banned_substring``; ``detail`` has the entry.
    """

    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("ada-url",)
    kernels: ClassVar[tuple[str, ...]] = ("canonical_urls",)

    schemes: tuple[str, ...] = Field(default=("http", "https"), description="Schemes that may pass")
    require_url: bool = Field(default=True, description="Drop documents without a URL; false lets them pass unseen")
    blocked_domains: tuple[str, ...] = Field(default=(), description="Domains, with all hosts below them")
    blocked_urls: tuple[str, ...] = Field(default=(), description="Whole URLs, in any spelling, with or without scheme")
    banned_words: tuple[str, ...] = Field(default=(), description="One of these words is enough")
    soft_words: tuple[str, ...] = Field(default=(), description="Suspicious words; see soft_word_threshold")
    soft_word_threshold: int = Field(default=2, ge=1, description="So many different soft words are enough")
    banned_substrings: tuple[str, ...] = Field(
        default=(), description="Looked for in the URL without anything but letters and digits"
    )

    @field_validator("blocked_domains", "blocked_urls", "banned_words", "soft_words", "banned_substrings")
    @classmethod
    def _files_beside_the_pipeline(cls, entries: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        paths = (beside_pipeline(Path(entry.removeprefix(FILE_PREFIX)), info) for entry in entries)
        return tuple(
            f"{FILE_PREFIX}{path}" if _is_file(entry) else entry for entry, path in zip(entries, paths, strict=True)
        )

    _domains: frozenset[str] = PrivateAttr(default=frozenset())
    _urls: frozenset[str] = PrivateAttr(default=frozenset())
    _url_keys: frozenset[str] = PrivateAttr(default=frozenset())
    _words: dict[str, list[str]] = PrivateAttr(default_factory=dict)

    def columns(self) -> Columns:
        return Columns(reads=("url", "host"))

    def needed_kernels(self) -> tuple[str, ...]:
        return self.kernels if self.blocked_urls else ()

    def model_files(self) -> tuple[Path, ...]:
        lists = (self.blocked_domains, self.blocked_urls, self.banned_words, self.soft_words, self.banned_substrings)
        return tuple(Path(e.removeprefix(FILE_PREFIX)) for entries in lists for e in entries if _is_file(e))

    def setup(self, artifacts: Mapping[str, Path]) -> None:
        self._domains = frozenset(ascii_host(d.strip(".").removeprefix("*.")) for d in _entries(self.blocked_domains))
        self._urls = frozenset(u.rstrip("/") for u in _entries(self.blocked_urls))
        if self._urls:
            addresses = [url if "://" in url else f"http://{url}" for url in sorted(self._urls)]
            self._url_keys = frozenset(canonical_urls(pl.Series(addresses, dtype=pl.String)).drop_nulls())
        self._words = {
            "banned": sorted(set(_entries(self.banned_words))),
            "soft": sorted(set(_entries(self.soft_words))),
            "substrings": sorted({re.sub("[^a-z0-9]", "", s) for s in _entries(self.banned_substrings)} - {""}),
        }

    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        url = pl.col("url").str.strip_chars().str.to_lowercase()
        has_url = url.is_not_null() & (url != "")
        if self.require_url:
            batch = drop_where(batch, ~has_url | pl.col("url").is_null(), "url:missing")
        scheme = url.str.extract(r"^([a-z][a-z0-9+.-]*):", 1)
        allowed = scheme.is_in([s.lower() for s in self.schemes]).fill_null(False)
        batch = drop_where(batch, has_url & ~allowed, "url:scheme", scheme)
        batch = drop_where(batch, has_url & (pl.col("host").is_null() | (pl.col("host") == "")), "url:no_host")
        if self._domains:
            blocked = _matches(batch["host"], self._blocked_domain)
            batch = _drop_matches(batch, blocked, "url:blocked_domain")
        if self._urls:
            urls = batch.select(url).to_series()
            blocked = canonical_urls(urls).is_in(self._url_keys) | urls.str.strip_chars_end("/").is_in(self._urls)
            batch = drop_where(batch, pl.lit(blocked.fill_null(False)), "url:blocked_url", url)
        words = url.str.extract_all(WORD)
        if banned := self._words.get("banned"):
            hit = words.list.set_intersection(pl.lit(pl.Series([banned])))
            batch = drop_where(batch, hit.list.len() > 0, "url:banned_word", hit.list.sort().list.first())
        if soft := self._words.get("soft"):
            hit = words.list.set_intersection(pl.lit(pl.Series([soft])))
            enough = hit.list.len() >= self.soft_word_threshold
            batch = drop_where(batch, enough, "url:soft_words", hit.list.sort().list.join(" "))
        if substrings := self._words.get("substrings"):
            hit = url.str.replace_all("[^a-z0-9]", "").str.extract_many(substrings, overlapping=True)
            batch = drop_where(batch, hit.list.len() > 0, "url:banned_substring", hit.list.sort().list.first())
        return batch

    def _blocked_domain(self, host: str) -> str | None:
        labels = ascii_host(host.lower().rstrip(".")).split(".")
        return next((d for i in range(len(labels)) if (d := ".".join(labels[i:])) in self._domains), None)


def _is_file(entry: str) -> bool:
    return entry.startswith(FILE_PREFIX)


def _entries(values: Iterable[str]) -> Iterable[str]:
    """Yields the entries of a list, lower-cased, with those of its files."""
    for value in values:
        if not _is_file(value):
            yield value.strip().lower()
            continue
        path = Path(value.removeprefix(FILE_PREFIX))
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise InputError(f"cannot read the list {path}: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise InputError(f"the list {path} is not UTF-8: byte {error.start}.") from error
        yield from (line.strip().lower() for line in lines if line.strip() and not line.startswith("#"))


def _matches(values: pl.Series, match: Any) -> pl.Series:
    """Looks each different value up in a set: lists of millions of domains are too large to join per batch."""
    found = {value: match(value) for value in values.drop_nulls().unique()}
    return values.replace_strict(found, default=None, return_dtype=pl.String) if found else values


def _drop_matches(batch: pl.DataFrame, matches: pl.Series, reason: str) -> pl.DataFrame:
    name = "__match"
    batch = drop_where(batch.with_columns(matches.alias(name)), pl.col(name).is_not_null(), reason, pl.col(name))
    return batch.drop(name)
