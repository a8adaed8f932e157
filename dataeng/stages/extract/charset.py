"""From the bytes of a page to text, whatever the page says its charset is.

Order after the HTML standard (https://html.spec.whatwg.org/multipage/parsing.html#determining-the-character-encoding):
byte order mark, HTTP header, ``<meta>``, detection. But statements are only believed if they can be true:

- Bytes that are valid UTF-8 and not ASCII are UTF-8. By chance that happens to no real text in another charset.
- A stated charset must decode every byte.
- A stated Western charset decodes nearly anything. It is not believed for bytes with long runs above 0x7F, which
  Western words do not have, if detection finds a charset that decodes everything.
"""

from __future__ import annotations

import codecs
import re

#: Python codecs that decode all that the HTML standard's encoding of the same label does.
_WIDER = {
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "iso8859-11": "cp874",
    "iso8859-9": "cp1254",
}
_WESTERN = frozenset(("cp1252", "iso8859-15", "mac-roman", "cp1254", "iso8859-10", "iso8859-14", "iso8859-3"))
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_META = re.compile(rb"<meta\s[^>]{0,500}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_META_BYTES = 4096  # the standard says 1024; some pages put their scripts first
_FOREIGN_RUN = re.compile(rb"[\x80-\xff]{5}")
_DETECT_BYTES = 128 << 10
_REPLACED = "\ufffd"


def decode_page(payload: bytes, http_charset: str | None, is_html: bool = True) -> tuple[str, str]:
    """Returns a page's text and how it was decoded.

    Args:
      payload: the page's bytes.
      http_charset: what the HTTP header says, if anything.
      is_html: look for ``<meta charset>`` too.

    Returns:
      The text, and a Python codec name; with ``+replaced`` where bytes had to become U+FFFD.
    """
    for mark, name in _MARKS:
        if payload.startswith(mark):
            return _with_replacement(payload[len(mark) :], name)
    stated = [codec for codec in map(_codec, _statements(payload, http_charset, is_html)) if codec is not None]
    for codec in stated:
        if _explains_ascii(codec, payload) and (text := _strictly(payload, codec)) is not None:
            return text, codec
    if (text := _strictly(payload, "utf-8")) is not None:
        return text, "utf-8"
    for codec in stated:
        if (text := _strictly(payload, codec)) is not None:
            if codec in _WESTERN and _FOREIGN_RUN.search(payload):
                return _detected(payload, but_not=_WESTERN) or (text, codec)
            return text, codec
    text = payload.decode("utf-8", "replace")
    damaged = text.count(_REPLACED)
    if damaged * 10 < sum(character > "\x7f" for character in text):
        return text, "utf-8+replaced"
    found = _detected(payload) or _detected(payload, but_not=frozenset(), strict=False)
    return found or (text, "utf-8+replaced")


def _statements(payload: bytes, http_charset: str | None, is_html: bool) -> list[str]:
    stated = [http_charset] if http_charset else []
    if is_html and (meta := _META.search(payload, 0, _META_BYTES)):
        label = meta[1].decode("ascii").lower()
        # A <meta> that could be read as ASCII is not in UTF-16, says the standard.
        stated.append("utf-8" if label.startswith("utf-16") else label)
    return stated


def _explains_ascii(codec: str, payload: bytes) -> bool:
    """Says whether bytes that may look like ASCII, and so like UTF-8, are in one of the two kinds that do."""
    return (codec.startswith("iso2022") and b"\x1b" in payload) or (codec.startswith("utf-16") and b"\0" in payload)


def _codec(label: str) -> str | None:
    from resiliparse.parse.encoding import map_encoding_to_html5

    name = map_encoding_to_html5(label, fallback_utf8=False)
    return _WIDER.get(name, name) if name else None


def _python_codec(label: str) -> str | None:
    try:
        return codecs.lookup(label).name
    except (LookupError, ValueError):
        return None


def _strictly(payload: bytes, codec: str) -> str | None:
    """Decodes, or returns None. A character that is cut off at the very end is left out: crawlers cut pages."""
    end = len(payload)
    for _ in range(2):
        try:
            return payload[:end].decode(codec)
        except UnicodeDecodeError as error:
            end = error.start
            if len(payload) - end >= 4:
                break
    return None


def _detected(payload: bytes, but_not: frozenset[str] = frozenset(), strict: bool = True) -> tuple[str, str] | None:
    from resiliparse.parse.encoding import detect_encoding

    # Not html5_compatible: that turns names it does not know into UTF-8, among them the detector's own for Korean.
    label = detect_encoding(payload, max_len=_DETECT_BYTES, html5_compatible=False) or ""
    codec = _codec(label) or _python_codec(label)
    if codec is None or codec in but_not:
        return None
    if not strict:
        return _with_replacement(payload, codec)
    text = _strictly(payload, codec)
    return None if text is None else (text, codec)


def _with_replacement(payload: bytes, codec: str) -> tuple[str, str]:
    text = payload.decode(codec, "replace")
    return text, f"{codec}+replaced" if _REPLACED in text else codec
