"""Line removal of RefinedWeb, as DCLM reproduces it: what to keep of every text, copied into a new column.

Source: mlfoundations/dclm, ``baselines/mappers/modifiers.py``, the line modifiers in the order of
``dclm_baseline_refinedweb.yaml``. Each of them takes the text that the one before left, stripped, and so do these.
Lines are pieces between ``\n``.

Letters of phrases match in any ASCII case. (Python's regular expressions also fold U+212A, U+017F, U+0130 and U+0131
to ASCII letters; phrases spelled with those are not found here.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.lines import (
    ALPHANUMERIC,
    DECIMAL,
    NUMERAL,
    UPPERCASE,
    WHITE,
    Edited,
    character_table,
    class_at,
    count_words,
    exceeds_share,
    find_newline,
    series_of,
    skip_white,
    skip_white_back,
)
from dataeng.kernels.text import TextBuffers, previous_character

#: What is counted per text.
COUNTS = (
    "lines", "removed", "removed_uppercase", "removed_numeric", "removed_counter", "removed_short", "removed_phrase",
    "edited", "words_before", "words_after",
)  # fmt: skip

#: Why a page goes, by code; 0 stays.
REASONS = ("", "no_words", "no_lines", "words_removed")


class RefinedWebLimits(NamedTuple):
    """Thresholds of the RefinedWeb rules; a negative number is off."""

    max_uppercase_share: float
    max_numeric_share: float
    counters: bool
    min_line_words: int
    max_phrase_line_words: int
    """Phrases are cut out of lines with at most so many words."""
    max_removed_words_share: float


@called
def count_alphanumeric_words(data: NDArray[np.uint8], start: int, stop: int, white: NDArray[np.uint8]) -> int:
    """Returns words as fastText cuts them (at ASCII white space and NUL) that start with a letter or digit."""
    words, inside = 0, False
    for i in range(start, stop):
        byte = data[i]
        if byte <= 32 and (byte == 32 or 9 <= byte <= 13 or byte == 0):
            inside = False
        elif not inside:
            inside = True
            kind, _ = class_at(data, i, stop, white)
            words += (kind & ALPHANUMERIC) != 0
    return words


_COUNTED = "likes shares comments retweets reposts quotes bookmarks upvotes downvotes downloads views followers".split()
COUNTED = np.zeros((len(_COUNTED), 12), np.uint8)
for _i, _word in enumerate(_COUNTED):
    COUNTED[_i, : len(_word)] = np.frombuffer(_word.encode(), np.uint8)
COUNTED_BYTES = (COUNTED != 0).sum(axis=1)
ITEMS_IN_CART = np.frombuffer(b"items in cart", np.uint8)
READ_MORE = np.frombuffer(b"read more", np.uint8)
SIGN_IN = np.frombuffer(b"sign-in", np.uint8)


@inlined
def folded_at(data: NDArray[np.uint8], i: int, stop: int, word: NDArray[np.uint8], size: int) -> bool:
    """Whether the lower-case ``word[:size]`` stands at byte ``i`` in any ASCII case."""
    if i + size > stop:
        return False
    for j in range(size):
        byte = data[i + j]
        if 65 <= byte <= 90:
            byte |= np.uint8(32)
        if byte != word[j]:
            return False
    return True


@inlined
def skip_signs(data: NDArray[np.uint8], i: int, stop: int, white: NDArray[np.uint8]) -> int:
    r"""Returns the end of the run of ``\W`` at byte ``i``."""
    while i < stop:
        kind, size = class_at(data, i, stop, white)
        if kind & ALPHANUMERIC or data[i] == 95:
            return i
        i += size
    return i


@called
def is_counter(data: NDArray[np.uint8], start: int, stop: int, white: NDArray[np.uint8]) -> bool:
    r"""Whether a line is a number of likes or the like.

    DCLM's ``^\W*\d(?:,|\.|\d)*(?:K|k|M|m|B|b)?\s+(?:likes|…|followers)\W*$`` on the lower-cased line.
    """
    i = skip_signs(data, start, stop, white)
    if i == stop:
        return False
    kind, size = class_at(data, i, stop, white)
    if not kind & DECIMAL:
        return False
    while i < stop:
        kind, size = class_at(data, i, stop, white)
        if not (kind & DECIMAL or data[i] == 44 or data[i] == 46):
            break
        i += size
    if i < stop and data[i] < 128:
        letter = data[i] | np.uint8(32)
        if letter == 107 or letter == 109 or letter == 98:
            i += 1
    after = skip_white(data, i, stop, white)
    if after == i:
        return False
    for word in range(COUNTED.shape[0]):
        if folded_at(data, after, stop, COUNTED[word], COUNTED_BYTES[word]):
            return bool(skip_signs(data, after + COUNTED_BYTES[word], stop, white) == stop)
    return False


@inlined
def white_before(data: NDArray[np.uint8], start: int, i: int, white: NDArray[np.uint8]) -> int:
    r"""Returns where the ``\s?`` that ends at byte ``i`` begins."""
    if i <= start:
        return i
    at = previous_character(data, i, start)
    kind, _ = class_at(data, at, i, white)
    return at if kind & WHITE else i


@called
def cut_items_in_cart(data: NDArray[np.uint8], start: int, stop: int, white: NDArray[np.uint8]) -> int:
    r"""Removes ``\s?items in cart`` wherever it stands in ``data[start:stop]``, in place; returns the new end."""
    i, o = start, start
    while i < stop:
        if data[i] | 32 == 105 and folded_at(data, i, stop, ITEMS_IN_CART, 13):
            o = white_before(data, start, o, white)
            i += 13
            # What was just removed must not lend its place to the white space of the next match.
            while i < stop and data[i] | 32 == 105 and folded_at(data, i, stop, ITEMS_IN_CART, 13):
                i += 13
            continue
        data[o] = data[i]
        i += 1
        o += 1
    return o


@called
def read_more_start(data: NDArray[np.uint8], start: int, stop: int, white: NDArray[np.uint8]) -> int:
    r"""Returns where a final ``\s?Read more...`` begins, or ``stop``. The dots are any three characters, as in DCLM."""
    at = stop
    for _ in range(3):
        if at <= start:
            return stop
        at = previous_character(data, at, start)
    at -= 9
    if at < start or not folded_at(data, at, stop, READ_MORE, 9):
        return stop
    return white_before(data, start, at, white)


@called
def sign_in_end(data: NDArray[np.uint8], start: int, stop: int, white: NDArray[np.uint8]) -> int:
    r"""Returns where an initial ``Sign-in\s?`` ends, or ``start``."""
    if not folded_at(data, start, stop, SIGN_IN, 7):
        return start
    at = start + 7
    if at < stop:
        kind, size = class_at(data, at, stop, white)
        if kind & WHITE:
            at += size
    return at


@called
def strip_lines(
    data: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64], low: int, high: int,
    white: NDArray[np.uint8],
) -> tuple[int, int]:  # fmt: skip
    """``str.strip`` of lines ``low:high`` joined by ``\\n``; returns the new range."""
    while low < high:
        starts[low] = skip_white(data, starts[low], stops[low], white)
        if starts[low] < stops[low]:
            break
        low += 1
    while high > low:
        stops[high - 1] = skip_white_back(data, starts[high - 1], stops[high - 1], white)
        if starts[high - 1] < stops[high - 1]:
            break
        high -= 1
    return low, high


@called
def remove_lines_where(
    data: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64], low: int, high: int,
    rule: int, limit: float, white: NDArray[np.uint8], row: NDArray[np.int64],
) -> int:  # fmt: skip
    """Takes lines out of ``low:high`` by one rule (its column of `COUNTS`); returns the new ``high``."""
    kept = low
    for line in range(low, high):
        first, last = starts[line], stops[line]
        if first == last:
            remove = False
        elif rule == 2:
            remove = exceeds_share(data, first, last, UPPERCASE, limit, white)
        elif rule == 3:
            remove = exceeds_share(data, first, last, NUMERAL, limit, white)
        elif rule == 4:
            remove = is_counter(data, first, last, white)
        else:
            remove = count_words(data, first, last, int(limit), white) < limit
        if remove:
            row[rule] += 1
        else:
            starts[kept], stops[kept] = first, last
            kept += 1
    return kept


@called
def cut_phrases(
    data: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64], low: int, high: int,
    phrase: int, max_words: int, white: NDArray[np.uint8], row: NDArray[np.int64],
) -> int:  # fmt: skip
    """Cuts one phrase out of short lines, and removes those of which only white space is left."""
    kept = low
    for line in range(low, high):
        first, last = starts[line], stops[line]
        new_first, new_last = first, last
        if phrase == 1:
            new_last = read_more_start(data, first, last, white)
        elif phrase == 2:
            new_first = sign_in_end(data, first, last, white)
        elif has_items_in_cart(data, first, last):
            new_last = -1
        if (new_first != first or new_last != last) and count_words(
            data, first, last, max_words + 1, white
        ) <= max_words:
            if phrase == 0:
                new_last = cut_items_in_cart(data, first, last, white)
            if skip_white(data, new_first, new_last, white) < new_last:
                row[7] += 1
            first, last = new_first, new_last
        if starts[line] < stops[line] and skip_white(data, first, last, white) == last:
            row[6] += 1
            continue
        starts[kept], stops[kept] = first, last
        kept += 1
    return kept


@inlined
def has_items_in_cart(data: NDArray[np.uint8], start: int, stop: int) -> bool:
    for i in range(start, stop - 12):
        if data[i] | 32 == 105 and folded_at(data, i, stop, ITEMS_IN_CART, 13):
            return True
    return False


@kernel
def remove_refinedweb_kernel(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    white: NDArray[np.uint8],
    max_uppercase_share: float,
    max_numeric_share: float,
    counters: bool,
    min_line_words: int,
    max_phrase_line_words: int,
    max_removed_words_share: float,
    out: NDArray[np.uint8],
    out_offsets: NDArray[np.int64],
    counts: NDArray[np.int64],
    reasons: NDArray[np.uint8],
) -> None:
    most = 1
    for text in range(offsets.shape[0] - 1):
        lines = 1
        for i in range(offsets[text], offsets[text + 1]):
            lines += data[i] == 10
        most = max(most, lines)
    starts, stops = np.empty(most, np.int64), np.empty(most, np.int64)
    o = 0
    out_offsets[0] = 0
    for text in range(offsets.shape[0] - 1):
        begin, size = o, offsets[text + 1] - offsets[text]
        row = counts[text]
        row[:] = 0
        # The text is edited where it will stay, so that a line that loses a phrase in its middle needs no other place.
        for j in range(size):
            out[begin + j] = data[offsets[text] + j]
        end, high, i = begin + size, 0, begin
        while True:
            starts[high], stops[high] = i, find_newline(out, i, end)
            i = stops[high] + 1
            high += 1
            if i > end:
                break
        low, lines = 0, high
        row[0] = lines
        row[8] = count_alphanumeric_words(out, begin, end, white)
        if max_uppercase_share >= 0:
            high = remove_lines_where(out, starts, stops, low, high, 2, max_uppercase_share, white, row)
            low, high = strip_lines(out, starts, stops, low, high, white)
        if max_numeric_share >= 0:
            high = remove_lines_where(out, starts, stops, low, high, 3, max_numeric_share, white, row)
            low, high = strip_lines(out, starts, stops, low, high, white)
        if counters:
            high = remove_lines_where(out, starts, stops, low, high, 4, 0.0, white, row)
            low, high = strip_lines(out, starts, stops, low, high, white)
        if min_line_words >= 0:
            high = remove_lines_where(out, starts, stops, low, high, 5, float(min_line_words), white, row)
        if max_phrase_line_words >= 0:
            for phrase in range(3):
                high = cut_phrases(out, starts, stops, low, high, phrase, max_phrase_line_words, white, row)
                low, high = strip_lines(out, starts, stops, low, high, white)
        row[1] = row[2] + row[3] + row[4] + row[5] + row[6]
        for line in range(low, high):
            if line > low:
                out[o] = 10
                o += 1
            for j in range(stops[line] - starts[line]):
                out[o + j] = out[starts[line] + j]
            o += stops[line] - starts[line]
        row[9] = row[8] if o - begin == size else count_alphanumeric_words(out, begin, o, white)
        reason = 0
        if o == begin:
            reason = 2
        elif max_removed_words_share >= 0:
            if row[8] == 0:
                reason = 1
            elif (row[8] - row[9]) / row[8] > max_removed_words_share:
                reason = 3
        reasons[text] = reason
        if reason:
            o = begin
        out_offsets[text + 1] = o


def remove_refinedweb_lines(texts: TextBuffers, limits: RefinedWebLimits) -> Edited:
    """Removes and shortens lines as DCLM's reproduction of RefinedWeb does."""
    counts = np.empty((texts.num_texts, len(COUNTS)), np.int64)
    reasons = np.empty(texts.num_texts, np.uint8)
    out = np.empty(int(texts.offsets[-1] - texts.offsets[0]) + 1, np.uint8)
    offsets = np.empty(texts.num_texts + 1, np.int64)
    remove_refinedweb_kernel(
        texts.data, texts.offsets, character_table(), limits.max_uppercase_share, limits.max_numeric_share,
        limits.counters, limits.min_line_words, limits.max_phrase_line_words, limits.max_removed_words_share,
        out, offsets, counts, reasons,
    )  # fmt: skip
    return Edited(series_of(out, offsets), counts, reasons)


def warm_up() -> None:
    """Compiles the kernel or loads it from the cache."""
    import polars as pl

    from dataeng.kernels.text import text_buffers

    texts = text_buffers(pl.Series(["One line.\nAnother line."]))
    remove_refinedweb_lines(texts, RefinedWebLimits(0.5, 0.999999, True, 2, 10, 0.05))
