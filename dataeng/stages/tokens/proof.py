"""Proof that a fast encoder gives the reference's ids: on hard texts before a run, on a sample of texts during it."""

from __future__ import annotations

import sys
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl

from dataeng.stage import StartAgain
from dataeng.stages.tokens.encoders import Encoder, Ids
from dataeng.stages.tokens.vocabulary import Vocabulary

FIRST_TEXTS = 4
"""So many texts at the start of every part are compared …"""
EVERY_TEXT = 2039
"""… and one in so many after that."""
WINDOW_CHARACTERS = 1024
"""So much of a text is compared. The reference takes 30 times as long, so that this costs about 1 % of encoding."""

CODE_POINT_STEP = 13
"""One in so many code points of the first two planes is among the hard texts; the tests compare all code points."""
PIECES = (
    " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "\u00a0", "\u2028", "\u2029", "\u3000", "\x85", "\x00", "a",
    "Z", " word", "Word", "camelCase", "snake_case", "'s", "'LL", "'ſ", "’t", "don't", "1", "12", "123", "1234567",
    "3.14", "٣", "Ⅷ", "²", "!", "...", " --", "++;", "</", "{}\n", "#!/", "<0x41>", "é", "e\u0301", "ß", "İ", "ı",
    "\u0345", "の", "東京", "한국", "ไทย", "हिन्दी", "עברית", "🙂", "“”", "\u20dd", "👩\u200d👩\u200d👧", "🇩🇪",
    "\u200d", "\ufeff", "\ufffd", "\U000e0001", "\U0010ffff",
)  # fmt: skip


@dataclass
class Proof:
    """What is known about the fast encoder, for one part.

    ``difference`` says where it first gave other ids than the reference; from then on, the reference encodes.
    """

    num_texts: int = 0
    num_compared: int = 0
    difference: str | None = None


class ProvedEncoder:
    """The fast encoder as long as it agrees with the reference, on the texts of one part.

    The texts that are compared are the same whatever the batches are.
    """

    def __init__(self, fast: Encoder, reference: Encoder, difference: str | None = None) -> None:
        self.fast, self.reference, self.proof = fast, reference, Proof(difference=difference)

    @property
    def name(self) -> str:
        return (self.fast if self.proof.difference is None else self.reference).name

    def encode(self, texts: pl.Series) -> Ids:
        """Returns the ids of a String column without nulls.

        Raises:
          StartAgain: the encoders differ, and earlier texts of this part may have been encoded wrongly.
        """
        if self.proof.difference is not None:
            return self.reference.encode(texts)
        try:
            ids = self.fast.encode(texts)
            difference = self._compare(texts)
        except BaseException as error:
            difference = failure(self.fast, error)
        if difference is None:
            self.proof.num_texts += len(texts)
            return ids
        self.proof.difference = difference
        if self.proof.num_texts:
            raise StartAgain(difference)
        return self.reference.encode(texts)

    def _compare(self, texts: pl.Series) -> str | None:
        first = self.proof.num_texts
        chosen = [i for i in range(first, first + len(texts)) if i < FIRST_TEXTS or i % EVERY_TEXT == 0]
        if not chosen:
            return None
        windows = pl.Series([_window(texts[i - first], i) for i in chosen], dtype=pl.String)
        self.proof.num_compared += len(windows)
        return first_difference(self.fast, self.reference, windows)


def _window(text: str, index: int) -> str:
    """Returns a part of a text; where it starts depends on the text's place."""
    start = (index * 0x9E3779B1) % max(1, len(text) - WINDOW_CHARACTERS + 1)
    return text[start : start + WINDOW_CHARACTERS]


def failure(fast: Encoder, error: BaseException) -> str:
    """Returns a sentence about what an encoder raised; raises it again if it is not the encoder's own.

    A panic in a library written in Rust is no `Exception`.
    """
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit | MemoryError):
        raise error
    return f"{fast.name} failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def first_difference(fast: Encoder, reference: Encoder, texts: pl.Series) -> str | None:
    """Returns a sentence about the first text that two encoders give different ids for, or None."""
    try:
        found = fast.encode(texts)
    except BaseException as error:
        return failure(fast, error)
    expected = reference.encode(texts)
    if np.array_equal(found.lengths, expected.lengths) and np.array_equal(found.tokens, expected.tokens):
        return None
    documents = zip(_documents(found), _documents(expected), strict=True)
    index, ours, theirs = next((i, a, b) for i, (a, b) in enumerate(documents) if not np.array_equal(a, b))
    at = next(
        (k for k, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), min(len(ours), len(theirs))
    )
    return (
        f"{fast.name} encodes {texts[index][:80]!r} as {ours[at : at + 4].tolist()} from token {at} on, "
        f"{reference.name} as {theirs[at : at + 4].tolist()}"
    )


def _documents(ids: Ids) -> list[np.ndarray[tuple[int], np.dtype[np.uint32]]]:
    return np.split(ids.tokens, np.cumsum(ids.lengths)[:-1])


def hard_texts(vocabulary: Vocabulary, step: int = CODE_POINT_STEP) -> pl.Series:
    """Returns texts that encoders are most likely to differ on.

    They are: every ``step``-th code point (of the higher planes, fewer), in rows, between letters, and beside those of
    other categories; white space, digits, contractions, composed and combining characters next to each other; long
    runs; names of special and added tokens, and of those that no text should become; what other tokens stand for.
    """
    drawn = np.random.Generator(np.random.PCG64(0))
    texts = ["", *PIECES, *_code_points(step)]
    for _ in range(200):
        texts.append("".join(PIECES[i] for i in drawn.integers(len(PIECES), size=12)))
    texts += [unit * count for unit in ("a", " ", "\n", "1", "ab", "の", "!", " a", "é") for count in (63, 64, 65, 700)]
    names = [*vocabulary.special, *vocabulary.added][:64]
    texts += [around.format(name) for name in names for around in ("{}", " {} ", "a{}b", "{0}{0}")]
    # Some tokens of every length of text, and all, up to a number, that a library may take for what they are called.
    tokens = [*vocabulary.unmerged[:500], *list(vocabulary.ids)[:: max(1, vocabulary.size // 1500)]]
    texts += [f"{vocabulary.text_of(token)}{after}" for token in tokens for after in ("", "a ")]
    return pl.Series(texts, dtype=pl.String)


@lru_cache(maxsize=4)
def _code_points(step: int) -> tuple[str, ...]:
    codes = (*range(0, 0x20000, step), *range(0x20000, sys.maxunicode + 1, 61 * step))
    chosen = [chr(code) for code in codes if not 0xD800 <= code < 0xE000]
    categories: dict[str, list[str]] = {}
    for character in chosen:
        categories.setdefault(unicodedata.category(character), []).append(character)
    rows = ["".join(chosen[i : i + 50]) for i in range(0, len(chosen), 50)]
    mixed = [f"a{x} {x}b{y}1{x}\n{y}" for x, y in zip(chosen[:400], reversed(chosen[-400:]), strict=False)]
    # Neighbours of other categories: that is what pre-tokenization looks at.
    columns = [members[k % len(members)] for k in range(12) for members in categories.values()]
    return (*rows, *mixed, *("".join(columns[i : i + 9]) for i in range(0, len(columns), 5)))
