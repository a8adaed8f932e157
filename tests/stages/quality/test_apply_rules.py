from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from dataeng.config import load_pipeline
from dataeng.errors import ConfigError, PlanError
from dataeng.plan import make_plan
from dataeng.presets import load_preset, preset_names
from dataeng.stages.quality.apply_rules import ApplyRules
from dataeng.stages.quality.quality_signals import QualitySignals, documented_signals


def frame(**signals: list[int | None]) -> pl.DataFrame:
    """A batch whose signals pass every rule of gopher@datatrove, except for those given."""
    rows = len(next(iter(signals.values())))
    good = {
        "symbol_free_words": 100, "symbol_free_chars": 500, "words": 120, "hashes": 0, "ellipses": 0, "lines": 10,
        "bullet_lines": 0, "ellipsis_lines": 0, "alpha_words": 110, "stop_words": 5,
    }  # fmt: skip
    columns = {name: [value] * rows for name, value in good.items()} | signals
    return pl.DataFrame({f"quality_{name}": pl.Series(values, dtype=pl.Int64) for name, values in columns.items()})


def reasons(batch: pl.DataFrame, **options: object) -> list[str | None]:
    found = ApplyRules(presets=("gopher@datatrove",), **options).apply(batch)  # type: ignore[arg-type]
    return found["reason"].to_list()


def test_thresholds_are_strict() -> None:
    assert reasons(frame(symbol_free_words=[49, 50, 166, 167])) == [
        "gopher_short_doc",
        None,
        None,  # 500 / 166 = 3.01
        "gopher_below_avg_threshold",
    ]
    assert reasons(frame(hashes=[12, 13])) == [None, "gopher_too_many_hashes"]
    assert reasons(frame(alpha_words=[96, 95])) == [None, "gopher_below_alpha_threshold"]
    assert reasons(frame(stop_words=[2, 1, None])) == [None, "gopher_enough_stop_words", None]


def test_the_first_broken_rule_is_the_reason_and_says_why() -> None:
    batch = frame(symbol_free_words=[12], hashes=[100])
    found = ApplyRules(presets=("gopher@datatrove",)).apply(batch)
    assert found["reason"].to_list() == ["gopher_short_doc"]
    assert found["detail"].to_list() == ["quality_symbol_free_words=12 min_words=50"]


def test_presets_apply_in_the_order_given() -> None:
    texts = pl.DataFrame({"text": ["{ not much here }"]})
    signals = QualitySignals(language="en")
    signals.setup({})
    batch = signals.apply(texts)
    for first, reason in (("c4@fineweb", "c4_curly_bracket"), ("gopher@datatrove", "gopher_short_doc")):
        others = [name for name in ("gopher@datatrove", "c4@fineweb") if name != first]
        assert ApplyRules(presets=(first, *others)).apply(batch)["reason"].to_list() == [reason]


def test_earlier_reasons_stay() -> None:
    batch = frame(symbol_free_words=[12]).with_columns(reason=pl.lit("url"), detail=pl.lit("x"))
    assert ApplyRules(presets=("gopher@datatrove",)).apply(batch).select("reason", "detail").row(0) == ("url", "x")


def test_parameters_can_be_set_and_switched_off() -> None:
    batch = frame(hashes=[15, 40])
    assert reasons(batch, set={"gopher.max_symbol_word_ratio": 0.2}) == [None, "gopher_too_many_hashes"]
    assert reasons(batch, set={"gopher.max_symbol_ratio": None}) == [None, None]
    assert reasons(batch, set={"gopher.max_symbol_word_ratio": 0}) == ["gopher_too_many_hashes"] * 2


def test_zero_denominators_break_no_rule() -> None:
    batch = frame(words=[0], lines=[0], symbol_free_words=[0])
    assert reasons(batch, set={"gopher.min_doc_words": None}) == [None]


def test_it_reads_exactly_the_signals_used() -> None:
    reads = ApplyRules(presets=("fineweb@code",)).columns().reads
    assert sorted(reads) == [
        "quality_chars", "quality_dup_text_line_chars", "quality_newlines", "quality_short_lines",
        "quality_terminal_lines", "quality_text_lines", "quality_words",
    ]  # fmt: skip


def test_the_packaged_presets_use_known_signals_and_columns_only() -> None:
    known = {name for signals in documented_signals().values() for name in signals}
    known |= {"language", "language_score", "perplexity"}
    for name in preset_names():
        assert set(ApplyRules(presets=(name,)).columns().reads) <= known, name


@pytest.mark.parametrize(
    ("presets", "parameters", "message"),
    [
        (("gopher@datatrov",), {}, "unknown preset 'gopher@datatrov'; did you mean 'gopher@datatrove'"),
        (("gopher@datatrove",), {"gopher.max_symbol_ration": 1}, "did you mean 'gopher.max_symbol_ratio'"),
        (("missing.yaml",), {}, "preset file missing.yaml does not exist"),
    ],
)
def test_unknown_names_are_refused(presets: tuple[str, ...], parameters: dict[str, float | None], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ApplyRules(presets=presets, set=parameters).columns()


def test_a_preset_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine@home\nsource: me\nparameters: {most: 3}\nrules: [{name: mine_x, drop: quality_hashes > most}]\n"
    )
    stage = ApplyRules(presets=(str(path),), set={"mine.most": 4})
    assert stage.apply(frame(hashes=[4, 5]))["reason"].to_list() == [None, "mine_x"]
    assert stage.model_files() == (path,)
    assert load_preset(str(path)).parameters == {"most": 3}  # the file's own value


def test_detail_is_that_of_the_rule_even_where_a_row_came_with_one() -> None:
    batch = frame(symbol_free_words=[12, 100]).with_columns(reason=pl.lit(None, pl.String), detail=pl.lit("before"))
    assert ApplyRules(presets=("gopher@datatrove",)).apply(batch)["detail"].to_list() == [
        "quality_symbol_free_words=12 min_words=50",
        "before",
    ]


PIPELINE = """
sources:
  - read_files: {paths: ["in/*.jsonl"]}
stages:
  - quality_signals: {language: en}
  - apply_rules: {presets: [rules/mine.yaml]}
"""


def pipeline(folder: Path, rule: str) -> Path:
    (folder / "in").mkdir()
    (folder / "in/0.jsonl").write_text('{"text": "one two"}\n')
    (folder / "rules").mkdir()
    (folder / "rules/mine.yaml").write_text(f"name: mine\nsource: me\nrules: [{{name: mine_x, drop: {rule}}}]\n")
    file = folder / "pipeline.yaml"
    file.write_text(PIPELINE)
    return file


def test_a_preset_file_lies_beside_the_pipeline_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = pipeline(tmp_path, "quality_words < 3")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    plan = make_plan(load_pipeline(file))
    assert plan.pipeline.steps[1].stage.model_files() == (tmp_path / "rules/mine.yaml",)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            "quality_wrods < 3",
            "'apply_rules' reads the column 'quality_wrods', which is not there; did you mean 'quality_words'",
        ),
        (
            "quality_words << 3",
            r"pipeline\.yaml:6:29: 'apply_rules': .*rules/mine\.yaml:3:30: rule 'mine_x': predicate .*<< 3'",
        ),
        (
            "quality_words * 3",
            r"pipeline\.yaml:6:29: 'apply_rules': .*rules/mine\.yaml:3:30: rule 'mine_x': predicate .* is Float64",
        ),
    ],
)
def test_a_wrong_rule_is_an_error_before_anything_runs(tmp_path: Path, rule: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        make_plan(load_pipeline(pipeline(tmp_path, rule)))


def plan_error(folder: Path, stages: str) -> str:
    (folder / "0.jsonl").write_text('{"text": "one two"}\n')
    file = folder / "pipeline.yaml"
    file.write_text(f"sources:\n  - read_files: {{paths: ['*.jsonl']}}\nstages:\n{stages}")
    with pytest.raises(PlanError) as caught:
        make_plan(load_pipeline(file))
    return str(caught.value).removeprefix(f"{folder}/")


SIGNALS = "  - quality_signals: {language: en}\n"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (
            "{presets: [gopher@paper]}",
            "pipeline.yaml:5:29: 'apply_rules' reads the column 'quality_raw_words', which is",
        ),
        ("{presets: [gopher@datatrove], set: {gopher.max_word: 3}}", "pipeline.yaml:5:71: 'apply_rules': unknown para"),
        (
            "{presets: [ccnet@head]}",
            "pipeline.yaml:5:29: 'apply_rules' reads the column 'language_score', which is",
        ),
        ("{presets: [gopher@datatrov]}", "pipeline.yaml:5:29: 'apply_rules': unknown preset 'gopher@datatrov'"),
        (
            "{presets: [gopher@datatrove]}\n    where: url == 'x' and lang == 3",
            "pipeline.yaml:6:27: 'apply_rules' reads",
        ),
        ("{presets: [gopher@datatrove]}\n    where: 'url == f(x)'", "pipeline.yaml:6:20: 'apply_rules': predicate"),
    ],
)
def test_what_a_rule_lacks_is_told_with_its_place(tmp_path: Path, rules: str, expected: str) -> None:
    assert plan_error(tmp_path, f"{SIGNALS}  - apply_rules: {rules}\n").startswith(expected)


def test_what_to_do_about_a_missing_column_is_told(tmp_path: Path) -> None:
    message = plan_error(tmp_path, f"{SIGNALS}  - apply_rules: {{presets: [gopher@paper]}}\n")
    assert message.endswith("pipeline.yaml:4:5 'quality_signals' adds it with `signals: all`")
    language = "  - identify_language: {min_score: 0.5}\n"
    message = plan_error(tmp_path, f"{language}{SIGNALS}  - apply_rules: {{presets: [ccnet@head]}}\n")
    assert "'perplexity', which is not there: the perplexity of each document by a language model" in message
    message = plan_error(tmp_path, f"{SIGNALS}  - assign_domain: {{rules: [{{domain: x, where: lang == 'de'}}]}}\n")
    assert message.startswith("pipeline.yaml:5:48: 'assign_domain' reads the column 'lang'")


def test_ccnets_buckets() -> None:
    batch = pl.DataFrame(
        {
            "quality_chars": [500] * 6,
            "language": ["de", "de", "de", "de", "xx", "de"],
            "language_score": [0.9] * 6,
            "perplexity": [369.9, 370.0, 589.9, 590.0, 1e6, None],
        }
    )
    dropped = {name: ApplyRules(presets=(f"ccnet@{name}",)).apply(batch)["reason"] for name in ("head", "middle")}
    assert [reason is None for reason in dropped["head"]] == [True, False, False, False, True, True]
    assert [reason is None for reason in dropped["middle"]] == [True, True, True, False, True, True]
