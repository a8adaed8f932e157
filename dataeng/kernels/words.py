"""What a word is.

A *chunk* is a run of characters that are not white space (``str.split``). With ``words="whitespace"`` (Gopher paper,
Dolma) a chunk is a word. With ``words="split"`` chunks are cut further, by the rules of spaCy's tokenizer for English
(MIT, ``spacy/lang/punctuation.py``), which is what datatrove and FineWeb count with:

* punctuation, quotes, symbols and emoji are cut off both ends, one word each; a run of periods is one word;
* a final period stays with a single capital ("J.") and is cut off after anything else;
* ``'s`` is cut off the end; so are units, ``%``, ``+`` and currency signs after a digit;
* inside, a chunk is cut at ellipses, symbols, hyphens before a letter, commas and ``: < > = /`` between letters,
  operators between digits, and a period between a lower-case and an upper-case letter; web addresses are left whole.

spaCy's special cases go first: contractions ("do" + "n't", "can" + "not"), abbreviations ("e.g.", "Mr.") and emoticons,
see `dataeng.kernels.special_cases`. Not reproduced: currency names of several letters, and the rarer parts of its
pattern for web addresses.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.characters import (
    ALPHA,
    BEFORE_PERIOD,
    CURRENCY,
    DIGIT,
    ICON,
    INFIX,
    LOWER,
    PREFIX,
    QUOTE,
    SUFFIX,
    UPPER,
)
from dataeng.kernels.compiling import called, inlined
from dataeng.kernels.special_cases import MAX_PIECES, MAX_SPECIAL_BYTES, special_case
from dataeng.kernels.text import decode, hash_bytes, previous_character, signed


@inlined
def kind_at(data: NDArray[np.uint8], i: int, stop: int, classes: NDArray[np.uint16]) -> int:
    """Returns the class bits of the character that starts at byte ``i``."""
    if data[i] < 128:
        return signed(classes[data[i]])
    return signed(classes[decode(data, i, stop)[0]])


@inlined
def character_bytes(byte: int) -> int:
    """Returns how many bytes a character has that starts with this one."""
    if byte < 128:
        return 1
    if byte < 0xE0:
        return 2
    return 3 if byte < 0xF0 else 4


@inlined
def is_apostrophe(data: NDArray[np.uint8], i: int, stop: int) -> int:
    """Returns the bytes of ``'`` or ``’`` at ``i``, or 0."""
    if data[i] == 39:
        return 1
    if i + 3 <= stop and data[i] == 0xE2 and data[i + 1] == 0x80 and data[i + 2] == 0x99:
        return 3
    return 0


@inlined
def run_of(data: NDArray[np.uint8], i: int, stop: int, byte: int) -> int:
    """Returns where the run of ``byte`` that starts at ``i`` ends."""
    while i < stop and data[i] == byte:
        i += 1
    return i


_UNITS = (
    "km m dm cm mm ha nm yd in ft kg g mg t lb oz m/s km/h kmh mph hPa Pa mbar mb MB kb KB gb GB tb TB T G M K % "
    "km² km³ m² m³ dm² dm³ cm² cm³ mm² mm³ µm µg км м дм см мм нм кг г мг Па Кб КБ кб Мб МБ мб Гб ГБ гб Тб ТБ тб"
)
UNITS = np.array(
    sorted(int.from_bytes(unit.encode(), "little") for unit in _UNITS.split() if len(unit.encode()) <= 8), np.uint64
)


@called
def unit_start(data: NDArray[np.uint8], start: int, stop: int) -> int:
    """Returns where a unit of measure that ends the piece starts, if a digit stands right before it; else ``stop``."""
    i, packed = stop, np.uint64(0)
    while i > start and stop - i < 8 and not 48 <= data[i - 1] <= 57:
        i -= 1
        packed = (packed << np.uint64(8)) | np.uint64(data[i])
    if i == start or i == stop or not 48 <= data[i - 1] <= 57:
        return stop
    for k in range(UNITS.shape[0]):
        if UNITS[k] == packed:
            return i
    return stop


@called
def suffix_start(data: NDArray[np.uint8], start: int, stop: int, classes: NDArray[np.uint16]) -> int:
    """Returns where the last suffix of ``data[start:stop]`` starts, or ``stop`` if there is none."""
    at = previous_character(data, stop, start)
    kind = kind_at(data, at, stop, classes)
    if kind & SUFFIX:
        return at
    byte = data[at]
    if byte == 46:
        run = at
        while run > start and data[run - 1] == 46:
            run -= 1
        if at > run:  # "..": one ellipsis
            return run
        if at == start:
            return stop
        before = previous_character(data, at, start)
        kind = kind_at(data, before, at, classes)
        if kind & BEFORE_PERIOD:
            return at
        if kind & UPPER and before > start:
            before = previous_character(data, before, start)
            if kind_at(data, before, at, classes) & UPPER:
                return at
        return stop
    if (byte == 115 or byte == 83) and at > start:  # 's
        quote = previous_character(data, at, start)
        if is_apostrophe(data, quote, stop):
            return quote
    if at > start and data[at - 1] >= 48 and data[at - 1] <= 57 and (kind & CURRENCY or byte == 43):
        return at
    return unit_start(data, start, stop)


@called
def is_address(data: NDArray[np.uint8], start: int, stop: int, classes: NDArray[np.uint16]) -> bool:
    """Whether the piece looks like a web or mail address, by the gist of spaCy's ``URL_PATTERN``.

    Scheme and user are optional; then labels of letters, digits, ``-`` and ``_`` with periods between; the last label
    has two or more lower-case letters; then the end, a port or a path.
    """
    i = start
    for j in range(start, stop - 2):
        if data[j] == 58 and data[j + 1] == 47 and data[j + 2] == 47:
            if j < start + 2:
                return False
            i = j + 3
            break
        scheme = data[j] == 43 or data[j] == 45 or data[j] == 46 or data[j] == 95
        if not scheme and not kind_at(data, j, stop, classes) & (ALPHA | DIGIT) and data[j] & 0xC0 != 0x80:
            break
    for j in range(i, stop):
        if data[j] == 47:
            break
        if data[j] == 64:
            i = j + 1
            break
    labels, label_start, label_chars, lower_only = 0, i, 0, True
    while i < stop:
        byte = data[i]
        if byte == 46:
            if i == label_start or data[i - 1] == 45 or data[i - 1] == 95:
                return False
            labels += 1
            label_start, label_chars, lower_only = i + 1, 0, True
            i += 1
            continue
        kind = kind_at(data, i, stop, classes)
        inner = byte == 45 or byte == 95
        if inner and i == label_start:
            return False
        if not inner and byte < 128 and not kind & (ALPHA | DIGIT):
            break
        lower_only = lower_only and kind & LOWER != 0
        label_chars += 1
        i += character_bytes(byte)
    if labels == 0 or label_chars < 2 or not lower_only:
        return False
    if i < stop and data[i] == 58:  # a port
        port = i + 1
        while i + 1 < stop and 48 <= data[i + 1] <= 57:
            i += 1
        i += 1
        if i - port < 2 or i - port > 5:
            return False
    return i >= stop or data[i] == 47 or data[i] == 63 or data[i] == 35


@called
def infix_end(data: NDArray[np.uint8], i: int, start: int, stop: int, before: int, classes: NDArray[np.uint16]) -> int:
    """Returns where an infix that starts at byte ``i`` ends, or ``i`` if none does.

    Args:
      start, stop: the piece between prefixes and suffixes.
      before: class bits of the character before ``i``, 0 at the start.
    """
    byte = data[i]
    size = character_bytes(byte)
    kind = kind_at(data, i, stop, classes)
    code_point = decode(data, i, stop)[0] if byte >= 128 else signed(byte)
    if kind & ICON or code_point == 0x2026:
        return i + size
    if byte == 46:
        end = run_of(data, i, stop, 46)
        if end - i >= 2:
            return end
    end = i + size
    if end >= stop:
        return i
    after = kind_at(data, end, stop, classes)
    if before & DIGIT and (after & DIGIT or data[end] == 45) and (byte == 43 or byte == 45 or byte == 42 or byte == 94):
        return end
    if byte == 46:
        return end if before & (LOWER | QUOTE) and after & (UPPER | QUOTE) else i
    if byte == 44:
        return end if before & ALPHA and after & ALPHA else i
    if not before & (ALPHA | DIGIT):
        return i
    if byte == 58 or byte == 60 or byte == 62 or byte == 61 or byte == 47:
        return end if after & ALPHA else i
    if byte == 45 or byte == 126 or code_point == 0x2013 or code_point == 0x2014:
        if byte == 45:  # "-", "--" or "---"
            end = run_of(data, i, min(stop, i + 3), 45)
        elif code_point == 0x2014 and not after & ALPHA and end + 3 <= stop and decode(data, end, stop)[0] == 0x2014:
            end += 3
        if end < stop and kind_at(data, end, stop, classes) & ALPHA:
            return end
    return i


@inlined
def special_at(data: NDArray[np.uint8], start: int, stop: int) -> int:
    """Returns what `special_case` says of ``data[start:stop]``."""
    if stop <= start or stop - start > MAX_SPECIAL_BYTES:
        return 0
    return special_case(hash_bytes(data, start, stop))


@inlined
def cut_special(special: int, start: int, stop: int, cuts: NDArray[np.int32], num_pieces: int) -> int:
    """Appends the words of a special case between ``start`` and ``stop`` (from the chunk's start)."""
    first, second = (special >> 8) & 255, (special >> 16) & 255
    if first:
        cuts[num_pieces] = start + first
        num_pieces += 1
    if second:
        cuts[num_pieces] = start + second
        num_pieces += 1
    cuts[num_pieces] = stop
    return num_pieces + 1


@inlined
def prefix_end(data: NDArray[np.uint8], i: int, stop: int, classes: NDArray[np.uint16]) -> int:
    """Returns where the prefix that starts at byte ``i`` ends, or ``i`` if there is none."""
    if data[i] == 46:
        end = run_of(data, i, stop, 46)
        return end if end - i >= 2 else i
    end = i + character_bytes(data[i])
    if not kind_at(data, i, stop, classes) & PREFIX or (data[i] == 43 and end < stop and 48 <= data[end] <= 57):
        return i
    return end


@called
def split_chunk(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    classes: NDArray[np.uint16],
    cuts: NDArray[np.int32],
    suffixes: NDArray[np.int32],
) -> int:
    """Cuts a chunk into words as the module's description says.

    Args:
      cuts: filled with where each word ends, from ``start``; ``suffixes``: scratch; both have room for all bytes.

    Returns:
      the number of words.
    """
    special = special_at(data, start, stop)
    if special:
        return cut_special(special, 0, stop - start, cuts, 0)
    num_pieces, num_suffixes = 0, 0
    i, end = start, stop
    # A prefix and a suffix at a time, until what is between them is a special case or has neither.
    while i < end and not special:
        after = prefix_end(data, i, end, classes)
        if after > i:
            special = special_at(data, after, end)
            if special:
                cuts[num_pieces] = after - start
                num_pieces += 1
                i = after
                break
        before = suffix_start(data, after, end, classes) if after < end else end
        if before < end:
            special = special_at(data, i, before)
            if special:
                suffixes[num_suffixes] = end - start
                num_suffixes += 1
                end = before
                break
        if after == i and before == end:
            break
        if after > i:
            cuts[num_pieces] = after - start
            num_pieces += 1
            i = after
        if before < end:
            suffixes[num_suffixes] = end - start
            num_suffixes += 1
            end = before
        special = special_at(data, i, end)
    if special:
        num_pieces = cut_special(special, i - start, end - start, cuts, num_pieces)
    elif i < end:
        num_pieces = split_middle(data, i, end, start, classes, cuts, num_pieces)
    for k in range(num_suffixes - 1, -1, -1):
        cuts[num_pieces] = suffixes[k]
        num_pieces += 1
    return join_pieces(data, start, cuts, num_pieces)


@called
def join_pieces(data: NDArray[np.uint8], start: int, cuts: NDArray[np.int32], num_pieces: int) -> int:
    """Joins pieces that side by side are a special case of one word, the longest first; returns how many are left."""
    longest = 0
    first = 0
    for i in range(num_pieces):
        for n in range(2, min(MAX_PIECES, num_pieces - i) + 1):
            if cuts[i + n - 1] - first > MAX_SPECIAL_BYTES:
                break
            if special_at(data, start + first, start + cuts[i + n - 1]) >> 24 == n:
                longest = max(longest, n)
        first = cuts[i]
    # Rarely any, and each length finds at least one piece: few rounds.
    for n in range(longest, 1, -1):
        kept, first, i = 0, 0, 0
        while i < num_pieces:
            last = i + n - 1
            if (
                last < num_pieces
                and cuts[last] - first <= MAX_SPECIAL_BYTES
                and special_at(data, start + first, start + cuts[last]) >> 24 == n
            ):
                i = last
            cuts[kept] = cuts[i]
            first = cuts[i]
            kept += 1
            i += 1
        num_pieces = kept
    return num_pieces


@called
def split_middle(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    origin: int,
    classes: NDArray[np.uint16],
    cuts: NDArray[np.int32],
    num_pieces: int,
) -> int:
    """Cuts what is left of a chunk, which starts at ``origin``, between its prefixes and suffixes."""
    piece, before, i = start, 0, start
    looked_for_address = False
    while i < stop:
        kind = kind_at(data, i, stop, classes)
        size = character_bytes(data[i])
        if kind & INFIX:
            end = infix_end(data, i, start, stop, before, classes)
            if end > i and not looked_for_address:
                looked_for_address = True
                if is_address(data, start, stop, classes):
                    break
            if end > i:
                if i > piece:
                    cuts[num_pieces] = i - origin
                    num_pieces += 1
                cuts[num_pieces] = end - origin
                num_pieces += 1
                before = kind_at(data, previous_character(data, end, start), stop, classes)
                piece = i = end
                continue
        before = kind
        i += size
    if stop > piece:
        cuts[num_pieces] = stop - origin
        num_pieces += 1
    return num_pieces
