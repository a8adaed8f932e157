"""The counters of the signal kernel: their order, meaning and column numbers.

The formulas are those of datatrove 0.10.1 (``pipeline/filters/{gopher_quality,gopher_repetition,c4,fineweb_quality}``)
evaluated on our words; see `dataeng.kernels.words` for what a word is.
"""

from __future__ import annotations

#: The counters in the order of their columns, each with its meaning. "Lines" without more are those of
#: ``str.splitlines``; *break lines* are the pieces between ``\n``.
COUNTERS: dict[str, str] = {
    "chars": "characters (code points), `len(text)`",
    "words": "words, punctuation included where `words='split'`",
    "symbol_free_words": "words with at least one character outside datatrove's PUNCTUATION_SET",
    "symbol_free_chars": "characters of those words",
    "alpha_words": "words with at least one alphabetic character",
    "stop_words": "distinct stop words of the document's language that occur, case-sensitive",
    "hashes": "characters `#`",
    "ellipses": "`...` (not overlapping) and `…`",
    "lines": "lines, blank ones included",
    "bullet_lines": "lines that start with `•` or `-` after white space",
    "ellipsis_lines": "lines that end with `...` or `…` before white space",
    "newlines": "characters `\\n`",
    "paragraphs": "pieces of the stripped text between two or more `\\n`",
    "dup_paragraphs": "paragraphs equal to an earlier one",
    "dup_paragraph_chars": "their characters",
    "break_lines": "pieces of the text between one or more `\\n`, with an empty one where it starts or ends with `\\n`",
    "dup_break_lines": "break lines equal to an earlier one",
    "dup_break_line_chars": "their characters",
    "top_2_gram_chars": "occurrences times length (with spaces) of the most frequent 2 words, even if it occurs once",
    "top_3_gram_chars": "the same for 3 words",
    "top_4_gram_chars": "the same for 4 words",
    "dup_5_gram_chars": "characters (without spaces) of runs of 5 words that occurred before, not overlapping",
    "dup_6_gram_chars": "the same for 6 words",
    "dup_7_gram_chars": "the same for 7 words",
    "dup_8_gram_chars": "the same for 8 words",
    "dup_9_gram_chars": "the same for 9 words",
    "dup_10_gram_chars": "the same for 10 words",
    "text_lines": "break lines with more than white space (FineWeb)",
    "terminal_lines": "text lines whose last character is terminal punctuation in any script",
    "short_lines": "text lines of at most 30 characters",
    "dup_text_line_chars": "characters of text lines equal to an earlier one",
    "c4_lines": "lines that C4 keeps when lines need no terminal punctuation (as FineWeb runs it)",
    "c4_sentences": "sentences in those lines",
    "c4_lorem_ipsum_lines": "lines with 'lorem ipsum' that no line rule removed before",
    "c4_curly_bracket_lines": "lines with '{' that no line rule removed before",
    "c4_javascript_lines": "lines removed for 'javascript'",
    "c4_policy_lines": "lines removed for a policy or cookie phrase",
    "c4_short_lines": "lines removed for having fewer than 3 words",
    "c4_long_word_lines": "lines removed for a word of more than 1000 characters",
    "c4_terminal_lines": "as c4_lines, when lines must end in `. ? ! \" '` and not in `...` (datatrove's default)",
    "c4_terminal_sentences": "sentences in those lines",
    "c4_terminal_lorem_ipsum_lines": "as c4_lorem_ipsum_lines, with the terminal punctuation rule",
    "c4_terminal_curly_bracket_lines": "as c4_curly_bracket_lines, with the terminal punctuation rule",
}

_INDEX = {name: i for i, name in enumerate(COUNTERS)}
CHARS = _INDEX["chars"]
WORDS = _INDEX["words"]
SYMBOL_FREE_WORDS = _INDEX["symbol_free_words"]
SYMBOL_FREE_CHARS = _INDEX["symbol_free_chars"]
ALPHA_WORDS = _INDEX["alpha_words"]
STOP_WORDS = _INDEX["stop_words"]
HASHES = _INDEX["hashes"]
ELLIPSES = _INDEX["ellipses"]
LINES = _INDEX["lines"]
BULLET_LINES = _INDEX["bullet_lines"]
ELLIPSIS_LINES = _INDEX["ellipsis_lines"]
NEWLINES = _INDEX["newlines"]
PARAGRAPHS = _INDEX["paragraphs"]
BREAK_LINES = _INDEX["break_lines"]
TOP_2_GRAM = _INDEX["top_2_gram_chars"]
TEXT_LINES = _INDEX["text_lines"]
TERMINAL_LINES = _INDEX["terminal_lines"]
SHORT_LINES = _INDEX["short_lines"]
DUP_TEXT_LINE_CHARS = _INDEX["dup_text_line_chars"]
C4_LINES = _INDEX["c4_lines"]
C4_SENTENCES = _INDEX["c4_sentences"]
C4_LOREM = _INDEX["c4_lorem_ipsum_lines"]
C4_CURLY = _INDEX["c4_curly_bracket_lines"]
C4_JAVASCRIPT = _INDEX["c4_javascript_lines"]
C4_POLICY = _INDEX["c4_policy_lines"]
C4_SHORT = _INDEX["c4_short_lines"]
C4_LONG_WORD = _INDEX["c4_long_word_lines"]
C4_TERMINAL_SHIFT = _INDEX["c4_terminal_lines"] - C4_LINES  # the four terminal counters follow in the same order
