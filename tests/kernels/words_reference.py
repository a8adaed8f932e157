"""What a word is, written plainly on Python strings; see `dataeng.kernels.words`."""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata

from dataeng.kernels import special_cases
from dataeng.kernels.characters import DATATROVE_TERMINAL, SPACY_CURRENCY, SPACY_PUNCTUATION, SPACY_QUOTES

UNITS = re.split(
    " ",
    "km m dm cm mm ha nm yd in ft kg g mg t lb oz m/s km/h kmh mph hPa Pa mbar mb MB kb KB gb GB tb TB T G M K % "
    "km² km³ m² m³ dm² dm³ cm² cm³ mm² mm³ µm µg км м дм см мм нм кг г мг Па Кб КБ кб Мб МБ мб Гб ГБ гб Тб ТБ тб",
)


def is_icon(c: str) -> bool:
    return unicodedata.category(c) == "So" and ord(c) < 0x20000


def is_suffix(c: str) -> bool:
    return c in SPACY_PUNCTUATION or c in SPACY_QUOTES or c in "—–" or is_icon(c)


def is_prefix(c: str) -> bool:
    return c in SPACY_PUNCTUATION or c in SPACY_QUOTES or c in SPACY_CURRENCY or c in "§%=—–+" or is_icon(c)


def is_lower(c: str) -> bool:
    return c.isalpha() and not c.isupper()


def is_upper(c: str) -> bool:
    return c.isalpha() and not c.islower()


def is_digit(c: str) -> bool:
    return "0" <= c <= "9"


def alnum(c: str) -> bool:
    return c.isalpha() or is_digit(c)


def suffix_of(piece: str) -> str:
    """The last suffix of a piece, or ''."""
    if match := re.search(r"\.\.+$", piece):
        return match.group()
    last, before = piece[-1], piece[:-1]
    if is_suffix(last):
        return last
    if last == ".":
        if not before:
            return ""
        c = before[-1]
        if is_lower(c) or is_digit(c) or c in "%²-+" or c in SPACY_PUNCTUATION or c in SPACY_QUOTES:
            return "."
        return "." if is_upper(c) and len(before) > 1 and is_upper(before[-2]) else ""
    if len(piece) >= 2 and last in "sS" and before[-1] in "'’":
        return piece[-2:]
    if before and is_digit(before[-1]) and (last in SPACY_CURRENCY or last == "+"):
        return last
    for unit in UNITS:
        if piece.endswith(unit) and len(piece) > len(unit) and is_digit(piece[-len(unit) - 1]):
            return unit
    return ""


def is_address(piece: str) -> bool:
    scheme = re.match(r"(?:[A-Za-z0-9_+.-]|(?=[^\x00-\x7f])[^\W_])*", piece).group()  # type: ignore[union-attr]
    scheme = "".join(itertools.takewhile(lambda c: alnum(c) or c in "_+.-", scheme))
    rest = piece
    if piece[len(scheme) :].startswith("://"):
        if len(scheme.encode()) < 2:
            return False
        rest = piece[len(scheme) + 3 :]
    head = rest.split("/", 1)[0]
    if "@" in head:
        rest = rest[head.index("@") + 1 :]
    host = re.match(r"(?:[A-Za-z0-9_.-]|[^\x00-\x7f])*", rest).group()  # type: ignore[union-attr]
    labels = host.split(".")
    if len(labels) < 2 or any(not label or label[0] in "-_" for label in labels):
        return False
    if any(label[-1] in "-_" for label in labels[:-1]):
        return False
    if len(labels[-1]) < 2 or not all(is_lower(c) for c in labels[-1]):
        return False
    return bool(re.match(r"(?::[0-9]{2,5})?(?:$|[/?#])", rest[len(host) :]))


def infix_at(piece: str, i: int) -> str:
    """The infix that starts at character i, or ''."""
    c, rest = piece[i], piece[i + 1 :]
    if is_icon(c) or c == "…":
        return c
    if match := re.match(r"\.\.+", piece[i:]):
        return match.group()
    if i == 0 or not rest:
        return ""
    before, after = piece[i - 1], rest[0]
    if c in "+-*^" and is_digit(before) and (is_digit(after) or after == "-"):
        return c
    if c == ".":
        quoted_before, quoted_after = before in SPACY_QUOTES, after in SPACY_QUOTES
        return c if (is_lower(before) or quoted_before) and (is_upper(after) or quoted_after) else ""
    if c == ",":
        return c if before.isalpha() and after.isalpha() else ""
    if not alnum(before):
        return ""
    if c in ":<>=/":
        return c if after.isalpha() else ""
    for hyphen in ("-", "–", "—", "--", "---", "——", "~"):
        if piece[i:].startswith(hyphen) and piece[i + len(hyphen) : i + len(hyphen) + 1].isalpha():
            return hyphen
    return ""


def split_middle(piece: str) -> list[str]:
    words, start, i = [], 0, 0
    while i < len(piece):
        infix = infix_at(piece, i)
        if infix and not is_address(piece):
            words += [piece[start:i], infix]
            i += len(infix)
            start = i
        else:
            i += 1
    return [word for word in [*words, piece[start:]] if word]


CUT = {entry.replace("␟", ""): entry.split("␟") for entry in special_cases.CUT.split()}
WHOLE = {entry.replace("␟", ""): entry.split("␟") for entry in special_cases.WHOLE.split()}
SPECIAL = CUT | {entry: [entry] for entry in WHOLE}


def prefix_of(piece: str) -> str:
    if match := re.match(r"\.\.+", piece):
        return match.group()
    if is_prefix(piece[0]) and not (piece[0] == "+" and piece[1:2] and is_digit(piece[1])):
        return piece[0]
    return ""


@functools.lru_cache(100_000)
def split_chunk(chunk: str) -> list[str]:
    if len(chunk) == 1:
        return [chunk]
    if chunk in SPECIAL:
        return SPECIAL[chunk]
    prefixes: list[str] = []
    suffixes: list[str] = []
    while chunk and chunk not in SPECIAL:
        prefix = prefix_of(chunk)
        rest = chunk[len(prefix) :]
        if prefix and rest in SPECIAL:
            prefixes.append(prefix)
            chunk = rest
            break
        suffix = suffix_of(rest) if rest else ""
        if suffix and chunk[: -len(suffix)] in SPECIAL:
            suffixes.insert(0, suffix)
            chunk = chunk[: -len(suffix)]
            break
        if not prefix and not suffix:
            break
        if prefix:
            prefixes.append(prefix)
        if suffix:
            suffixes.insert(0, suffix)
        chunk = rest[: len(rest) - len(suffix)]
    middle = SPECIAL[chunk] if chunk in SPECIAL else split_middle(chunk)
    return join_pieces([*prefixes, *middle, *suffixes])


def join_pieces(pieces: list[str]) -> list[str]:
    """Joins pieces that side by side are a special case of one word, the longest first."""
    for n in range(special_cases.MAX_PIECES, 1, -1):
        joined, i = [], 0
        while i < len(pieces):
            entry = WHOLE.get("".join(pieces[i : i + n]))
            size = n if entry and len(entry) == n and i + n <= len(pieces) else 1
            joined.append("".join(pieces[i : i + size]))
            i += size
        pieces = joined
    return pieces


def split_words(text: str) -> list[str]:
    return [word for chunk in text.split() for word in split_chunk(chunk)]


def count_sentences(line: str) -> int:
    """Sentences of a line: 1, and one more wherever a word with more than punctuation follows the end of one.

    As spaCy's sentencizer: what ends a sentence is a word that is one terminal sign.
    """
    sentences, ended = 1, False
    for word in split_words(line):
        if len(word) == 1 and word in DATATROVE_TERMINAL:
            ended = True
        elif ended and not is_punctuation(word):
            sentences += 1
            ended = False
    return sentences


@functools.lru_cache(100_000)
def is_punctuation(word: str) -> bool:
    from tests.kernels.signals_reference import PUNCTUATION_SET

    return all(c in PUNCTUATION_SET for c in word)


def count_sentences_of_chunks(line: str) -> int:
    """The same where words are not split: by how each chunk ends."""
    sentences, ended = 1, False
    for chunk in line.split():
        if ended and not is_punctuation(chunk):
            sentences += 1
            ended = False
        bare = chunk
        while bare and is_suffix(bare[-1]) and bare[-1] not in DATATROVE_TERMINAL:
            bare = bare[:-1]
        if bare and bare[-1] in DATATROVE_TERMINAL:
            initial = re.search(r"(?<![A-Z])[A-Z]\.$", bare) and bare[-1] == "."
            if not (bare.endswith("..") or initial):
                ended = True
    return sentences
