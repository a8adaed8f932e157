"""Blocks of datatrove as stages: the same decisions and texts as datatrove's own run, and clear errors."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dataeng.config import load_pipeline
from dataeng.document import with_reason_columns
from dataeng.errors import ConfigError
from dataeng.stages.interop.datatrove import DatatroveBlock

pytest.importorskip("datatrove", reason="needs the extra 'datatrove'")

FILTERS = "datatrove.pipeline.filters"
LONG = "The plan of the house and that of the garden are to be read with care by all of those who have come. " * 8
TEXTS = [
    LONG,
    "too short to be a document",
    "# # # # # # # # " * 20 + LONG[:200],
    "- one of the items that have to be\n" * 40,
    "supercalifragilisticexpialidocious " * 80,
    "Write to jane.doe@corp.com or to 8.8.8.8 for the list of things that you and I have with the others of us.\n" * 6,
    "The first line is a proper sentence of words.\nmenu\nlog in\nThe second line is one too, of words.\n"
    "The third line is a sentence, and so is the next.\nThe fourth line ends the page properly.\nThe fifth one too.",
    "This page has lorem ipsum in it. It has five sentences. Or so it is said. They are short. But they count.",
    "function() { return 1; }\n" * 30,
    "",
    "東京は日本の首都です。" * 30,
    "The café's prices are donâ€™t-ask ones, schÃ¶n!",
    "We use cookies to make this better.\n" + "A sentence of six words here.\n" * 6,
]


def batch(texts: list[str]) -> pl.DataFrame:
    count = len(texts)
    return pl.DataFrame(
        {
            "id": [f"d{i}" for i in range(count)],
            "text": texts,
            "url": [f"https://host{i}.example.org/page" for i in range(count)],
            "language": [None] * count,
        },
        schema_overrides={"language": pl.String, "text": pl.String},
    )


def stage_of(block: str, **options: Any) -> DatatroveBlock:
    stage = DatatroveBlock(block=block, options=options)
    stage.setup({})
    return stage


class Excluded:
    """Takes the place of datatrove's writer of excluded documents."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def __enter__(self) -> Excluded:
        return self

    def __exit__(self, *_: object) -> None: ...

    def write(self, document: Any, rank: int) -> None:
        self.reasons[document.id] = document.metadata.get("filter_reason", "datatrove_filter")


def datatrove_run(block: str, texts: list[str], **options: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Runs the block as datatrove does: kept id → text, dropped id → reason."""
    from datatrove.data import Document
    from datatrove.pipeline.filters.base_filter import BaseFilter

    module, _, name = block.rpartition(".")
    instance = getattr(importlib.import_module(module), name)(**options)
    excluded = Excluded()
    if isinstance(instance, BaseFilter):
        instance.exclusion_writer = excluded
    rows = batch(texts).iter_rows(named=True)
    documents = (Document(text=row["text"], id=row["id"], metadata={"url": row["url"]}) for row in rows)
    return {document.id: document.text for document in instance.run(documents, 0, 1)}, excluded.reasons


@pytest.mark.parametrize(
    ("block", "options"),
    [
        (f"{FILTERS}.GopherQualityFilter", {}),
        (f"{FILTERS}.GopherQualityFilter", {"min_doc_words": 10, "max_avg_word_length": 20, "min_stop_words": 1}),
        (f"{FILTERS}.GopherRepetitionFilter", {}),
        (f"{FILTERS}.C4QualityFilter", {}),
        (f"{FILTERS}.C4QualityFilter", {"filter_no_terminal_punct": False, "min_num_sentences": 1}),
        (f"{FILTERS}.FineWebQualityFilter", {}),
        (f"{FILTERS}.RegexFilter", {"regex_exp": "(?i)cookies|lorem"}),
        (f"{FILTERS}.gopher_quality_filter.GopherQualityFilter", {"max_ellipsis_lines_ratio": None}),
        ("datatrove.pipeline.formatters.PIIFormatter", {}),
        ("datatrove.pipeline.formatters.PIIFormatter", {"remove_ips": False, "email_replacement": "MAIL"}),
        ("datatrove.pipeline.formatters.SymbolLinesFormatter", {"symbols_to_remove": ["#"]}),
        ("datatrove.pipeline.formatters.FTFYFormatter", {}),
    ],
)
def test_same_decisions_and_texts_as_datatrove(block: str, options: dict[str, Any]) -> None:
    if block.endswith("FTFYFormatter"):
        pytest.importorskip("ftfy", reason="this block of datatrove needs ftfy")
    kept, dropped = datatrove_run(block, TEXTS, **options)
    result = stage_of(block, **options).apply(batch(TEXTS))
    assert result.get_column("id").to_list() == batch(TEXTS).get_column("id").to_list()
    ours_kept = dict(result.filter(pl.col("reason").is_null()).select("id", "text").iter_rows())
    ours_dropped = dict(result.filter(pl.col("reason").is_not_null()).select("id", "reason").iter_rows())
    assert ours_kept == kept
    assert ours_dropped == dropped
    assert set(kept) | set(dropped) == set(result.get_column("id"))
    # Each case says something: it drops or edits at least one document, and leaves at least one.
    assert kept and (dropped or any(kept[f"d{i}"] != text for i, text in enumerate(TEXTS)))


def test_a_dropped_document_keeps_its_text_and_names_the_block() -> None:
    result = stage_of(f"{FILTERS}.C4QualityFilter").apply(batch(TEXTS))
    row = result.row(7, named=True)
    assert (row["reason"], row["detail"]) == ("lorem_ipsum", "C4QualityFilter")
    assert row["text"] == TEXTS[7]


def test_documents_that_were_dropped_before_are_left_alone() -> None:
    given = with_reason_columns(batch(TEXTS)).with_columns(reason=pl.lit("earlier"), detail=pl.lit("why"))
    assert stage_of(f"{FILTERS}.GopherQualityFilter").apply(given).equals(given)


def test_a_filter_sees_the_documents_metadata() -> None:
    options = {"extra_domains": ["host3.example.org"], "use_integrated_lists": False, "do_remove_subdomains": False}
    block = f"{FILTERS}.URLFilter"
    module, _, name = block.rpartition(".")
    pytest.importorskip("tldextract", reason="this block of datatrove needs tldextract")
    del options["do_remove_subdomains"]
    assert hasattr(importlib.import_module(module), name)
    result = stage_of(block, **options).apply(batch(TEXTS))
    assert result.filter(pl.col("reason").is_not_null()).get_column("id").to_list() == ["d3"]


def test_a_block_that_is_neither_filter_nor_formatter_runs_on_one_document_at_a_time() -> None:
    block = "datatrove.pipeline.extractors.Trafilatura"
    pytest.importorskip("trafilatura", reason="this block of datatrove needs trafilatura")
    html = f"<html><body><nav>menu</nav><article><p>{LONG}</p></article></body></html>"
    result = stage_of(block, timeout=30).apply(batch([html]))
    assert result.item(0, "text").startswith("The plan of the house") and "<p>" not in result.item(0, "text")


def test_empty_batch() -> None:
    assert stage_of(f"{FILTERS}.GopherQualityFilter").apply(batch(TEXTS).clear()).height == 0


# --- errors, as a user meets them in a pipeline file

PIPELINE = """\
name: x
sources:
  - read_files: {{paths: ["*.txt"]}}
stages:
  - datatrove:
      block: {block}
      options: {options}
"""


@pytest.mark.parametrize(
    ("block", "options", "message"),
    [
        (
            f"{FILTERS}.GopherQualityFiltr",
            "{}",
            "has no class 'GopherQualityFiltr'; did you mean 'GopherQualityFilter'?",
        ),
        (f"{FILTERS}.GopherQualityFilter", "{min_words: 3}", "unexpected keyword argument 'min_words'"),
        (f"{FILTERS}.RegexFilter", "{regex_exp: '('}", "RegexFilter cannot be made with these options: missing )"),
        ("datatrove.pipeline.nowhere.X", "{}", "cannot import datatrove.pipeline.nowhere"),
        ("os.system", "{}", "block must be a class of datatrove"),
        ("datatrove.data.Document", "{text: a, id: b}", "is not a block of a datatrove pipeline"),
        ("datatrove.io.get_datafolder", "{data: /}", "is not a block of a datatrove pipeline"),
        ("datatrove.pipeline.readers.JsonlReader", "{data_folder: /}", "JsonlReader reads or writes files"),
        (
            "datatrove.pipeline.dedup.MinhashDedupFilter",
            "{input_folder: /}",
            "MinhashDedupFilter reads or writes files",
        ),
    ],
)
def test_wrong_blocks_and_options_are_refused_with_their_place(
    tmp_path: Path, block: str, options: str, message: str
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(PIPELINE.format(block=block, options=options))
    with pytest.raises(ConfigError) as caught:
        load_pipeline(file)
    assert str(caught.value).startswith(f"{file}:5:5: datatrove: ")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_option_of_the_adapter_is_refused_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(PIPELINE.format(block=f"{FILTERS}.GopherQualityFilter", options="{}").replace("options", "option"))
    with pytest.raises(ConfigError, match=r"p\.yaml:7:7: 'datatrove' has no option 'option'; did you mean 'options'\?"):
        load_pipeline(file)
