from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.kernels.normalization import FORMS
from dataeng.kernels.units import KINDS
from dataeng.stages.dedup import removal
from dataeng.stages.dedup.deduplicate_lines import DeduplicateLines
from dataeng.stages.quality.remove_lines import RemoveLines
from tests.end_to_end.runs import WITH_WORKERS, assert_same, dataeng, results
from tests.kernels.test_normalization import REFERENCES
from tests.kernels.test_units import edited, expected
from tests.stages.exchange import SlicesOf, frames_of, name_of, run_edits

Parts = list[list[str | None]]


def plain(stage: DeduplicateLines, parts: Parts) -> list[list[tuple[str | None, str | None, int, str | None]]]:
    """The same in plain Python: text (None if dropped), reason, units removed and first documents, by document."""
    spans: dict[tuple[int, int], list[tuple[str, ...]]] = {}
    cut: dict[tuple[int, int], list[str]] = {}
    places: dict[tuple[str, ...], list[tuple[int, int, int]]] = {}
    for part, texts in enumerate(parts):
        for row, text in enumerate(texts):
            units = expected(text or "", stage.unit)
            normal = [REFERENCES[stage.normalize](unit) for unit in units]
            cut[part, row] = units
            spans[part, row] = [tuple(normal[i : i + stage.span]) for i in range(len(units) - stage.span + 1)]
            for number, span in enumerate(spans[part, row]):
                if sum(map(len, span)) >= stage.min_chars:
                    places.setdefault(span, []).append((part, row, number))
    result: list[list[tuple[str | None, str | None, int, str | None]]] = []
    for part, texts in enumerate(parts):
        result.append([])
        for row, text in enumerate(texts):
            units, removed, firsts = cut[part, row], [False] * len(cut[part, row]), []
            for number, span in enumerate(spans[part, row]):
                found = places.get(span, [])
                several = len({place[:2] for place in found}) > 1
                if found and (found[0] != (part, row, number) or (stage.keep == "none" and several)):
                    removed[number : number + stage.span] = [True] * stage.span
                    firsts.append(name_of(*found[0][:2]))
            left = edited(text or "", stage.unit, removed) if any(removed) else text
            reason = None
            if any(removed) and all(removed):
                reason = f"only_duplicate_{stage.unit}s"
            elif any(removed) and len(units) - sum(removed) < stage.min_units:
                reason = f"too_few_units_without_duplicate_{stage.unit}s"
            elif any(removed) and len((left or "").split()) < stage.min_words:
                reason = f"too_few_words_without_duplicate_{stage.unit}s"
            evidence = " ".join(firsts[:20]) or None
            result[-1].append((text if reason else left, reason, sum(removed), evidence))
    return result


def found(stage: DeduplicateLines, frames: list[pl.DataFrame]) -> list[list[Any]]:
    prefix = f"duplicate_{stage.unit}s"
    columns = ("text", "reason", f"{prefix}_removed", f"{prefix}_first_ids")
    return [list(frame.select(*columns).iter_rows()) if frame.height else [] for frame in frames]


PIECES = ["One.", "one", "Two!", "Ün 3.", "un 4", "—", "-", "\n", "\n", "\n\n", " ", "文。", "Three and four."]
PARTS = st.lists(
    st.lists(st.one_of(st.none(), st.lists(st.sampled_from(PIECES), max_size=10).map("".join)), max_size=5), max_size=3
)


@settings(max_examples=70, deadline=None)
@given(
    parts=PARTS,
    unit=st.sampled_from(KINDS),
    span=st.integers(1, 3),
    normalize=st.sampled_from(["none", "lower", "ccnet@code", "ccnet@paper"]),
    keep=st.sampled_from(["first", "none"]),
    least=st.sampled_from([(0, 0, 1), (2, 0, 1), (0, 2, 1), (0, 0, 4)]),
    shuffle=st.integers(0, 9),
)
def test_equals_the_plain_reference(
    parts: Parts, unit: Any, span: int, normalize: Any, keep: Any, least: tuple[int, int, int], shuffle: int
) -> None:
    words, units, chars = least
    stage = DeduplicateLines(
        unit=unit, span=span, normalize=normalize, keep=keep, min_words=words, min_units=units, min_chars=chars,
        partitions=3,
    )  # fmt: skip
    left = run_edits(stage, parts, 2, shuffle)
    assert found(stage, left) == plain(stage, parts)
    # Neither batches nor partitions change anything, not even the evidence.
    other = run_edits(stage.model_copy(update={"partitions": 1}), parts, 100)
    for one, two in zip(left, other, strict=True):
        assert one.equals(two)


@settings(max_examples=40, deadline=None)
@given(parts=PARTS, unit=st.sampled_from(KINDS), span=st.integers(1, 3))
def test_of_every_unit_a_copy_stays(parts: Parts, unit: Any, span: int) -> None:
    left = run_edits(DeduplicateLines(unit=unit, span=span, normalize="none"), parts)
    before = {u for texts in parts for text in texts for u in expected(text or "", unit)}
    after = {
        u for texts in found(DeduplicateLines(unit=unit), left) for text, reason, *_ in texts if not reason
        for u in expected(text or "", unit)
    }  # fmt: skip
    assert after == before


def test_options_are_those_of_the_kernels() -> None:
    fields = DeduplicateLines.model_fields
    assert get_args(fields["unit"].annotation) == KINDS and get_args(fields["normalize"].annotation) == FORMS


def test_first_occurrence_and_evidence_by_hand() -> None:
    parts: Parts = [
        ["Welcome!\nA text of its own.", "welcome\nAnother text.\nWelcome 1"],
        [None, "WELCOME\n\nA third one.\nanother text", "Welcome 2"],
    ]
    one, two = run_edits(DeduplicateLines(), parts)
    assert one.get_column("text").to_list() == [parts[0][0], "Another text.\nWelcome 1"]
    assert two.get_column("text").to_list() == [None, "A third one.", "Welcome 2"]
    row = two.row(1, named=True)
    assert row["duplicate_lines_removed"] == 2 and row["duplicate_lines_chars_removed"] == 22
    assert row["duplicate_lines_sample"] == "WELCOME\nanother text"
    assert row["duplicate_lines_first_ids"] == "p0r0 p0r1" and len(row["duplicate_lines_hashes"].split()) == 2
    assert two.row(2, named=True)["reason"] == "only_duplicate_lines"
    assert two.row(2, named=True)["detail"] == "1 of 1 units"
    none = run_edits(DeduplicateLines(keep="none"), parts)
    assert [frame.get_column("reason").null_count() for frame in none] == [1, 2]
    assert none[0].item(0, "text") == "A text of its own." and none[1].item(1, "text") == "A third one."


def test_a_line_of_half_the_corpus_is_a_row_for_each_part() -> None:
    parts: Parts = [[f"Home\nText {number} of {part}." for number in "abcdefgh"] for part in range(40)]
    stage = DeduplicateLines(partitions=1)
    emitted = [stage.combine(pl.concat([stage.emit(b) for b in frames_of(p, n, 3)])) for n, p in enumerate(parts)]
    hot = pl.concat(emitted).group_by("hash").agg(pl.len(), pl.sum("occurrences")).sort("occurrences").row(-1)
    assert hot[1:] == (40, 320)
    verdicts = stage.reduce(0, pl.concat(emitted), None)  # type: ignore[arg-type]
    shared = verdicts.filter(pl.col("occurrences") == 320)
    assert shared.height == 40 and shared.get_column("documents").unique().to_list() == [320]


def test_a_partition_need_not_fit_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: Parts = [
        [f"Home\nText {n % 97} of {n % 89}\n{'xyz'[n % 3] * (n % 30)}" for n in range(p, 900, 3)] for p in range(7)
    ]
    stage = DeduplicateLines(partitions=2, normalize="none")
    emitted = pl.concat(
        [stage.combine(stage.emit(frame)) for n, p in enumerate(parts) for frame in frames_of(p, n, 50)]
    )
    held: list[int] = []
    reduce = DeduplicateLines.reduce

    def noting(stage: DeduplicateLines, step: int, table: pl.DataFrame, outputs: Any) -> pl.DataFrame:
        held.append(table.height)
        return reduce(stage, step, table, outputs)

    monkeypatch.setattr(DeduplicateLines, "reduce", noting)

    def verdicts(rows_in_memory: int) -> pl.DataFrame:
        monkeypatch.setattr(removal, "ROWS_IN_MEMORY", rows_in_memory)
        held.clear()
        groups = emitted.partition_by("partition", maintain_order=True)
        groups = sorted(groups, key=lambda group: int(group.item(0, "partition")))
        slices = [SlicesOf(group, 90) for group in groups]
        found = pl.concat([rows for some in slices for rows in stage.reduce_slices(0, some, None)])  # type: ignore[arg-type]
        # As the engine reads them: by part, and then in order.
        return found.sort("part", maintain_order=True)

    expected_verdicts = verdicts(1_000_000)
    assert held == [group.height for group in emitted.sort("partition").partition_by("partition")] and min(held) > 800
    assert expected_verdicts.height > 500
    assert verdicts(200).equals(expected_verdicts)
    # One line is on every page; a table has all rows of it, one for each piece that a part came in.
    pieces = sum(-(-len(texts) // 50) for texts in parts)
    assert len(held) >= 2 * 5 and max(held) < 1.5 * 200 + pieces


def documents(test_data: Path, count: int, language: str | None = None) -> list[str]:
    with gzip.open(test_data / "dedup" / "documents.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    return [row["text"] for row in rows if language in (None, row["lang"])][:count]


def ccnet(texts: list[str]) -> list[list[str]]:
    """Paragraph deduplication of CCNet, all documents in one shard: which lines each is left with.

    From facebookresearch/cc_net (MIT), ``dedup.py`` (compute_hashes, HashesCollector, DuplicatesRemover, finalize_doc)
    and ``flat_hash_set.py`` (AbstractDedupHashSet.add).
    """
    punctuation = "".join(sorted("，。、„”“«»１」「《》´∶：？！（）；–—．～’…━〈〉【】％►"))
    removed = re.compile(f"[{punctuation}{''.join(map(chr, [*range(32), *range(127, 160)]))}]")

    def line_hash(line: str) -> int:
        normal = removed.sub("", re.sub(r"\d", "0", line.strip().lower())) if line.strip() else ""
        return int.from_bytes(hashlib.sha1(normal.encode()).digest()[:8], "little")

    hashes = [[line_hash(line) for line in text.split("\n")] for text in texts]
    values: dict[int, bool] = {}
    for of_document in hashes:  # the first time a key is added its value is 0, then 1; in one document all at once
        seen = [key in values for key in of_document]
        values.update(zip(of_document, seen, strict=True))
    left = []
    for text, of_document in zip(texts, hashes, strict=True):
        lines, inside = [], set()
        for line, key in zip(text.split("\n"), of_document, strict=True):
            if not values[key] and key not in inside:
                lines.append(line)
            inside.add(key)
        left.append(lines)
    return left


def test_ccnets_code_leaves_the_same_lines(test_data: Path) -> None:
    """Line for line, but for those that are blank or blank in normal form: for CCNet all copies of one line."""
    texts = documents(test_data, 700)
    (frame,) = run_edits(DeduplicateLines(normalize="ccnet@code", keep="none"), [list(texts)])

    def compared(lines: list[str]) -> list[str]:
        return [line.strip() for line in lines if REFERENCES["ccnet@code"](line)]

    theirs = [compared(lines) for lines in ccnet(texts)]
    ours = [
        compared([] if reason == "only_duplicate_lines" else text.split("\n"))
        for text, reason in frame.select("text", "reason").iter_rows()
    ]
    assert ours == theirs
    gone = sum(map(len, map(compared, (text.split("\n") for text in texts)))) - sum(map(len, theirs))
    assert gone > 50_000 and sum(map(len, theirs)) > 5_000


def datatrove_sentences(texts: list[str], folder: Path) -> dict[int, str]:
    """datatrove's three steps of sentence deduplication with its defaults: place → text of documents it keeps."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import SentenceDedupFilter, SentenceDedupSignature, SentenceFindDedups
    from datatrove.pipeline.dedup.sentence_dedup import SentDedupConfig

    config, signatures, duplicates = SentDedupConfig(), str(folder / "signatures"), str(folder / "duplicates")
    read = [Document(text=text, id=str(place)) for place, text in enumerate(texts)]
    SentenceDedupSignature(signatures, config=config).run(iter(read), 0, 1)
    SentenceFindDedups(signatures, duplicates, config=config).run(None, 0, 1)  # type: ignore[no-untyped-call]
    kept = SentenceDedupFilter(duplicates, config=config).run(iter(read), 0, 1)
    return {int(document.id): document.text for document in kept}


def test_datatrove_removes_the_same_spans(test_data: Path, tmp_path: Path) -> None:
    """On real pages of manuals in two editions, cleaned as C4's are, so that lines end with their sentence.

    Where the two differ, sentences were cut in another way: spaCy's ends at a token that is a terminal sign, so also
    inside of ``“?=”`` and not after ``/.``; ours ends with its line. That is 1 % of the sentences here.
    """
    pytest.importorskip("spacy")
    pytest.importorskip("datatrove")
    cleaned = RemoveLines(preset="c4@t5", language="en")
    cleaned.setup({})
    pages = documents(test_data, 200, "en")
    ids = [str(place) for place in range(len(pages))]
    frame = cleaned.apply(pl.DataFrame({"id": ids, "text": pages}))
    texts = frame.filter(pl.col("reason").is_null()).get_column("text").to_list()
    stage = DeduplicateLines(unit="sentence", span=3, normalize="datatrove", min_words=50, min_units=3)
    (left,) = run_edits(stage, [texts])
    ours = {
        place: text for place, (text, reason) in enumerate(left.select("text", "reason").iter_rows()) if reason is None
    }  # fmt: skip
    theirs = datatrove_sentences(texts, tmp_path)
    assert ours.keys() == theirs.keys() and len(theirs) < 0.7 * len(texts)
    same = sum(ours[place].split() == theirs[place].split() for place in ours)
    touched = sum(ours[place] != texts[place] for place in ours)
    assert touched >= 8 and len(ours) - same <= 0.02 * len(ours), (touched, same, len(ours))


PIPELINE = """
name: repeated
run: {run}
sources:
  - read_files: {{paths: ["{inputs}/*.jsonl"]}}
stages:
  - deduplicate_lines: {{min_words: 3, partitions: 3}}
  - deduplicate_lines: {{unit: sentence, span: 3, normalize: datatrove}}
    name: sentences
"""


NAMES = ("north", "south", "west")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same run with 1 and 2 workers, on three files that share a banner and a passage."""
    folder = tmp_path_factory.mktemp("lines")
    (folder / "in").mkdir()
    passage = "Where it starts. What it is about! Does it go on? It ends here."
    for part, name in enumerate(NAMES):
        rows = [f"Our banner {part}!\n\nText {word} of {name}." for word in ("alpha", "beta", "gamma")]
        rows.append(f"A page of {name} with words.\n{passage}")
        rows.append("our banner 7")
        lines = [json.dumps({"text": text}) for text in rows]
        (folder / "in" / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    made = {}
    for workers in (1, 2):
        made[workers] = folder / f"run{workers}"
        pipeline = folder / f"{workers}.yaml"
        pipeline.write_text(PIPELINE.format(run=made[workers], inputs=folder / "in"))
        dataeng("run", str(pipeline), *WITH_WORKERS[workers])
    return made


def sql(run: Path, statement: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in dataeng("sql", str(run), statement, "--format", "json").splitlines()]


def test_a_run_removes_drops_and_tells(runs: dict[int, Path]) -> None:
    rows = sql(runs[1], "SELECT id, text, source FROM documents ORDER BY source, source_offset")
    reasons = Counter(row["reason"] for row in sql(runs[1], "SELECT reason FROM rejects"))
    assert reasons == {"only_duplicate_lines": 3}
    assert rows[0]["text"] == "Our banner 0!\n\nText alpha of north." and rows[1]["text"] == "Text beta of north."
    passages = [row["text"] for row in rows if "page" in row["text"]]
    assert [text.split("\n")[0] for text in passages] == [f"A page of {name} with words." for name in NAMES]
    assert passages[0].endswith("It ends here.") and "ends" not in passages[1] + passages[2]
    # Which line went, where it was first, and how many have it.
    told = sql(
        runs[1],
        "SELECT s.id, d.first_id, d.documents, d.occurrences, s.duplicate_lines_sample AS sample "
        "FROM (SELECT *, unnest(string_split(duplicate_lines_hashes, ' '))::UBIGINT AS line FROM signals) s "
        "JOIN (SELECT DISTINCT hash, first_id, documents, occurrences FROM dedup WHERE stage = 'deduplicate_lines') d "
        "ON s.line = d.hash WHERE s.duplicate_lines_sample = 'Our banner 1!'",
    )
    assert len(told) == 3 and {row["first_id"] for row in told} == {rows[0]["id"]}
    assert {(row["documents"], row["occurrences"]) for row in told} == {(12, 12)}
    story = dataeng("explain", str(runs[1]), str(told[0]["id"]))
    assert "Our banner 1!" in story and str(rows[0]["id"]) in story


def test_one_worker_gives_the_same_bytes_as_two(runs: dict[int, Path]) -> None:
    assert_same(results(runs[1]), results(runs[2]))


def test_spans_reach_over_no_text() -> None:
    stage = DeduplicateLines(span=2, normalize="none")
    frames = run_edits(stage, [["a\nb", "c\na"], ["b\nc"]])
    assert [frame.get_column("reason").null_count() for frame in frames] == [2, 1]
    assert np.array_equal(frames[0].get_column("duplicate_lines_removed"), [0, 0])
