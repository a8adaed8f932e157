"""Canonical URLs of a column: one spelling for the many that name the same page.

``HTTP://www.Example.ORG:80/a/../b/?utm_source=x&q=1#top`` → ``example.org/b?q=1``. What a URL is and how its parts are
spelled is the WHATWG URL standard's matter (library Ada); what is left out, `dataeng.kernels.canonical_urls` says.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import polars as pl

from dataeng.stages.ingest.tracking_parameters import parameters_of

if TYPE_CHECKING:
    from dataeng.kernels.canonical_urls import DroppedParameters

DEFAULT_DROPPED = ("@tracking", "@session")

#: URLs that the standard's parser would give back as they are: host names in lower case without Punycode or port,
#: not ending in a number; no character that it encodes. For the rest of a crawl's URLs the parser is asked.
_PLAIN = (
    r"^https?://(?:[a-z0-9-]+\.)+[a-z][a-z0-9-]*"
    r"(?:/[A-Za-z0-9_~!$&()*+,;=:@/%.-]*)?(?:\?[A-Za-z0-9_~!$&()*+,;=:@/%.?-]*)?$"
)
_NOT_PLAIN = r"/\.|%2[eE]|xn--"


def canonical_urls(urls: pl.Series, dropped: tuple[str, ...] = DEFAULT_DROPPED) -> pl.Series:
    """Returns the canonical form of every URL (String); null where there is no URL or it is not valid.

    The result has no scheme where that was http or https: both name one page. It is a key to compare by, not an
    address to fetch.

    Args:
      urls: a column of strings.
      dropped: query parameters to leave out: names, beginnings (``utm_*``), and the lists ``@tracking`` and
        ``@session`` of `dataeng.stages.ingest.tracking_parameters`.
    """
    import numpy as np
    import pyarrow as pa

    from dataeng.kernels.canonical_urls import canonical_keys
    from dataeng.kernels.text import text_buffers

    hrefs = serialized(urls)
    keys = canonical_keys(text_buffers(hrefs), _prepared(dropped))
    buffers = [None, pa.py_buffer(keys.offsets), pa.py_buffer(np.ascontiguousarray(keys.data))]
    column = pl.Series(urls.name, pa.Array.from_buffers(pa.large_string(), keys.num_texts, buffers), dtype=pl.String)
    return column.zip_with(hrefs.is_not_null() & (column != ""), pl.Series([None], dtype=pl.String))


def serialized(urls: pl.Series) -> pl.Series:
    """Returns URLs as the WHATWG standard's parser serializes them; null where it finds an error or nothing."""
    plain = (urls.str.contains(_PLAIN) & ~urls.str.contains(_NOT_PLAIN)).fill_null(False)
    if plain.all():
        return urls
    others = urls.filter(~plain)
    # One call per URL that needs the parser (measured: 0.17 million a second; of the crawl's URLs 0.1 % do).
    parsed = pl.Series(urls.name, [_serialized(url) for url in others], dtype=pl.String)
    places = (~plain).arg_true()
    return urls.scatter(places, parsed)


def resolved(urls: pl.Series, targets: pl.Series) -> pl.Series:
    """Returns the absolute form of ``targets`` (e.g. ``Location`` headers), each seen from the URL beside it.

    Null where either is missing or the result is no URL.
    """
    # One call per redirect: a small share of a crawl's records.
    joined = [_joined(url, target) for url, target in zip(urls, targets, strict=True)]
    return pl.Series(targets.name, joined, dtype=pl.String)


def ascii_host(host: str) -> str:
    """Returns an international host name in Punycode; others, and what is none, as they are."""
    if host.isascii():
        return host
    import ada_url

    return str(ada_url.idna_to_ascii(host).decode("ascii")) or host


def _serialized(url: str | None) -> str | None:
    import ada_url

    if url is None:
        return None
    try:
        return str(ada_url.normalize_url(url))
    except ValueError:
        return None  # the caller asked for null where it is not a URL


def _joined(url: str | None, target: str | None) -> str | None:
    import ada_url

    if url is None or target is None:
        return None
    try:
        return str(ada_url.join_url(url, target))
    except ValueError:
        return None


@functools.lru_cache(maxsize=32)
def _prepared(dropped: tuple[str, ...]) -> DroppedParameters:
    from dataeng.kernels.canonical_urls import dropped_parameters

    return dropped_parameters(parameters_of(dropped))
