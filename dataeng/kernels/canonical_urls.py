"""Canonical keys of URLs: two URLs with the same key name the same page, as far as a URL can tell.

The input is what the WHATWG URL standard's serializer gives (``http://host/path?query#fragment``: ASCII, host in
lower case and Punycode, no default port, dot segments resolved). Of http and https URLs the key is
``host[:port][path][?query]``:

1. The scheme, user name and password, and the fragment are left out; so are ``www.`` before a host with a dot
   in it and the dot at the host's end.
2. Percent-encoding as in RFC 3986, section 6.2.2: what encodes a letter, a digit or one of ``-._~`` is decoded, hex
   digits are upper case, a percent sign that encodes nothing becomes ``%25``. In the query, ``+`` becomes ``%20``.
3. ``;jsessionid=…`` is cut out of the path, and slashes at its end are.
4. Query parameters: empty ones and those on the list given are left out, the rest is sorted by name; parameters of the
   same name stay in their order.

Of other schemes only the fragment is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.text import TextBuffers, hash_bytes, hash_word, signed

PERCENT, PLUS, SLASH, QUESTION, HASH, AMPERSAND, EQUALS = 37, 43, 47, 63, 35, 38, 61
AT, COLON, DOT, SEMICOLON, OPENING, CLOSING = 64, 58, 46, 59, 91, 93
JSESSIONID = np.frombuffer(b";jsessionid=", np.uint8)
WWW = np.frombuffer(b"www.", np.uint8)
HTTP = np.frombuffer(b"http://", np.uint8)
HTTPS = np.frombuffer(b"https://", np.uint8)
MAX_NAME_BYTES = 64
"""Names of listed parameters are not longer."""
GROWTH = 3
"""A key is at most so many times as long as the URL: one byte may become ``%25`` or ``%20``."""


class DroppedParameters(NamedTuple):
    """Names of query parameters that say nothing about the page, ready for the kernel."""

    names: NDArray[np.uint64]  # sorted hashes of whole names
    least_value: NDArray[np.int64]  # [names]: only if the value has so many letters and digits and nothing else
    prefixes: NDArray[np.uint8]  # beginnings of names, back to back
    prefix_ends: NDArray[np.int64]


def dropped_parameters(names: Iterable[tuple[str, int]]) -> DroppedParameters:
    """Prepares a list of parameters.

    Args:
      names: ASCII names without regard to case, each with the number of letters and digits that its value must have
        to be dropped (0: any value); a name that ends in ``*`` is a beginning.

    Raises:
      ValueError: a name is empty, too long or not ASCII.
    """
    exact: dict[int, int] = {}
    prefixes: list[bytes] = []
    for name, least in names:
        bare = name.removesuffix("*").lower()
        if not bare or not bare.isascii() or len(bare) > MAX_NAME_BYTES:
            raise ValueError(f"a query parameter's name must have 1 to {MAX_NAME_BYTES} ASCII characters, got {name!r}")
        if name.endswith("*"):
            prefixes.append(bare.encode())
        else:
            key = hash_word(bare.encode())
            exact[key] = min(least, exact.get(key, least))
    ordered = sorted(exact)
    return DroppedParameters(
        np.array(ordered, np.uint64),
        np.array([exact[key] for key in ordered], np.int64),
        np.frombuffer(b"".join(prefixes), np.uint8),
        np.cumsum([0, *map(len, prefixes)], dtype=np.int64),
    )


@inlined
def is_unreserved(byte: int) -> bool:
    if (97 <= byte <= 122) or (65 <= byte <= 90) or (48 <= byte <= 57):
        return True
    return byte == 45 or byte == 46 or byte == 95 or byte == 126


@inlined
def hex_digit(byte: int) -> int:
    """Returns the value of a hex digit, or -1."""
    if 48 <= byte <= 57:
        return byte - 48
    byte |= 32
    return byte - 87 if 97 <= byte <= 102 else -1


@inlined
def upper_hex(value: int) -> int:
    return value + 48 if value < 10 else value + 55


@inlined
def lower_case(byte: int) -> int:
    return byte + 32 if 65 <= byte <= 90 else byte


@called
def starts_with(data: NDArray[np.uint8], start: int, stop: int, beginning: NDArray[np.uint8]) -> bool:
    """Whether ``data[start:stop]`` starts with ``beginning`` (lower case), without regard to case."""
    if stop - start < beginning.shape[0]:
        return False
    for j in range(beginning.shape[0]):
        if lower_case(signed(data[start + j])) != signed(beginning[j]):
            return False
    return True


@called
def normalize_percents(data: NDArray[np.uint8], start: int, stop: int, out: NDArray[np.uint8]) -> int:
    """Writes ``data[start:stop]`` with percent-encoding normalised; returns its length."""
    size = 0
    in_query = False
    i = start
    while i < stop:
        byte = signed(data[i])
        if byte == PERCENT:
            high = hex_digit(signed(data[i + 1])) if i + 2 < stop else -1
            low = hex_digit(signed(data[i + 2])) if i + 2 < stop else -1
            value = high * 16 + low if high >= 0 and low >= 0 else -1
            if value >= 0 and is_unreserved(value):
                out[size] = value
                size += 1
            else:
                out[size] = PERCENT
                out[size + 1] = upper_hex(high) if value >= 0 else 50
                out[size + 2] = upper_hex(low) if value >= 0 else 53
                size += 3
            i += 3 if value >= 0 else 1
            continue
        if byte == PLUS and in_query:
            out[size] = PERCENT
            out[size + 1] = 50
            out[size + 2] = 48
            size += 3
        else:
            in_query = in_query or byte == QUESTION
            out[size] = byte
            size += 1
        i += 1
    return size


@called
def is_dropped(
    url: NDArray[np.uint8],
    start: int,
    stop: int,
    name: NDArray[np.uint8],
    names: NDArray[np.uint64],
    least_value: NDArray[np.int64],
    prefixes: NDArray[np.uint8],
    prefix_ends: NDArray[np.int64],
) -> bool:
    """Whether the parameter ``url[start:stop]`` is on the list; ``name`` is scratch of `MAX_NAME_BYTES`."""
    equals = start
    while equals < stop and url[equals] != EQUALS:
        equals += 1
    size = min(equals - start, MAX_NAME_BYTES)
    for j in range(size):
        name[j] = lower_case(signed(url[start + j]))
    for k in range(prefix_ends.shape[0] - 1):
        first = prefix_ends[k]
        length = prefix_ends[k + 1] - first
        same = length <= size
        for j in range(length if same else 0):
            same = same and name[j] == prefixes[first + j]
        if same:
            return True
    if size == 0 or equals - start > MAX_NAME_BYTES:
        return False
    key = hash_bytes(name, 0, size)
    place = np.searchsorted(names, key)
    if place == names.shape[0] or names[place] != key:
        return False
    if least_value[place] == 0:
        return True
    for j in range(equals + 1, stop):
        byte = signed(url[j])
        if not is_unreserved(byte) or byte == 45 or byte == 46 or byte == 95 or byte == 126:
            return False
    return bool(stop - equals - 1 >= least_value[place])


@called
def name_order(url: NDArray[np.uint8], first: int, first_stop: int, second: int, second_stop: int) -> bool:
    """Whether the first parameter's name sorts at or before the second's."""
    while True:
        a = signed(url[first]) if first < first_stop else EQUALS
        b = signed(url[second]) if second < second_stop else EQUALS
        if a == EQUALS or b == EQUALS:
            return a == EQUALS
        if a != b:
            return a < b
        first += 1
        second += 1


@called
def sort_by_name(
    url: NDArray[np.uint8], count: int, starts: NDArray[np.int64], stops: NDArray[np.int64], spare: NDArray[np.int64]
) -> None:
    """Sorts ``count`` parameters by name, stably, by merging: there are URLs with thousands of them."""
    width = 1
    while width < count:
        for low in range(0, count, 2 * width):
            middle = min(low + width, count)
            high = min(low + 2 * width, count)
            left, right = low, middle
            for k in range(low, high):
                from_left = right >= high
                if left < middle and right < high:
                    from_left = name_order(url, starts[left], stops[left], starts[right], stops[right])
                source = left if from_left else right
                if from_left:
                    left += 1
                else:
                    right += 1
                spare[2 * k] = starts[source]
                spare[2 * k + 1] = stops[source]
        for k in range(count):
            starts[k] = spare[2 * k]
            stops[k] = spare[2 * k + 1]
        width *= 2


@called
def write_host(url: NDArray[np.uint8], start: int, stop: int, out: NDArray[np.uint8], at: int) -> int:
    """Writes an authority without user, ``www.`` and final dot; returns where it ends in ``out``."""
    for i in range(start, stop):
        if url[i] == AT:
            start = i + 1
    host_stop = start
    if start < stop and url[start] == OPENING:  # an IPv6 address: colons are part of it
        while host_stop < stop and url[host_stop] != CLOSING:
            host_stop += 1
    while host_stop < stop and url[host_stop] != COLON:
        host_stop += 1
    port = host_stop
    while host_stop > start + 1 and url[host_stop - 1] == DOT:
        host_stop -= 1
    while starts_with(url, start, host_stop, WWW):
        has_dot = False
        for i in range(start + 4, host_stop):
            has_dot = has_dot or url[i] == DOT
        if not has_dot:
            break
        start += 4
    for i in range(start, host_stop):
        out[at] = url[i]
        at += 1
    for i in range(port, stop):
        out[at] = url[i]
        at += 1
    return at


@called
def write_path(url: NDArray[np.uint8], start: int, stop: int, out: NDArray[np.uint8], at: int) -> int:
    """Writes a path without session identifier and final slashes; returns where it ends in ``out``."""
    i = start
    first = at
    while i < stop:
        if url[i] == SEMICOLON and starts_with(url, i, stop, JSESSIONID):
            while i < stop and url[i] != SLASH:
                i += 1
            continue
        out[at] = url[i]
        at += 1
        i += 1
    while at > first and out[at - 1] == SLASH:
        at -= 1
    return at


@kernel
def canonicalize(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    names: NDArray[np.uint64],
    least_value: NDArray[np.int64],
    prefixes: NDArray[np.uint8],
    prefix_ends: NDArray[np.int64],
    out: NDArray[np.uint8],
    out_offsets: NDArray[np.int64],
) -> None:
    longest = 0
    for text in range(offsets.shape[0] - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    url = np.empty(GROWTH * longest + 1, np.uint8)
    name = np.empty(MAX_NAME_BYTES, np.uint8)
    starts, stops = np.empty(longest + 1, np.int64), np.empty(longest + 1, np.int64)
    spare = np.empty(2 * longest + 2, np.int64)
    at = 0
    out_offsets[0] = 0
    for text in range(offsets.shape[0] - 1):
        start, stop = offsets[text], offsets[text]
        while stop < offsets[text + 1] and data[stop] != HASH:
            stop += 1
        skip = 7 if starts_with(data, start, stop, HTTP) else (8 if starts_with(data, start, stop, HTTPS) else 0)
        if skip == 0:
            for i in range(start, stop):
                out[at] = data[i]
                at += 1
            out_offsets[text + 1] = at
            continue
        size = normalize_percents(data, start + skip, stop, url)
        host_stop = 0
        while host_stop < size and url[host_stop] != SLASH and url[host_stop] != QUESTION:
            host_stop += 1
        path_stop = host_stop
        while path_stop < size and url[path_stop] != QUESTION:
            path_stop += 1
        at = write_host(url, 0, host_stop, out, at)
        at = write_path(url, host_stop, path_stop, out, at)
        count = 0
        i = path_stop + 1
        while i < size:
            end = i
            while end < size and url[end] != AMPERSAND:
                end += 1
            if end > i and not is_dropped(url, i, end, name, names, least_value, prefixes, prefix_ends):
                starts[count] = i
                stops[count] = end
                count += 1
            i = end + 1
        if count > 1:
            sort_by_name(url, count, starts, stops, spare)
        for k in range(count):
            out[at] = QUESTION if k == 0 else AMPERSAND
            at += 1
            for i in range(starts[k], stops[k]):
                out[at] = url[i]
                at += 1
        out_offsets[text + 1] = at


def canonical_keys(hrefs: TextBuffers, dropped: DroppedParameters) -> TextBuffers:
    """Returns the canonical keys of serialized URLs, as a column of its own."""
    num_bytes = int(hrefs.offsets[-1] - hrefs.offsets[0])
    out = np.empty(GROWTH * num_bytes + hrefs.num_texts, np.uint8)
    out_offsets = np.empty(hrefs.num_texts + 1, np.int64)
    canonicalize(hrefs.data, hrefs.offsets, *dropped, out, out_offsets)
    return TextBuffers(out[: out_offsets[-1]], out_offsets)


def warm_up() -> None:
    """Compiles the kernel or loads it from the cache."""
    import polars as pl

    from dataeng.kernels.text import text_buffers

    canonical_keys(text_buffers(pl.Series(["http://a.b/?c=d"], dtype=pl.String)), dropped_parameters([("e", 0)]))
