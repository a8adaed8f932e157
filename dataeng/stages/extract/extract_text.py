"""Stage `extract_text`: plain text from HTML, with resiliparse."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
from pydantic import Field

from dataeng.document import DETAIL, PAYLOAD, REASON, TEXT, with_reason_columns
from dataeng.stage import Columns, RowStage
from dataeng.stages.extract.charset import decode_page

TITLE = "title"
ENCODING = "extract_encoding"

#: resiliparse's main-content rules take time with the square of the depth of these: 8,000 nested take 4 s, 1,000 0.1 s.
_CONTAINER = re.compile(r"<(/?)(?:div|article)\b", re.IGNORECASE)
_NOT_MARKUP = re.compile(  # each runs to the end of the page if it is not closed, which also keeps this linear
    r"<!--.*?(?:-->|\Z)|<script\b.*?(?:</script|\Z)|<style\b.*?(?:</style|\Z)", re.IGNORECASE | re.DOTALL
)
#: A tag's attributes are compared with each other: 20,000 take 2 s.
_LONG_TAG_CHARACTERS = 40_000
_LONG_TAG = re.compile(r"<[A-Za-z][^<>]{40000}")


class ExtractText(RowStage):
    """Turns ``payload`` into ``text``: charset, HTML parsing, main content without navigation and boilerplate.

    Plain text payloads are only decoded. Rows that have a text already are left as they are. Adds ``title`` (HTML
    only) and the signal ``extract_encoding`` (the codec that decoded the page, ``+replaced`` if not every byte could
    be). Reasons: ``empty_text``, ``error:html`` (the parser gave up), and ``error:html_depth`` and
    ``error:html_attributes`` for pages that would keep the parser busy: nothing can interrupt it. Both are estimates
    from the tags as written, so a page made to deceive them can still take long; the source's size limit bounds that.

    Library: resiliparse (Bevendorff et al., ECIR 2018), ``extract_plain_text``.
    """

    libraries: ClassVar[tuple[str, ...]] = ("resiliparse",)

    main_content: bool = Field(default=True, description="Leave out navigation, headers, footers and the like")
    links: bool = Field(default=False, description="Write link targets into the text")
    comments: bool = Field(default=True, description="Keep readers' comments; only used with main_content")
    min_bytes: int = Field(default=1, ge=1, description="A shorter text (UTF-8) is dropped as `empty_text`")
    max_depth: int = Field(default=1000, ge=10, description="Deepest nesting of <div> and <article>")

    def columns(self) -> Columns:
        return Columns(
            reads=(PAYLOAD,),
            adds={TEXT: pl.String(), TITLE: pl.String()},
            signals={ENCODING: pl.String()},
            removes=(PAYLOAD,),
        )

    def setup(self, artifacts: Mapping[str, Path]) -> None:
        import resiliparse.extract.html2text
        import resiliparse.parse.html  # noqa: F401  (loaded before the first batch)

    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        batch = with_reason_columns(batch)
        texts = batch[TEXT].to_list() if TEXT in batch.columns else [None] * batch.height
        reasons, details = batch[REASON].to_list(), batch[DETAIL].to_list()
        titles: list[str | None] = [None] * batch.height
        encodings: list[str | None] = [None] * batch.height
        # A Python loop over documents, because resiliparse takes one at a time. 85 % of the time is inside it.
        for i, (payload, content_type, charset) in enumerate(_columns(batch, PAYLOAD, "content_type", "charset")):
            if payload is None or texts[i] is not None or reasons[i] is not None:
                continue
            is_html = content_type != "text/plain"
            text, encodings[i] = decode_page(payload, charset, is_html)
            if is_html:
                reasons[i], details[i] = self._hostile(text)
                if reasons[i] is not None:
                    continue
                try:
                    text, titles[i] = self._main_text(text)
                except (ValueError, RuntimeError) as error:
                    reasons[i], details[i] = "error:html", str(error)[:200]
                    continue
            text = text.strip()
            if len(text.encode()) < self.min_bytes:
                reasons[i] = "empty_text"
            else:
                texts[i] = text
        return batch.with_columns(
            pl.Series(TEXT, texts, pl.String),
            pl.Series(TITLE, titles, pl.String),
            pl.Series(ENCODING, encodings, pl.String),
            pl.Series(REASON, reasons, pl.String),
            pl.Series(DETAIL, details, pl.String),
        ).drop(PAYLOAD, strict=False)

    def _main_text(self, html: str) -> tuple[str, str | None]:
        from resiliparse.extract.html2text import extract_plain_text
        from resiliparse.parse.html import HTMLTree

        tree = HTMLTree.parse(html)
        text = extract_plain_text(tree, main_content=self.main_content, links=self.links, comments=self.comments)
        return text, tree.title or None

    def _hostile(self, html: str) -> tuple[str | None, str | None]:
        """Returns reason and detail if the parser would take forever."""
        # Most pages are too small to be either, which `count` and `len` tell at memory speed.
        if html.count("<") > self.max_depth:
            depth = _depth(html, self.max_depth)
            if depth > self.max_depth:
                return "error:html_depth", f"<div> and <article> nested {depth} deep; at most {self.max_depth}"
        if len(html) > _LONG_TAG_CHARACTERS:
            for tag in _LONG_TAG.finditer(html):
                end = html.find(">", tag.end())
                num = len(html[tag.start() : end if end >= 0 else len(html)].split(None, 5001)) - 1
                if num > 5000:
                    return "error:html_attributes", "a tag with more than 5000 attributes"
        return None, None


def _depth(html: str, enough: int) -> int:
    """Returns how deep containers are nested, or 0 if there are no more than ``enough`` of them."""
    if _CONTAINER.findall(html).count("") <= enough:
        return 0
    closes = np.array([bool(close) for close in _CONTAINER.findall(_NOT_MARKUP.sub("", html))], dtype=np.int8)
    running = np.cumsum(1 - 2 * closes)
    floor = np.minimum(np.minimum.accumulate(running), 0)  # closing tags without an opening one do nothing
    return int((running - floor).max(initial=0))


def _columns(batch: pl.DataFrame, *names: str) -> zip[tuple[Any, ...]]:
    """Iterates over columns in step; one that the batch lacks is all None."""
    return zip(*(batch[n] if n in batch.columns else [None] * batch.height for n in names), strict=True)
