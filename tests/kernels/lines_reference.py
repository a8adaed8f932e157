"""Line removal of C4 and RefinedWeb, written slowly and plainly on Python strings, step by step as the sources do."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable

from tests.kernels.signals_reference import CITATION, POLICY, ascii_lower
from tests.kernels.words_reference import DATATROVE_TERMINAL, split_words

Result = tuple[str | None, dict[str, int], str]
"""The edited text (None: the page is dropped), counts, and why it is dropped."""


def c4(text: str, *, marks: str, min_words: int, count_citations: bool, min_sentences: int, long: int = 1000) -> Result:
    counts: Counter[str] = Counter()
    kept: list[str] = []
    reason = ""
    for line in text.splitlines():
        counts["lines"] += 1
        line = line.strip()
        words = line.split()
        if any(len(word) > long for word in words):
            counts["removed_long_word"] += 1
            continue
        line = CITATION.sub("", line)
        if not count_citations:
            words = line.split()
        lowered = ascii_lower(line)
        if marks and (not line.endswith(tuple(marks)) or line.endswith("...")):
            counts["removed_unterminated"] += 1
        elif len(words) < min_words:
            counts["removed_short"] += 1
        elif "lorem ipsum" in lowered:
            reason = reason or "lorem_ipsum"
        elif "javascript" in lowered:
            counts["removed_javascript"] += 1
        elif "{" in line:
            reason = reason or "curly_bracket"
        elif any(phrase in lowered for phrase in POLICY):
            counts["removed_policy"] += 1
        else:
            counts["sentences"] += sentences_of_spacy(line)
            kept.append(line)
    counts["removed"] = sum(count for name, count in counts.items() if name.startswith("removed_"))
    if not reason and counts["sentences"] < min_sentences:
        reason = "too_few_sentences"
    return None if reason else "\n".join(kept).strip(), dict(counts), reason


def sentences_of_spacy(line: str) -> int:
    """Sentences as spaCy's sentencizer counts them: white space beyond one space is a word of its own to it."""
    sentences, ended = 1, False
    for gap, chunk in re.findall(r"(\s*)(\S+)", line):
        for word in [*([gap] if gap not in ("", " ") else []), *split_words(chunk)]:
            if len(word) == 1 and word in DATATROVE_TERMINAL:
                ended = True
            elif ended and not all(unicodedata.category(c).startswith("P") for c in word):
                sentences += 1
                ended = False
    return sentences


COUNTER = re.compile(
    r"^\W*\d(?:,|\.|\d)*(?:K|k|M|m|B|b)?\s+(?:likes|shares|comments|retweets|reposts|quotes|bookmarks|upvotes|"
    r"downvotes|downloads|views|followers)\W*$"
)
PHRASES = (
    re.compile(r"\s?(?i:items in cart)"),
    re.compile(r"\s?(?i:read more)...$"),
    re.compile(r"^(?i:sign-in)\s?"),
)


def words_of_fasttext(text: str) -> int:
    return sum(word[0].isalnum() for word in re.split(r"[ \n\r\t\v\f\0]+", text) if word)


def refinedweb(text: str, *, upper: float, numeric: float, min_words: int, short: int, share: float) -> Result:
    counts: Counter[str] = Counter()
    before = words_of_fasttext(text)
    counts["lines"] = text.count("\n") + 1

    def without(name: str, rule: Callable[[str], bool], text: str) -> str:
        lines = text.split("\n")
        kept = [line for line in lines if not line or not rule(line)]
        counts[name] += len(lines) - len(kept)
        return "\n".join(kept)

    text = without("removed_uppercase", lambda x: sum(c.isupper() for c in x) / len(x) > upper, text).strip()
    text = without("removed_numeric", lambda x: sum(c.isdigit() for c in x) / len(x) > numeric, text).strip()
    text = without("removed_counter", lambda x: COUNTER.search(ascii_lower(x)) is not None, text).strip()
    text = without("removed_short", lambda x: len(x.split()) < min_words, text)
    for pattern in PHRASES:
        kept = []
        for line in text.split("\n"):
            if len(line.split()) <= short:
                edited = pattern.sub("", line)
                if line and (not edited or edited.isspace()):
                    counts["removed_phrase"] += 1
                    continue
                counts["edited"] += edited != line
                line = edited
            kept.append(line)
        text = "\n".join(kept).strip()
    counts["removed"] = sum(count for name, count in counts.items() if name.startswith("removed_"))
    counts["words_before"], counts["words_after"] = before, words_of_fasttext(text)
    reason = ""
    if not text:
        reason = "no_lines"
    elif not before:
        reason = "no_words"
    elif (before - counts["words_after"]) / before > share:
        reason = "words_removed"
    return None if reason else text, dict(counts), reason
