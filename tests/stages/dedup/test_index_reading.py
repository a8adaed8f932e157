"""Looking up keys and documents of a dedup index against the slow, obvious way; and what is read for it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.errors import FormatError
from dataeng.formats.dedup_index import Index, NewFile, Origin, content_digest, load_index, publish
from dataeng.stages.dedup import index_reading, record_index
from dataeng.stages.dedup.buckets import FIRST_OLD_PLACE, key_partition
from dataeng.stages.dedup.index_reading import NUMBER_BITS, OLD_PER_KEY, ROW_BITS, IndexReader
from dataeng.stages.dedup.record_index import RecordIndex, described
from tests.stages.exchange import SlicesOf

Document = tuple[str, list[int]]
"""An id and its keys."""
INDEX = Index(method="test", parameters={"bands": 3})


class Folder:
    """Implements `dataeng.stage.OutputFiles` for files that appear at once."""

    def __init__(self, path: Path) -> None:
        from dataeng.engine.outputs import TaskOutputs

        self.outputs = TaskOutputs(path)


def add(path: Path, name: str, documents: Sequence[Document], partitions: int = 3) -> Origin:
    """Adds a segment as the engine would: documents in two files, keys in ranges."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = Folder(Path(folder)).outputs
        stage = RecordIndex.model_construct(of=None, folder="segment", partitions=partitions)
        half = (len(documents) + 1) // 2
        keys: list[pl.DataFrame] = []
        for partition, part in enumerate((documents[:half], documents[half:])):
            table = pl.DataFrame(
                {
                    "place": range(len(part)),
                    "id": [identifier for identifier, _ in part],
                    "domain": ["web"] * len(part),
                    "num_bytes": [10] * len(part),
                    "keys": [own for _, own in part],
                    "shingles": [sorted(set(own)) for _, own in part],
                },
                schema={
                    "place": pl.UInt64(), "id": pl.String(), "domain": pl.String(), "num_bytes": pl.Int64(),
                    "keys": pl.List(pl.UInt64()), "shingles": pl.List(pl.UInt64()),
                },
            ).with_columns(pl.lit(partition, dtype=pl.UInt32).alias("partition"))  # fmt: skip
            if table.height:
                keys += stage.reduce_slices(0, SlicesOf(table, 2), outputs)
        for partition in range(partitions if keys else 0):
            rows = pl.concat(keys).filter(pl.col("partition") == partition)
            if rows.height:
                assert list(stage.reduce_slices(1, SlicesOf(rows, 3), outputs)) == []
        files: list[NewFile] = [described(Path(folder) / f.name, f.sha256) for f in outputs.commit()]
        digest = content_digest(files, INDEX.parameters)
        origin = Origin(name=name, digest=digest, documents=len(documents), text_bytes=0, run=name)
        publish(path, INDEX, name, [origin], files)
    return origin


def expected(segments: Sequence[Sequence[Document]], keys: set[int]) -> set[tuple[int, str]]:
    """Key and id of the oldest documents with these keys."""
    found: dict[int, list[str]] = {}
    for segment in segments:
        for identifier, own in segment:
            for key in own:
                if key in keys:
                    found.setdefault(key, []).append(identifier)
    return {(key, identifier) for key, names in found.items() for identifier in names[:OLD_PER_KEY]}


def answered(reader: IndexReader, keys: set[int]) -> set[tuple[int, str]]:
    found = reader.lookup(pl.Series(sorted(keys), dtype=pl.UInt64))
    names = list(reader.documents(found.get_column("old"), ["id"]))
    if not names:
        assert found.height == 0
        return set()
    return set(found.join(pl.concat(names), left_on="old", right_on="place").select("key", "id").iter_rows())


KEYS = st.one_of(st.integers(0, 9), st.integers(0, 2**64 - 1), st.integers(2**64 - 9, 2**64 - 1))


@st.composite
def crawls(draw: st.DrawFn) -> list[list[Document]]:
    sizes = draw(st.lists(st.integers(0, 12), min_size=1, max_size=3))
    return [
        [(f"s{s}d{d}", draw(st.lists(KEYS, min_size=1, max_size=3, unique=True))) for d in range(size)]
        for s, size in enumerate(sizes)
    ]


@pytest.fixture(scope="module", autouse=True)
def small_groups() -> Iterator[None]:
    """Row groups of a few rows, so that there are several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_index, "GROUP_DOCUMENTS", 2)
        patch.setattr(record_index, "GROUP_KEYS", 4)
        yield


@settings(max_examples=25, deadline=None)
@given(segments=crawls(), asked=st.sets(KEYS, max_size=30))
def test_lookup_finds_what_the_slow_way_finds(segments: list[list[Document]], asked: set[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        origins = [add(path, f"s{number}", documents) for number, documents in enumerate(segments)]
        assert answered(IndexReader(path, origins), asked) == expected(segments, asked)
        assert answered(IndexReader(path, origins[:1]), asked) == expected(segments[:1], asked)


def test_old_places_sort_as_documents_were_added_and_come_after_new_ones(tmp_path: Path) -> None:
    origins = [add(tmp_path, name, [(f"{name}{i}", [7]) for i in range(3)]) for name in ("z", "a")]
    reader = IndexReader(tmp_path, origins)
    old = reader.lookup(pl.Series([7], dtype=pl.UInt64)).get_column("old")
    names = pl.concat(list(reader.documents(old, ["id"]))).sort("place")
    assert names["id"].to_list() == ["z0", "z1", "z2", "a0", "a1", "a2"]
    assert names["segment"].to_list() == ["z"] * 3 + ["a"] * 3
    assert old.is_sorted() and old.min() == FIRST_OLD_PLACE  # type: ignore[comparison-overlap]
    assert old.max() == FIRST_OLD_PLACE + (1 << NUMBER_BITS) + (1 << ROW_BITS)  # type: ignore[comparison-overlap]


def test_only_row_groups_that_may_hold_a_key_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = add(tmp_path, "s", [(f"d{i}", [i << 56]) for i in range(200)])
    reader = IndexReader(tmp_path, [origin])
    read: list[tuple[str, int]] = []
    original = index_reading.read_group

    def counting(*given: object) -> pl.DataFrame:
        read.append((given[2].name, given[4]))  # type: ignore[attr-defined,arg-type]
        return original(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(index_reading, "read_group", counting)
    found = reader.lookup(pl.Series([50 << 56, 51 << 56, (60 << 56) + 1], dtype=pl.UInt64))
    assert found.height == 2 and len(read) == 2 and {name for name, _ in read} == {"keys-00000.parquet"}
    read.clear()
    assert pl.concat(list(reader.documents(found["old"], ["id", "shingles"])))["id"].to_list() == ["d50", "d51"]
    assert read == [("documents-00000.parquet", 25)]
    read.clear()
    assert reader.lookup(pl.Series([(199 << 56) + 1, 2**64 - 1], dtype=pl.UInt64)).height == 0 and not read


def test_a_segment_that_is_gone_is_an_error(tmp_path: Path) -> None:
    origin = add(tmp_path, "s", [("d", [1])])
    changed = origin.model_copy(update={"digest": "0" * 64})
    with pytest.raises(FormatError, match=r"segment 's' .* was replaced"):
        IndexReader(tmp_path, [changed])
    assert load_index(tmp_path).origins == (origin,)


@given(keys=st.lists(st.integers(0, 2**64 - 1), min_size=1), partitions=st.integers(1, 70_000))
def test_partitions_are_ranges_of_keys(keys: list[int], partitions: int) -> None:
    frame = pl.DataFrame({"key": pl.Series(sorted(keys), dtype=pl.UInt64)})
    found = frame.select(key_partition(pl.col("key"), partitions)).to_series()
    assert found.to_list() == [((key >> 32) * partitions) >> 32 for key in sorted(keys)]
    assert found.is_sorted() and found[-1] < partitions
