"""The signal counters, written slowly and plainly on Python strings; datatrove's formulas on given words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from dataeng.kernels.characters import DATATROVE_PUNCTUATION, DATATROVE_TERMINAL

PUNCTUATION_SET = set(DATATROVE_PUNCTUATION) | set(DATATROVE_TERMINAL)
TERMINAL = tuple(DATATROVE_TERMINAL)
CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
LOWER_CASE = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
Counts = dict[str, int]


def ascii_lower(text: str) -> str:
    return text.translate(LOWER_CASE)


def repeated(segments: Sequence[str]) -> tuple[int, int]:
    seen: set[str] = set()
    count = chars = 0
    for segment in segments:
        if segment in seen:
            count += 1
            chars += len(segment)
        seen.add(segment)
    return count, chars


def top_ngram_chars(words: Sequence[str], n: int) -> int:
    grams = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
    if not grams:
        return 0
    gram, count = Counter(grams).most_common(1)[0]
    return len(gram) * count


def repeated_ngram_chars(words: Sequence[str], n: int) -> int:
    seen: set[tuple[str, ...]] = set()
    chars = i = 0
    while i < len(words) - n + 1:
        gram = tuple(words[i : i + n])
        if gram in seen:
            chars += sum(map(len, gram))
            i += n
        else:
            seen.add(gram)
            i += 1
    return chars


def word_counts(text: str, words: Sequence[str], stop_words: Sequence[str]) -> Counts:
    symbol_free = [w for w in words if not PUNCTUATION_SET.issuperset(w)]
    counts = {
        "words": len(words),
        "symbol_free_words": len(symbol_free),
        "symbol_free_chars": sum(map(len, symbol_free)),
        "alpha_words": sum(any(c.isalpha() for c in w) for w in words),
        "stop_words": len(set(stop_words) & set(words)),
    }
    counts |= {f"top_{n}_gram_chars": top_ngram_chars(words, n) for n in (2, 3, 4)}
    return counts | {f"dup_{n}_gram_chars": repeated_ngram_chars(words, n) for n in range(5, 11)}


def line_counts(text: str) -> Counts:
    lines = text.splitlines()
    paragraphs = re.split(r"\n{2,}", text.strip())
    break_lines = re.split(r"\n+", text)
    text_lines = [line for line in text.split("\n") if line.strip()]
    counts = {
        "chars": len(text),
        "hashes": text.count("#"),
        "ellipses": text.count("...") + text.count("…"),
        "lines": len(lines),
        "bullet_lines": sum(line.lstrip().startswith(("•", "-")) for line in lines),
        "ellipsis_lines": sum(line.rstrip().endswith(("...", "…")) for line in lines),
        "newlines": text.count("\n"),
        "paragraphs": len(paragraphs),
        "break_lines": len(break_lines),
        "text_lines": len(text_lines),
        "terminal_lines": sum(line.endswith(TERMINAL) for line in text_lines),
        "short_lines": sum(len(line) <= 30 for line in text_lines),
        "dup_text_line_chars": repeated(text_lines)[1],
    }
    counts["dup_paragraphs"], counts["dup_paragraph_chars"] = repeated(paragraphs)
    counts["dup_break_lines"], counts["dup_break_line_chars"] = repeated(break_lines)
    return counts


def c4_counts(text: str, count_sentences: Callable[[str], int]) -> Counts:
    counts: Counter[str] = Counter()
    for line in text.splitlines():
        line = line.strip()
        words = line.split()
        if any(len(word) > 1000 for word in words):
            counts["c4_long_word_lines"] += 1
            continue
        sentences = count_sentences(line)
        edited = CITATION.sub("", line)
        terminal = edited.endswith((".", "?", "!", '"', "'")) and not edited.endswith("...")
        if len(words) < 3:
            counts["c4_short_lines"] += 1
            continue
        lowered = ascii_lower(line)
        if "lorem ipsum" in lowered:
            kind = "lorem_ipsum_lines"
        elif "javascript" in lowered:
            counts["c4_javascript_lines"] += 1
            continue
        elif "{" in line:
            kind = "curly_bracket_lines"
        elif any(phrase in lowered for phrase in POLICY):
            counts["c4_policy_lines"] += 1
            continue
        else:
            kind = "lines"
        for prefix in ("c4_", "c4_terminal_") if terminal else ("c4_",):
            counts[prefix + kind] += 1
            if kind == "lines":
                counts[prefix + "sentences"] += sentences
    return dict(counts)
