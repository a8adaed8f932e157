from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from dataeng.stages.extract.extract_text import ENCODING, ExtractText

PARAGRAPH = "This is a paragraph of the article, long enough to be taken for its main content by the extractor. "
PAGE = f"""<!DOCTYPE html><html><head><title> A  title </title><script>var x = "no";</script></head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/about">About us</a></li></ul></nav>
<main><h1>Heading</h1><p>{PARAGRAPH * 3}</p><p>{PARAGRAPH * 2}</p></main>
<footer>Copyright nobody</footer></body></html>"""


def batch(*payloads: bytes | None, **columns: list[object]) -> pl.DataFrame:
    defaults: dict[str, list[object]] = {
        "content_type": ["text/html"] * len(payloads),
        "charset": [None] * len(payloads),
    }
    frame = pl.DataFrame({"payload": payloads}, {"payload": pl.Binary})
    schema = {"content_type": pl.String, "charset": pl.String, "text": pl.String, "reason": pl.String}
    return frame.with_columns(pl.Series(n, v, schema[n]) for n, v in {**defaults, **columns}.items())


def extract(frame: pl.DataFrame, **options: object) -> pl.DataFrame:
    stage = ExtractText.model_validate(options)
    stage.setup({})
    result = stage.apply(frame)
    columns = stage.columns()
    assert set(result.columns) == {*frame.columns, "reason", "detail", *columns.adds, *columns.signals} - set(
        columns.removes
    )
    assert all(result.schema[name] == dtype for name, dtype in {**columns.adds, **columns.signals}.items())
    return result


def test_main_content() -> None:
    row = extract(batch(PAGE.encode())).row(0, named=True)
    assert row["text"].startswith("Heading\n\nThis is a paragraph") and row["text"].count("paragraph") == 5
    assert "Home" not in row["text"] and "var x" not in row["text"] and "Copyright" not in row["text"]
    assert (row["title"], row[ENCODING], row["reason"]) == ("A title", "utf-8", None)
    everything = extract(batch(PAGE.encode()), main_content=False)["text"][0]
    assert "About us" in everything and "Copyright nobody" in everything


def test_plain_text_is_only_decoded() -> None:
    row = extract(batch("<b>Grüße</b>\n".encode(), content_type=["text/plain"])).row(0, named=True)
    assert (row["text"], row["title"]) == ("<b>Grüße</b>", None)


def test_rows_that_are_left_alone() -> None:
    frame = batch(None, PAGE.encode(), None, text=["ready", None, None], reason=[None, "earlier", None])
    result = extract(frame)
    assert result["text"].to_list() == ["ready", None, None]
    assert result["reason"].to_list() == [None, "earlier", None]


def test_optional_columns_may_be_absent() -> None:
    assert extract(batch(PAGE.encode()).select("payload"))["text"][0].startswith("Heading")


def test_empty_text() -> None:
    result = extract(batch(b"<p></p>", b"<script>x</script>", b"", b"   ", b"<p>ok</p>"))
    assert result["reason"].to_list() == ["empty_text"] * 4 + [None]
    assert extract(batch("<p>ä</p>".encode()), min_bytes=2)["reason"].to_list() == [None]
    assert extract(batch("<p>ä</p>".encode()), min_bytes=3)["reason"].to_list() == ["empty_text"]


def test_empty_batch() -> None:
    assert extract(batch(PAGE.encode())[:0]).height == 0


def test_does_not_depend_on_the_batch() -> None:
    frame = batch(PAGE.encode(), b"<p>x", None, b"", PAGE.encode("utf-16"))
    whole = extract(frame)
    assert pl.concat([extract(frame[i : i + 1]) for i in range(frame.height)]).equals(whole)


HOSTILE = {
    "closed divs": "<div>" * 100_000 + "x" + "</div>" * 100_000,
    "open divs": "<div>" * 100_000,
    "divs between others": "<b><i><div>" * 50_000,
    "links and divs": "<a><div>" * 50_000,
    "after closing tags": "</div>" * 30_000 + "<div>" * 20_000,
    "closed in comments": "<div><!--</div>-->" * 20_000,
    "closed in scripts": "<div><script>'</div>'</script>" * 20_000,
    "articles": "<ARTICLE class=x>" * 20_000,
}


@pytest.mark.timeout(60)  # the parser would need minutes for some of them
@pytest.mark.parametrize("case", HOSTILE)
def test_deep_pages_are_refused_quickly(case: str) -> None:
    result = extract(batch(HOSTILE[case].encode()))
    assert result["reason"].to_list() == ["error:html_depth"] and "nested" in result["detail"][0]


HARMLESS = {
    "bold": "<b>" * 100_000,
    "spans": "<span>" * 100_000,
    "lists": "<ul><li>x" * 30_000,
    "tables": "<table><tr><td>x" * 20_000,
    "paragraphs": "<p>hello world</p>" * 50_000,
    "brackets": "<" * 500_000,
    "comments": "<!--" * 200_000,
    "entities": "&amp" * 200_000,
    "flat divs": "<div>x</div>" * 50_000,
    "deep but allowed": "<div>" * 900 + "text" + "</div>" * 900,
    "long attribute": f"<img src='data:{'x' * 500_000}'>text",
    "closing tags": "</div></p></a>" * 50_000,
    "many flat divs": "<div><div>x</div></div>" * 30_000,
    "unfinished comments": "<div>x</div>" * 2000 + "<!--" * 100_000,
    "unfinished scripts": "<div>x</div>" * 2000 + "<style>" * 20_000,
    "nul": "\0" * 100_000,
    "select": "<select><option>" * 30_000,
    "unfinished": "<p>hello <a href='" + "x" * 100_000,
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", HARMLESS)
def test_other_odd_pages_are_read_in_time(case: str) -> None:
    result = extract(batch(HARMLESS[case].encode()))
    assert result["reason"][0] in (None, "empty_text")


def test_thousands_of_attributes() -> None:
    html = "<div " + " ".join(f"a{i}=1" for i in range(100_000)) + ">x</div>"
    for page in (html, html[:-8]):
        assert extract(batch(page.encode()))["reason"].to_list() == ["error:html_attributes"]


def test_page_of_20_mb() -> None:
    html = "<html><body>" + f"<p>{PARAGRAPH}</p>" * 200_000 + "</body></html>"
    result = extract(batch(html.encode()))
    assert result["reason"].to_list() == [None] and result["text"][0].count("paragraph") == 200_000


def test_random_bytes_and_broken_pages() -> None:
    import random

    random_ = random.Random(7)
    raw = PAGE.encode()
    payloads = [random_.randbytes(500) for _ in range(50)]
    for _ in range(300):
        page = bytearray(raw)
        for _ in range(10):
            place = random_.randrange(len(page))
            page[place : place + random_.randrange(20)] = random_.randbytes(random_.randrange(8))
        payloads.append(bytes(page))
    result = extract(batch(*payloads))
    assert result.height == 350
    assert result["reason"].drop_nulls().unique().to_list() in ([], ["empty_text"])


def test_finds_the_article(test_data: Path) -> None:
    """Word recall and precision on 40 news pages; resiliparse's own figures are 0.98 and 0.86 (4-grams)."""
    folder = test_data / "extraction" / "article-extraction-benchmark"
    truth = json.loads(gzip.decompress((folder / "ground-truth.json.gz").read_bytes()))
    names = sorted(truth)[:40]
    pages = [gzip.decompress((folder / "html" / f"{name}.html.gz").read_bytes()) for name in names]
    texts = extract(batch(*pages))["text"].to_list()
    recalls, precisions = [], []
    for name, text in zip(names, texts, strict=True):
        found, wanted = set((text or "").split()), set(truth[name]["articleBody"].split())
        recalls.append(len(found & wanted) / len(wanted))
        precisions.append(len(found & wanted) / max(1, len(found)))
    assert sum(recalls) / 40 > 0.95
    assert sum(precisions) / 40 > 0.80
