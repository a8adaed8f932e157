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
_MAY_HAVE_EMAIL = r"[A-Za-z0-9._%+-]@(?:[A-Za-z0-9-]|[^\x00-\x7f])+\.(?:[A-Za-z0-9-]|[^\x00-\x7f])"
_MAY_HAVE_IP = (
    r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]|[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]*:"
)

# These run in Python's engine, which backtracks. They cannot here, but for the few characters of a top-level domain:
# other repeats are possessive, and a match can start only where a run of its characters starts. So each takes time in
# proportion to the text.
_LOCAL = r"A-Za-z0-9._%+\-"
_LOCAL_PART = re.compile(rf"(?<![{_LOCAL}])[{_LOCAL}]++@")
#: What `\w` lacks: the vowel signs and tone marks without which भारत or ไทย cannot be written, and accents in NFD.
_MARKS = (
    r"\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0900-\u0963\u0966-\u0df3"
    r"\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece"
)
_ANY_LABEL = rf"(?:[^\W_]|[{_MARKS}\-])++"
#: No top-level domain has digits, and an accented letter continues a Latin word where a kana or a kanji does not.
_LABEL_GOES_ON = r"(?![A-Za-z0-9\u00c0-\u024f])"
_PUNYCODE = r"[Xx][Nn]--[A-Za-z0-9\-]{0,58}[A-Za-z0-9]"
_ASCII_LABELS = re.compile(r"[A-Za-z0-9\-]++(?:\.[A-Za-z0-9\-]++)++")
#: Runs of labels, and the top-level domain they must end in. ASCII first: in メール:a@b.jpまで the domain is b.jp. The
#: last is for what no registry has, such as a@b.comé1.
_DOMAINS = (
    (_ASCII_LABELS, re.compile(rf"(?:{_PUNYCODE}|[A-Za-z]{{2,24}}){_LABEL_GOES_ON}")),
    (
        re.compile(rf"{_ANY_LABEL}(?:\.{_ANY_LABEL})++"),
        re.compile(rf"(?:{_PUNYCODE}|(?:[^\W\d_]|[{_MARKS}]){{2,24}}){_LABEL_GOES_ON}"),
    ),
    (_ASCII_LABELS, re.compile(r"[A-Za-z]{2,24}(?![A-Za-z0-9])")),
)
_IPV4 = re.compile(r"(?<![A-Za-z0-9_.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![A-Za-z0-9_]|\.[0-9])")
_IPV6 = re.compile(r"(?<![A-Za-z0-9_:.])[0-9A-Fa-f]{1,4}+(?::[0-9A-Fa-f]{0,4}+){2,8}+(?![A-Za-z0-9_:]|\.[0-9])")

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
    What follows the last top-level domain stays: ``-based`` in ``a@b.com-based``. All that is stuck together before the
    ``@`` goes, even if it is longer than the 64 characters that RFC 5321 allows: nothing says where the name begins, so
    to keep a part might keep the name. Domains may be in any script; before the ``@`` only ASCII counts.
    IPv6 in short form (``::``) counts only within 2000::/3, all that is in use, because ``a::b`` is also code.

    Signals: ``privacy_emails`` and ``privacy_ips``, how many were replaced.
    """

    version: ClassVar[int] = 2

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
        pieces: list[str] = []
        end = 0
        for match in _LOCAL_PART.finditer(text):
            domain_end = _find_domain_end(text, match.end())
            if domain_end is None or _RESERVED_DOMAIN.fullmatch(text, match.end(), domain_end):
                continue
            # In a@b.com-c@d.org the second begins within the first. One replacement stands for both: two that touch
            # would read as another address, and a second run would change it.
            if not pieces or match.start() > end:
                pieces += [text[end : match.start()], self.email_replacement]
            end = domain_end
            while text.startswith("@", end) and (domain_end := _find_domain_end(text, end + 1)):
                end = domain_end
        return "".join([*pieces, text[end:]]), len(pieces) // 2

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


def _find_domain_end(text: str, start: int) -> int | None:
    """Returns where the longest domain at ``start`` ends, None if there is none.

    ``b.com-based``, ``b.com--`` and ``b.com.2021`` all end after ``com``, as that is the last top-level domain.
    """
    for labels, top_level in _DOMAINS:
        run = labels.match(text, start)
        dot = text.rfind(".", start, run.end()) if run else -1
        while dot >= 0:
            if found := top_level.match(text, dot + 1):
                return found.end()
            dot = text.rfind(".", start, dot)
    return None


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
