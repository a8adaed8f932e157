from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.kernels.sha1 import LANES, SCRATCH_ROWS, sha1_heads

MESSAGES = st.lists(st.binary(max_size=200), min_size=1, max_size=LANES)


def heads_of(messages: list[bytes], first: int = 0) -> list[int]:
    ends = np.cumsum([0, *map(len, messages)])
    data = np.frombuffer(b"".join(messages), np.uint8)
    heads = np.zeros(len(messages), np.uint64)
    scratch = np.full((SCRATCH_ROWS, LANES), 0xABCDEF01, np.uint32)  # whatever was there before
    sha1_heads(data, ends[:-1].copy(), ends[1:].copy(), first, len(messages) - first, scratch, heads)
    return heads.tolist()


@settings(max_examples=300, deadline=None)
@given(messages=MESSAGES)
@example(messages=[b""])
@example(messages=[b"x" * size for size in (55, 56, 57, 63, 64, 65, 119, 120, 121, 127, 128, 129)])
def test_equals_hashlib(messages: list[bytes]) -> None:
    expected = [int.from_bytes(hashlib.sha1(message).digest()[:8], "little") for message in messages]
    assert heads_of(messages) == expected


def test_a_part_of_the_messages() -> None:
    found = heads_of([b"one", b"two", b"three"], first=1)
    assert found[0] == 0
    assert found[2] == int.from_bytes(hashlib.sha1(b"three").digest()[:8], "little")


def test_a_long_message_beside_short_ones() -> None:
    messages = [b"a", bytes(range(256)) * 5000, b"b" * 64]
    assert heads_of(messages) == [int.from_bytes(hashlib.sha1(m).digest()[:8], "little") for m in messages]
