"""The counters of the second signal kernel: what RefinedWeb, DCLM, CCNet, RedPajama-V2 and their users look at besides.

Here a *word* is a run of characters that are not white space (``str.split``), a *line* is a piece between two ``\\n``
with more than white space, and lower case means ASCII lower case. All are counts; shares are for rules to divide.
"""

from __future__ import annotations

#: Scripts whose letters are counted, with the ranges of their code points.
SCRIPTS: dict[str, tuple[tuple[int, int], ...]] = {
    "latin": ((0x41, 0x24F), (0x1E00, 0x1EFF), (0x2C60, 0x2C7F), (0xA720, 0xA7FF), (0xFB00, 0xFB06), (0xFF21, 0xFF5A)),
    "greek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "cyrillic": ((0x400, 0x52F), (0x1C80, 0x1C8F), (0x2DE0, 0x2DFF), (0xA640, 0xA69F)),
    "arabic": ((0x600, 0x6FF), (0x750, 0x77F), (0x870, 0x8FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFE)),
    "hebrew": ((0x590, 0x5FF), (0xFB1D, 0xFB4F)),
    "devanagari": ((0x900, 0x97F), (0xA8E0, 0xA8FF)),
    "han": ((0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
    "kana": ((0x3040, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)),
    "hangul": ((0x1100, 0x11FF), (0x3130, 0x318F), (0xA960, 0xA97F), (0xAC00, 0xD7FF)),
    "southeast_asian": ((0xE00, 0xEFF), (0x1000, 0x109F), (0x1780, 0x17FF)),  # Thai, Lao, Myanmar, Khmer: no spaces
}

#: Characters of a Thai, Lao, Khmer or Myanmar word, on average; see ``segmented_words``.
LETTERS_PER_WORD = 4

EXTENDED_COUNTERS: dict[str, str] = {
    "bytes": "bytes of UTF-8",
    "letters": "alphabetic characters (`str.isalpha`)",
    "uppercase_chars": "upper-case characters (`str.isupper`)",
    "digits": "characters `0` to `9`",
    "whitespace_chars": "white space (`str.isspace`)",
    "punctuation_chars": "characters of the Unicode categories P (punctuation)",
    "symbol_chars": "characters of the Unicode categories S (symbols, emoji)",
    "non_ascii_chars": "characters beyond ASCII",
    "control_chars": "control characters (category Cc) other than tab, line feed and carriage return",
    "unassigned_chars": "code points without a character (category Cn)",
    "private_use_chars": "private-use characters (category Co)",
    "replacement_chars": "characters U+FFFD",
    "parentheses": "characters `(` and `)`",
    "square_brackets": "characters `[` and `]`",
    "curly_brackets": "characters `{` and `}`",
    **{
        f"{script}_letters": f"alphabetic characters of the script(s): {script.replace('_', ' ')}" for script in SCRIPTS
    },
    "raw_words": "words",
    "raw_word_chars": "characters of the words",
    "longest_word_chars": "characters of the longest word",
    "uppercase_words": "words in capitals (`str.isupper`)",
    "non_alpha_words": "words without any letter",
    "numeral_words": "words of digits and the signs `.,:;%+-/()$` only, with at least one digit",
    "unique_words": "distinct words, case-sensitive",
    "stop_word_occurrences": "words that in lower case are stop words of the document's language, each time",
    "url_words": "words that contain `://` or start with `www.`",
    "email_words": "words with an `@` after another character, and a period after that but not right behind",
    "segmented_words": (
        "words where scripts without spaces are cut too: every Han character and kana is a word, and each "
        f"{LETTERS_PER_WORD} characters (marks and punctuation not counted) of a run of Thai, Lao, Khmer or Myanmar "
        "are one, rounded up, an approximation; what stands between, but for punctuation, is one word"
    ),
    "uppercase_lines": "lines of which more than half of the characters are upper case (RefinedWeb, DCLM)",
    "digit_lines": "lines of nothing but `0` to `9`, after stripping (RefinedWeb, DCLM)",
    "one_word_lines": "lines of one word (RefinedWeb, DCLM)",
    "ascii_terminal_lines": 'lines that end with one of `. ? ! "`, before white space (RedPajama-V2)',
    "bullet_point_lines": "lines that start with one of `- * • ● ‣ ⁃ ◦ ▪`, after white space",
    "javascript_lines": "lines with 'javascript' in any case",
    "lorem_ipsum_lines": "lines with 'lorem ipsum' in any case",
    "policy_lines": "lines with one of C4's policy and cookie phrases in any case",
    "longest_line_chars": "characters of the longest line",
}

#: Signals of the second kernel that are no whole numbers.
EXTENDED_MEASURES: dict[str, str] = {
    "word_entropy": "Shannon entropy of the words, case-sensitive, in nats (RedPajama-V2's `unigram_entropy`)",
}
