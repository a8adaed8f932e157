"""SHA-1 (FIPS 180-4) of many short byte strings, as far as datasketch uses it: the first 8 bytes of the digest.

Several messages are hashed at a time, one in each lane of the processor's vectors: every step is a loop over lanes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import called, inlined

#: Messages at a time.
LANES = 16
BLOCK = 64
#: Rows of the scratch array: the message schedule, the running hash, and the working variables.
SCRATCH_ROWS = 16 + 5 + 5

INITIAL = np.array([0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0], np.uint32)
ROUND_CONSTANTS = np.array([0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6], np.uint32)


@inlined
def rotated(value: np.uint32, bits: int) -> np.uint32:
    return np.uint32(np.uint32(value << np.uint32(bits)) | np.uint32(value >> np.uint32(32 - bits)))


@inlined
def swapped(value: np.uint32) -> np.uint64:
    """Reverses the four bytes."""
    value = np.uint32(rotated(value, 8) & np.uint32(0x00FF00FF)) | np.uint32(rotated(value, 24) & np.uint32(0xFF00FF00))
    return np.uint64(value)


@called
def load_block(data: NDArray[np.uint8], start: int, size: int, block: int, words: NDArray[np.uint32], lane: int) -> None:
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


@called
def mix_blocks(scratch: NDArray[np.uint32]) -> None:
    """Takes the loaded block of every lane into its running hash: 80 rounds."""
    for lane in range(LANES):
        for v in range(5):
            scratch[21 + v, lane] = scratch[16 + v, lane]
    for t in range(80):
        place = t & 15
        # Which of the five rows is a, b, c, d, e turns round by round.
        a, b, c, d, e = (
            21 + (80 - t) % 5, 21 + (81 - t) % 5, 21 + (82 - t) % 5, 21 + (83 - t) % 5, 21 + (84 - t) % 5,
        )  # fmt: skip
        if t >= 16:
            w3, w8, w14 = (t - 3) & 15, (t - 8) & 15, (t - 14) & 15
            for lane in range(LANES):
                scratch[place, lane] = rotated(
                    scratch[w3, lane] ^ scratch[w8, lane] ^ scratch[w14, lane] ^ scratch[place, lane], 1
                )
        constant = ROUND_CONSTANTS[t // 20]
        if t < 20:
            for lane in range(LANES):
                chosen = scratch[d, lane] ^ (scratch[b, lane] & (scratch[c, lane] ^ scratch[d, lane]))
                scratch[e, lane] = np.uint32(
                    scratch[e, lane] + rotated(scratch[a, lane], 5) + chosen + constant + scratch[place, lane]
                )
                scratch[b, lane] = rotated(scratch[b, lane], 30)
        elif 40 <= t < 60:
            for lane in range(LANES):
                chosen = (scratch[b, lane] & scratch[c, lane]) | (scratch[d, lane] & (scratch[b, lane] | scratch[c, lane]))
                scratch[e, lane] = np.uint32(
                    scratch[e, lane] + rotated(scratch[a, lane], 5) + chosen + constant + scratch[place, lane]
                )
                scratch[b, lane] = rotated(scratch[b, lane], 30)
        else:
            for lane in range(LANES):
                chosen = scratch[b, lane] ^ scratch[c, lane] ^ scratch[d, lane]
                scratch[e, lane] = np.uint32(
                    scratch[e, lane] + rotated(scratch[a, lane], 5) + chosen + constant + scratch[place, lane]
                )
                scratch[b, lane] = rotated(scratch[b, lane], 30)
    for lane in range(LANES):
        for v in range(5):
            scratch[16 + v, lane] = np.uint32(scratch[16 + v, lane] + scratch[21 + v, lane])


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
