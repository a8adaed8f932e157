"""Repeated word n-grams of a long text, counted as `dataeng.kernels.repetition` does, in less memory than the text.

Lists of words and n-grams would take many times the memory of the text, and random access to them is slow once they
outgrow the processor's cache. Here only bits are kept: one for each byte says where words start and end, one where a
repeated n-gram starts. The words are hashed anew in each of ten passes over the text. The pass of length n does three
things at each word:

1. *mark*: an n-gram whose two (n-1)-grams are marked is marked if its hash falls into a bucket that the pass before has
   seen hit twice; no other n-gram can occur twice. (A few marked ones occur once all the same, which changes no count.)
2. *count* the marked one in an exact hash table: up to n = 4 how often it occurs, in several rounds if the table is too
   small for all; from n = 5 on whether it occurred before, and then the next n-grams are jumped over.
3. *sketch*: an (n+1)-gram whose two n-grams are marked hits the bucket of its hash, for the next pass.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.bitmaps import bitmap_words, clear_bits, has_bit, next_bit, set_bit, write_bit
from dataeng.kernels.characters import SPACE
from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.counters import TOP_2_GRAM, WORDS
from dataeng.kernels.repetition import part_of, parts_for
from dataeng.kernels.text import FINAL_MULTIPLIER, MULTIPLIER, decode, hash_bytes, num_characters, signed

RING, RING_MASK = 16, 15  # the last words are remembered: a power of two, above the longest n-gram
LONGEST_GRAM = 10
ZERO, ONE, THREE, U32 = np.uint64(0), np.uint64(1), np.uint64(3), np.uint64(32)
LOW_32 = np.uint64(0xFFFFFFFF)
SHIFT_29 = np.uint64(29)


@inlined
def long_table_size(num_bytes: int) -> int:
    """Returns how many uint64 the hash table of a text has: 0.4 times its bytes."""
    return max(1024, num_bytes // 20)


@inlined
def in_range(value: np.uint64, size: int) -> int:
    """Maps a hash to 0 … size-1 (at most 2^32), by its high half."""
    return signed(((value >> U32) * np.uint64(size)) >> U32)


@inlined
def slot_of(value: np.uint64, size: int) -> int:
    """Maps a hash to 0 … size-1, by its low half, so that it does not depend on the range of hashes."""
    return signed(((value & LOW_32) * np.uint64(size)) >> U32)


@inlined
def enter_count(table: NDArray[np.uint64], slots: int, value: np.uint64, position: int) -> int:
    """Counts an n-gram (slot i: ``table[i]``, count and first byte ``table[slots + i]``); returns 1 if it is new."""
    slot = slot_of(value, slots)
    while True:
        found = table[slot]
        if found == ZERO:
            table[slot] = value
            table[slots + slot] = (ONE << U32) | np.uint64(position)
            return 1
        if found == value:
            table[slots + slot] += ONE << U32
            return 0
        slot += 1
        if slot == slots:
            slot = 0


@inlined
def enter(table: NDArray[np.uint64], slots: int, value: np.uint64) -> bool:
    """Looks an n-gram up and enters it; returns whether it is new."""
    slot = slot_of(value, slots)
    while True:
        found = table[slot]
        if found == ZERO:
            table[slot] = value
            return True
        if found == value:
            return False
        slot += 1
        if slot == slots:
            slot = 0


@inlined
def is_space(data: NDArray[np.uint8], start: int, stop: int, classes: NDArray[np.uint16]) -> bool:
    """Whether the first character of ``data[start:stop]`` is white space."""
    code_point = signed(data[start])
    if code_point >= 128:
        code_point, _ = decode(data, start, stop)
    return bool(classes[code_point] & SPACE)


@inlined
def finish_hash(gram: np.uint64) -> np.uint64:
    """Spreads a polynomial of word hashes over all bits; never 0."""
    value = gram * FINAL_MULTIPLIER
    value = (value ^ (value >> U32)) * MULTIPLIER
    return (value ^ (value >> SHIFT_29)) | ONE


@called
def scan(
    n: int,
    sketching: bool,
    data: NDArray[np.uint8],
    start: int,
    size: int,
    classes: NDArray[np.uint16],
    boundaries: NDArray[np.uint64],
    marks: NDArray[np.uint64],
    twice: NDArray[np.uint64],
    next_once: NDArray[np.uint64],
    next_twice: NDArray[np.uint64],
    table: NDArray[np.uint64],
    slots: int,
    part: int,
    num_parts: int,
    ring: NDArray[np.uint64],
    places: NDArray[np.int64],
    found: NDArray[np.int64],
) -> None:
    """One pass over the words of a text.

    Args:
      n: length of the n-grams to count; 1 only sketches the bigrams.
      sketching: mark and sketch too; else the n-grams are marked already, and are only counted.
      start, size: first byte of the text, and its bytes; all positions below are from its start.
      boundaries: where words start and end; ``marks``: where a marked (n-1)-gram starts, afterwards n-gram.
      twice: buckets hit twice by n-grams; ``next_once``, ``next_twice``: filled, those hit by (n+1)-grams.
      table, slots, part, num_parts: the hash table, and which range of hashes is counted (n up to 4).
      ring [RING], places [RING, 2]: scratch: hashes and extents of the last words.
      found: filled with n-grams marked, buckets hit twice by (n+1)-grams, and characters of n-grams (n from 5 on) that
        occurred before; the last is -1 if more than 7/8 of the slots were needed.
    """
    ring[:] = ZERO
    power = ONE
    for _ in range(n):
        power *= MULTIPLIER
    gram = ZERO  # polynomial of the hashes of the last n words
    num_marked, buckets, chars, entries, limit = 0, 0, 0, 0, slots * 7 // 8
    history, fresh = ZERO, ZERO  # bit i: whether the word i words back was marked; whether the n-gram i back is now
    all_marked = sketching and n <= 2
    recent = (ONE << np.uint64(n + 1)) - ONE
    k, needed, next_free, since, lost = 0, 0, 0, 0, n == 1
    at = next_bit(boundaries, 0, size)
    while at < size:
        stop = next_bit(boundaries, at + 1, size)
        if is_space(data, start + at, start + stop, classes):
            at = stop
            continue
        if needed == 0 and not all_marked and history & recent == ZERO:
            # Nothing to count here: on to the next mark, as if there were n + 1 words of no interest before it.
            at = next_bit(marks, at, size)
            if at == size:
                since = k
                break
            stop = next_bit(boundaries, at + 1, size)
            k += n + 1
            ring[:] = ZERO
            gram, fresh, since = ZERO, ZERO, k
        marked = all_marked or has_bit(marks, at)
        history = (history << ONE) | np.uint64(marked)
        if marked:
            needed = n
        word = ZERO
        if needed > 0:  # words in no n-gram of interest count as 0
            word = hash_bytes(data, start + at, start + stop)
            needed -= 1
        place = k & RING_MASK
        longer = gram * MULTIPLIER + word
        gram = longer - power * ring[(k - n) & RING_MASK]
        ring[place], places[place, 0], places[place, 1] = word, at, stop
        k += 1
        at = stop
        if k - n < since:
            continue
        first = places[(k - n) & RING_MASK, 0]
        here = (history >> np.uint64(n - 1)) & ONE != ZERO
        value = ZERO
        if sketching and n > 1:
            here = here and (history >> np.uint64(n - 2)) & ONE != ZERO
            if here:
                value = finish_hash(gram)
                here = has_bit(twice, in_range(value, size))
            write_bit(marks, first, here)
        elif here:
            value = finish_hash(gram)
        num_marked += here
        fresh = (fresh << ONE) | np.uint64(here)
        if here and not lost:
            if n > 4:
                if k - n >= next_free:
                    if enter(table, slots, value):
                        entries += 1
                    else:
                        for i in range(k - n, k):
                            chars += num_characters(
                                data, start + places[i & RING_MASK, 0], start + places[i & RING_MASK, 1]
                            )
                        next_free = k
            elif num_parts == 1 or part_of(value, num_parts) == part:
                entries += enter_count(table, slots, value, first)
            lost = entries > limit
        if sketching and fresh & THREE == THREE and n < LONGEST_GRAM:
            bucket = in_range(finish_hash(longer), size)
            if has_bit(next_once, bucket):
                buckets += not has_bit(next_twice, bucket)
                set_bit(next_twice, bucket)
            else:
                set_bit(next_once, bucket)
    if sketching and n > 1:
        for i in range(max(since, k - n + 1), k):
            write_bit(marks, places[i & RING_MASK, 0], False)
    found[0], found[1], found[2] = num_marked, buckets, -1 if lost else chars


@called
def top_entry(table: NDArray[np.uint64], slots: int, best: int, best_at: int) -> tuple[int, int]:
    """Returns the largest count, and where that n-gram occurs first: the first one if several have it."""
    for slot in range(slots):
        if table[slot] != ZERO:
            count = signed(table[slots + slot] >> U32)
            at = signed(table[slots + slot] & LOW_32)
            if count > best or (count == best and at < best_at):
                best, best_at = count, at
    return best, best_at


@called
def gram_characters(
    data: NDArray[np.uint8],
    start: int,
    size: int,
    classes: NDArray[np.uint16],
    boundaries: NDArray[np.uint64],
    at: int,
    n: int,
) -> int:
    """Returns the characters of the n words from byte ``at`` on, with a space between two."""
    chars, words = n - 1, 0
    while words < n:
        stop = next_bit(boundaries, at + 1, size)
        if not is_space(data, start + at, start + stop, classes):
            chars += num_characters(data, start + at, start + stop)
            words += 1
        at = stop
    return chars


@kernel
def count_ngrams_of_long_text(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    classes: NDArray[np.uint16],
    boundaries: NDArray[np.uint64],
    table: NDArray[np.uint64],
    row: NDArray[np.int64],
) -> None:
    """Counts the most frequent 2- to 4-gram and the repeated 5- to 10-grams of a text.

    Args:
      boundaries: bitmap of where words start and end, from the text's start.
      table: scratch, see `long_table_size`; replaced by a larger one in the rare case that it is too small.
      row: counters, of which WORDS is filled.
    """
    size, num_words = stop - start, row[WORDS]
    ring, places = np.empty(RING, np.uint64), np.zeros((RING, 2), np.int64)
    found = np.zeros(3, np.int64)
    marks, twice = np.zeros(bitmap_words(size), np.uint64), np.zeros(bitmap_words(size), np.uint64)
    once, next_twice = np.zeros(bitmap_words(size), np.uint64), np.zeros(bitmap_words(size), np.uint64)
    first_word = next_bit(boundaries, 0, size)
    scan(
        1, True, data, start, size, classes, boundaries, marks, twice, once, next_twice, table, 0, 0, 1,
        ring, places, found,
    )  # fmt: skip
    for n in range(2, min(LONGEST_GRAM, num_words) + 1):
        buckets = found[1]
        if buckets == 0:
            if n > 4:
                break
            row[TOP_2_GRAM + n - 2] = gram_characters(data, start, size, classes, boundaries, first_word, n)
            continue
        twice, next_twice = next_twice, twice
        clear_bits(once, size)
        clear_bits(next_twice, size)
        most = table.shape[0] if n > 4 else table.shape[0] // 2
        slots = min(most, buckets * 3 // 2 + 64)
        num_parts = 1 if n > 4 else parts_for(buckets, slots)
        sketching, part, best, best_at = True, 0, 1, first_word
        while part < num_parts:
            table[:slots] = ZERO
            scan(
                n, sketching, data, start, size, classes, boundaries, marks, twice, once, next_twice,
                table, slots, part, num_parts, ring, places, found,
            )  # fmt: skip
            if sketching:
                next_buckets = found[1]
            sketching = False
            if found[2] >= 0:
                if n <= 4:
                    best, best_at = top_entry(table, slots, best, best_at)
                part += 1
                continue
            # More n-grams than the buckets let expect: once more, in more parts or with a larger table.
            part, best, best_at = 0, 1, first_word
            if slots < most:
                slots = min(most, 4 * slots)
            elif n <= 4:
                num_parts *= 2
            else:
                most = 2 * most
                table = np.empty(most, np.uint64)
                slots = most
        if n <= 4:
            row[TOP_2_GRAM + n - 2] = best * gram_characters(data, start, size, classes, boundaries, best_at, n)
        else:
            row[TOP_2_GRAM + n - 2] = found[2]
        found[1] = next_buckets
