"""The counters of the second kernel, written slowly and plainly on Python strings."""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from dataeng.kernels.extended_counters import LETTERS_PER_WORD, SCRIPTS
from tests.kernels.signals_reference import POLICY, ascii_lower


def of_category(start: str) -> Callable[[str], bool]:
    return lambda c: unicodedata.category(c).startswith(start)


@functools.cache
def script_of(c: str) -> str:
    for script, ranges in SCRIPTS.items():
        if any(first <= ord(c) <= last for first, last in ranges):
            return script
    return ""


@functools.lru_cache(100_000)
def segmented_words(word: str) -> int:
    """Tokens by class: H is a word alone, runs of T count by length, runs of X count one."""
    kinds = ""
    for c in word:
        category = unicodedata.category(c)
        plain = category[0] not in "PM"
        if script_of(c) == "southeast_asian":
            kinds += "T" if plain else "t"
        elif script_of(c) in ("han", "kana") and c.isalpha():
            kinds += "H"
        else:
            kinds += "X" if plain else "p"
    if not any(script_of(c) in ("southeast_asian", "han", "kana") for c in word):
        return 1
    thai = sum(-(-run.count("T") // LETTERS_PER_WORD) for run in re.findall("[Tt]+", kinds))
    return kinds.count("H") + thai + sum("X" in run for run in re.findall("[Xp]+", kinds))


def is_numeral(word: str) -> bool:
    return bool(re.fullmatch(r"[0-9.,:;%+\-/()$]+", word)) and bool(re.search("[0-9]", word))


def extended_counts(text: str, stop_words: Sequence[str]) -> dict[str, int]:
    words = text.split()
    lines = [line for line in text.split("\n") if line.strip()]
    stripped = [line.strip() for line in lines]
    lowered = [ascii_lower(line) for line in lines]
    characters = Counter(text)

    def number_of(holds: Callable[[str], bool]) -> int:
        return sum(number for c, number in characters.items() if holds(c))

    counts = {
        "bytes": len(text.encode()),
        "letters": number_of(str.isalpha),
        "uppercase_chars": number_of(str.isupper),
        "digits": number_of(lambda c: c in "0123456789"),
        "whitespace_chars": number_of(str.isspace),
        "punctuation_chars": number_of(of_category("P")),
        "symbol_chars": number_of(of_category("S")),
        "non_ascii_chars": number_of(lambda c: ord(c) >= 128),
        "control_chars": number_of(lambda c: of_category("Cc")(c) and c not in "\t\n\r"),
        "unassigned_chars": number_of(of_category("Cn")),
        "private_use_chars": number_of(of_category("Co")),
        "replacement_chars": text.count("\ufffd"),
        "parentheses": text.count("(") + text.count(")"),
        "square_brackets": text.count("[") + text.count("]"),
        "curly_brackets": text.count("{") + text.count("}"),
        "raw_words": len(words),
        "raw_word_chars": sum(map(len, words)),
        "longest_word_chars": max(map(len, words), default=0),
        "uppercase_words": sum(map(str.isupper, words)),
        "non_alpha_words": sum(not any(map(str.isalpha, word)) for word in words),
        "numeral_words": sum(map(is_numeral, words)),
        "unique_words": len(set(words)),
        "stop_word_occurrences": sum(ascii_lower(word) in stop_words for word in words),
        "url_words": sum("://" in word or word.startswith("www.") for word in words),
        "email_words": sum(bool(re.search(r"^[^@]+@[^.]+[.]|^@[^@]*@[^.]+[.]", word, re.S)) for word in words),
        "segmented_words": sum(map(segmented_words, words)),
        "uppercase_lines": sum(2 * sum(map(str.isupper, line)) > len(line) for line in lines),
        "digit_lines": sum(bool(re.fullmatch("[0-9]+", line)) for line in stripped),
        "one_word_lines": sum(len(line.split()) == 1 for line in lines),
        "ascii_terminal_lines": sum(line.endswith((".", "?", "!", '"')) for line in stripped),
        "bullet_point_lines": sum(line[0] in "-*•●‣⁃◦▪" for line in stripped),
        "javascript_lines": sum("javascript" in line for line in lowered),
        "lorem_ipsum_lines": sum("lorem ipsum" in line for line in lowered),
        "policy_lines": sum(any(phrase in line for phrase in POLICY) for line in lowered),
        "longest_line_chars": max(map(len, lines), default=0),
    }
    scripts = Counter(script_of(c) for c in text if c.isalpha())
    return counts | {f"{script}_letters": scripts[script] for script in SCRIPTS}


def word_entropy(text: str) -> float:
    words = text.split()
    shares = [count / len(words) for count in Counter(words).values()]
    return -sum(share * math.log(share) for share in shares)
