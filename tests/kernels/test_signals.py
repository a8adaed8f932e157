from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.kernels.counters import COUNTERS
from dataeng.kernels.signals import Words, count_signals
from dataeng.kernels.stop_words import MAX_STOP_WORDS, stop_word_table
from dataeng.kernels.text import LONG_BYTES, text_buffers
from tests.kernels.signals_reference import c4_counts, line_counts, word_counts
from tests.kernels.words_reference import count_sentences, count_sentences_of_chunks, split_words

ENGLISH = ("the", "be", "to", "of", "and", "that", "have", "with")
STOP_WORDS = stop_word_table({"de": ("der", "die", "und", "größer"), "en": ENGLISH})


def measured(
    texts: list[str], words: Words = "split", language: str = "en", long_bytes: int = LONG_BYTES
) -> list[dict[str, int]]:
    column = text_buffers(pl.Series(texts, dtype=pl.String))
    languages = [language] * len(texts)
    counts = count_signals(column, words=words, stop_words=STOP_WORDS, languages=languages, long_bytes=long_bytes)
    return [dict(zip(COUNTERS, row, strict=True)) for row in counts.tolist()]


def expected(text: str, words: Words) -> dict[str, int]:
    listed = split_words(text) if words == "split" else text.split()
    by_words = count_sentences if words == "split" else count_sentences_of_chunks
    counts = dict.fromkeys(COUNTERS, 0)
    return counts | word_counts(text, listed, ENGLISH) | line_counts(text) | c4_counts(text, by_words)


PIECES = st.sampled_from(
    [
        *(
            "the of and with",
            "word",
            "Word",
            "WORD.",
            "a",
            "I",
            "don't",
            "it's",
            "we’ve",
            "can't.",
            "cat's,",
            "x's.",
            "he'd",
            "they're",
            "I'm,",
            "we'll",
            "J.",
            "U.S.",
        ),
        *(
            "end.",
            "end.Start",
            "3.5",
            "1,000",
            "a,b",
            "well-known",
            "a--b",
            "a---b",
            "a----b",
            "a——b",
            "2-3",
            "5--6",
            "a/b",
            "k=v",
        ),
        *(
            "10km",
            "5%",
            "50%.",
            "x%.",
            "m².",
            "C++.",
            "100km/h,",
            "7€",
            "3+",
            "+3",
            "+x",
            "$5",
            "US$5",
            "20µm",
            "4м",
            "km",
            "http://a.b/c-d",
            "www.x-y.com/a=b",
        ),
        *(
            "me@my-site.org.",
            "file.py",
            "foo-bar.Baz",
            "…",
            "...",
            "....",
            "wait...",
            "...so",
            "a...b",
            "(x)",
            "[12]",
            "[edit]",
            "!!!",
        ),
        *(
            "[citation needed]",
            '"quoted."',
            "«так»",
            "“so”",
            "'",
            "''",
            ".",
            "..",
            "-",
            "•",
            "—",
            "#",
            "##tag",
            "{",
            "}",
            "☃",
            "a☃b",
        ),
        *(
            "cannot",
            "(e.g.,",
            "Mr.",
            "a.",
            "n.;",
            "f(x):",
            "''",
            "':-))",
            "(8)",
            "Wed,",
            "'em",
            "isn’t.",
            "10a.m.",
            "and/or",
            "lorem ipsum",
            "Lorem",
            "ipsum",
            "JavaScript",
            "javascriptless",
            "terms of use",
            "privacy policy",
            "Cookie Policy",
        ),
        *(
            "uses cookies",
            "reuse cookies",
            "use of cookies",
            "use",
            "cookies",
            "日本語。",
            "สวัสดี",
            "ﬁ",
            "é",
            "\u0301",
            "ß",
            "İ",
            "Ǆ",
        ),
        *(
            "\n",
            "\n",
            "\n\n",
            "\n\n\n",
            "\r\n",
            "\r",
            "\x0b",
            "\x0c",
            "\x1c",
            "\x1f",
            "\x85",
            "\u2028",
            "\u3000",
            "\u00a0",
        ),
        *(" ", " ", " ", " ", "\t", "x" * 1001, "\x00", "\ud7ff", "\ue000", "\U0010ffff", "the the the the the the"),
    ]
)
TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="aAbB1.,-'’snNtTdmvrelk%²+:/@!(\"—…$#_~*^= \n", max_size=60),
    st.lists(PIECES, max_size=40).map("".join),
    st.lists(PIECES, max_size=40).map(" ".join),
    # Much repetition, so that long n-grams repeat.
    st.lists(st.sampled_from(["a", "b", "cc", "d\n", "e\n\n"]), max_size=150).map(" ".join),
)


@pytest.mark.parametrize("words", ["split", "whitespace"])
@settings(max_examples=500, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
@example(texts=["", "a", "\n", "\r\n\r\n", " \n ", "no newline at all"])
def test_equals_the_plain_reference(words: Words, texts: list[str]) -> None:
    wanted = [expected(text, words) for text in texts]
    assert measured(texts, words) == wanted
    assert measured(texts, words, long_bytes=0) == wanted, "as long texts are measured"


def test_by_hand() -> None:
    (counts,) = measured(["The cat, and the cat.\n\n- one\nThe cat, and the cat."])
    assert counts["words"] == 16  # 7 + 2 + 7: commas and periods are words
    assert counts["symbol_free_words"] == 11
    assert counts["stop_words"] == 2  # "and", "the"; "The" is another word
    assert counts["lines"] == 4
    assert counts["bullet_lines"] == 1
    assert (counts["break_lines"], counts["dup_break_lines"], counts["dup_break_line_chars"]) == (3, 1, 21)
    assert (counts["paragraphs"], counts["dup_paragraphs"]) == (2, 0)
    assert counts["dup_7_gram_chars"] == len("Thecat,andthecat.")
    assert (counts["c4_lines"], counts["c4_sentences"], counts["c4_short_lines"]) == (2, 2, 2)


def test_stop_words_are_those_of_the_language() -> None:
    assert measured(["die Katze ist größer, the end"], language="de")[0]["stop_words"] == 2
    assert measured(["die Katze ist größer, the end"], language="en")[0]["stop_words"] == 1
    assert measured(["die Katze, the end"], language="xx")[0]["stop_words"] == 0


def test_too_many_stop_words_are_refused() -> None:
    with pytest.raises(ValueError, match="65 stop words for 'xx', at most 64"):
        stop_word_table({"xx": [f"w{i}" for i in range(MAX_STOP_WORDS + 1)]})


def test_wrong_number_of_languages_is_refused() -> None:
    with pytest.raises(ValueError, match="1 languages for 2 texts"):
        count_signals(text_buffers(pl.Series(["a", "b"])), languages=["en"])


def test_texts_do_not_depend_on_their_neighbours() -> None:
    texts = ["use", "cookies and the privacy", "policy", "…", "a", "javascript", "..", "."]
    together = measured(texts)
    assert together == [measured([text])[0] for text in texts]


def test_threads_give_the_same() -> None:
    texts = text_buffers(pl.Series(["the end of the line, and that is that.\n" * n for n in range(50)]))
    alone = count_signals(texts)
    with ThreadPoolExecutor(2) as pool:
        for other in pool.map(lambda _: count_signals(texts), range(4)):
            np.testing.assert_array_equal(other, alone)


@pytest.mark.parametrize(
    "unit", ["x", "!", "-", "a-", ".", "'s", "the ", "a b c d e ", "\n", "日本", "a.b", "5km", "..a", "@", "://", "(a"]
)
@pytest.mark.timeout(120)  # with anything quadratic it would take hours
def test_time_is_linear_in_the_length(unit: str) -> None:
    text = "a" + unit * (8_000_000 // len(unit.encode())) + "a"
    counted = count_signals(text_buffers(pl.Series([text])))
    assert counted.shape[0] == 1 and counted.max() >= len(text)


def random_words(num_bytes: int, seed: int, separators: str = " ") -> str:
    """Returns words of a skewed vocabulary, with runs that occur again, as in real text."""
    rng = random.Random(seed)
    vocabulary = ["".join(rng.choices("abcdeéя日,.", k=rng.randint(1, 9))) for _ in range(5_000)]
    pieces: list[str] = []
    size = 0
    while size < num_bytes:
        if pieces and rng.random() < 0.02:
            at = rng.randrange(len(pieces))
            found = pieces[at : at + rng.randint(2, 60)]
        else:
            found = [vocabulary[int(len(vocabulary) * rng.random() ** 3)] + rng.choice(separators)]
        pieces += found
        size += sum(len(piece.encode()) for piece in found)
    return "".join(pieces)


@pytest.mark.parametrize("words", ["split", "whitespace"])
@pytest.mark.parametrize("separators", [" ", " \n", "\n"])
def test_a_text_above_the_limit_of_long_texts(words: Words, separators: str) -> None:
    text = random_words(LONG_BYTES + 30_000, 3, separators)
    assert len(text.encode()) > LONG_BYTES
    assert measured([text], words) == [expected(text, words)]


@pytest.mark.parametrize("words", ["split", "whitespace"])
def test_a_line_of_ten_megabytes(words: Words) -> None:
    """Measured with lists of words, and without any; the plain reference would take minutes."""
    pieces = random_words(1_000_000, 5).split()
    rng = random.Random(5)
    text = " ".join(" ".join(rng.sample(pieces, len(pieces))) for _ in range(9)) + " " + " ".join(pieces)
    (listed,) = measured([text], words, long_bytes=1 << 40)
    assert listed["lines"] == 1
    assert listed["chars"] == len(text)
    assert listed["words"] >= len(text.split())
    assert 0 < listed["dup_10_gram_chars"] < listed["dup_5_gram_chars"] < len(text)
    assert measured([text], words) == [listed]


def test_a_line_of_ten_megabytes_by_hand() -> None:
    """300,000 different words, then the same again without the last one, in the same order."""
    different = [f"{i:016d}" for i in range(300_000)]
    (counts,) = measured([" ".join(different + different[:-1])], "whitespace")
    assert counts["words"] == 599_999
    assert counts["chars"] == 599_999 * 17 - 1 > 10_000_000
    assert counts["top_2_gram_chars"] == 2 * 33
    assert counts["top_4_gram_chars"] == 2 * 67
    for n in range(5, 11):
        assert counts[f"dup_{n}_gram_chars"] == 299_999 // n * n * 16


def test_more_repeated_ngrams_than_a_long_text_has_room_for() -> None:
    """Words of two bytes, as many different pairs as there can be, each of them twice: the tables overflow."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789" * 9
    text = "".join(letters[(i * 7 + j * j) % 300] + " " for i in range(250) for j in range(150))
    text += text
    for words in ("split", "whitespace"):
        assert measured([text], words, long_bytes=0) == [expected(text, words)]


def test_a_long_line_is_counted() -> None:
    (counts,) = measured(["word " * 400_000], "whitespace")
    assert (counts["words"], counts["lines"], counts["chars"]) == (400_000, 1, 2_000_000)
    assert counts["top_2_gram_chars"] == 399_999 * len("word word")
