"""Which documents share a row, against slow references: nothing is lost or repeated, and the waste adds up."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataeng.errors import ConfigError
from dataeng.packing import rows as rows_module
from dataeng.packing.rows import METHODS, RowTable, pack_rows

Pieces = list[list[tuple[int, int]]]  # by row: first token, number of tokens
Shards = list[list[int]]

SHARDS = st.lists(st.lists(st.integers(0, 40), max_size=12), min_size=1, max_size=4)
LENGTHS = st.integers(1, 12)


def table_of(method: str, shards: Shards, length: int, order: list[int] | None = None, window: int = 100) -> RowTable:
    chosen = None if order is None else np.array(order, np.int64)
    return pack_rows(method, [np.array(shard, np.int32) for shard in shards], length, chosen, window)


def pieces_of(table: RowTable) -> Pieces:
    assert table.row_offsets is not None and table.piece_starts is not None and table.piece_lengths is not None
    pieces = list(zip(table.piece_starts.tolist(), table.piece_lengths.tolist(), strict=True))
    ends = table.row_offsets.tolist()
    assert ends[0] == 0 and ends[-1] == len(pieces)
    return [pieces[first:last] for first, last in pairwise(ends)]


def spans(shards: Shards, order: list[int] | None = None) -> list[tuple[int, int]]:
    """First token and length of every document, in order."""
    lengths = [length for shard in shards for length in shard]
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    found = list(zip(starts, lengths, strict=True))
    return found if order is None else [found[i] for i in order]


def labels(pieces: Pieces) -> Counter[int]:
    """How often every token is a label, where that needs an input of the same document."""
    return Counter(token for row in pieces for start, count in row for token in range(start + 1, start + count))


def slow_best_fit(documents: list[tuple[int, int]], length: int) -> Pieces:
    """One window: every rest into the fullest row with room, the one that was last left with that room."""
    rows: Pieces = []
    rests: list[tuple[int, int, int]] = []
    place: dict[int, list[tuple[int, int]]] = {}  # document → its own rows, whole ones
    for i, (start, count) in enumerate(documents):
        whole = []
        while count > length + 1:
            whole.append((start, length + 1))
            start, count = start + length, count - length
        place[i] = whole
        if count:
            rests.append((i, start, count))
    bins: list[list[tuple[int, int, int]]] = []
    room: list[int] = []
    touched: list[int] = []
    for clock, rest in enumerate(sorted(rests, key=lambda rest: -rest[2])):
        fitting = [b for b in range(len(bins)) if room[b] >= rest[2]]
        if not fitting:
            bins.append([])
            room.append(length + 1)
            touched.append(-1)
            fitting = [len(bins) - 1]
        best = min(fitting, key=lambda b: (room[b], -touched[b]))
        bins[best].append(rest)
        room[best] -= rest[2]
        touched[best] = clock
    first = {min(rest[0] for rest in members): sorted(members) for members in bins}
    for i in range(len(documents)):
        rows += [[piece] for piece in place[i]]
        if i in first:
            rows.append([(start, count) for _, start, count in first[i]])
    return rows


@given(SHARDS, LENGTHS, st.integers(1, 9))
def test_best_fit_equals_the_slow_reference(shards: Shards, length: int, window: int) -> None:
    documents = spans(shards)
    expected = [
        row for i in range(0, len(documents), window) for row in slow_best_fit(documents[i : i + window], length)
    ]
    assert pieces_of(table_of("best-fit", shards, length, window=window)) == expected


@given(SHARDS, st.integers(1, 50))
def test_best_fit_labels_every_token_but_documents_first_once_and_cuts_only_what_is_too_long(
    shards: Shards, length: int
) -> None:
    table = table_of("best-fit", shards, length)
    pieces = pieces_of(table)
    inside = Counter(token for start, count in spans(shards) for token in range(start + 1, start + count))
    assert labels(pieces) == inside
    covered = {token for row in pieces for start, count in row for token in range(start, start + count)}
    assert covered == set(range(sum(map(sum, shards))))
    assert all(0 < sum(count for _, count in row) <= length + 1 for row in pieces)
    placed = {piece for row in pieces for piece in row}
    assert all((start, count) in placed for start, count in spans(shards) if 0 < count <= length + 1)
    assert table.waste.documents_cut == sum(count > length + 1 for _, count in spans(shards))
    assert table.waste.left_out == 0


@given(SHARDS, LENGTHS, st.integers(1, 9))
def test_aligned_equals_the_slow_reference(shards: Shards, length: int, window: int) -> None:
    expected: Pieces = []
    for start, count in spans(shards):
        if not expected or sum(c for _, c in expected[-1]) + min(count, length + 1) > length + 1:
            expected.append([])
        if count:
            expected[-1].append((start, min(count, length + 1)))
    table = table_of("aligned", shards, length, window=window)
    assert pieces_of(table) == [row for row in expected if row]
    starts = {start for start, _ in spans(shards)}
    assert all(row[0][0] in starts for row in pieces_of(table))
    assert table.waste.left_out == sum(max(0, count - length - 1) for _, count in spans(shards))


@given(SHARDS, LENGTHS, st.integers(1, 9), st.randoms())
def test_concatenation_in_an_order_is_one_stream_cut_into_rows(
    shards: Shards, length: int, window: int, random
) -> None:
    order = list(range(sum(map(len, shards))))
    random.shuffle(order)
    table = table_of("concatenate", shards, length, order, window)
    stream = [token for start, count in spans(shards, order) for token in range(start, start + count)]
    expected = [stream[i : i + length + 1] for i in range(0, max(len(stream) - 1, min(len(stream), 1)), length)]
    found = [[token for start, n in row for token in range(start, start + n)] for row in pieces_of(table)]
    assert found == expected
    document = {token: i for i, (start, n) in enumerate(spans(shards)) for token in range(start, start + n)}
    for row in pieces_of(table):
        assert all(document[start] == document[start + n - 1] for start, n in row)
    whole = {
        document[start] for start, n in spans(shards) if n and any({*range(start, start + n)} <= {*r} for r in found)
    }
    assert table.waste.documents_cut == len(set(document.values())) - len(whole)


@given(SHARDS, LENGTHS)
def test_concatenation_counts_its_waste_without_a_table(shards: Shards, length: int) -> None:
    table = table_of("concatenate", shards, length)
    assert table.row_offsets is None
    assert table.waste == table_of("concatenate", shards, length, list(range(sum(map(len, shards))))).waste


@given(SHARDS, LENGTHS, st.sampled_from(METHODS), st.booleans())
def test_waste_adds_up_and_does_not_depend_on_shards(shards: Shards, length: int, method: str, ordered: bool) -> None:
    lengths = [count for shard in shards for count in shard]
    order = sorted(range(len(lengths)), key=lambda i: lengths[i]) if ordered else None
    table = table_of(method, shards, length, order)
    waste = table.waste
    assert waste.num_rows * (length + 1) == waste.num_tokens - waste.left_out + waste.repeated + waste.padding
    assert (waste.num_documents, waste.num_tokens) == (len(lengths), sum(lengths))
    assert min(waste.padding, waste.repeated, waste.left_out, waste.num_labels) >= 0
    one = table_of(method, [lengths], length, order)
    assert one.waste == waste
    if table.row_offsets is not None:
        pieces = pieces_of(table)
        assert pieces == pieces_of(one)
        assert waste.num_pieces == sum(map(len, pieces))
        assert waste.num_rows * (length + 1) - waste.padding == sum(n for row in pieces for _, n in row)
        if method != "concatenate":
            assert waste.num_labels == sum(labels(pieces).values())


def test_a_curriculum_s_rows_come_in_its_order() -> None:
    shards = [[5, 5, 5, 5, 5, 5]]
    table = table_of("best-fit", shards, 9, [5, 4, 3, 2, 1, 0], window=2)
    assert pieces_of(table) == [[(25, 5), (20, 5)], [(15, 5), (10, 5)], [(5, 5), (0, 5)]]


def test_shares_by_hand() -> None:
    waste = table_of("aligned", [[3, 4, 12, 2]], 7).waste  # rows of 8: 3+4, 8 of 12, 2
    assert (waste.num_rows, waste.padding, waste.left_out, waste.documents_cut) == (3, 1 + 0 + 6, 4, 1)
    assert waste.padding_share == 7 / 24
    assert waste.left_out_share == 4 / 21
    assert waste.cut_share == 1 / 4
    assert waste.documents_per_row == 4 / 3
    assert waste.label_share == (2 + 3 + 7 + 1) / 21


def test_a_large_table_is_a_mapped_file(monkeypatch: pytest.MonkeyPatch) -> None:
    shards = [[int(n) for n in np.random.default_rng(0).integers(1, 90, 500)]]
    for method in ("best-fit", "aligned"):
        expected = table_of(method, shards, 31)
        monkeypatch.setattr(rows_module, "SPILL_BYTES", 100)
        found = table_of(method, shards, 31)
        monkeypatch.undo()
        assert isinstance(found.piece_starts.base.base, np.memmap)  # type: ignore[union-attr]
        assert pieces_of(found) == pieces_of(expected) and found.waste == expected.waste


def test_windows_cost_little() -> None:
    """Rows of 2,049 slots from documents of a lognormal length: windows of 10,000 pad less than a thousandth."""
    lengths = np.clip(np.random.default_rng(0).lognormal(6, 1.2, 40_000), 1, 10**5).astype(np.int32)
    waste = pack_rows("best-fit", [lengths], 2048, window_documents=10_000).waste
    assert waste.padding_share < 0.001
    assert pack_rows("aligned", [lengths], 2048).waste.padding_share > 0.1


def test_wrong_names_and_lengths_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"packing 'best_fit' is unknown.*best-fit"):
        pack_rows("best_fit", [np.array([1], np.int32)], 4)
    with pytest.raises(ConfigError, match="the sequence length is 0; expected at least 1"):
        pack_rows("aligned", [np.array([1], np.int32)], 0)
