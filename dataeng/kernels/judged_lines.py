"""What is counted of a line once its end is known: C4's and FineWeb's line rules, bullets and ellipses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.characters import TERMINAL
from dataeng.kernels.compiling import called, inlined
from dataeng.kernels.counters import (
    BULLET_LINES,
    C4_CURLY,
    C4_JAVASCRIPT,
    C4_LINES,
    C4_LONG_WORD,
    C4_LOREM,
    C4_POLICY,
    C4_SENTENCES,
    C4_SHORT,
    C4_TERMINAL_SHIFT,
    ELLIPSIS_LINES,
    LINES,
    SHORT_LINES,
    TERMINAL_LINES,
    TEXT_LINES,
)
from dataeng.kernels.phrases import CURLY, JAVASCRIPT, LONG_WORD, LOREM, POLICY
from dataeng.kernels.text import decode, previous_character


@inlined
def ends_with_ellipsis(data: NDArray[np.uint8], start: int, stop: int) -> bool:
    """Whether ``data[start:stop]`` ends with ``...`` or ``…``."""
    if stop - start < 3:
        return False
    a, b, c = data[stop - 3], data[stop - 2], data[stop - 1]
    return bool((a == 46 and b == 46 and c == 46) or (a == 0xE2 and b == 0x80 and c == 0xA6))


@called
def without_citations(data: NDArray[np.uint8], start: int, stop: int) -> int:
    """Returns where ``data[start:stop]`` ends without the ``[12]``, ``[edit]`` and ``[citation needed]`` at its end."""
    while stop > start and data[stop - 1] == 93:
        i = stop - 2
        while i >= start and 48 <= data[i] <= 57:
            i -= 1
        if i >= start and data[i] == 91:
            stop = i
        elif stop - 6 >= start and is_word(data, stop - 6, EDIT):
            stop -= 6
        elif stop - 17 >= start and is_word(data, stop - 17, CITATION_NEEDED):
            stop -= 17
        else:
            break
    return stop


EDIT = np.frombuffer(b"[edit]", np.uint8)
CITATION_NEEDED = np.frombuffer(b"[citation needed]", np.uint8)


@inlined
def is_word(data: NDArray[np.uint8], i: int, word: NDArray[np.uint8]) -> bool:
    for j in range(word.shape[0]):
        if data[i + j] != word[j]:
            return False
    return True


@called
def judge_line(
    data: NDArray[np.uint8], first: int, last: int, words: int, flags: int, sentences: int, row: NDArray[np.int64]
) -> None:
    """Counts a line of `str.splitlines` whose stripped text is ``data[first:last]``; ``first < 0`` for a blank line.

    ``sentences`` is how often a new sentence started after the line's first.
    """
    row[LINES] += 1
    if first < 0:
        row[C4_SHORT] += 1
        return
    byte = data[first]
    if byte == 45 or (byte == 0xE2 and last - first >= 3 and data[first + 1] == 0x80 and data[first + 2] == 0xA2):
        row[BULLET_LINES] += 1
    if ends_with_ellipsis(data, first, last):
        row[ELLIPSIS_LINES] += 1
    # C4's line rules, in datatrove's order.
    if flags & LONG_WORD:
        row[C4_LONG_WORD] += 1
        return
    if words < 3:
        row[C4_SHORT] += 1
        return
    end = without_citations(data, first, last)
    terminal = False
    if end > first:
        byte = data[end - 1]
        terminal = (byte == 46 or byte == 63 or byte == 33 or byte == 34 or byte == 39) and not (
            byte == 46 and end - first >= 3 and data[end - 2] == 46 and data[end - 3] == 46
        )
    if flags & LOREM:
        row[C4_LOREM] += 1
        if terminal:
            row[C4_LOREM + C4_TERMINAL_SHIFT] += 1
    elif flags & JAVASCRIPT:
        row[C4_JAVASCRIPT] += 1
    elif flags & CURLY:
        row[C4_CURLY] += 1
        if terminal:
            row[C4_CURLY + C4_TERMINAL_SHIFT] += 1
    elif flags & POLICY:
        row[C4_POLICY] += 1
    else:
        row[C4_LINES] += 1
        row[C4_SENTENCES] += sentences + 1
        if terminal:
            row[C4_LINES + C4_TERMINAL_SHIFT] += 1
            row[C4_SENTENCES + C4_TERMINAL_SHIFT] += sentences + 1


@called
def finish_break_line(
    data: NDArray[np.uint8], start: int, stop: int, num_chars: int, classes: NDArray[np.uint16], row: NDArray[np.int64]
) -> None:
    """Counts a line between two ``\\n`` that has more than white space, as FineWeb's rules do."""
    row[TEXT_LINES] += 1
    row[SHORT_LINES] += num_chars <= 30
    at = previous_character(data, stop, start)
    byte = data[at]
    kind = classes[byte] if byte < 128 else classes[decode(data, at, stop)[0]]
    row[TERMINAL_LINES] += (kind & TERMINAL) != 0


@inlined
def breaks_line(byte: int, code_point: int) -> bool:
    """Whether `str.splitlines` ends a line at this white space (other than ``\\n``)."""
    if byte < 128:
        return 11 <= byte <= 13 or 28 <= byte <= 30
    return code_point == 0x85 or code_point == 0x2028 or code_point == 0x2029
