"""What the shingle kernels do, in plain Python: normalised words, their hashes, the hashes of shingles."""

from __future__ import annotations

import re
import unicodedata

from hypothesis import strategies as st

from dataeng.kernels.characters import DATATROVE_PUNCTUATION
from dataeng.kernels.folding import UNSPACED_RANGES

MASK = (1 << 64) - 1
NUMBER = re.compile(r"\d+([.,،٫⎖⎗⎘]\d+)?")

PIECES = st.sampled_from(
    [
        *"Aa1२ 3.,،\n",
        "ΟΔΟΣ",
        "οδος",
        "İstanbul",
        "straße",
        "한국어",
        "각",
        "ㅎ",
        "日本",
        "カ゛ガ",
        "ไทย",
        "é",
        "e\u0301",
        "≠",
        "ﬁ",
        "Ǆ",
        " the quick ",
        "brown-fox's “quoted” words, ",
        "of_names ",
        "incomprehensibilities " * 4,
        "x" * 63,
        "\x00",
        "𝔘𝔫𝔦",
    ]
)
#: All of Unicode, and runs of text long enough for the kernels that read 64 bytes at a time.
TEXTS = st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=40).map("".join))


def simplified_words(text: str, *, split_unspaced: bool = True) -> list[str]:
    """datatrove's ``simplify_text``, then words: at white space, and each character of unspaced scripts."""
    text = NUMBER.sub("0", text.lower().replace("ς", "σ"))
    words, word = [], ""
    for c in text + " ":
        kept = "".join(d for d in unicodedata.normalize("NFD", c) if unicodedata.category(d) != "Mn")
        unspaced = len(kept) == 1 and c != "0" and any(first <= ord(c) <= last for first, last in UNSPACED_RANGES)
        if c in DATATROVE_PUNCTUATION or c.isspace():
            words, word = [*words, word], ""
        elif split_unspaced and unspaced:
            words, word = [*words, word, kept], ""
        else:
            word += kept
    return [word for word in words if word]


def words_of(text: str, normalization: str) -> list[str]:
    if normalization == "simplified":
        return simplified_words(text)
    return text.split() if normalization == "none" else re.findall("[A-Za-z0-9_]+", text)


def characters_of(text: str, normalization: str) -> list[str]:
    if normalization == "simplified":
        return list(" ".join(simplified_words(text, split_unspaced=False)))
    return list(text) if normalization == "none" else list(" ".join(words_of(text, normalization)))


def mix(state: int, word: int) -> int:
    state = ((state ^ word) * 0x9E3779B97F4A7C15) & MASK
    return state ^ (state >> 32)


def finish(state: int, size: int) -> int:
    state = (mix(state, size) * 0xD6E8FEB86659FD93) & MASK
    return state ^ (state >> 32)


def word_hash(word: str) -> int:
    code, state = word.encode(), 0
    for i in range(0, len(code), 8):
        state = mix(state, int.from_bytes(code[i : i + 8], "little"))
    return finish(state, len(code))


def character_hash(character: str) -> int:
    return finish(mix(0, ord(character)), len(character.encode()))


def elements_of(text: str, unit: str, normalization: str) -> list[int]:
    if unit == "words":
        return [word_hash(word) for word in words_of(text, normalization)]
    return [character_hash(character) for character in characters_of(text, normalization)]


def shingles_of(text: str, ngram: int, unit: str = "words", normalization: str = "simplified") -> list[int]:
    """The 64-bit hashes of a text's shingles, in order."""
    elements = elements_of(text, unit, normalization)
    shingles = []
    for i in range(len(elements) - ngram + 1):
        rolling = 0
        for value in elements[i : i + ngram]:
            rolling = (rolling * 0x9E3779B97F4A7C15 + value) & MASK
        value = ((rolling ^ (rolling >> 29)) * 0xBF58476D1CE4E5B9) & MASK
        shingles.append(value ^ (value >> 32))
    return shingles
