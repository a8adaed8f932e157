"""Stage `scrub_pii`: replaces e-mail and IP addresses in texts."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import ClassVar

import polars as pl
from pydantic import Field

from dataeng.document import TEXT
from dataeng.stage import Columns, RowStage

EMAILS = "privacy_emails"
IPS = "privacy_ips"

#: Rust patterns that find the rows worth a closer look. They may find too much, never too little.
_MAY_HAVE_EMAIL = r"[A-Za-z0-9_%+-]@[A-Za-z0-9-]+\.[A-Za-z0-9]"
_MAY_HAVE_IP = (
    r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]|[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]*:"
)

# These run in Python's engine, which backtracks. They cannot here: every repeat is possessive, and a match can start
# only where a run of its characters starts. So each takes time in proportion to the text.
_LOCAL = r"A-Za-z0-9._%+\-"
_EMAIL = re.compile(rf"(?<![{_LOCAL}])[{_LOCAL}]{{1,64}}+@([A-Za-z0-9\-]++(?:\.[A-Za-z0-9\-]++)++)")
_IPV4 = re.compile(r"(?<![A-Za-z0-9_.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![A-Za-z0-9_]|\.[0-9])")
_IPV6 = re.compile(r"(?<![A-Za-z0-9_:.])[0-9A-Fa-f]{1,4}+(?::[0-9A-Fa-f]{0,4}+){2,8}+(?![A-Za-z0-9_:]|\.[0-9])")

_TOP_LEVEL = re.compile(r"[A-Za-z]{2,24}")
#: RFC 2606: never anybody's. Documentation uses them, and so does this stage.
_RESERVED_DOMAIN = re.compile(r"(?:.+\.)?(?:example\.(?:com|net|org)|example|test|invalid|localhost)", re.IGNORECASE)
_NUMBERING = re.compile(
    r"(?:\b(?:version|versions|ver|release|rev|revision|firmware|build|kernel|section|chapter|appendix|figure|table|oid)"
    r"[ .:=]{0,2}|\bv\.?|§ ?)\Z",
    re.IGNORECASE,
)
_NUMBERING_CHARACTERS = 16


class ScrubPii(RowStage):
    """Replaces e-mail addresses and public IP addresses (v4, v6) by fixed ones that belong to nobody.

    The replacements are addresses reserved for documentation (RFC 2606, 5737, 3849), so that the text keeps its form
    and a second run changes nothing. They are constant: FineWeb (datatrove) takes turns between several, which makes
    the result depend on how the corpus is sharded.

    Left alone: addresses in reserved domains (``user@example.com``), IP addresses that are not globally reachable
    (``127.0.0.1``, ``192.168.…``; `ipaddress.is_global`), and four numbers after words such as "version" or "section".
    IPv6 in short form (``::``) counts only within 2000::/3, all that is in use, because ``a::b`` is also code.

    Signals: ``privacy_emails`` and ``privacy_ips``, how many were replaced.
    """

    version: ClassVar[int] = 1

    emails: bool = True
    ips: bool = True
    email_replacement: str = "email@example.com"
    ipv4_replacement: str = Field(default="192.0.2.1", description="RFC 5737: 192.0.2.0/24 is for documentation")
    ipv6_replacement: str = Field(default="2001:db8::1", description="RFC 3849: 2001:db8::/32 is for documentation")

    def columns(self) -> Columns:
        return Columns(reads=(TEXT,), signals={EMAILS: pl.Int32(), IPS: pl.Int32()})

    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        batch = batch.with_columns(pl.lit(0, pl.Int32).alias(EMAILS), pl.lit(0, pl.Int32).alias(IPS))
        if self.emails:
            batch = _edit(batch, _MAY_HAVE_EMAIL, EMAILS, self._scrub_emails)
        if self.ips:
            batch = _edit(batch, _MAY_HAVE_IP, IPS, self._scrub_ips)
        return batch

    def _scrub_emails(self, text: str) -> tuple[str, int]:
        count = 0

        def replace(match: re.Match[str]) -> str:
            nonlocal count
            domain = match[1]
            if not _TOP_LEVEL.fullmatch(domain.rpartition(".")[2]) or _RESERVED_DOMAIN.fullmatch(domain):
                return match[0]
            count += 1
            return self.email_replacement

        return _EMAIL.sub(replace, text), count

    def _scrub_ips(self, text: str) -> tuple[str, int]:
        count = 0

        def replace(match: re.Match[str]) -> str:
            nonlocal count
            if not _is_public(match[0]) or _NUMBERING.search(
                text, max(0, match.start() - _NUMBERING_CHARACTERS), match.start()
            ):
                return match[0]
            count += 1
            return self.ipv6_replacement if ":" in match[0] else self.ipv4_replacement

        text = _IPV4.sub(replace, text)
        return _IPV6.sub(replace, text), count


def _is_public(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if "::" in address and not 0x2000 <= int(parsed) >> 112 <= 0x3FFF:
        return False
    return parsed.is_global and not parsed.is_multicast


def _edit(batch: pl.DataFrame, may_match: str, counter: str, scrub: Callable[[str], tuple[str, int]]) -> pl.DataFrame:
    """Applies ``scrub`` to the texts that may need it, one by one; a fast search in the column finds those first."""
    rows = batch.select(pl.col(TEXT).str.contains(may_match).fill_null(False).arg_true()).to_series()
    if rows.is_empty():
        return batch
    edited = [scrub(text) for text in batch[TEXT].gather(rows)]
    return batch.with_columns(
        batch[TEXT].scatter(rows, [text for text, _ in edited]),
        batch[counter].scatter(rows, pl.Series([count for _, count in edited], dtype=pl.Int32)),
    )
