"""SHA-1 (FIPS 180-4) of many short byte strings, as far as datasketch uses it: the first 8 bytes of the digest.

Several messages are hashed at a time, one in each lane of the processor's vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, inlined

#: Messages at a time.
LANES = 16
BLOCK = 64
#: Rows of the scratch array: a block of every message, and the running hashes.
SCRATCH_ROWS = 16 + 5

INITIAL = np.array([0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0], np.uint32)
ROUND_CONSTANTS = (0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6)


@inlined
def rotated(value: np.uint32, bits: int) -> np.uint32:
    return np.uint32(np.uint32(value << np.uint32(bits)) | np.uint32(value >> np.uint32(32 - bits)))


@inlined
def swapped(value: np.uint32) -> np.uint64:
    """Reverses the four bytes."""
    value = np.uint32(rotated(value, 8) & np.uint32(0x00FF00FF)) | np.uint32(rotated(value, 24) & np.uint32(0xFF00FF00))
    return np.uint64(value)


@called
def load_block(
    data: NDArray[np.uint8], start: int, size: int, block: int, words: NDArray[np.uint32], lane: int
) -> None:
    """Writes one 64-byte block of a padded message as 16 big-endian words into a column of ``words``."""
    at = block * BLOCK
    for k in range(16):
        place = at + 4 * k
        word = np.uint32(0)
        if place + 4 <= size:
            for j in range(4):
                word = np.uint32(np.uint32(word << np.uint32(8)) | np.uint32(data[start + place + j]))
        elif place <= size:
            for j in range(size - place):
                word |= np.uint32(np.uint32(data[start + place + j]) << np.uint32(24 - 8 * j))
            word |= np.uint32(np.uint32(0x80) << np.uint32(24 - 8 * (size - place)))
        words[k, lane] = word
    if at + 56 > size:  # the length in bits ends the last block
        words[14, lane] = np.uint32((size >> 29) & 0xFFFFFFFF)
        words[15, lane] = np.uint32((size << 3) & 0xFFFFFFFF)


def _mix_blocks(typing_context: Any, scratch: Any) -> Any:
    """Takes the loaded block of every lane into its running hash: 80 rounds on vectors of `LANES` 32-bit numbers.

    Written in LLVM's own language: from loops over lanes it makes no vectors, as all rows are of one array.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir  # type: ignore[import-untyped]

        vector = ir.VectorType(ir.IntType(32), LANES)
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        rows = builder.bitcast(array.data, vector.as_pointer())

        def row(number: int) -> Any:
            return builder.gep(rows, [ir.Constant(ir.IntType(64), number)])

        def rotated(value: Any, bits: int) -> Any:
            left, right = (ir.Constant(vector, [n] * LANES) for n in (bits, 32 - bits))
            return builder.or_(builder.shl(value, left), builder.lshr(value, right))

        words = [builder.load(row(k), align=4) for k in range(16)]
        before = [builder.load(row(16 + k), align=4) for k in range(5)]
        a, b, c, d, e = before
        for t in range(80):
            if t >= 16:
                mixed = builder.xor(builder.xor(words[t - 3], words[t - 8]), builder.xor(words[t - 14], words[t - 16]))
                words.append(rotated(mixed, 1))
            if t < 20:
                chosen = builder.xor(d, builder.and_(b, builder.xor(c, d)))
            elif 40 <= t < 60:
                chosen = builder.or_(builder.and_(b, c), builder.and_(d, builder.or_(b, c)))
            else:
                chosen = builder.xor(builder.xor(b, c), d)
            constant = ir.Constant(vector, [ROUND_CONSTANTS[t // 20]] * LANES)
            added = builder.add(builder.add(e, words[t]), builder.add(chosen, constant))
            a, b, c, d, e = builder.add(rotated(a, 5), added), a, rotated(b, 30), c, d
        for k, value in enumerate((a, b, c, d, e)):
            builder.store(builder.add(before[k], value), row(16 + k), align=4)
        return context.get_dummy_value()

    return types.void(scratch), generate


mix_blocks: Callable[[NDArray[np.uint32]], None] = intrinsic(_mix_blocks)  # type: ignore[assignment]


@called
def sha1_heads(
    data: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64], first: int, count: int,
    scratch: NDArray[np.uint32], heads: NDArray[np.uint64],
) -> None:  # fmt: skip
    """Hashes messages ``first`` to ``first + count`` (at most `LANES`): the digests' first 8 bytes, little-endian.

    Lanes whose message has fewer blocks than the longest rest: a chunk takes as long as its longest message.

    Args:
      starts: [messages], and ``stops``: where each message lies in ``data``.
      scratch: [SCRATCH_ROWS, LANES].
      heads: [messages]; the lower 32 bits are datasketch's ``sha1_hash32``, all are its ``sha1_hash64``.
    """
    longest = 0
    for lane in range(count):
        longest = max(longest, (stops[first + lane] - starts[first + lane] + 8) // BLOCK + 1)
    for lane in range(LANES):
        for v in range(5):
            scratch[16 + v, lane] = INITIAL[v]
    for block in range(longest):
        for lane in range(count):
            size = stops[first + lane] - starts[first + lane]
            if block <= (size + 8) // BLOCK:
                load_block(data, starts[first + lane], size, block, scratch, lane)
        mix_blocks(scratch)
        for lane in range(count):
            size = stops[first + lane] - starts[first + lane]
            if block == (size + 8) // BLOCK:
                heads[first + lane] = swapped(scratch[16, lane]) | swapped(scratch[17, lane]) << np.uint64(32)
