from __future__ import annotations

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.kernels.extended_counters import EXTENDED_COUNTERS
from dataeng.kernels.extended_signals import count_extended_signals
from dataeng.kernels.text import LONG_BYTES, text_buffers
from tests.kernels.extended_reference import extended_counts, word_entropy
from tests.kernels.test_signals import ENGLISH, STOP_WORDS, TEXTS

WORDS = """
The THE of Of WITH Ab AB1 Ǆ ǅ 1,000 50% 3.5 +1 (12) 12 a@b.c @b.c a@.c a@.b.c
@a@b.c me@x.org, a@b www.x www http://a x:// 日本語
日本語で。 東京2020 カタカナ ・ สวัสดีครับ สวัสดี123 ๑๒ ខ្មែរ ລາວ မြန်မာ αβγ мир שלום हिन्दी 한국어 - * • ● ‣ ⁃ ◦ ▪ ß ª × é É
javascript JavaScript: lorem ipsum privacy policy use cookies { } [ ] ( ) end. end? end! end"
"""
PIECES = st.sampled_from([*WORDS.split(), "lorem ipsum", "x\ufffd", "\ufffe", "\ue000", "\x00", "\x1f"])
SPACES = st.sampled_from([" ", " ", " ", "\n", "\n", "\n\n", " \n ", "\t", "\r\n", "\u3000", "\x85", "\x1c", ""])
MIXED = st.lists(st.tuples(PIECES, SPACES), max_size=30).map(lambda pairs: "".join(a + b for a, b in pairs))


def measured(
    texts: list[str], language: str = "en", long_bytes: int = LONG_BYTES
) -> list[tuple[dict[str, int], float]]:
    column = text_buffers(pl.Series(texts, dtype=pl.String))
    counts, measures = count_extended_signals(
        column, stop_words=STOP_WORDS, languages=[language] * len(texts), long_bytes=long_bytes
    )
    return [
        (dict(zip(EXTENDED_COUNTERS, row, strict=True)), entropy)
        for row, entropy in zip(counts.tolist(), measures[:, 0].tolist(), strict=True)
    ]


@settings(max_examples=400, deadline=None)
@given(texts=st.lists(st.one_of(MIXED, TEXTS), min_size=1, max_size=4))
@example(texts=["", "a", "\n", "\r\n\r\n", " \n ", "no newline at all", "x" * 1000])
def test_equals_the_plain_reference(texts: list[str]) -> None:
    for long_bytes in (LONG_BYTES, 0):
        for text, (counts, entropy) in zip(texts, measured(texts, long_bytes=long_bytes), strict=True):
            expected = extended_counts(text, ENGLISH)
            assert counts == {name: expected[name] for name in EXTENDED_COUNTERS}, repr(text)
            assert entropy == pytest.approx(word_entropy(text) if text.split() else 0.0, abs=1e-9)


def test_by_hand() -> None:
    ((counts, entropy),) = measured(["ALL CAPS\n- the use of cookies\n2026\n東京タワー and the end."])
    assert counts["uppercase_lines"] == 1
    assert counts["bullet_point_lines"] == counts["policy_lines"] == counts["digit_lines"] == 1
    assert counts["stop_word_occurrences"] == 4  # the, of, and, the
    assert (counts["raw_words"], counts["segmented_words"], counts["unique_words"]) == (12, 16, 11)
    assert (counts["han_letters"], counts["kana_letters"]) == (2, 3)
    assert 2.0 < entropy < 2.5


def test_a_long_line_of_ten_megabytes() -> None:
    ((counts, entropy),) = measured(["word " * 2_000_000])
    assert (counts["raw_words"], counts["unique_words"], counts["longest_line_chars"]) == (2_000_000, 1, 10_000_000)
    assert entropy == pytest.approx(0.0, abs=1e-9)


def test_a_long_line_of_words_that_nearly_all_differ() -> None:
    """More different words than fit the table at once."""
    text = " ".join(f"{i * 7919 % 1_000_003:x}" for i in range(1_500_000))
    assert len(text) > 8_000_000
    words = text.split()
    ((counts, entropy),) = measured([text])
    assert counts["raw_words"] == 1_500_000
    assert counts["unique_words"] == len(set(words))
    assert entropy == pytest.approx(word_entropy(text), abs=1e-6)
