"""Where in a text a rule fired: the lines, words or n-grams that one signal counts.

Plain and slow on purpose, for one document that a person looks at. Lines and symbols are found exactly as they are
counted; words are cut by one regular expression, close to what the kernel does, so that the mark of an n-gram may be
off by a sign.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dataeng.kernels.characters import DATATROVE_TERMINAL
from dataeng.stages.quality.bad_words import UNSPACED, bad_words

Span = tuple[int, int]
TERMINAL = tuple(DATATROVE_TERMINAL)
C4_ENDS = (".", "?", "!", '"', "'")
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?|\.{2,}|[^\w\s]|_")
MOST_LINE_CHARS = 30
BULLETS = ("-", "*", "•", "●", "‣", "⁃", "◦", "▪")
RAW = "raw_"  # signals of words that are cut at white space, whatever the option says


@dataclass(frozen=True)
class Marks:
    """Pieces of a text, in order and without overlap, and what they are."""

    what: str
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class _Looked:
    """What a finder needs besides the text."""

    threshold: float | None
    whitespace: bool
    language: str | None = None

    def words(self, text: str) -> list[Span]:
        return [match.span() for match in (re.finditer(r"\S+", text) if self.whitespace else WORD.finditer(text))]


Finder = Callable[[str, _Looked], list[Span]]


def find_marks(
    text: str,
    signals: Sequence[str],
    operator: str,
    threshold: float | None,
    whitespace: bool,
    language: str | None = None,
) -> Marks | None:
    """Finds what made a rule fire.

    Args:
      signals: names of the signals that the rule reads, without ``quality_``.
      operator: how the rule compares; with ``<`` it fired on too few, so that what is *not* counted is marked.
      threshold: what the rule compares with.
      whitespace: whether words were cut at white space only.
      language: the document's, whose bad words are looked for.

    Returns:
      None for a rule that no piece of the text is to blame for, such as too few words.
    """
    finders = _TOO_FEW if operator.startswith("<") else _TOO_MANY
    for signal in signals:
        if signal in finders:
            what, finder = finders[signal]
            return Marks(
                what,
                tuple(
                    _merged(
                        finder(
                            text, _Looked(threshold, whitespace or any(s.startswith(RAW) for s in signals), language)
                        )
                    )
                ),
            )
    return None


def _merged(spans: Sequence[Span]) -> Iterator[Span]:
    """Yields spans in order; those that overlap or touch become one."""
    current: Span | None = None
    for start, end in sorted(span for span in spans if span[1] > span[0]):
        if current is not None and start <= current[1]:
            current = (current[0], max(current[1], end))
            continue
        if current is not None:
            yield current
        current = (start, end)
    if current is not None:
        yield current


def lines(text: str) -> list[Span]:
    """Returns where the lines of ``str.splitlines`` are, without their ends."""
    spans, start = [], 0
    for with_end, line in zip(text.splitlines(keepends=True), text.splitlines(), strict=True):
        spans.append((start, start + len(line)))
        start += len(with_end)
    return spans


def pieces(text: str, separator: str, first: int = 0, last: int | None = None) -> list[Span]:
    """Returns where the pieces of ``re.split(separator, text[first:last])`` are."""
    last = len(text) if last is None else last
    spans, start = [], first
    for match in re.compile(separator).finditer(text, first, last):
        spans.append((start, match.start()))
        start = match.end()
    return [*spans, (start, last)]


def paragraphs(text: str) -> list[Span]:
    """Returns where the pieces of the stripped text between two or more line feeds are."""
    stripped = text.strip()
    first = text.find(stripped)
    return pieces(text, r"\n{2,}", first, first + len(stripped))


def text_lines(text: str) -> list[Span]:
    """Returns the lines between line feeds that have more than white space."""
    return [(start, end) for start, end in pieces(text, r"\n") if text[start:end].strip()]


def repeats(text: str, spans: Sequence[Span]) -> list[Span]:
    """Returns those pieces that are equal to an earlier one."""
    seen: set[str] = set()
    found = []
    for start, end in spans:
        if text[start:end] in seen:
            found.append((start, end))
        seen.add(text[start:end])
    return found


def _top_gram(n: int) -> Finder:
    def find(text: str, looked: _Looked) -> list[Span]:
        spans = looked.words(text)
        grams = _grams(text, spans, n)
        if not grams:
            return []
        top = Counter(grams).most_common(1)[0][0]
        return [(spans[i][0], spans[i + n - 1][1]) for i, gram in enumerate(grams) if gram == top]

    return find


def _repeated_grams(n: int) -> Finder:
    def find(text: str, looked: _Looked) -> list[Span]:
        spans = looked.words(text)
        grams, seen, found, i = _grams(text, spans, n), set[tuple[str, ...]](), [], 0
        while i < len(grams):
            if grams[i] in seen:
                found.append((spans[i][0], spans[i + n - 1][1]))
                i += n
            else:
                seen.add(grams[i])
                i += 1
        return found

    return find


def _grams(text: str, spans: Sequence[Span], n: int) -> list[tuple[str, ...]]:
    words = [text[start:end] for start, end in spans]
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _matches(pattern: str) -> Finder:
    compiled = re.compile(pattern)
    return lambda text, looked: [match.span() for match in compiled.finditer(text)]


def _lines_where(test: Callable[[str], bool]) -> Finder:
    return lambda text, looked: [(start, end) for start, end in lines(text) if test(text[start:end].strip())]


def _text_lines_where(test: Callable[[str], bool]) -> Finder:
    return lambda text, looked: [(start, end) for start, end in text_lines(text) if test(text[start:end])]


def _words_where(test: Callable[[str, float], bool]) -> Finder:
    def find(text: str, looked: _Looked) -> list[Span]:
        limit = looked.threshold if looked.threshold is not None else 0.0
        return [(start, end) for start, end in looked.words(text) if test(text[start:end], limit)]

    return find


def _dropped_by_c4(terminal: bool) -> Callable[[str], bool]:
    """Returns whether C4 would not count the sentences of a line."""

    def test(line: str) -> bool:
        lowered, edited = line.lower(), CITATION.sub("", line)
        unfinished = terminal and (not edited.endswith(C4_ENDS) or edited.endswith("..."))
        phrase = "javascript" in lowered or any(phrase in lowered for phrase in POLICY)
        return bool(line) and (len(line.split()) < 3 or unfinished or phrase)

    return test


def _long_word(word: str, limit: float) -> bool:
    return len(word) > limit and any(c.isalnum() for c in word)


def _short_word(word: str, limit: float) -> bool:
    return len(word) < limit and any(c.isalnum() for c in word)


def _bad_words(text: str, looked: _Looked) -> list[Span]:
    """Returns where the bad words of the document's language are, by the pattern that counts them."""
    if looked.language is None or not bad_words(looked.language):
        return []
    lowered = text.lower()
    if len(lowered) != len(text):  # a few capitals become two characters; then lower-case only what stays as long
        lowered = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    words = "|".join(re.escape(word) for word in sorted(bad_words(looked.language), key=len, reverse=True))
    pattern = f"(?:{words})" if looked.language in UNSPACED else rf"(?<!\w)(?:{words})(?!\w)"
    return [match.span() for match in re.finditer(pattern, lowered)]


_LONG_RAW = _words_where(lambda word, limit: len(word) > limit)
_SHORT_RAW = _words_where(lambda word, limit: len(word) < limit)
_REPEATED_LINES = ("lines equal to an earlier one", lambda text, looked: repeats(text, pieces(text, r"\n+")))
_REPEATED_PARAGRAPHS = ("paragraphs equal to an earlier one", lambda text, looked: repeats(text, paragraphs(text)))
_LOREM = ("lines with 'lorem ipsum'", _lines_where(lambda line: "lorem ipsum" in line.lower()))
_CURLY = ("lines with '{'", _lines_where(lambda line: "{" in line))

#: Signal → what is marked when a rule fires because there is too much of it.
_TOO_MANY: dict[str, tuple[str, Finder]] = {
    "hashes": ("characters '#'", _matches("#")),
    "ellipses": ("ellipses", _matches(r"\.\.\.|…")),
    "bullet_lines": ("lines that start with a bullet", _lines_where(lambda line: line.startswith(("•", "-")))),
    "bullet_point_lines": ("lines that start with a bullet", _lines_where(lambda line: line.startswith(BULLETS))),
    "bad_words": ("bad words", _bad_words),
    "uppercase_lines": (
        "lines of capitals", _lines_where(lambda line: sum(c.isupper() for c in line) * 2 > len(line)),
    ),
    "digit_lines": ("lines of digits", _lines_where(lambda line: re.fullmatch("[0-9]+", line) is not None)),
    "one_word_lines": ("lines of one word", _lines_where(lambda line: len(line.split()) == 1)),
    "javascript_lines": ("lines with 'javascript'", _lines_where(lambda line: "javascript" in line.lower())),
    "lorem_ipsum_lines": _LOREM,
    "policy_lines": (
        "lines with a policy or cookie phrase", _lines_where(lambda line: any(p in line.lower() for p in POLICY)),
    ),
    "raw_word_chars": ("words that are longer than the limit", _LONG_RAW),
    "ellipsis_lines": ("lines that end in an ellipsis", _lines_where(lambda line: line.endswith(("...", "…")))),
    "dup_break_lines": _REPEATED_LINES,
    "dup_break_line_chars": _REPEATED_LINES,
    "dup_paragraphs": _REPEATED_PARAGRAPHS,
    "dup_paragraph_chars": _REPEATED_PARAGRAPHS,
    **{f"top_{n}_gram_chars": (f"the most frequent {n} words", _top_gram(n)) for n in (2, 3, 4)},
    **{
        f"dup_{n}_gram_chars": (f"runs of {n} words that occurred before", _repeated_grams(n)) for n in range(5, 11)
    },
    "dup_text_line_chars": (
        "lines equal to an earlier one", lambda text, looked: repeats(text, text_lines(text)),
    ),
    "short_lines": (
        f"lines of at most {MOST_LINE_CHARS} characters", _text_lines_where(lambda line: len(line) <= MOST_LINE_CHARS),
    ),
    "newlines": ("lines (there are too many for so few words)", lambda text, looked: text_lines(text)),
    "c4_lorem_ipsum_lines": _LOREM,
    "c4_terminal_lorem_ipsum_lines": _LOREM,
    "c4_curly_bracket_lines": _CURLY,
    "c4_terminal_curly_bracket_lines": _CURLY,
    "c4_javascript_lines": ("lines with 'javascript'", _lines_where(lambda line: "javascript" in line.lower())),
    "c4_policy_lines": (
        "lines with a policy or cookie phrase", _lines_where(lambda line: any(p in line.lower() for p in POLICY)),
    ),
    "symbol_free_chars": ("words that are longer than the limit", _words_where(_long_word)),
}  # fmt: skip
#: Signal → what is marked when a rule fires because there is too little of it.
_TOO_FEW: dict[str, tuple[str, Finder]] = {
    "non_alpha_words": (
        "words without a letter", _words_where(lambda word, _: not any(c.isalpha() for c in word)),
    ),
    "raw_word_chars": ("words that are shorter than the limit", _SHORT_RAW),
    "alpha_words": (
        "words without a letter", _words_where(lambda word, _: not any(c.isalpha() for c in word)),
    ),
    "terminal_lines": (
        "lines without terminal punctuation", _text_lines_where(lambda line: not line.endswith(TERMINAL)),
    ),
    "c4_sentences": ("lines whose sentences C4 does not count", _lines_where(_dropped_by_c4(terminal=False))),
    "c4_terminal_sentences": ("lines whose sentences C4 does not count", _lines_where(_dropped_by_c4(terminal=True))),
    "symbol_free_chars": ("words that are shorter than the limit", _words_where(_short_word)),
}  # fmt: skip
