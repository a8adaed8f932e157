"""Repetition inside one text: lines, paragraphs and word n-grams, as datatrove's Gopher repetition filter counts it.

An n-gram can occur twice only if both (n-1)-grams in it do. So only bigrams are all hashed; each longer length looks at
the few places that are left, and the counts are still exact. N-grams are compared by the hashes of their words;
datatrove joins the words of its 5- to 10-grams without a space and so takes "1 23" for "12 3", which differs in a few
documents per thousand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.characters import SPACE
from dataeng.kernels.compiling import called, inlined
from dataeng.kernels.counters import BREAK_LINES, DUP_TEXT_LINE_CHARS, NEWLINES, PARAGRAPHS, TOP_2_GRAM
from dataeng.kernels.text import clear_table, decode, hash_bytes, largest_table, next_newline, num_characters, signed

EMPTY_SEGMENT = np.uint64(1)
ONE = np.uint64(1)
GRAM_MULTIPLIER = np.uint64(0xD6E8FEB86659FD93)
SHIFT = np.uint64(20)
SHIFT_29, U32 = np.uint64(29), np.uint64(32)


@inlined
def part_of(value: np.uint64, num_parts: int) -> int:
    """Returns which of ``num_parts`` equal ranges a hash lies in."""
    return signed(((value >> U32) * np.uint64(num_parts)) >> U32)


@inlined
def parts_for(num_entries: int, num_slots: int) -> int:
    """Returns in how many passes to enter hashes, so that each fills at most 3/4 of the slots."""
    return max(1, -(-4 * num_entries // (3 * num_slots)))


@inlined
def seen_before(table: NDArray[np.uint64], mask: np.uint64, value: np.uint64) -> bool:
    """Looks a hash up and enters it."""
    slot = (value >> SHIFT) & mask
    while True:
        found = table[slot]
        if found == 0:
            table[slot] = value
            return False
        if found == value:
            return True
        slot = (slot + ONE) & mask


@called
def has_text(data: NDArray[np.uint8], start: int, stop: int, classes: NDArray[np.uint16]) -> bool:
    """Whether ``data[start:stop]`` has more than white space."""
    i = start
    while i < stop:
        code_point, size = signed(data[i]), 1
        if code_point >= 128:
            code_point, size = decode(data, i, stop)
        if not classes[code_point] & SPACE:
            return True
        i += size
    return False


@called
def count_repeated_lines(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    classes: NDArray[np.uint16],
    table: NDArray[np.uint64],
    row: NDArray[np.int64],
) -> None:
    """Counts repeated pieces of ``re.split("\\n+", text)``, and of FineWeb's lines with more than white space.

    Args:
      table: a hash table; one too small for all lines takes those of one range of hashes after the other.
      row: counters, of which NEWLINES is filled.
    """
    num_lines = signed(row[NEWLINES]) + 1
    slots = largest_table(table)
    num_parts = parts_for(num_lines, slots)
    lines, repeated, repeated_chars, text_chars = 0, 0, 0, 0
    for part in range(num_parts):
        mask = clear_table(table, min(num_lines, slots // 2))
        at, lines = start, 0
        while at <= stop:
            end = next_newline(data, at, stop)
            # The split leaves an empty piece only at the text's very start and end; an empty text is one piece.
            if end > at or at == start or end == stop:
                lines += 1
                value = hash_bytes(data, at, end) if end > at else EMPTY_SEGMENT
                if (num_parts == 1 or part_of(value, num_parts) == part) and seen_before(table, mask, value):
                    chars = num_characters(data, at, end)
                    repeated += 1
                    repeated_chars += chars
                    if has_text(data, at, end, classes):
                        text_chars += chars
            at = end + 1
    row[BREAK_LINES] = lines
    row[BREAK_LINES + 1] = repeated
    row[BREAK_LINES + 2] = repeated_chars
    row[DUP_TEXT_LINE_CHARS] = text_chars


@called
def count_repeated_paragraphs(
    data: NDArray[np.uint8], start: int, stop: int, table: NDArray[np.uint64], row: NDArray[np.int64]
) -> None:
    """Counts repeated pieces of ``re.split(r"\\n{2,}", text.strip())``.

    Args:
      start, stop: the stripped text; the rest as for `count_repeated_lines`.
    """
    most = signed(row[NEWLINES]) // 2 + 1
    slots = largest_table(table)
    num_parts = parts_for(most, slots)
    paragraphs, repeated, repeated_chars = 0, 0, 0
    for part in range(num_parts):
        mask = clear_table(table, min(most, slots // 2))
        at, paragraphs = start, 0
        while at < stop:
            end = next_newline(data, at, stop)
            while end + 1 < stop and data[end + 1] != 10:  # a single newline goes on
                end = next_newline(data, end + 1, stop)
            paragraphs += 1
            value = hash_bytes(data, at, end)
            if (num_parts == 1 or part_of(value, num_parts) == part) and seen_before(table, mask, value):
                repeated += 1
                repeated_chars += num_characters(data, at, end)
            at = end
            while at < stop and data[at] == 10:
                at += 1
    row[PARAGRAPHS] = max(paragraphs, 1)  # the split of an empty string is one empty piece
    row[PARAGRAPHS + 1] = repeated
    row[PARAGRAPHS + 2] = repeated_chars


@inlined
def enter(
    table: NDArray[np.uint64],
    slot_count: NDArray[np.int32],
    slot_first: NDArray[np.int32],
    mask: np.uint64,
    value: np.uint64,
    position: int,
) -> int:
    """Counts one occurrence of an n-gram in a hash table and returns its slot."""
    slot = (value >> SHIFT) & mask
    while True:
        found = table[slot]
        if found == 0:
            table[slot] = value
            slot_count[slot] = 1
            slot_first[slot] = position
            return signed(slot)
        if found == value:
            slot_count[slot] += 1
            return signed(slot)
        slot = (slot + ONE) & mask


@inlined
def extend_hash(shorter: np.uint64, word: np.uint64) -> np.uint64:
    """Returns the hash of an n-gram from that of its first n-1 words and that of its last word; never 0."""
    value = shorter * GRAM_MULTIPLIER + word
    return (value ^ (value >> SHIFT_29)) | ONE


@called
def count_ngrams(
    word_hash: NDArray[np.uint64],
    word_end: NDArray[np.int32],
    num_words: int,
    gram_hash: NDArray[np.uint64],
    gram_slot: NDArray[np.int32],
    gram_mark: NDArray[np.int8],
    candidates: NDArray[np.int32],
    table: NDArray[np.uint64],
    slot_count: NDArray[np.int32],
    slot_first: NDArray[np.int32],
    row: NDArray[np.int64],
) -> None:
    """Counts the most frequent 2- to 4-gram and the repeated 5- to 10-grams of a text.

    Args:
      word_hash: [words]; ``word_end``: [words + 1], characters of all words before each.
      gram_hash, gram_slot, gram_mark, candidates: scratch, [words + 1] each; table, slot_count, slot_first: hash table.
    """
    if num_words < 2:
        return
    # Bigrams: all of them.
    mask = clear_table(table, num_words - 1)
    for i in range(num_words - 1):
        value = extend_hash(word_hash[i], word_hash[i + 1])
        gram_hash[i] = value
        gram_slot[i] = enter(table, slot_count, slot_first, mask, value, i)
    best, best_at, num_candidates = 0, 0, 0
    for i in range(num_words - 1):
        count = slot_count[gram_slot[i]]
        if count > best:  # in order of the text, so that the first seen wins a tie
            best, best_at = count, i
        gram_mark[i] = 0
        if count > 1:
            candidates[num_candidates] = i
            num_candidates += 1
            gram_mark[i] = 2
    gram_mark[num_words - 1] = 0
    row[TOP_2_GRAM] = best * (signed(word_end[best_at + 2]) - word_end[best_at] + 1)
    for n in range(3, 11):
        if num_words < n:
            break
        # Only where both (n-1)-grams are repeated; gram_mark holds the longest repeated n-gram at each word.
        kept = 0
        for k in range(num_candidates):
            at = candidates[k]
            if at + n <= num_words and gram_mark[at + 1] == n - 1:
                candidates[kept] = at
                kept += 1
        num_candidates = kept
        mask = clear_table(table, num_candidates)
        for k in range(num_candidates):
            at = candidates[k]
            value = extend_hash(gram_hash[at], word_hash[at + n - 1])
            gram_hash[at] = value
            gram_slot[at] = enter(table, slot_count, slot_first, mask, value, at)
        if n <= 4:
            best, best_at = 1, 0
            for k in range(num_candidates):
                at = candidates[k]
                if slot_count[gram_slot[at]] > best:
                    best, best_at = slot_count[gram_slot[at]], at
            row[TOP_2_GRAM + n - 2] = best * (signed(word_end[best_at + n]) - word_end[best_at] + n - 1)
        kept = 0
        for k in range(num_candidates):
            at = candidates[k]
            if slot_count[gram_slot[at]] > 1:
                candidates[kept] = at
                gram_mark[at] = n
                kept += 1
        num_candidates = kept
        if n >= 5:
            row[TOP_2_GRAM + n - 2] = repeated_gram_chars(
                n, word_end, candidates, num_candidates, gram_slot, slot_first
            )
        if n >= 4 and num_candidates == 0:
            break


@inlined
def repeated_gram_chars(
    n: int,
    word_end: NDArray[np.int32],
    candidates: NDArray[np.int32],
    num_candidates: int,
    gram_slot: NDArray[np.int32],
    slot_first: NDArray[np.int32],
) -> int:
    """Returns the characters of n-grams that occurred before, jumping over each; datatrove's ``find_all_duplicate``."""
    next_free, chars = 0, 0
    for k in range(num_candidates):
        at = candidates[k]
        if at < next_free:
            continue
        slot = gram_slot[at]
        if slot_first[slot] == -1:  # seen
            chars += signed(word_end[at + n]) - word_end[at]
            next_free = at + n
        else:
            slot_first[slot] = -1
    return chars
