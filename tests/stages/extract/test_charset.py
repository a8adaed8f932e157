from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from dataeng.stages.extract.charset import decode_page
from dataeng.stages.ingest.read_warc import ReadWarc

TEXTS = {
    "de": "Über öffentliche Räume, Straßen und Gärten. " * 5,
    "fr": "L'été dernier, élèves et maîtres étaient à l'hôtel. " * 5,
    "ru": "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 5,
    "ja": "日本語の文章をいくつか書いて、文字コードの判定を試します。テストです。" * 5,
    "zh": "我们相信您曾经阅读过许多商业软件的许可证，它们通常要求您不得复制。" * 5,
    "ko": "사용하려면 슬라이드 쇼에서 사용자 정의 애니메이션을 선택합니다. " * 5,
    "el": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία και πηγαίνω στην αγορά. " * 5,
    "pl": "Zażółć gęślą jaźń, aby wykonać tę operację kursorem bezpośrednim. " * 5,
}


def html(text: str, codec: str, meta: str | None = None) -> bytes:
    tag = f'<meta charset="{meta}">' if meta else ""
    return f"<html><head>{tag}<title>x</title></head><body><p>{text}</p></body></html>".encode(codec)


LEGACY = [
    ("de", "cp1252", "iso-8859-1"),
    ("de", "iso8859-15", "iso-8859-15"),
    ("fr", "cp1252", "windows-1252"),
    ("ru", "cp1251", "windows-1251"),
    ("ru", "koi8-r", "koi8-r"),
    ("ja", "cp932", "shift_jis"),
    ("ja", "euc-jp", "euc-jp"),
    ("ja", "iso2022_jp", "iso-2022-jp"),
    ("zh", "gb18030", "gb2312"),
    ("zh", "gbk", "gbk"),
    ("ko", "cp949", "euc-kr"),
    ("el", "iso8859-7", "iso-8859-7"),
    ("pl", "iso8859-2", "iso-8859-2"),
]


@pytest.mark.parametrize(("language", "codec", "label"), LEGACY)
def test_stated_truly(language: str, codec: str, label: str) -> None:
    text = TEXTS[language]
    for payload, header in ((html(text, codec), label), (html(text, codec, label), None)):
        decoded, encoding = decode_page(payload, header)
        assert text in decoded and not encoding.endswith("replaced")


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize(
    "lie", ["iso-8859-1", "windows-1252", "shift_jis", "gb2312", "koi8-r", "bogus", "utf-16", "ascii"]
)
def test_utf8_is_seen_whatever_is_stated(language: str, lie: str) -> None:
    text = TEXTS[language]
    for payload, header in (
        (html(text, "utf-8"), lie),
        (html(text, "utf-8", lie), None),
        (html(text, "utf-8", lie), lie),
    ):
        decoded, encoding = decode_page(payload, header)
        assert text in decoded and encoding == "utf-8"


@pytest.mark.parametrize(("language", "codec"), [(lang, codec) for lang, codec, _ in LEGACY if codec != "iso2022_jp"])
@pytest.mark.parametrize("lie", ["utf-8", "bogus", None])
def test_legacy_called_utf8_or_nothing(language: str, codec: str, lie: str | None) -> None:
    text = TEXTS[language]
    for payload, header in ((html(text, codec), lie), (html(text, codec, lie), None)):
        decoded, _ = decode_page(payload, header)
        if language == "pl":
            assert "\ufffd" not in decoded  # detection takes ISO 8859-2 for something near it
        else:
            assert text in decoded


@pytest.mark.parametrize(
    ("language", "codec"), [("ru", "cp1251"), ("ja", "cp932"), ("ja", "euc-jp"), ("zh", "gb18030"), ("ko", "cp949")]
)
@pytest.mark.parametrize("lie", ["iso-8859-1", "windows-1252", "iso-8859-15"])
def test_foreign_scripts_called_western(language: str, codec: str, lie: str) -> None:
    text = TEXTS[language]
    for payload, header in ((html(text, codec), lie), (html(text, codec, lie), None)):
        assert text in decode_page(payload, header)[0]


def test_the_other_statement_is_tried_when_the_first_cannot_be_true() -> None:
    payload = html(TEXTS["ja"], "euc-jp", "euc-jp")
    assert decode_page(payload, "utf-8") == (payload.decode("euc-jp"), "euc_jp")


def test_byte_order_marks() -> None:
    for codec in ("utf-8-sig", "utf-16"):
        decoded, _ = decode_page(html(TEXTS["ru"], codec), "koi8-r")
        assert TEXTS["ru"] in decoded and not decoded.startswith("\ufeff")
    assert decode_page("ю ю".encode("utf-16-le"), "utf-16le") == ("ю ю", "utf-16-le")


def test_damaged_utf8_stays_utf8() -> None:
    payload = html(TEXTS["ru"], "utf-8").replace("мягких".encode(), b"\xd0\xff\xd1")
    for stated in ("utf-8", None, "bogus"):
        decoded, encoding = decode_page(payload, stated)
        assert encoding == "utf-8+replaced" and "французских булок" in decoded and "\ufffd" in decoded


def test_character_cut_off_at_the_end() -> None:
    payload = TEXTS["ja"].encode()
    for cut in (1, 2):
        decoded, encoding = decode_page(payload[:-cut], "utf-8", is_html=False)
        assert encoding == "utf-8" and decoded == TEXTS["ja"][:-1]


def test_bytes_that_are_nothing() -> None:
    for payload in (b"", bytes(range(256)) * 4, b"\xff" * 100, b"\x00" * 10):
        decoded, encoding = decode_page(payload, None)
        assert isinstance(decoded, str) and encoding
    assert decode_page(b"plain", None) == ("plain", "utf-8")


def test_meta_of_plain_text_is_not_looked_at() -> None:
    payload = b"<meta charset=koi8-r> \xfcber Stra\xdfen und G\xe4rten"
    assert "Straßen" in decode_page(payload, "iso-8859-1", is_html=False)[0]


def test_recoded_pages_of_the_recorded_crawl(test_data: Path) -> None:
    """Pages that were recoded into legacy charsets decode to what their charset says, wherever it is declared."""
    lines = gzip.decompress((test_data / "crawl/recorded/truth.jsonl.gz").read_bytes()).splitlines()
    kinds = {row["url"]: row["kind"] for row in map(json.loads, lines)}
    source = ReadWarc(paths=("crawl/recorded/local-dev-0000?.warc.gz",))
    frame = pl.concat([batch for file in source.files(test_data) for batch in source.read(file)])
    seen = set()
    for row in frame.filter(pl.col("payload").is_not_null()).iter_rows(named=True):
        kind = kinds.get(row["url"], "")
        if kind.startswith("recoded:"):
            charset = kind.split(":")[1]
            expected = row["payload"].decode(charset)
            decoded, encoding = decode_page(row["payload"], row["charset"])
            assert decoded == expected, (row["url"], kind, encoding)
            seen.add(charset)
    western = {"windows-1252", "iso-8859-15", "iso-8859-2"}
    assert seen == western | {"windows-1251", "koi8-r", "shift_jis", "euc-jp", "gb18030", "euc-kr"}
