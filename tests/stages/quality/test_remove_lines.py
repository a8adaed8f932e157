from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from dataeng.errors import ConfigError
from dataeng.stages.quality.bad_words import bad_words
from dataeng.stages.quality.remove_lines import PRESETS, RemoveLines

TEXT = "A line that says something. Another sentence of it.\nMENU\nAnd one more line here.\nShort.\n"


def applied(texts: list[str | None], preset: str = "c4@datatrove", **values: object) -> pl.DataFrame:
    stage = RemoveLines(preset=preset, set=values, language="en")  # type: ignore[arg-type]
    result = stage.apply(pl.DataFrame({"text": texts}, schema={"text": pl.String}))
    assert all(result.schema[name] == dtype for name, dtype in stage.columns().signals.items())
    return result


def test_removes_lines_and_counts_them() -> None:
    found = applied([TEXT, None], min_sentences=3).to_dicts()
    assert found[0]["text"] == "A line that says something. Another sentence of it.\nAnd one more line here."
    assert (found[0]["c4_lines"], found[0]["c4_lines_removed"]) == (4, 2)
    assert (found[0]["c4_lines_removed_unterminated"], found[0]["c4_lines_removed_short"]) == (1, 1)
    assert found[0]["reason"] is None
    assert found[1]["text"] is None and found[1]["reason"] == "c4_too_few_sentences"


def test_a_dropped_page_keeps_its_text() -> None:
    found = applied([TEXT]).to_dicts()[0]
    assert found["reason"] == "c4_too_few_sentences" and found["text"] == TEXT
    assert found["detail"] == "2 of 4 lines removed"


def test_presets_differ_as_their_sources_do() -> None:
    line = "It's 'quoted so'"  # three words, and an end that only datatrove knows
    kept = {p: applied([line], p, min_sentences=1)["reason"][0] is None for p in PRESETS if p.startswith("c4")}
    assert kept == {"c4@t5": False, "c4@datatrove": True, "c4@fineweb": True}
    assert applied(["Four words with more[1]."], "c4@t5", min_sentences=0, min_line_words=4)["text"][0] != ""
    counted = {"count_citations_as_words": True, "min_line_words": 3, "min_sentences": 1}
    assert applied(["Two words. [1] [2].", "Two [1] words."], "c4@t5", **counted)["reason"].to_list() == [None, None]
    counted["count_citations_as_words"] = False
    assert applied(["Two [1] words."], "c4@t5", **counted)["reason"][0] == "c4_too_few_sentences"


def test_a_bad_word_in_what_is_left_drops_the_page() -> None:
    bad = bad_words("en")[0]
    page = "A line that says something else. And one more here. " * 2 + "It ends."
    texts = [f"{page}\n{bad} menu", f"{page}\nThis line holds {bad.upper()}, as some do.", page, None]
    batch = pl.DataFrame({"text": texts * 2, "language": ["en"] * 4 + ["en", "sw", None, "en"]})
    stage = RemoveLines(preset="c4@t5")
    found = stage.apply(batch)
    assert found["reason"].to_list()[:7] == [None, "c4_bad_words", None, "c4_too_few_sentences", None, None, None]
    assert found["text"][1] == texts[1] and found["detail"][1] == "1 bad words left" and found["text"][0] == page
    assert stage.columns().reads == ("text", "language")
    off = RemoveLines(preset="c4@t5", set={"bad_words": None})
    assert off.columns().reads == ("text",) and off.apply(batch)["reason"][1] is None
    switched_on = RemoveLines(preset="c4@datatrove", set={"bad_words": True, "min_sentences": 3}, language="en")
    assert switched_on.apply(batch)["reason"][5] == "c4_bad_words"


@pytest.mark.parametrize(
    "name", [name for name in PRESETS["c4@datatrove"] if name not in ("count_citations_as_words", "bad_words")]
)
def test_every_c4_rule_can_be_switched_off(name: str) -> None:
    lines = {
        "max_word_chars": "x" * 1001 + " is long here.",
        "remove_citations": "Here is [1] a note.",
        "end_marks": "no end mark here",
        "min_line_words": "Short.",
        "lorem_ipsum": "Here is lorem ipsum.",
        "javascript": "Please enable javascript.",
        "curly_bracket": "Here is a { bracket.",
        "policy": "Read our privacy policy.",
        "min_sentences": "One sentence of five.",
    }
    floor = {} if name == "min_sentences" else {"min_sentences": 1}
    with_rule = applied([lines[name]], **floor).to_dicts()[0]
    without = applied([lines[name]], **{**floor, name: None}).to_dicts()[0]
    assert with_rule["reason"] is not None or with_rule["text"] != lines[name]
    assert without["reason"] is None and without["text"] == lines[name]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("max_uppercase_share", "LOUD WORDS"),
        ("max_numeric_share", "2024"),
        ("counters", "3 likes"),
        ("min_line_words", "menu"),
        ("max_phrase_line_words", "Sign-in please"),
    ],
)
def test_every_refinedweb_rule_can_be_switched_off(name: str, line: str) -> None:
    rules = {"max_removed_words_share": 1.0, "min_line_words": None}
    if name == "min_line_words":
        rules = {"max_removed_words_share": 1.0}
    text = f"Some words of a page.\n{line}"
    assert applied([text], "refinedweb@dclm", **rules)["text"][0] != text
    assert applied([text], "refinedweb@dclm", **{**rules, name: None})["text"][0] == text
    share = applied(["one two three four\nMENU MENU"], "refinedweb@dclm")["reason"][0]
    assert share == "refinedweb_words_removed"
    assert applied(["one two\nMENU"], "refinedweb@dclm", max_removed_words_share=None)["reason"][0] is None


@pytest.mark.parametrize(
    ("preset", "values", "message"),
    [
        ("c4@datatrov", {}, "did you mean 'c4@datatrove'"),
        ("c4@t5", {"min_sentence": 2}, "did you mean 'min_sentences'"),
        ("c4@t5", {"min_sentences": "two"}, "expected a whole number"),
        ("c4@t5", {"min_sentences": True}, "expected a whole number"),
        ("c4@t5", {"javascript": 1}, "expected true or false"),
        ("c4@fineweb", {"end_marks": "。"}, "expected ASCII"),
        ("refinedweb@dclm", {"max_uppercase_share": 2}, "share from 0 to 1"),
    ],
)
def test_wrong_options_are_named(preset: str, values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RemoveLines(preset=preset, set=values).columns()  # type: ignore[arg-type]


def test_texts_and_decisions_are_datatroves(test_data: Path) -> None:
    """datatrove's own filter, with its edits, on web pages and on each other domain.

    It cuts sentences with spaCy; where a page has about as many as it needs, a rare page is judged otherwise.
    """
    pytest.importorskip("spacy")
    filters = pytest.importorskip("datatrove.pipeline.filters")
    from datatrove.data import Document

    texts = []
    for path in sorted((test_data / "domains").glob("*.jsonl.gz")):
        most = 80 if path.name.startswith("c4-rp") else 15
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            domain = [json.loads(line)["text"] for line, _ in zip(lines, range(most), strict=False)]
        texts += [text for text in domain if 0 < len(text) <= 12_000]
    assert len(texts) > 200
    for preset, options in (("c4@datatrove", {}), ("c4@fineweb", {"filter_no_terminal_punct": False})):
        peer = filters.C4QualityFilter(**options)
        ours = applied(texts, preset)
        different = []
        for text, edited, reason in zip(texts, ours["text"], ours["reason"], strict=True):
            document = Document(text=text, id="0")
            verdict = peer.filter(document)
            expected = (document.text, None) if verdict is True else (text, f"c4_{verdict[1]}")
            if (edited, reason) != expected:
                different.append((reason, expected[1]))
        assert len(different) <= 0.01 * len(texts), different
        # A difference is about the number of sentences, never about the text of a page that both keep.
        assert all("c4_too_few_sentences" in pair for pair in different), different
        assert len(set(ours["reason"])) >= 3  # all outcomes occur
