"""Where two presets disagree, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataeng.errors import ConfigError
from dataeng.report.diff_presets import diff_presets
from tests.rules_run import RulesRun
from tests.small_run import SmallRun


@pytest.fixture
def lax(tmp_path: Path) -> str:
    path = tmp_path / "lax.yaml"
    path.write_text(
        "name: lax@home\nsource: me\nrules:\n"
        "  - {name: lax_hashes, drop: quality_hashes > 0}\n"
        "  - {name: mine_dup_lines, drop: quality_dup_break_lines > 0}\n"
        "  - {name: lax_lines, drop: quality_newlines == 2 and quality_words < 10}\n"
    )
    return str(path)


def test_counts_pairs_and_documents(ruled: RulesRun, lax: str) -> None:
    # eight, copy: both keep. three: only mine. hashes: both, other reasons. repeated: both, the same reason.
    # code: "x = 1\ny = 2\n" has 6 words and two line feeds: only lax. "pass": one word, only mine.
    found = diff_presets(ruled.run_dir, str(ruled.mine), lax)
    assert (found.documents, found.both_keep, found.both_drop) == (7, 2, 2)
    assert (found.only_first_drops, found.only_second_drops) == (2, 1)
    assert found.agreement == pytest.approx(4 / 7)
    assert found.pairs.rows() == [
        ("mine_short", None, 2),
        (None, "lax_lines", 1),
        ("mine_hashes", "lax_hashes", 1),
    ]
    listed = found.disagreements.select("url", "domain", "first", "second", "first_detail", "second_detail").rows()
    assert listed == [
        ("https://a.example/three", "web", "mine_short", None, "quality_words=3 min_words=5", None),
        (None, "code", "mine_short", None, "quality_words=1 min_words=5", None),
        (None, "code", None, "lax_lines", None, "quality_newlines=2 quality_words=6"),
    ]


def test_only_some_documents(ruled: RulesRun, lax: str) -> None:
    found = diff_presets(ruled.run_dir, str(ruled.mine), lax, "domain == 'code'")
    assert (found.documents, found.only_first_drops, found.only_second_drops) == (2, 1, 1)
    with pytest.raises(ConfigError, match="no column 'domian'; did you mean 'domain'"):
        diff_presets(ruled.run_dir, str(ruled.mine), lax, "domian == 'code'")
    with pytest.raises(ConfigError, match="expected a comparison or other Boolean"):
        diff_presets(ruled.run_dir, str(ruled.mine), lax, "quality_words + 1")


def test_a_preset_and_itself(ruled: RulesRun) -> None:
    found = diff_presets(ruled.run_dir, "gopher@datatrove", "gopher@datatrove")
    assert found.agreement == 1 and found.pairs.is_empty() and found.disagreements.is_empty()


def test_presets_that_cannot_be_compared(ruled: RulesRun, finished: SmallRun) -> None:
    with pytest.raises(ConfigError, match="rule 'ccnet_language' of ccnet reads 'language_score', which is not there"):
        diff_presets(ruled.run_dir, "ccnet", "gopher@paper")
    with pytest.raises(ConfigError, match="has none of the signals that these presets read"):
        diff_presets(finished.run_dir, "gopher@datatrove", "gopher@paper")
    with pytest.raises(ConfigError, match=r"unknown preset 'gopher@papers'; did you mean 'gopher@paper'\?"):
        diff_presets(ruled.run_dir, "gopher@papers", "gopher@paper")
