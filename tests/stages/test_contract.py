"""One contract, every stage: whatever looks at one document at a time keeps the promises of `RowStage`."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dataeng.document import DETAIL, IDENTITY, PAYLOAD, REASON, TEXT, document_id
from dataeng.stage import ExchangeStage, RowStage, Sink, Source, Stage
from dataeng.stages import STAGES

CHAT_TOKENIZER = Path(__file__).parent / "tokens" / "chat_tokenizer.json"
#: Options for stages that have required ones, and further cases for stages whose options change what they do.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "assign_domain": [
        {"rules": [{"domain": "books", "where": "language == 'de'"}, {"domain": "x", "where": "url == None"}]}
    ],
    "apply_rules": [{"presets": [name]} for name in ("gopher@datatrove", "c4@datatrove", "c4@fineweb", "fineweb@code")],
    "datatrove": [
        {"block": "datatrove.pipeline.filters.GopherQualityFilter"},
        # With one replacement each: with several, this block takes them in turn and remembers whose turn it is.
        {
            "block": "datatrove.pipeline.formatters.PIIFormatter",
            "options": {"email_replacement": "mail@example.com", "ip_replacement": "0.0.0.0"},
        },
    ],
    "filter_url": [{}, {"require_url": False, "blocked_domains": ["example.org"], "banned_words": ["casino"]}],
    "extract_text": [{}, {"main_content": False, "links": True, "min_bytes": 200}],
    "identify_language": [{}, {"languages": ["en", "no"], "min_score": None}],
    "quality_signals": [{}, {"words": "whitespace", "language": "en"}],
    "remove_lines": [{}, {"preset": "c4@t5"}, {"preset": "refinedweb@dclm"}],
    "normalize_text": [{}, {"form": "NFKD", "collapse_spaces": True, "max_blank_lines": 0}],
    "scrub_pii": [{}, {"emails": False}],
    "apply_chat_template": [
        {"tokenizer": str(CHAT_TOKENIZER), "template": "chatml"},
        {"tokenizer": str(CHAT_TOKENIZER), "template": "question_answer", "trained_on": "all"},
    ],
}

SENTENCE = "The quick brown fox jumps over the lazy dog, and that is all there is to be said about the two of them. "
TEXTS = [
    SENTENCE * 12,
    "Write to jane.doe@example.com or ask 192.168.2.17 about it.",
    "Der schnelle braune Fuchs springt über den faulen Hund, und mehr gibt es dazu auch nicht zu sagen. " * 4,
    "",
    "   \n\t\n",
    "x",
    "same line\n" * 40,
    "- one\n- two\n- three…\n#hash #tag ...\n{ lorem ipsum } javascript cookies policy",
    "一二三四五。" * 30,
    "مرحبا بالعالم " * 20,
    "e\u0301 \u200b \ufeff 👩‍👩‍👧 \U0001f1e9\U0001f1ea nul\x00inside",
    "word " * 5000,
    SENTENCE * 12,
]
URLS = [
    "http://example.com/",
    "https://example.org/a?b=c#d",
    None,
    "",
    "not a url",
    "http://casino.test/win",
    "ftp://x/y",
    "http://[::1]/",
    "http://例え.jp/パス",
    "http://user:pass@example.com:8080/",
    "HTTP://EXAMPLE.COM",
    "http://",
    "x" * 3000,
]
PAGES = [
    b"<html><head><title>T</title></head><body><article><p>" + SENTENCE.encode() * 5 + b"</p></article></body></html>",
    b"",
    b"\x00\x01\x02",
    b"plain words",
    "<p>Grüße</p>".encode("latin-1"),
    "<p>žluť</p>".encode(),
    b"<" * 500,
    b"<div>" * 3000 + b"deep",
    b"<!-- only a comment -->",
    b"\xff\xfe<\x00p\x00>\x00h\x00i\x00",
    b"<p>" + b"a" * 100_000,
    b"<script>var x = 1;</script>",
    "<title>テスト</title><p>本文です。</p>".encode("shift_jis"),
]


def stage_class(name: str) -> type[Stage]:
    module, _, cls = STAGES[name].partition(":")
    found = getattr(importlib.import_module(module), cls)
    assert issubclass(found, Stage)
    return found


def row_stages() -> Iterator[Any]:
    for name in STAGES:
        if issubclass(stage_class(name), RowStage):
            for number in range(len(OPTIONS.get(name, [{}]))):
                yield pytest.param(name, number, id=f"{name}-{number}" if number else name)


@lru_cache
def ready(name: str, number: int) -> RowStage:
    if name == "datatrove":
        pytest.importorskip("datatrove")
    stage = stage_class(name)(**OPTIONS.get(name, [{}])[number])
    assert isinstance(stage, RowStage)
    stage.setup({})
    return stage


@pytest.fixture
def stage(name: str, number: int) -> RowStage:
    return ready(name, number)


@lru_cache
def documents() -> pl.DataFrame:
    """Documents with the columns that any stage reads, strange ones among them."""
    count = len(TEXTS)
    assert len(URLS) == len(PAGES) == count
    frame = pl.DataFrame(
        {
            "id": [document_id("s", i, "", "") for i in range(count)],
            "url": URLS,
            "host": [None if url is None or "//" not in url else url.split("/")[2].lower() for url in URLS],
            "source": ["s"] * count,
            "source_offset": list(range(count)),
            "date": ["2026-01-01T00:00:00Z", None] * (count // 2) + [None],
            "domain": ["web"] * count,
            PAYLOAD: PAGES,
            "content_type": ["text/html"] * 3 + ["text/plain"] + ["text/html"] * (count - 4),
            "charset": [None] * 4 + ["iso-8859-1"] + [None] * (count - 5),
            TEXT: TEXTS,
            "language": ["en", "en", "de", None, None, "no", "en", "xx", "zh", "ar", "", "en", "en"],
            "turns": ['[{"role": "assistant"}]', '[{"role": "user"}]', None, '[{}, {}]'] * (count // 4) + [None],
        },
        schema={**IDENTITY, PAYLOAD: pl.Binary(), "content_type": pl.String(), "charset": pl.String(),
                TEXT: pl.String(), "language": pl.String(), "turns": pl.String()},
    )  # fmt: skip
    return ready("quality_signals", 0).apply(frame).drop(REASON, DETAIL, strict=False)


@pytest.fixture
def batch(stage: RowStage) -> pl.DataFrame:
    """The documents, with the columns that the stage reads and without those that it makes new."""
    columns = stage.columns()
    frame = documents()
    missing = set(columns.reads) - set(frame.columns)
    assert not missing, f"give the documents above the columns {sorted(missing)}"
    made = {*columns.adds, *columns.signals} - {*columns.reads, *IDENTITY}
    return frame.drop(made, strict=False)


def bare(frame: pl.DataFrame) -> pl.DataFrame:
    """Columns in one order, with reasons and details."""
    missing = [pl.lit(None, pl.String).alias(c) for c in (REASON, DETAIL) if c not in frame.columns]
    frame = frame.with_columns(missing)
    return frame.select(sorted(frame.columns))


every_row_stage = pytest.mark.parametrize(("name", "number"), list(row_stages()))


@every_row_stage
def test_delivers_the_columns_that_it_declares(stage: RowStage, batch: pl.DataFrame) -> None:
    columns, result = stage.columns(), stage.apply(batch)
    expected = {c: dtype for c, dtype in batch.schema.items() if c not in columns.removes}
    expected |= {**columns.adds, **columns.signals}
    found = {c: dtype for c, dtype in result.schema.items() if c not in (REASON, DETAIL)}
    assert found == expected
    assert all(result.schema.get(c, pl.String()) == pl.String() for c in (REASON, DETAIL))
    assert all("." not in c and c == c.lower() for c in {**columns.adds, **columns.signals})


@every_row_stage
def test_reads_nothing_that_it_does_not_declare(stage: RowStage, batch: pl.DataFrame) -> None:
    """With the identity and what it declares it runs; what else there is may help, as a charset does."""
    reads = [c for c in batch.columns if c in stage.columns().reads or c in IDENTITY]
    assert stage.apply(batch.select(reads)).height == batch.height


@every_row_stage
def test_keeps_every_row_in_its_place_and_its_identity(stage: RowStage, batch: pl.DataFrame) -> None:
    result = stage.apply(batch)
    untouched = [c for c in IDENTITY if c not in ("domain",)]
    assert result.select(untouched).equals(batch.select(untouched))


@every_row_stage
@pytest.mark.parametrize("size", [1, 2, 5])
def test_does_not_depend_on_how_documents_are_batched(stage: RowStage, batch: pl.DataFrame, size: int) -> None:
    whole = bare(stage.apply(batch))
    pieces = pl.concat([bare(stage.apply(batch[i : i + size])) for i in range(0, batch.height, size)])
    assert pieces.equals(whole)
    order = list(range(batch.height))[::-1]
    assert bare(stage.apply(batch[order]))[order].equals(whole)


@every_row_stage
def test_is_deterministic_and_does_not_change_its_input(
    name: str, number: int, stage: RowStage, batch: pl.DataFrame
) -> None:
    before = batch.clone()
    first, second = stage.apply(batch), stage.apply(batch)
    assert bare(first).equals(bare(second)) and batch.equals(before)
    fresh = stage_class(name)(**OPTIONS.get(name, [{}])[number])
    fresh = pickle.loads(pickle.dumps(fresh))  # as it gets to a worker
    fresh.setup({})
    assert isinstance(fresh, RowStage) and bare(fresh.apply(batch)).equals(bare(first))


@every_row_stage
def test_takes_an_empty_batch(stage: RowStage, batch: pl.DataFrame) -> None:
    result = stage.apply(batch[:0])
    assert bare(result).schema == bare(stage.apply(batch)).schema and result.height == 0


@every_row_stage
def test_takes_frames_of_several_chunks_and_slices(stage: RowStage, batch: pl.DataFrame) -> None:
    chunked = pl.concat([batch[:3], batch[3:4], batch[4:]], rechunk=False)
    assert bare(stage.apply(chunked)).equals(bare(stage.apply(batch)))
    assert bare(stage.apply(batch[2:9])).equals(bare(stage.apply(batch))[2:9])


@every_row_stage
def test_leaves_a_reason_that_is_there_already(stage: RowStage, batch: pl.DataFrame) -> None:
    given = [f"earlier_{i}" if i % 2 else None for i in range(batch.height)]
    judged = batch.with_columns(
        pl.Series(REASON, given, pl.String), pl.Series(DETAIL, [r and "why" for r in given], pl.String)
    )
    result = stage.apply(judged)
    marked = pl.Series(given, dtype=pl.String).is_not_null()
    assert result.filter(marked).select(REASON, DETAIL).equals(judged.filter(marked).select(REASON, DETAIL))
    assert bare(result).filter(~marked).equals(bare(stage.apply(batch)).filter(~marked))


@every_row_stage
def test_a_document_without_text_or_payload_breaks_nothing(stage: RowStage, batch: pl.DataFrame) -> None:
    """Such rows come from sources that have one of the two, and from `where:`."""
    absent = [c for c in (TEXT, PAYLOAD, "url", "host", "language") if c in batch.columns]
    empty = batch.with_columns(pl.lit(None, batch.schema[c]).alias(c) for c in absent)
    mixed = pl.concat([batch[:4], empty[4:8], batch[8:]])
    result = bare(stage.apply(mixed))
    whole = bare(stage.apply(batch))
    assert result[:4].equals(whole[:4]) and result[8:].equals(whole[8:])
    assert bare(stage.apply(empty)).height == batch.height


@every_row_stage
def test_reasons_are_names(stage: RowStage, batch: pl.DataFrame) -> None:
    reasons = bare(stage.apply(batch)).get_column(REASON).drop_nulls()
    assert reasons.str.contains(r"^([a-z]+:)?[A-Za-z][A-Za-z0-9_]*$").all(), reasons.unique().to_list()


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_is_documented_configuration(name: str) -> None:
    cls = stage_class(name)
    assert cls.__doc__ and cls.__doc__.strip() != (Stage.__doc__ or "").strip()
    assert cls.model_config.get("frozen") and cls.model_config.get("extra") == "forbid"
    assert issubclass(cls, Source | RowStage | ExchangeStage | Sink) and cls.__mro__[1] in (
        Source,
        RowStage,
        ExchangeStage,
        Sink,
    )
    assert cls.version >= 1 and not {"where", "name"} & set(cls.model_fields)
