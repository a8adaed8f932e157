from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.engine.outputs import TaskOutputs
from dataeng.errors import TaskError
from dataeng.kernels.bloom import BloomFilter, bits_needed
from dataeng.stages.dedup import removal
from dataeng.stages.dedup.deduplicate_paragraphs import DeduplicateParagraphs
from tests.end_to_end.runs import WITH_WORKERS, assert_same, dataeng, results
from tests.kernels.test_ngrams import tokens_of
from tests.kernels.test_units import edited, expected
from tests.stages.exchange import SlicesOf, frames_of, run_edits

Parts = list[list[str | None]]
Result = list[list[tuple[str | None, str | None, int]]]

#: So low that no test sees a false positive.
NEVER = 1e-15


def ngrams_of(paragraph: str, ngram: int | None, min_tokens: int) -> list[tuple[str, ...]]:
    if ngram is None:
        return [(paragraph,)]
    tokens = tokens_of(paragraph)
    if len(tokens) >= ngram:
        return [tuple(tokens[i : i + ngram]) for i in range(len(tokens) - ngram + 1)]
    return [tuple(tokens)] if len(tokens) >= min_tokens else []


def bff(stage: DeduplicateParagraphs, parts: Parts, *, all_count: bool = True) -> Result:
    """Text, reason and paragraphs removed of every document, with a set for a filter.

    The loop of ``process_line_oldboth`` in mlfoundations/dclm, ``dedup/bff/src/main.rs`` (MIT), over all documents in
    order. There only n-grams of paragraphs that stay go into the filter (``all_count=False``).
    """
    seen: set[tuple[str, ...]] = set()
    result: Result = []
    for texts in parts:
        result.append([])
        for text in texts:
            paragraphs = expected(text or "", stage.unit)
            total = contained = 0
            removed = []
            for paragraph in paragraphs:
                ngrams = ngrams_of(paragraph, stage.ngram, stage.min_tokens)
                known = sum(ngram in seen for ngram in ngrams)
                total, contained = total + len(ngrams), contained + known
                removed.append(bool(ngrams) and known / len(ngrams) > stage.threshold)
                if all_count or not removed[-1]:
                    seen.update(ngrams)
            if stage.documents and total and contained / total > stage.threshold:
                result[-1].append((text, "duplicate_ngrams", 0))
            elif removed and all(removed):
                result[-1].append((text, "only_duplicate_paragraphs", len(removed)))
            else:
                left = edited(text, stage.unit, removed) if text is not None and any(removed) else text
                result[-1].append((left, None, sum(removed)))
    return result


def found(frames: list[pl.DataFrame]) -> Result:
    columns = ("text", "reason", "duplicate_paragraphs_removed")
    return [list(frame.select(*columns).iter_rows()) if frame.height else [] for frame in frames]


PIECES = ["one two", " three", " four 5", "!", "\n", "\n", "\n\n", " ", "文字", "one two three four"]
PARTS = st.lists(
    st.lists(st.one_of(st.none(), st.lists(st.sampled_from(PIECES), max_size=12).map("".join)), max_size=5), max_size=3
)


@settings(max_examples=70, deadline=None)
@given(
    parts=PARTS,
    unit=st.sampled_from(["line", "paragraph"]),
    ngram=st.sampled_from([None, 1, 2, 3]),
    min_tokens=st.integers(1, 3),
    threshold=st.sampled_from([0.0, 0.4, 0.5, 0.8]),
    documents=st.booleans(),
    pieces=st.integers(0, 9),
)
def test_equals_the_plain_reference(
    parts: Parts, unit: Any, ngram: int | None, min_tokens: int, threshold: float, documents: bool, pieces: int
) -> None:
    stage = DeduplicateParagraphs(
        unit=unit, ngram=ngram, min_tokens=min_tokens, threshold=threshold, documents=documents,
        false_positive_rate=NEVER, partitions=3,
    )  # fmt: skip
    left = run_edits(stage, parts, 2, pieces)
    assert found(left) == bff(stage, parts)
    other = run_edits(stage.model_copy(update={"partitions": 1}), parts, 100)
    for one, two in zip(left, other, strict=True):
        assert one.equals(two)


def test_by_hand() -> None:
    words = " ".join(f"word{i}" for i in range(26))
    nearly = words.replace("word24", "other")  # 2 of 14 n-grams differ
    half = words.replace("word13", "other")  # 13 of 14 differ
    parts: Parts = [[f"{words}\nA line.", f"{half}\n\n{nearly}\nA line."], [words, None, f"{words} and more to it"]]
    stage = DeduplicateParagraphs(false_positive_rate=NEVER)
    one, two = run_edits(stage, parts)
    assert one.get_column("text").to_list() == [parts[0][0], f"{half}\n\nA line."]
    row = one.row(1, named=True)
    assert row["duplicate_paragraphs_removed"] == 1 and row["duplicate_paragraphs_sample"] == nearly[:300]
    assert row["duplicate_ngram_share"] == pytest.approx(13 / 28)
    assert two.get_column("reason").to_list() == ["duplicate_ngrams", None, None]
    assert two.item(0, "detail") == "100.0% of its n-grams" and two.item(0, "text") == words
    assert two.item(1, "duplicate_ngram_share") is None
    assert two.item(2, "duplicate_ngram_share") == pytest.approx(14 / 18)


def test_which_n_grams_count_makes_little_difference(test_data: Path) -> None:
    """BFF forgets the few new n-grams of a paragraph that it removes; here they count. On real pages in two editions
    that decides about a few paragraphs in a thousand of those that go."""
    with gzip.open(test_data / "dedup" / "documents.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    texts = [row["text"] for row in rows if row["lang"] == "en"][:120]
    stage = DeduplicateParagraphs(unit="paragraph", false_positive_rate=NEVER)
    (ours,) = found(run_edits(stage, [texts]))
    (same,) = bff(stage, [texts])
    assert ours == same
    (theirs,) = bff(stage, [texts], all_count=False)
    removed = sum(count for _, _, count in ours)
    apart = sum(abs(a[2] - b[2]) for a, b in zip(ours, theirs, strict=True) if a[1] == b[1])
    reasons = sum(a[1] != b[1] for a, b in zip(ours, theirs, strict=True))
    assert removed > 40 and apart <= 0.01 * removed and reasons <= 0.01 * len(texts), (removed, apart, reasons)


def test_a_part_need_not_fit_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: Parts = [
        [" ".join(f"w{(n * 7 + i * part) % 613}" for i in range(40)) for n in range(60)] for part in (1, 2, 3)
    ]
    stage = DeduplicateParagraphs(ngram=2, false_positive_rate=NEVER, partitions=2)
    expected = run_edits(stage, parts, 10)
    assert sum(frame.get_column("duplicate_ngram_share").sum() for frame in expected) > 20
    combined: list[int] = []
    combine = DeduplicateParagraphs._seen

    def noting(stage: DeduplicateParagraphs, seen: BloomFilter, rows: pl.DataFrame) -> pl.DataFrame:
        combined.append(rows.height)
        return combine(stage, seen, rows)

    monkeypatch.setattr(DeduplicateParagraphs, "_seen", noting)
    monkeypatch.setattr(removal, "ROWS_IN_MEMORY", 100)
    left = run_edits(stage, parts, 10, shuffle=5)
    assert all(one.equals(two) for one, two in zip(left, expected, strict=True))
    assert len(combined) > 3 * 2 * 5 and max(combined) < 200


@pytest.mark.parametrize("rate", [0.1, 0.01])
def test_false_positives_come_at_most_at_the_stated_rate(rate: float) -> None:
    """Paragraphs that are all different, of which a filter takes some for known ones."""
    per_part, num_parts = 4000, 6
    parts: Parts = [
        ["\n".join(f"line {part} {row} {i} of its own" for i in range(50)) for row in range(per_part // 50)]
        for part in range(num_parts)
    ]
    stage = DeduplicateParagraphs(ngram=None, documents=False, false_positive_rate=rate, partitions=4)
    frames = run_edits(stage, parts)
    wrong = [int(frame.get_column("duplicate_paragraphs_removed").sum()) for frame in frames]
    assert wrong[0] == 0 and max(wrong) <= 1.2 * rate * per_part
    # The last part meets a filter that is five sixths full of what it was made for.
    expected_rate = (1 - 0.5 ** ((num_parts - 1) / num_parts)) ** round(bits_needed(1000, rate) / 1000 * 0.693)
    assert wrong[-1] == pytest.approx(expected_rate * per_part, rel=0.35)
    # Batches and pieces change nothing, false positives included.
    again = run_edits(stage, parts, 17, shuffle=3)
    assert [frame.select("text", "reason").rows() for frame in frames] == [
        frame.select("text", "reason").rows() for frame in again
    ]


def test_a_filter_that_would_be_too_large_stops_the_run_and_says_what_helps() -> None:
    stage = DeduplicateParagraphs(ngram=None, max_filter_mb=0.001, partitions=2)
    texts = ["\n".join(f"a line with {row} and {i}" for i in range(100)) for row in range(40)]
    table = pl.concat([stage.emit(batch) for batch in frames_of(texts, 0, 10)])
    with pytest.raises(TaskError, match=r"max_filter_mb is 0.001.*Set partitions to (10|12) or more \(now 2\)"):
        list(stage.reduce_slices(0, SlicesOf(table, 100), TaskOutputs(Path())))
    enough = stage.model_copy(update={"partitions": 12})
    table = pl.concat([enough.emit(batch) for batch in frames_of(texts, 0, 10)])
    for group in table.partition_by("partition"):
        list(enough.reduce_slices(0, SlicesOf(group, 100), TaskOutputs(Path())))


PIPELINE = """
name: repeated
run: {run}
sources:
  - read_files: {{paths: ["{inputs}/*.jsonl"]}}
stages:
  - deduplicate_paragraphs: {{ngram: 3, min_tokens: 2, false_positive_rate: 1.0e-9, partitions: 3}}
"""


def test_a_run_with_one_worker_gives_the_same_bytes_as_with_two(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for part in range(3):
        texts = [f"This banner is on all pages.\nPage {word} of {part:b}: {word}." for word in ("alpha", "beta")]
        texts.append("This banner is on all pages.")
        lines = [json.dumps({"text": text}) for text in texts]
        (tmp_path / "in" / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    for workers in (1, 2):
        pipeline = tmp_path / f"{workers}.yaml"
        pipeline.write_text(PIPELINE.format(run=tmp_path / f"run{workers}", inputs=tmp_path / "in"))
        dataeng("run", str(pipeline), *WITH_WORKERS[workers])
    assert_same(results(tmp_path / "run1"), results(tmp_path / "run2"))
    statement = "SELECT id, text FROM documents ORDER BY source, source_offset"
    listed = dataeng("sql", str(tmp_path / "run1"), statement, "--format", "json")
    rows = [json.loads(line) for line in listed.splitlines()]
    assert [row["text"].count("banner") for row in rows] == [1, 0, 0, 0, 0, 0]
    rejects = dataeng("sql", str(tmp_path / "run1"), "SELECT reason, detail FROM rejects", "--format", "json")
    assert [json.loads(line)["reason"] for line in rejects.splitlines()] == ["duplicate_ngrams"] * 3
    assert "duplicate_paragraphs_sample" in dataeng("explain", str(tmp_path / "run1"), rows[1]["id"])
