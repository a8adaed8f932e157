"""Noising, against a slow reference that draws the same numbers, and against what the papers say of the result."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from math import comb

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.kernels.noising import Noised, corrupt_spans, count_spans, mask_tokens, max_spans

MASK = (1 << 64) - 1
S0, END, BETWEEN, BEFORE, MASKED = 1000, 900, 901, 902, 903


class Numbers:
    """The sequence of numbers in [0, 1) that a document draws."""

    def __init__(self, key: int) -> None:
        self.state = key

    def __call__(self) -> float:
        self.state = x = (self.state + 0x9E3779B97F4A7C15) & MASK
        x = (x ^ (x >> 33)) * 0xFF51AFD7ED558CCD & MASK
        x = (x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53 & MASK
        return ((x ^ (x >> 33)) >> 11) / 2**53


def pieces_of(document: list[int], max_tokens: int) -> list[list[int]]:
    count = max(1, -(-len(document) // max_tokens))
    return [document[len(document) * p // count : len(document) * (p + 1) // count] for p in range(count)]


def composition(items: int, parts: int, draw: Numbers) -> list[int]:
    """Chooses parts - 1 of the items - 1 gaps, all choices being equally likely."""
    cuts, left = [], parts - 1
    for i in range(items - 1):
        if left and draw() * (items - 1 - i) < left:
            cuts.append(i + 1)
            left -= 1
    return [b - a for a, b in zip([0, *cuts], [*cuts, items], strict=True)]


def reference_spans(
    document: list[int], key: int, max_tokens: int, density: float, mean: float, between: int | None, before: int | None
) -> tuple[list[int], list[int]]:
    draw, tokens, mask = Numbers(key), [], []
    for piece in pieces_of(document, max_tokens):
        inputs, target = [] if before is None else [before], []
        if len(piece) < 2:
            inputs += piece
        else:
            noise = min(max(round(len(piece) * density), 1), len(piece) - 1)
            spans = min(max(round(noise / mean), 1), noise, len(piece) - noise)
            noise_sizes = composition(noise, spans, draw)
            rest = list(piece)
            for number, (kept, noised) in enumerate(
                zip(composition(len(piece) - noise, spans, draw), noise_sizes, strict=True)
            ):
                inputs += [*rest[:kept], S0 + number]
                target += [S0 + number, *rest[kept : kept + noised]]
                rest = rest[kept + noised :]
            assert not rest
        inputs += [] if between is None else [between]
        tokens += [*inputs, *target, END]
        mask += [0] * len(inputs) + [1] * len(target) + [int(bool(target))]
    return tokens, mask


def arrays(documents: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    flat = np.array([token for document in documents for token in document], np.int32)
    return flat, np.array([len(document) for document in documents], np.int32)


def split(noised: Noised) -> list[tuple[list[int], list[int]]]:
    stops = np.cumsum(noised.lengths)
    assert len(noised.tokens) == len(noised.mask) == (stops[-1] if len(stops) else 0)
    return [
        (noised.tokens[stop - size : stop].tolist(), noised.mask[stop - size : stop].tolist())
        for stop, size in zip(stops, noised.lengths, strict=True)
    ]


documents_of_tokens = st.lists(st.lists(st.integers(0, 899), max_size=40), max_size=5)


@settings(max_examples=200, deadline=None)
@given(
    documents=documents_of_tokens,
    seed=st.integers(0, MASK),
    max_tokens=st.integers(1, 50),
    density=st.floats(0.01, 0.99),
    mean=st.floats(1, 20),
    between=st.sampled_from([None, BETWEEN]),
    before=st.sampled_from([None, BEFORE]),
)
@example([[], [7], [1, 2]], 0, 512, 0.15, 3.0, None, None)
@example([list(range(30))], 0, 512, 0.5, 1.0, None, None)  # as many spans as can be
def test_span_corruption_is_the_reference_s(
    documents: list[list[int]], seed: int, max_tokens: int, density: float, mean: float, between: int | None,
    before: int | None,
) -> None:  # fmt: skip
    tokens, lengths = arrays(documents)
    keys = np.array([(seed + 77 * i) & MASK for i in range(len(documents))], np.uint64)
    sentinels = np.arange(S0, S0 + max_spans(max_tokens, density, mean), dtype=np.int32)
    noised = corrupt_spans(
        tokens, lengths, keys, max_tokens=max_tokens, density=density, mean_span=mean, sentinels=sentinels,
        before=before, between=between, after=END,
    )  # fmt: skip
    expected = [
        reference_spans(document, int(key), max_tokens, density, mean, between, before)
        for document, key in zip(documents, keys, strict=True)
    ]
    assert split(noised) == expected


def test_the_span_counts_are_those_of_t5() -> None:
    # What t5's random_spans_noise_mask computes at its defaults: 512 tokens, 77 of noise, in 26 spans.
    assert count_spans(512, 0.15, 3.0) == (77, 26)
    assert count_spans(2, 0.15, 3.0) == (1, 1) and count_spans(10, 0.99, 1.0) == (9, 1)
    assert max_spans(512, 0.15, 3.0) == 26 and max_spans(1, 0.15, 3.0) == 0


def test_all_ways_to_cut_are_equally_likely() -> None:
    count, size = 20_000, 8
    keys = np.arange(count, dtype=np.uint64) * np.uint64(0x5851F42D4C957F2D)
    tokens, lengths = arrays([list(range(size))] * count)
    noised = corrupt_spans(
        tokens, lengths, keys, max_tokens=size, density=0.5, mean_span=2.0,
        sentinels=np.array([S0, S0 + 1], np.int32), before=None, between=None, after=END,
    )  # fmt: skip
    ways = Counter(tuple(document) for document, _ in split(noised))
    # 4 tokens of noise in 2 spans, 4 kept in 2: 3 ways each.
    expected = Fraction(1, comb(3, 1) ** 2)
    assert len(ways) == 9
    assert all(abs(n / count - expected) < 0.01 for n in ways.values())


def reference_mask(
    document: list[int], key: int, max_tokens: int, rate: float, shares: tuple[float, float], ordinary: list[int],
    before: int | None,
) -> tuple[list[int], list[int]]:  # fmt: skip
    draw, tokens, mask = Numbers(key), [], []
    for piece in pieces_of(document, max_tokens):
        left = min(len(piece), max(1, round(len(piece) * rate)))
        inputs, labels = [], []
        for i, token in enumerate(piece):
            chosen = draw() * (len(piece) - i) < left
            if chosen:
                left -= 1
                way = draw()
                if way < shares[0]:
                    token = MASKED
                elif way < shares[0] + shares[1]:
                    token = ordinary[int(draw() * len(ordinary))]
            inputs.append(token)
            labels.append(int(chosen))
        begin = [] if before is None else [before]
        tokens += [*begin, *inputs, END, *begin, *piece, END]
        mask += [0] * (2 * len(begin) + len(piece) + 1) + [*labels, 0]
    return tokens, mask


@settings(max_examples=200, deadline=None)
@given(
    documents=documents_of_tokens,
    seed=st.integers(0, MASK),
    max_tokens=st.integers(1, 50),
    rate=st.floats(0.01, 0.99),
    shares=st.sampled_from([(0.8, 0.1), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)]),
    before=st.sampled_from([None, BEFORE]),
)
@example([[], [7]], 0, 512, 0.15, (0.8, 0.1), None)
def test_masking_is_the_reference_s(
    documents: list[list[int]], seed: int, max_tokens: int, rate: float, shares: tuple[float, float],
    before: int | None,
) -> None:  # fmt: skip
    tokens, lengths = arrays(documents)
    keys = np.array([(seed + 77 * i) & MASK for i in range(len(documents))], np.uint64)
    ordinary = np.array([3, 5, 8], np.int32)
    noised = mask_tokens(
        tokens, lengths, keys, max_tokens=max_tokens, rate=rate, mask_share=shares[0], random_share=shares[1],
        mask_id=MASKED, ordinary=ordinary, before=before, after=END,
    )  # fmt: skip
    assert split(noised) == [
        reference_mask(document, int(key), max_tokens, rate, shares, ordinary.tolist(), before)
        for document, key in zip(documents, keys, strict=True)
    ]


def test_masking_has_bert_s_shares() -> None:
    count, size = 200, 400
    keys = np.arange(count, dtype=np.uint64) * np.uint64(0x5851F42D4C957F2D)
    tokens, lengths = arrays([[1] * size] * count)
    noised = mask_tokens(
        tokens, lengths, keys, max_tokens=size, rate=0.15, mask_share=0.8, random_share=0.1, mask_id=MASKED,
        ordinary=np.array([2], np.int32), before=None, after=END,
    )  # fmt: skip
    found: Counter[int] = Counter()
    places = np.zeros(size)
    for document, mask in split(noised):
        labels = np.flatnonzero(mask)
        assert len(labels) == 60 and labels.min() > size  # exactly 15 %, all of them in the second half
        found.update(document[place - size - 1] for place in labels)
        places[labels - size - 1] += 1
    assert abs(found[MASKED] / 12_000 - 0.8) < 0.02 and abs(found[2] / 12_000 - 0.1) < 0.02
    assert abs(found[1] / 12_000 - 0.1) < 0.02
    assert abs(places.mean() - 30) < 1e-9 and places.max() < 60 and places.min() > 8  # no place is preferred
