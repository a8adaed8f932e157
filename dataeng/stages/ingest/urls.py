"""Parts of URLs, as column expressions."""

from __future__ import annotations

import polars as pl


def host_of(url: str) -> pl.Expr:
    """Returns the lower-case host of the URLs in column ``url``, without port and user, or null where there is none.

    An IPv6 address comes without its brackets.
    """
    authority = pl.col(url).str.extract(r"^\s*[A-Za-z][A-Za-z0-9+.-]*://([^/?#\\]*)", 1)
    host = authority.str.replace(r"^.*@", "").str.replace(r":[0-9]*$", "").str.to_lowercase()
    host = host.str.strip_prefix("[").str.strip_suffix("]").str.strip_chars(" ")
    return pl.when(host != "").then(host)
