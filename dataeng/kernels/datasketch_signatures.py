"""MinHash signatures equal to datasketch's, so that stored ones load into ``datasketch.MinHash`` and its LSH.

A shingle is its words joined by one space (or a run of characters), in UTF-8; its hash is the first 4 or 8 bytes of its
SHA-1, little-endian, as ``datasketch.hashfunc.sha1_hash32`` and ``sha1_hash64``. Permutations are drawn by NumPy's
`RandomState`, whose streams never change. datasketch (MIT, ``datasketch/minhash.py``) has three schemes:

- ``affine32``, its default since 2.0: ``a * fmix32(h) + b`` modulo 2^32, with MurmurHash3's finalizer;
- ``affine64``: the same with 64 bits, of `sha1_hash64`;
- ``legacy``, the only one before 2.0: ``((a * h + b) mod 2^64) mod (2^61 - 1)``, the lower 32 bits.

    datasketch.MinHash(hashvalues=signatures.minima[i], seed=seed, scheme=scheme)    # before 2.0 without `scheme`
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, inlined, kernel
from dataeng.kernels.folding import Normalization, Unit, normalise
from dataeng.kernels.hashing import final_mix
from dataeng.kernels.minhash import Signatures, take_minima
from dataeng.kernels.sha1 import LANES, SCRATCH_ROWS, sha1_heads
from dataeng.kernels.shingles import check_shingling
from dataeng.kernels.text import TextBuffers

Scheme = Literal["affine32", "affine64", "legacy"]
SCHEMES: tuple[Scheme, ...] = ("affine32", "affine64", "legacy")

MERSENNE_PRIME = np.uint64((1 << 61) - 1)
LOW_32 = np.uint64(0xFFFFFFFF)
S61 = np.uint64(61)
S13_32, S16_32 = np.uint32(13), np.uint32(16)
FMIX32_1, FMIX32_2 = np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)
SPACE = 32

#: Shingles that are hashed before they are permuted.
CHUNK = 1024


class DatasketchPermutations(NamedTuple):
    """The hash functions of a `datasketch.MinHash`: its ``permutations`` are ``(a, b)``."""

    a: NDArray[Any]  # [num_perm]: uint32 (affine32) or uint64
    b: NDArray[Any]
    scheme: Scheme


def datasketch_permutations(num_perm: int = 128, seed: int = 1, scheme: Scheme = "affine32") -> DatasketchPermutations:
    """Draws the permutations of ``datasketch.MinHash(num_perm, seed, scheme=scheme)``."""
    if scheme not in SCHEMES:
        raise ValueError(f"unknown scheme {scheme!r}; known: {', '.join(SCHEMES)}")
    if num_perm < 1:
        raise ValueError(f"num_perm must be at least 1, got {num_perm}")
    random = np.random.RandomState(seed)
    if scheme == "legacy":
        # One pair after the other, in this order.
        pairs = [
            (random.randint(1, MERSENNE_PRIME, dtype=np.uint64), random.randint(0, MERSENNE_PRIME, dtype=np.uint64))
            for _ in range(num_perm)
        ]
        first, second = np.array(pairs, np.uint64).T
        return DatasketchPermutations(np.ascontiguousarray(first), np.ascontiguousarray(second), scheme)
    bits, number = (32, np.uint32) if scheme == "affine32" else (64, np.uint64)
    a = random.randint(0, 1 << (bits - 1), num_perm, dtype=number) * number(2) + number(1)
    b = random.randint(0, 1 << bits, num_perm, dtype=number)
    return DatasketchPermutations(a, b, scheme)


@inlined
def fmix32(value: np.uint64) -> np.uint32:
    """MurmurHash3's finalizer of 32 bits."""
    mixed = np.uint32(value)
    mixed = np.uint32(np.uint32(mixed ^ (mixed >> S16_32)) * FMIX32_1)
    mixed = np.uint32(np.uint32(mixed ^ (mixed >> S13_32)) * FMIX32_2)
    return np.uint32(mixed ^ (mixed >> S16_32))


@called
def take_legacy_minima(
    heads: NDArray[np.uint64], count: int, a: NDArray[np.uint64], b: NDArray[np.uint64], signature: NDArray[np.uint32]
) -> None:
    for i in range(count):
        value = heads[i] & LOW_32
        for k in range(signature.shape[0]):
            product = a[k] * value + b[k]
            # x mod (2^61 - 1): 2^61 is 1, so the upper three bits are added to the rest.
            folded = (product & MERSENNE_PRIME) + (product >> S61)
            if folded >= MERSENNE_PRIME:
                folded -= MERSENNE_PRIME
            signature[k] = min(np.uint32(folded & LOW_32), signature[k])


@inlined
def after_element(data: NDArray[np.uint8], i: int, stop: int, by_words: bool) -> int:
    """Returns where the word or character that begins at ``i`` ends."""
    i += 1
    if by_words:
        while i < stop and data[i] != SPACE:
            i += 1
    else:
        while i < stop and data[i] & 0xC0 == 0x80:
            i += 1
    return i


@called
def list_shingles(
    data: NDArray[np.uint8], oldest: int, end: int, stop: int, by_words: bool,
    starts: NDArray[np.int64], stops: NDArray[np.int64],
) -> tuple[int, int, int]:  # fmt: skip
    """Writes where shingles begin and end, until the text or the arrays do.

    Args:
      oldest: where the first shingle begins.
      end: where it ends.

    Returns:
      ``oldest`` and ``end`` of the next shingle (-1: there is none), and how many were written.
    """
    between = 1 if by_words else 0
    count = 0
    while count < starts.shape[0]:
        starts[count], stops[count] = oldest, end
        count += 1
        if end >= stop:
            return oldest, -1, count
        oldest = after_element(data, oldest, stop, by_words) + between
        end = after_element(data, end + between, stop, by_words)
    return oldest, end, count


@inlined
def first_shingle_end(data: NDArray[np.uint8], start: int, stop: int, by_words: bool, ngram: int) -> int:
    """Returns where the first shingle of a text ends; -1: it has none."""
    between = 1 if by_words else 0
    end = start - between
    for _ in range(ngram):
        if end + between >= stop:
            return -1
        end = after_element(data, end + between, stop, by_words)
    return end


@kernel
def sign_like_datasketch(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    by_words: bool,
    ngram: int,
    a: NDArray[Any],
    b: NDArray[Any],
    legacy: bool,
    signatures: NDArray[Any],
    num_shingles: NDArray[np.int64],
) -> None:
    starts, stops = np.empty(CHUNK, np.int64), np.empty(CHUNK, np.int64)
    heads = np.empty(CHUNK, np.uint64)
    hashes = np.empty(CHUNK, signatures.dtype)
    scratch = np.zeros((SCRATCH_ROWS, LANES), np.uint32)
    for text in range(offsets.shape[0] - 1):
        oldest, stop = offsets[text], offsets[text + 1]
        end = first_shingle_end(data, oldest, stop, by_words, ngram)
        found = 0
        while end >= 0:
            oldest, end, count = list_shingles(data, oldest, end, stop, by_words, starts, stops)
            found += count
            for first in range(0, count, LANES):
                sha1_heads(data, starts, stops, first, min(LANES, count - first), scratch, heads)
            if legacy:
                take_legacy_minima(heads, count, a, b, signatures[text])
            else:
                for k in range(count):
                    hashes[k] = fmix32(heads[k]) if signatures.itemsize == 4 else final_mix(heads[k])
                take_minima(hashes, 0, count, a, b, signatures[text])
        num_shingles[text] = found


def datasketch_minhash(
    texts: TextBuffers,
    functions: DatasketchPermutations,
    *,
    ngram: int = 5,
    unit: Unit = "words",
    normalization: Normalization = "simplified",
) -> Signatures:
    """Returns the signatures that ``datasketch.MinHash`` has after an update with every shingle of a text.

    Minima are uint32 (``affine32``; ``legacy``, whose values datasketch keeps in uint64 but which fit) or uint64
    (``affine64``); they are all ones where a text has no shingle. With ``normalization="none"``, shingles are
    ``" ".join(text.split()[i:i + ngram])``, or ``text[i:i + ngram]`` for characters.

    Memory besides the result: the normalised texts, and some 50 kB.
    """
    check_shingling(ngram, unit)
    shingled = normalise(texts, normalization, unit)
    minima = np.full(
        (texts.num_texts, len(functions.a)), -1, np.int64 if functions.scheme == "affine64" else np.int32
    ).view(np.uint64 if functions.scheme == "affine64" else np.uint32)
    num_shingles = np.empty(texts.num_texts, np.int64)
    sign_like_datasketch(
        shingled.data, shingled.offsets, unit == "words", ngram, functions.a, functions.b,
        functions.scheme == "legacy", minima, num_shingles,
    )  # fmt: skip
    return Signatures(minima, num_shingles)


def warm_up() -> None:
    """Compiles the kernels or loads them from the cache."""
    import polars as pl

    from dataeng.kernels.text import text_buffers

    texts = text_buffers(pl.Series(["one two three"], dtype=pl.String))
    for scheme in SCHEMES:
        datasketch_minhash(texts, datasketch_permutations(4, scheme=scheme), ngram=2)
