"""Rows read out of shards, against rows made of lists: tokens, labels, documents, whatever they cross."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.errors import FormatError
from dataeng.packing import reading
from dataeng.packing.reading import RowReader
from dataeng.packing.rows import METHODS, RowTable, pack_rows

PADDING = 3
VOCAB = 60_000


class Flat:
    """Tokens that are no array, but yield parts: what a Parquet pack gives."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self.values, self.dtype = values, values.dtype

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: slice) -> np.ndarray[Any, Any]:
        return self.values[index]


def shard_of(
    lengths: list[int], first: int, dtype: str, masked: bool, name: str = "00000", flat: bool = False
) -> SimpleNamespace:
    """A shard whose tokens count up from ``first``; every third does not count as a label if ``masked``."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = np.arange(first, first + offsets[-1]).astype(dtype)
    mask = (tokens % 3 != 0).astype(np.uint8) if masked else None
    return SimpleNamespace(
        tokens=Flat(tokens) if flat else tokens,
        lengths=np.array(lengths, np.int32),
        offsets=offsets,
        mask=Flat(mask) if flat and mask is not None else mask,
        folder=Path("packs/web"),
        name=name,
        path=Path(f"packs/web/{name}.bin"),
    )


def domain_of(
    draw: Any, first: int, dtype: str, length: int
) -> tuple[list[SimpleNamespace], RowTable, list[int] | None]:
    layout = draw(st.lists(st.lists(st.integers(0, 25), max_size=6), min_size=1, max_size=4))
    layout[0].append(draw(st.integers(1, 25)))
    masked = draw(st.lists(st.booleans(), min_size=len(layout), max_size=len(layout)))
    shards = []
    for lengths, has_mask in zip(layout, masked, strict=True):
        shards.append(shard_of(lengths, first, dtype, has_mask, name=f"{len(shards):05d}", flat=draw(st.booleans())))
        first += sum(lengths)
    order = draw(st.permutations(range(sum(map(len, layout))))) if draw(st.booleans()) else None
    method = draw(st.sampled_from(METHODS))
    chosen = None if order is None else np.array(order, np.int64)
    table = pack_rows(method, [shard.lengths for shard in shards], length, chosen, draw(st.integers(1, 20)))
    return shards, table, order


def expected_row(flat: list[tuple[int, int, int]], table: RowTable, row: int, length: int) -> tuple[list[int], ...]:
    """Tokens, labels and documents of a row, slowly; ``flat`` is the document, the id and the mask of every token."""
    if table.row_offsets is None:
        taken = flat[row * length : row * length + length + 1]
        groups = [document for document, _, _ in taken]
    else:
        taken, groups = [], []
        for piece in range(table.row_offsets[row], table.row_offsets[row + 1]):
            start, count = int(table.piece_starts[piece]), int(table.piece_lengths[piece])
            taken += flat[start : start + count]
            groups += [piece] * count
    tokens = [token for _, token, _ in taken]
    joined = table.waste.method == "concatenate"
    labels = [mask if joined or groups[i] == groups[i + 1] else 0 for i, (_, _, mask) in enumerate(taken[1:])]
    numbers: list[int] = []
    for i, group in enumerate(groups):
        numbers.append(0 if i == 0 else numbers[-1] + (group != groups[i - 1]))
    free = length + 1 - len(tokens)
    number = numbers[-1] + 1
    return tokens + [PADDING] * free, (labels + [0] * free)[:length], numbers + [number] * free


def flat_tokens(shards: list[SimpleNamespace]) -> list[tuple[int, int, int]]:
    found, document = [], 0
    for shard in shards:
        tokens = shard.tokens[0 : len(shard.tokens)].tolist()
        mask = [1] * len(tokens) if shard.mask is None else shard.mask[0 : len(tokens)].tolist()
        for first, last in zip(shard.offsets[:-1].tolist(), shard.offsets[1:].tolist(), strict=True):
            found += [
                (document, token, counts) for token, counts in zip(tokens[first:last], mask[first:last], strict=True)
            ]
            document += 1
    return found


@settings(deadline=None)
@given(st.data(), st.integers(1, 12), st.sampled_from(["uint16", "int32", "<u2"]))
def test_rows_of_several_domains_equal_the_slow_reference(data: st.DataObject, length: int, dtype: str) -> None:
    domains = [domain_of(data.draw, 1000 * i, dtype, length) for i in range(data.draw(st.integers(1, 3)))]
    reader = RowReader([d[0] for d in domains], [d[1] for d in domains], length, VOCAB, PADDING)
    pairs = [(i, row) for i, (_, table, _) in enumerate(domains) for row in range(table.num_rows)]
    pairs = data.draw(st.permutations(pairs))
    batch = reader.read(*(np.array(column, np.int64) for column in zip(*pairs, strict=True)))
    label_counts = Counter[int]()
    flat = [flat_tokens(shards) for shards, _, _ in domains]
    for i, (domain, row) in enumerate(pairs):
        tokens, labels, documents = expected_row(flat[domain], domains[domain][1], row, length)
        assert batch.tokens[i].tolist() == tokens
        assert batch.labels[i].tolist() == labels
        assert batch.documents[i].tolist() == documents
        label_counts[domain] += sum(labels)
        named: list[int] = []
        for source in reader.sources(domain, row):
            shard = next(shard for shard in domains[domain][0] if shard.name == source.shard)
            first = int(shard.offsets[source.document])
            assert source.start < source.stop <= shard.lengths[source.document]
            named += shard.tokens[first + source.start : first + source.stop].tolist()
        assert named == tokens[: len(named)] and set(tokens[len(named) :]) <= {PADDING}
    assert reader.num_labels() == [label_counts[i] for i in range(len(domains))]


@given(st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=8), min_size=1, max_size=3), st.integers(1, 20))
def test_all_packings_train_on_the_same_tokens(layout: list[list[int]], length: int) -> None:
    """Nothing is lost or repeated: concatenated or best fit, every token is a label once, documents' first apart."""
    shards, first = [], 0
    for lengths in layout:
        shards.append(shard_of(lengths, first, "uint16", masked=False))
        first += sum(lengths)
    starts = [int(token) for shard in shards for token in shard.tokens[shard.offsets[:-1]]]
    found = {}
    for method in ("concatenate", "best-fit"):
        table = pack_rows(method, [shard.lengths for shard in shards], length)
        reader = RowReader([shards], [table], length, VOCAB, PADDING)
        batch = reader.read(np.zeros(table.num_rows, np.int64), np.arange(table.num_rows))
        found[method] = Counter(batch.tokens[:, 1:][batch.labels == 1].tolist())
        assert set(range(first)) - {PADDING} <= set(batch.tokens.flatten().tolist())
    assert found["concatenate"] == Counter(range(1, first))
    assert found["concatenate"] - found["best-fit"] == Counter(start for start in starts if start > 0)
    assert found["best-fit"] - found["concatenate"] == Counter()


def test_a_token_outside_the_vocabulary_names_the_file_and_the_document() -> None:
    shards = [shard_of([3, 4], 0, "int32", False), shard_of([2, 6], 7, "int32", False, name="00001")]
    shards[1].tokens[4] = VOCAB
    table = pack_rows("best-fit", [shard.lengths for shard in shards], 7)
    reader = RowReader([shards], [table], 7, VOCAB, PADDING)
    everything = (np.zeros(table.num_rows, np.int64), np.arange(table.num_rows))
    with pytest.raises(FormatError, match=rf"packs/web/00001.bin: token id {VOCAB} in document 1, vocabulary {VOCAB}"):
        reader.read(*everything)
    shards[1].tokens[4] = -1
    with pytest.raises(FormatError, match=r"token id -1 in document 1"):
        reader.read(*everything)


def test_packs_of_two_types_are_refused() -> None:
    shards = [shard_of([3], 0, "int32", False), shard_of([3], 0, "uint16", False)]
    table = pack_rows("aligned", [shard.lengths for shard in shards], 7)
    with pytest.raises(FormatError, match=r"one token type; these have int32 and uint16"):
        RowReader([shards], [table], 7, VOCAB, PADDING)


def test_unpacking_takes_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "UNPACKED_TOKENS", 4)
    shards = [shard_of([5, 6], 10, "uint16", masked=True, flat=True)]
    table = pack_rows("concatenate", [shards[0].lengths], 10)
    batch = RowReader([shards], [table], 10, VOCAB, PADDING).read(np.zeros(1, np.int64), np.zeros(1, np.int64))
    assert batch.tokens[0].tolist() == list(range(10, 21))
    assert batch.labels[0].tolist() == [token % 3 != 0 for token in range(11, 21)]
