from __future__ import annotations

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.kernels.hashing import hash_texts
from dataeng.kernels.text import text_buffers

MASK = (1 << 64) - 1


def reference(data: bytes, seed: int) -> tuple[int, int]:
    """MurmurHash3_x64_128, from the published C code."""

    def rotate(x: int, r: int) -> int:
        return ((x << r) | (x >> (64 - r))) & MASK

    def final(x: int) -> int:
        x = (x ^ (x >> 33)) * 0xFF51AFD7ED558CCD & MASK
        x = (x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53 & MASK
        return x ^ (x >> 33)

    c1, c2 = 0x87C37B91114253D5, 0x4CF5AD432745937F
    h1 = h2 = seed
    whole = len(data) // 16 * 16
    for i in range(0, whole, 16):
        k1, k2 = int.from_bytes(data[i : i + 8], "little"), int.from_bytes(data[i + 8 : i + 16], "little")
        h1 ^= rotate(k1 * c1 & MASK, 31) * c2 & MASK
        h1 = (rotate(h1, 27) + h2) * 5 + 0x52DCE729 & MASK
        h2 ^= rotate(k2 * c2 & MASK, 33) * c1 & MASK
        h2 = (rotate(h2, 31) + h1) * 5 + 0x38495AB5 & MASK
    tail = data[whole:]
    h2 ^= rotate(int.from_bytes(tail[8:], "little") * c2 & MASK, 33) * c1 & MASK
    h1 ^= rotate(int.from_bytes(tail[:8], "little") * c1 & MASK, 31) * c2 & MASK
    h1, h2 = h1 ^ len(data), h2 ^ len(data)
    h1 = h1 + h2 & MASK
    h2 = h2 + h1 & MASK
    h1, h2 = final(h1), final(h2)
    h1 = h1 + h2 & MASK
    return h1, h2 + h1 & MASK


def hashes(texts: list[str], seed: int = 0) -> list[tuple[int, int]]:
    high, low = hash_texts(text_buffers(pl.Series(texts, dtype=pl.String)), seed).tolist()
    return list(zip(high, low, strict=True))


def test_published_values() -> None:
    # mmh3.hash64("foo") and mmh3.hash128("foo", 42), as that package documents them.
    assert hashes(["foo"]) == [(-2129773440516405919 & MASK, 9128664383759220103)]
    assert hashes(["foo"], seed=42) == [
        (215966891540331383248189432718888555506 & MASK, 215966891540331383248189432718888555506 >> 64)
    ]


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(st.text(max_size=50), max_size=5), seed=st.integers(0, 2**32 - 1))
@example(texts=["", "a", "x" * 15, "x" * 16, "x" * 17, "é" * 40], seed=0)
def test_equals_the_plain_reference(texts: list[str], seed: int) -> None:
    assert hashes(texts, seed) == [reference(text.encode(), seed) for text in texts]


def test_no_collisions_among_similar_texts() -> None:
    texts = [f"{a}{'x' * b}{c}" for a in range(40) for b in range(50) for c in range(100)]
    found = hashes(texts)
    assert len(set(found)) == len(set(texts))
    for half in range(2):  # each half alone spreads well: the top 16 bits of 200,000 hashes hit nearly all values
        assert len({pair[half] >> 48 for pair in found}) > 0.9 * 65536


def test_seed_is_checked() -> None:
    with pytest.raises(ValueError, match="32-bit"):
        hashes(["a"], seed=-1)
